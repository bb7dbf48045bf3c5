"""The list of test sets over HTTP: 10,000 of one user, 50 clients, 100 requests a second.

Every client follows the ``Link`` header from page to page. Requests are due at fixed times whether
or not earlier ones were answered, and a latency counts from when the request was due.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from measure import ROOT, publish
from workbench.core.identity import text_id
from workbench.store.database import Store
from workbench.store.test_sets import add_test_set_owner

TEST_SETS, PAGE, CLIENTS, PER_SECOND, SECONDS, WARM_S = 10_000, 50, 50, 100, 20, 3
LIMIT_MS = 30
PATH = f"/workbench/api/redteam/datasets?limit={PAGE}"


def main() -> None:
    """Measure and publish."""
    sys.path.insert(0, str(ROOT / "tests"))
    running = importlib.import_module("running_server")
    with tempfile.TemporaryDirectory() as folder, running.serve(Path(folder)) as server:
        _fill(server.store_of("anna"))
        server_process = psutil.Process(server.pid)
        before = server_process.cpu_times()
        latencies = asyncio.run(_load(server.url, running.TOKENS["anna"]))
        after = server_process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
    latencies.sort()
    row: dict[str, Any] = {
        "test_sets": TEST_SETS, "page": PAGE, "clients": CLIENTS, "per_s": PER_SECOND,
        "requests": len(latencies),
        **{f"p{q}_ms": latencies[int(len(latencies) * q / 100)] * 1e3 for q in (50, 95, 99)},
        "server_ms_cpu": cpu_s / (PER_SECOND * (SECONDS + WARM_S)) * 1e3,
        "limit_p95_ms": LIMIT_MS,
    }  # fmt: skip
    publish("server", [row])


def _fill(store: Store) -> None:
    plugins = ["prompt-injection-direct", "over-refusal", "pii", "harm-violence"]
    recipe = {
        "plugins": plugins, "strategies": ["plain", "base64", "leetspeak+base64"], "surface": "",
        "max_tests": 400, "mutations_per_prompt": 4, "pair_set": "0" * 64, "profile": "",
        "explore": 0.5, "seed": 0, "history": "",
    }  # fmt: skip
    for number in range(TEST_SETS):
        facts = {"tests": 400, "promptfoo_id": "0" * 64, "recipe": recipe, "cost_usd": "0"}
        add_test_set_owner(store.engine, text_id(str(number)), owner="anna", metadata=facts)


async def _load(url: str, token: str) -> list[float]:
    """Return the latency of every request after the warm-up, in seconds."""
    headers = {"Authorization": f"token {token}"}
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector) as session:
        clients = (_client(session, number) for number in range(CLIENTS))
        return [one for found in await asyncio.gather(*clients) for one in found]


async def _client(session: aiohttp.ClientSession, number: int) -> list[float]:
    every_s = CLIENTS / PER_SECOND
    due = time.perf_counter() + random.Random(number).uniform(0, every_s)  # noqa: S311 - no secret
    warm, end = due + WARM_S, due + WARM_S + SECONDS
    path, found = PATH, []
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        async with session.get(path) as answer:
            rows = await answer.json()
            assert len(rows) == PAGE
            link = answer.links.get("next")
        if due >= warm:
            found.append(time.perf_counter() - due)
        path = link["url"].path_qs if link else PATH  # type: ignore[union-attr]
        due += every_s
    return found


if __name__ == "__main__":
    main()
