"""Evidence: two slow sources side by side or in turn, and 360,000 CVEs of a snapshot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import numpy as np
import pyarrow as pa

from measure import publish
from workbench.risk.evidence import Worker, gather, threat_evidence, vulnerability_evidence
from workbench.risk.snapshot import Snapshot, in_memory, sample_snapshot
from workbench.risk.sources.base import Fetched

_VULNERABILITY_S = 1.2
_THREAT_S = 1.0
_ROWS = 360_000
_TODAY = date(2025, 10, 28)


def main() -> None:
    """Measure and publish."""
    rows = [*_side_by_side(), _large()]
    publish("risk_evidence", rows)


def _side_by_side() -> list[dict[str, object]]:
    """Return the time with one worker at a time and with two, the sources being slow."""
    sample = sample_snapshot()
    cves = _cves(sample)
    workers = (
        _after(vulnerability_evidence, seconds=_VULNERABILITY_S),
        _after(threat_evidence, seconds=_THREAT_S),
    )
    times = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as executor:
            started = time.perf_counter()
            gather(cves, sample, today=_TODAY, executor=executor, workers=workers)
            times.append(time.perf_counter() - started)
    saved = 1 - times[1] / times[0]
    what = f"sources of {_VULNERABILITY_S} s and {_THREAT_S} s"
    return [
        {"what": f"{what}, one after the other", "seconds": times[0], "share saved": 0.0},
        {"what": f"{what}, side by side", "seconds": times[1], "share saved": saved},
    ]


def _after(worker: Worker, *, seconds: float) -> Worker:
    """Return a worker whose source takes so long to answer."""

    def slow(cves: Sequence[str], snapshot: Snapshot, today: date) -> pa.Table:
        time.sleep(seconds)
        return worker(cves, snapshot, today)

    return slow


def _large() -> dict[str, object]:
    """Return the CPU seconds of evidence of as many CVEs as there are."""
    snapshot = _made_up(_ROWS)
    cves = _cves(snapshot)
    started = time.process_time()
    table = gather(cves, snapshot, today=_TODAY)
    seconds = time.process_time() - started
    if table.num_rows != _ROWS:
        raise SystemExit(f"{table.num_rows} rows of evidence, not {_ROWS}")
    return {"what": f"{_ROWS:,} CVEs, CPU", "seconds": seconds, "share saved": 0.0}


def _cves(snapshot: Snapshot) -> list[str]:
    table = snapshot.table("cve")
    if table is None:
        raise SystemExit("the snapshot has no table of CVEs")
    ids: list[str] = table["cve"].to_pylist()
    return ids


def _made_up(rows: int) -> Snapshot:
    """Return a snapshot as large and as varied as the real ones, its facts drawn."""
    draw = np.random.default_rng(0)
    ids = [f"CVE-{2000 + n % 26}-{1000 + n}" for n in range(rows)]
    vectors = [
        f"CVSS:3.1/AV:{av}/AC:{ac}/PR:{pr}/UI:{ui}/S:{scope}/C:{c}/I:{i}/A:{a}"
        for av in "NALP" for ac in "LH" for pr in "NLH" for ui in "NR" for scope in "UC"
        for c in "HLN" for i in "HLN" for a in "HLN"
    ]  # fmt: skip

    def drawn(values: Sequence[object], *, missing: float = 0.25) -> pa.Array:
        picked = pa.array(draw.integers(0, len(values), rows), mask=draw.random(rows) < missing)
        return pa.array(values).take(picked)

    texts = ("published", "title", "cvss_version", "ssvc_as_of", "vendor", "product", "modified")
    cves = {
        "cve": ids,
        "description": [f"Words about number {n} that nobody reads." * 4 for n in range(rows)],
        "cvss_vector": drawn(vectors),
        "cvss_source": drawn(["cna", "adp", "nvd"]),
        "automatable": drawn(["yes", "no"]),
        "technical_impact": drawn(["partial", "total"]),
        "exploitation": drawn(["none", "poc", "active"]),
        "cwes": drawn([[f"CWE-{n}", f"CWE-{n + 1}"] for n in range(700)]),
    } | {name: pa.nulls(rows, pa.string()) for name in texts}
    epss = {"cve": ids, "epss": draw.random(rows), "percentile": draw.random(rows)}
    listed = {
        "cve": ids[:1600], "added": ["2024-01-01"] * 1600, "due": ["2024-01-22"] * 1600,
        "ransomware": [False] * 1600,
    }  # fmt: skip
    mapped = {
        "cwe": [f"CWE-{n % 700}" for n in range(2000)], "capec": ["CAPEC-1"] * 2000,
        "technique": [f"T{1000 + n % 300}" for n in range(2000)], "name": ["A technique"] * 2000,
    }  # fmt: skip
    tables = {"cve": cves, "epss": epss, "kev": listed, "techniques": mapped}
    fetched = {
        name: Fetched(source=name, url="", as_of="2025-10-27", table=pa.table(columns))
        for name, columns in tables.items()
    }
    return in_memory("made up", fetched, made_at="2025-10-28")


if __name__ == "__main__":
    main()
