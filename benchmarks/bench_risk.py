"""How long assessments take: one CVE, ten, and 500 on 50 assets.

Without models, and with models that take a second each. The limits are those of the performance
tuning guide at the 95th percentile, and stricter ones without model calls.

Every repetition begins with an empty store, so nothing is at hand: snapshot opened, evidence
gathered, scored, decided, losses drawn, explained, register and log written.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import tempfile
import time
from datetime import date
from typing import Any

import numpy as np

from bench_risk_explain import ITEM
from measure import publish

_TODAY = date(2026, 11, 27)
_SIZES = {"1 CVE": (1, 1), "10 CVEs": (10, 1), "500 CVEs × 50 assets": (500, 50)}
_LIMITS_S = {
    ("1 CVE", False): 0.2, ("10 CVEs", False): 1.0, ("500 CVEs × 50 assets", False): 5.0,
    ("1 CVE", True): 2.0, ("10 CVEs", True): 10.0, ("500 CVEs × 50 assets", True): 30.0,
}  # fmt: skip
_TOLD = "What matters most is due first. What is not known counts at its worst."


def snapshot_tables(count: int) -> dict[str, Any]:
    """Return synthetic records of ``count`` CVEs, gaps included, as sources would give them."""
    import pyarrow as pa

    from workbench.risk.sources.base import Fetched
    from workbench.risk.tables import SCHEMAS

    random = np.random.default_rng(5)
    ids = [f"CVE-2025-{10_000 + number}" for number in range(count)]
    as_of = "2026-11-26"

    def some(values: list[Any], known: float) -> list[Any]:
        taken = random.integers(len(values), size=count)
        gone = random.random(count) > known
        return [None if gap else values[at] for at, gap in zip(taken, gone, strict=True)]

    vectors = [
        f"CVSS:3.1/AV:{av}/AC:{ac}/PR:{pr}/UI:N/S:U/C:{c}/I:{i}/A:H"
        for av in "NALP" for ac in "LH" for pr in "NLH" for c in "HLN" for i in "HLN"
    ]  # fmt: skip
    records: dict[str, Any] = {
        "cve": ids,
        "title": [f"Flaw {number} in a part" for number in range(count)],
        "description": [
            f"Part {number} does not check what it is sent." for number in range(count)
        ],
        "cvss_vector": some(vectors, 0.75),
        "automatable": some(["yes", "no"], 0.8),
        "technical_impact": some(["total", "partial"], 0.8),
        "exploitation": some(["none", "none", "poc"], 0.8),
        "cwes": some([["CWE-79"], ["CWE-787"], ["CWE-22"], ["CWE-89"]], 0.7),
        "as_of": [as_of] * count,
    }
    schema = SCHEMAS["cve"]
    texts = {name: records.get(name, [""] * count) for name in schema.names}
    cve = pa.table(
        {**{n: pa.array(v, schema.field(n).type) for n, v in texts.items()},
         "as_of": pa.array(records["as_of"])}
    )  # fmt: skip
    scores = random.beta(0.2, 8, size=count)
    epss = pa.table({"cve": ids, "epss": scores, "percentile": scores.argsort().argsort() / count})
    listed = ids[::40]
    kev = pa.table(
        {"cve": listed, "added": ["2026-01-01"] * len(listed), "due": [""] * len(listed),
         "ransomware": [False] * len(listed)}
    )  # fmt: skip
    tables = {"cve": cve, "epss": epss, "kev": kev}
    return {
        name: Fetched(source=name, url="", as_of=as_of, table=table)
        for name, table in tables.items()
    }


async def once(size: str, *, latency_s: float | None) -> float:
    """Return the seconds of one assessment in a store of its own."""
    from workbench.core.settings import read_settings
    from workbench.llm.config import GatewayConfig
    from workbench.llm.loopback import LoopbackServer
    from workbench.risk.assess import Assessed, AssessOptions, assess
    from workbench.risk.snapshot import write_snapshot
    from workbench.store.database import open_store

    cves, assets = _SIZES[size]
    with tempfile.TemporaryDirectory() as home:
        store = open_store(read_settings({"WORKBENCH_HOME": home}))
        write_snapshot(store, snapshot_tables(5_000), made_at="2026-11-26T12:00:00+00:00")

        async def measured(config: GatewayConfig | None) -> float:
            options = AssessOptions(
                draw_cves=cves, draw_assets=assets, today=_TODAY, llm=config,
                model="rules" if config is None else "routed",
            )  # fmt: skip
            began = time.perf_counter()
            done = await assess(store, options, tell=lambda _: None)
            seconds = time.perf_counter() - began
            assert isinstance(done, Assessed)
            assert done.result["counts"]["risks"] == cves * assets
            assert config is None or done.result["cost"]["calls"] >= 2
            return seconds

        if latency_s is None:
            seconds = await measured(None)
        else:
            async with LoopbackServer(latency_s=latency_s, answer=_answer) as server:
                seconds = await measured(GatewayConfig(base_url=server.base_url))
        store.engine.dispose()
    return seconds


def _answer(body: dict[str, Any]) -> str:
    """Return what a model might write, usable as it stands."""
    content = body["messages"][-1]["content"]
    prompt = content if isinstance(content, str) else content[0]["text"]
    told = {
        number: json.dumps({
            "summary": json.loads(html.unescape(text))["description"],
            "action": "Install the fix that its maker has published.",
        })
        for number, text in ITEM.findall(prompt)
    }  # fmt: skip
    if not told:
        return _TOLD
    if len(told) == 1:
        return next(iter(told.values()))
    return json.dumps({"items": [{"id": one, "text": text} for one, text in told.items()]})


async def measure(*, repeats: int, latency_s: float) -> list[dict[str, Any]]:
    """Return a row per size, without and with model calls."""
    rows = []
    for size in _SIZES:
        for is_model in (False, True):
            latency = latency_s if is_model else None
            await once(size, latency_s=latency)  # imports are not counted
            spent = [await once(size, latency_s=latency) for _ in range(repeats)]
            p95 = float(np.quantile(spent, 0.95))
            limit = _LIMITS_S[size, is_model]
            rows.append({
                "size": size, "model calls": f"{latency_s:g} s each" if is_model else "none",
                "p50 s": float(np.median(spent)), "p95 s": p95, "limit s": limit,
                "met": "yes" if p95 <= limit else "no", "repeats": repeats,
            })  # fmt: skip
    return rows


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of a model call")
    chosen = parser.parse_args()
    import anthropic  # noqa: F401 - takes a second, once per process

    rows = asyncio.run(measure(repeats=chosen.repeats, latency_s=chosen.latency))
    publish("risk", rows)


if __name__ == "__main__":
    main()
