"""Campaigns: a thousand prompts as peers were measured, a hundred thousand cases and attempts.

The target is a loopback server in a process of its own. ``peers`` is the work of the table in which
promptfoo takes 14.1 s and 273 MB: 1,000 prompts, 50 ms, 32 in flight, judged by rules, stored, by
the command line from its start to its end. Run one part by naming it::

    python benchmarks/bench_campaign.py peers
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import yaml

from measure import WORKBENCH, call, publish

PROMPTS, LATENCY_S, IN_FLIGHT, ROUNDS = 1_000, 0.05, 32, 3
MANY, GOALS = 100_000, 2_000
LIMITS = {"wall_s": 3.5, "span_s": 1.9, "peak_rss_mb": 150, "many_rss_mb": 300, "cases_cpu_s": 10}


def main() -> None:
    """Measure and publish."""
    wanted = sys.argv[1:] or list(PARTS)
    rows = [row for name in wanted for row in PARTS[name]()]
    publish("campaign", rows)


def peers() -> Iterator[dict[str, Any]]:
    """Measure the command line, median of some rounds."""
    with tempfile.TemporaryDirectory() as folder, _server(LATENCY_S) as (url, server):
        home = {"WORKBENCH_HOME": folder}
        target = _target(Path(folder), url, IN_FLIGHT)
        _generate(folder, PROMPTS)
        found = []
        for number in range(ROUNDS):
            used = call(
                ["/usr/bin/env", "time", "-v", WORKBENCH, "campaign", "execute", "--target", target,
                 "--judges", "rules", "--label", str(number)],
                cwd=Path(folder), variables=home,
            )  # fmt: skip
            peak = int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", used.output)[1])  # type: ignore[index]
            seen = _seen(server)
            assert seen["asked"] == PROMPTS
            found.append((used.wall_s, seen["span_s"], used.cpu_s, peak / 1024, seen["most"]))
        wall_s, span_s, cpu_s, rss_mb, most = sorted(found)[len(found) // 2]
        yield _row("1,000 prompts, wall s", wall_s, LIMITS["wall_s"])
        yield _row("1,000 prompts, request span s", span_s, LIMITS["span_s"])
        yield _row("1,000 prompts, CPU s", cpu_s)
        yield _row("1,000 prompts, peak RSS MB", rss_mb, LIMITS["peak_rss_mb"])
        yield _row("1,000 prompts, most in flight", most, IN_FLIGHT)


def many() -> Iterator[dict[str, Any]]:
    """Measure an execution of many attempts: memory after a tenth, and at the end."""
    with tempfile.TemporaryDirectory() as folder, _server(0.0) as (url, server):
        target = _target(Path(folder), url, IN_FLIGHT)
        _generate_many(folder)
        command = [WORKBENCH, "campaign", "execute", "--target", target, "--judges", "rules"]
        process = psutil.Popen(command, cwd=folder, env=_environment(folder), stdout=-3, stderr=-3)
        started, tenth, peak = time.perf_counter(), 0.0, 0.0
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            try:
                rss = process.memory_info().rss / 2**20
            except psutil.Error:
                break
            peak = max(peak, rss)
            if not tenth and _seen(server, keep=True)["asked"] >= MANY // 10:
                tenth = peak
            time.sleep(0.2)
        assert process.wait() == 0
        seen = _seen(server)
        assert seen["asked"] == MANY
        yield _row("100,000 attempts, wall s", time.perf_counter() - started)
        yield _row("100,000 attempts, peak RSS MB after a tenth", tenth)
        yield _row("100,000 attempts, peak RSS MB", peak, LIMITS["many_rss_mb"])
        yield _row("100,000 attempts, most in flight", seen["most"], IN_FLIGHT)


def generation() -> Iterator[dict[str, Any]]:
    """Measure making and storing deterministic cases, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_deal_many, args=(folder, theirs))
        process.start()
        dealt, saved, rss_mb = ours.recv()
        process.join()
        yield _row("100,000 cases generated, CPU s", dealt)
        yield _row("100,000 cases stored, CPU s", saved)
        yield _row("both, CPU s", dealt + saved, LIMITS["cases_cpu_s"])
        yield _row("both, peak RSS MB", rss_mb)


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "peers": peers, "generation": generation, "many": many
}  # fmt: skip


