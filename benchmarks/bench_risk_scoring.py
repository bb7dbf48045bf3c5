"""CPU and memory of scoring, deciding and pricing as many vulnerabilities as there are."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from measure import ROOT, call, publish
from workbench.risk.cvss import cvss_scores
from workbench.risk.decide import POLICIES, decide, due_dates
from workbench.risk.loss import annual_losses
from workbench.risk.score import Codes, impact, level, reasons, score, signals_of, threat

COUNT: Final = 360_000
VECTORS: Final = 5_000
RISKS, YEARS, ASSETS = 25_000, 10_000, 50
LIMITS: Final = {"in all": (5.0, 1536.0), "losses": (0.5, 0.0)}
"""Measure → CPU seconds and MB at most; 0: none of its own."""
_TOP: Final = 300


def synthetic_evidence(count: int) -> pa.Table:
    """Return evidence of as many vulnerabilities as said, with gaps as real sources have them."""
    generator = np.random.default_rng(0)

    def some(values: list[Any], chances: list[float], missing: float) -> pa.Array:
        drawn = np.array(values)[generator.choice(len(values), count, p=chances)]
        return pa.array(drawn, mask=generator.random(count) < missing)

    epss = np.exp(generator.normal(-6.5, 1.8, count)).clip(0, 0.97)
    vectors = _vectors(generator)
    return pa.table(
        {
            "cve": [f"CVE-2026-{number:06}" for number in range(count)],
            "epss": pa.array(epss, mask=generator.random(count) < 0.05),
            "kev": some([False, True], [0.996, 0.004], 0.0),
            "exploitation": some(["none", "poc", "active"], [0.82, 0.17, 0.01], 0.6),
            "automatable": some(["no", "yes"], [0.8, 0.2], 0.6),
            "technical_impact": some(["partial", "total"], [0.7, 0.3], 0.6),
            "cvss_vector": some(vectors, [1 / len(vectors)] * len(vectors), 0.25),
        }
    )


def _vectors(generator: np.random.Generator) -> list[str]:
    third = itertools.product(
        ("3.0", "3.1"), "NALP", "LH", "NLH", "NR", "UC", *itertools.repeat("NLH", 3)
    )
    names = ("CVSS", "AV", "AC", "PR", "UI", "S", "C", "I", "A")
    fourth = itertools.product("NALP", "LH", "NP", "NLH", "NPA", *itertools.repeat("HLN", 6))
    new = ("AV", "AC", "AT", "PR", "UI", "VC", "VI", "VA", "SC", "SI", "SA")
    spelled = ["/".join(map(":".join, zip(names, one, strict=True))) for one in third]
    spelled += ["CVSS:4.0/" + "/".join(map(":".join, zip(new, one, strict=True))) for one in fourth]
    return [spelled[at] for at in generator.choice(len(spelled), VECTORS, replace=False)]


def _child() -> None:
    """Do every part once and print what it took."""
    generator = np.random.default_rng(1)
    evidence = synthetic_evidence(COUNT)
    criticality: Codes = generator.integers(0, 6, COUNT, dtype=np.int8)
    exposure: Codes = generator.integers(-1, 3, COUNT, dtype=np.int8)
    kept: dict[str, Any] = {}

    def scored() -> None:
        signals = signals_of(kept["evidence"])
        likely = threat(signals)
        bad = impact(criticality, exposure, signals.technical_impact)
        scores = score(likely.likelihood, bad.impact)
        kept.update(signals=signals, likely=likely, bad=bad, scores=scores, level=level(scores))
        score(likely.likelihood_known, bad.impact_known)

    def decided() -> None:
        points = kept["signals"]._asdict()
        for number in ("epss", "cvss"):
            points.pop(number)
        found = decide(POLICIES[0], **points, exposure=exposure, criticality=criticality)
        kept["due"] = due_dates(["2026-08-22"] * COUNT, found.days)

    def vectors() -> None:
        found, problems = cvss_scores(evidence["cvss_vector"])
        assert not problems
        kept["evidence"] = evidence.append_column("cvss", pa.array(found, from_pandas=True))

    def explained() -> None:
        top = np.argsort(-kept["scores"], kind="stable")[:_TOP]
        for row in kept["evidence"].take(top).to_pylist():
            reasons({**row, "criticality": 3, "exposure": "open"})

    def lost() -> None:
        some = slice(0, RISKS)
        annual_losses(
            kept["likely"].p[some],
            impact=kept["bad"].impact[some],
            exposure=exposure[some],
            assets=[f"asset-{at % ASSETS}" for at in range(RISKS)],
            years=YEARS,
        )

    parts: dict[str, tuple[int, Callable[[], None]]] = {
        "CVSS of vectors": (COUNT, vectors),
        "score": (COUNT, scored),
        "decide and due dates": (COUNT, decided),
        "reasons": (_TOP, explained),
        "losses": (RISKS, lost),
    }
    rows = []
    for name, (count, part) in parts.items():
        started, cpu = time.perf_counter(), time.process_time()
        part()
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        rows.append({"measure": name, "rows": count, "wall_s": wall_s, "cpu_s": cpu_s})
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps({"rows": rows, "peak_mb": peak_mb}))


def main() -> None:
    """Measure in a process of its own, publish, and fail where a limit is passed."""
    use = call([sys.executable, __file__, "child"], cwd=ROOT)
    measured = json.loads(use.output.splitlines()[-1])
    rows: list[dict[str, Any]] = [{**row, "peak_rss_mb": ""} for row in measured["rows"]]
    whole = {"measure": "in all", "rows": COUNT, "peak_rss_mb": measured["peak_mb"]}
    whole |= {key: sum(row[key] for row in rows) for key in ("wall_s", "cpu_s")}
    process = {"measure": "process, with imports and making the evidence", "rows": COUNT}
    process |= {"wall_s": use.wall_s, "cpu_s": use.cpu_s, "peak_rss_mb": measured["peak_mb"]}
    over = []
    for row in (*rows, whole, process):
        cpu_s, mb = LIMITS.get(row["measure"], (0.0, 0.0))
        row |= {"limit_cpu_s": cpu_s or "", "limit_mb": mb or ""}
        if (cpu_s and row["cpu_s"] > cpu_s) or (mb and row["peak_rss_mb"] > mb):
            over.append(row["measure"])
    publish("risk_scoring", [*rows, whole, process])
    if over:
        raise SystemExit(f"over the limit: {', '.join(over)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _child()
    else:
        main()
