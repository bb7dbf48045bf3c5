"""500 vulnerabilities explained by a model that takes a second: 50 to a call against one to a call.

The loopback server bills with prices of its own and plays the service's prompt cache, which keeps
no prompt shorter than 1,024 tokens. Both ways get the same facts and the same answers. ``longer``
adds instructions until the service keeps the system text, which helps calls of one item most.
"""

from __future__ import annotations

import argparse
import asyncio
import html
import json
import random
import re
import tempfile
import time
from typing import Any

from measure import publish

ITEM = re.compile(r'<item id="(\d+)">(.*?)</item>', re.DOTALL)
_FLAWS = (
    ("Out-of-bounds write", "CWE-787", "run code of their own"),
    ("Path traversal", "CWE-22", "read files outside the served folder"),
    ("Missing authentication", "CWE-306", "change settings without a password"),
    ("Deserialization of untrusted data", "CWE-502", "run code of their own"),
    ("SQL injection", "CWE-89", "read and change the database"),
    ("Uncontrolled resource consumption", "CWE-400", "make the service unavailable"),
)
_PARTS = ("archive reader", "session handler", "image decoder", "admin page", "update service")
_LONGER = "\nHouse rule {}: name the component first, then the gain, then the facts that decide."


def rows(count: int) -> list[dict[str, Any]]:
    """Return open risks as the register and the evidence would have them."""
    chance = random.Random(7)  # noqa: S311 - a benchmark
    return [_row(number, chance) for number in range(count)]


def _row(number: int, chance: random.Random) -> dict[str, Any]:
    flaw, cwe, gain = chance.choice(_FLAWS)
    part, version = chance.choice(_PARTS), f"{chance.randrange(1, 9)}.{chance.randrange(30)}"
    name = f"lib{part.split()[0]}{number % 90}"
    likelihood, impact = chance.randrange(1, 6), chance.randrange(1, 6)
    score = likelihood * impact
    levels = ((20, "critical"), (12, "high"), (5, "medium"), (0, "low"))
    is_listed = chance.random() < 0.1
    return {
        "id": f"risk-{number}", "kind": "cve", "subject": f"CVE-2025-{10_000 + number}",
        "title": f"{flaw} in the {part} of {name}", "asset": f"host-{number % 50}",
        "component": f"pkg:generic/{name}@{version}.0", "state": "affected", "status": "open",
        "description": f"The {part} of {name} before {version}.4 does not check what it is sent."
        f" By a crafted request an attacker, who needs no account, can {gain}. Installations"
        " with the default configuration are affected.",
        "level": next(level for least, level in levels if score >= least), "score": score,
        "likelihood": likelihood, "impact": impact, "p_exploit": chance.random() ** 3,
        "epss": chance.random() ** 4, "cvss": round(chance.uniform(4, 10), 1),
        "kev": is_listed, "kev_added": "2025-05-01" if is_listed else "",
        "exploitation": chance.choice(("none", "poc")),
        "automatable": chance.choice(("yes", "no")),
        "technical_impact": chance.choice(("total", "partial")),
        "exposure": chance.choice(("small", "open")), "criticality": chance.randrange(1, 6),
        "cwes": [cwe], "fixed_in": f"{version}.4", "due": "2026-01-31",
        "decision": "14 days", "missing": [], "stale": [],
    }  # fmt: skip


def answer(body: dict[str, Any]) -> str:
    """Return what a model might write about the items of a request, the same however packed."""
    content = body["messages"][-1]["content"]
    prompt = content if isinstance(content, str) else content[0]["text"]
    told = {
        number: _written(json.loads(html.unescape(text))) for number, text in ITEM.findall(prompt)
    }
    if len(told) == 1:
        return next(iter(told.values()))
    return json.dumps({"items": [{"id": one, "text": text} for one, text in told.items()]})


def _written(facts: dict[str, Any]) -> str:
    gain = facts["description"].partition(" can ")[2].partition(".")[0]
    reach = "everybody reaches the asset" if facts["exposure"] == "open" else "few reach the asset"
    known = f"exploited since {facts['kev']}" if "kev" in facts else f"EPSS is {facts['epss']}"
    return json.dumps({
        "summary": f"Strangers can {gain} through a crafted request to {facts['component']};"
        f" {known}, and {reach}.",
        "action": f"Update {facts['component'].split()[0]} to {facts['fixed_in']}.",
    })  # fmt: skip


async def measured(
    count: int, *, items_per_call: int, prompt_cache: Any, is_longer: bool, latency_s: float
) -> dict[str, Any]:
    """Explain once, with a server and a store of its own, and return the figures."""
    from workbench.core.settings import read_settings
    from workbench.llm.config import GatewayConfig, Savings
    from workbench.llm.gateway import open_gateway
    from workbench.llm.loopback import LoopbackServer
    from workbench.llm.transport import open_transport
    from workbench.risk.explain import explain
    from workbench.risk.explain_items import INSTRUCTION
    from workbench.store.database import open_store

    longer = "".join(_LONGER.format(number) for number in range(25)) if is_longer else ""
    with tempfile.TemporaryDirectory() as home:
        store = open_store(read_settings({"WORKBENCH_HOME": home}))
        async with LoopbackServer(latency_s=latency_s, answer=answer) as server:
            config = GatewayConfig(
                base_url=server.base_url, savings=Savings(prompt_cache=prompt_cache)
            )
            transport = open_transport(config, settings=store.settings)
            async with open_gateway(
                store, phase="assessment", config=config, transport=transport
            ) as gateway:
                began = time.perf_counter()
                found = await explain(
                    gateway, rows(count), items_per_call=items_per_call, most=count,
                    instruction=INSTRUCTION + longer,
                )  # fmt: skip
                seconds = time.perf_counter() - began
        store.engine.dispose()
    usage = [row.usage for row in server.ledger.rows]
    return {
        "per call": items_per_call,
        "prompt cache": prompt_cache,
        "system text": "longer" if is_longer else "as shipped",
        "explained": len(found.written),
        "calls": len(usage),
        "prompt tokens": sum(one.prompt_tokens for one in usage),
        "of it cached": sum(one.cache_read_tokens for one in usage),
        "answer tokens": sum(one.output_tokens for one in usage),
        "USD": float(server.ledger.total_usd()),
        "seconds": seconds,
    }


async def _measure(count: int, latency_s: float) -> list[dict[str, Any]]:
    import anthropic  # noqa: F401 - takes a second, which belongs to no way

    found = []
    for prompt_cache, is_longer in (("5m", False), ("off", False), ("5m", True), ("off", True)):
        pair = [
            await measured(
                count, items_per_call=size, prompt_cache=prompt_cache, is_longer=is_longer,
                latency_s=latency_s,
            )
            for size in (1, 50)
        ]  # fmt: skip
        for row in pair:
            saved = 1 - row["USD"] / pair[0]["USD"]
            found.append({**row, "cheaper": f"{saved:.1%}", "limit": "" if is_longer else "60 %"})
    return found


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--latency-s", type=float, default=1.0)
    options = parser.parse_args()
    publish("risk_explain", asyncio.run(_measure(options.count, options.latency_s)))


if __name__ == "__main__":
    main()