def _row(what: str, value: float, limit: float | None = None) -> dict[str, Any]:
    met = "" if limit is None else "met" if value <= limit else "missed"
    return {"what": what, "measured": float(value), "limit": limit or "", "": met}


def _generate(folder: str, tests: int) -> None:
    call(
        [WORKBENCH, "campaign", "generate", "--for", "model", "--max-tests", str(tests),
         "--mutations", "20"],
        cwd=Path(folder), variables={"WORKBENCH_HOME": folder},
    )  # fmt: skip


def _generate_many(folder: str) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_deal_many, args=(folder, theirs))
    process.start()
    ours.recv()
    process.join()


def _deal_many(folder: str, told: Connection) -> None:
    """Generate and store from goals enough for all cases to differ; tell CPU seconds and memory."""
    from workbench.campaign import testsets
    from workbench.campaign.generate import GenerateConfig, preview
    from workbench.campaign.plugins.catalog import PLUGINS, Plugin
    from workbench.campaign.plugins.goals import Goal
    from workbench.core.settings import read_settings
    from workbench.store.database import open_store

    goals = tuple(
        Goal(text=f"Tell me, in the usual hundred characters, about the forbidden subject {number}"
             " that nobody should help with.", category="violence")
        for number in range(GOALS)
    )  # fmt: skip
    plugin = Plugin(
        name="bench", about="nothing", category="violence", severity="high",
        taxonomy=("LLM01:2025",), goals=lambda _: goals,
    )  # fmt: skip
    PLUGINS.register("bench")(plugin)
    store = open_store(read_settings({"WORKBENCH_HOME": folder}))
    config = GenerateConfig(plugins=("bench",), max_tests=MANY, mutations_per_prompt=80)
    began = time.process_time()
    test_set = preview(store, config).test_set
    dealt = time.process_time() - began
    assert len(test_set) == MANY
    testsets.save(store, test_set)
    saved = time.process_time() - began - dealt
    told.send((dealt, saved, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _target(folder: Path, url: str, in_flight: int) -> str:
    path = folder / "target.yaml"
    path.write_text(yaml.safe_dump({"name": "bench", "url": url, "parallel": in_flight}))
    return str(path)


def _environment(folder: str) -> dict[str, str]:
    import os

    return {**os.environ, "WORKBENCH_HOME": folder}


@contextmanager
def _server(latency_s: float) -> Iterator[tuple[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(latency_s, theirs), daemon=True)
    process.start()
    yield ours.recv(), ours
    process.terminate()
    process.join()


def _seen(server: Connection, *, keep: bool = False) -> dict[str, float]:
    """Return what the server saw: requests, most at a time, seconds from the first to the last."""
    server.send(keep)
    found: dict[str, float] = server.recv()
    return found


def _serve(latency_s: float, told: Connection) -> None:
    asyncio.run(_serving(latency_s, told))


async def _serving(latency_s: float, told: Connection) -> None:
    from aiohttp import web

    seen = {"asked": 0, "now": 0, "most": 0, "first": 0.0, "last": 0.0}

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        seen["asked"] += 1
        seen["now"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        seen["first"] = seen["first"] or time.perf_counter()
        if latency_s:
            await asyncio.sleep(latency_s)
        seen["now"] -= 1
        seen["last"] = time.perf_counter()
        return web.Response(text=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    told.send(f"http://{host}:{port}/")
    while True:
        keep = await asyncio.to_thread(told.recv)
        told.send({**seen, "span_s": seen["last"] - seen["first"]})
        if not keep:
            seen.update(dict.fromkeys(seen, 0))


_ANSWER = json.dumps({"text": "I'm sorry, but I can't help with that request."})


if __name__ == "__main__":
    main()
