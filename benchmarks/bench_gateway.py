"""The gateway against the loopback model server: time, processor, memory, and money to the cent.

The server runs in a process of its own, whose processor time is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from measure import call, publish

MARK = "FIGURES "
FAULTS = "429=0.05,529=0.03,drop=0.02,malformed=0.01,retry_after_s=0.05"


@contextmanager
def model_server(ledger: Path, *arguments: str) -> Iterator[str]:
    """Give the address of a loopback model server in another process."""
    command = [sys.executable, "-m", "workbench.llm.loopback", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--ledger", str(ledger), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def served(ledger: Path) -> tuple[Decimal, Decimal, int]:
    """Return dollars of answered calls, of lost ones, and how many were answered."""
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    answered = [Decimal(row["usd"]) for row in rows if row["is_answered"]]
    lost = [Decimal(row["usd"]) for row in rows if not row["is_answered"]]
    return sum(answered, Decimal(0)), sum(lost, Decimal(0)), sum(usd > 0 for usd in answered)


async def _client(options: argparse.Namespace) -> dict[str, Any]:
    from workbench.core.settings import read_settings
    from workbench.llm.config import parse
    from workbench.llm.gateway import open_gateway
    from workbench.llm.messages import Request
    from workbench.store.database import open_store

    section: dict[str, Any] = {
        "base_url": options.client,
        "savings": {"parallel": options.parallel},
        "rates": {"retry_after_cap_s": 0.2, "max_attempts": 10},
        "budgets": {"experiment": 1000, "day": 1000},
    }
    if options.budget:
        section["budgets"]["run"] = options.budget
    store = open_store(read_settings({**os.environ, "WORKBENCH_HOME": options.home}))
    requests = [
        Request(prompt=f"Say in one line what record {n} is about.", task="summary", max_tokens=64)
        for n in range(options.calls)
    ]
    figures: dict[str, Any] = {"stopped": ""}
    async with open_gateway(
        store, phase="generation", work="bench", config=parse(section, where="bench")
    ) as gateway:
        # the first call of a process loads the SDK; the whole process's figures contain that
        await gateway.ask(Request(prompt="Say something short.", task="summary", max_tokens=64))
        cpu_s, started = time.process_time(), time.perf_counter()
        try:
            outcomes = await gateway.map(requests)
            figures["failed"] = sum(isinstance(one, Exception) for one in outcomes)
        except Exception as error:  # noqa: BLE001 - a benchmark reports what stopped it
            figures["stopped"] = f"{type(error).__name__}: {error}"
        figures["span_s"] = time.perf_counter() - started
        figures["span_cpu_s"] = time.process_time() - cpu_s
        cpu_s = time.process_time()
        if not figures["stopped"]:
            for _ in range(5):
                for request in requests[:1000]:
                    await gateway.ask(request)
            figures["hit_us"] = (time.process_time() - cpu_s) / 5 / len(requests[:1000]) * 1e6
    rows = [row for row in store.ledger.rows() if row.unit == "token"]
    measured = [row.usd for row in rows if not row.estimated]
    figures["usd"] = str(sum(measured, Decimal(0)))
    figures["lost_usd"] = str(sum((row.usd for row in rows if row.estimated), Decimal(0)))
    figures["lost"] = sum(row.estimated for row in rows)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def run_client(url: str, *, calls: int, parallel: int, budget: str = "") -> tuple[Any, Any]:
    """Return what a client process used, and what it says itself."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, __file__, "--client", url, "--home", home]
        command += ["--calls", str(calls), "--parallel", str(parallel), "--budget", budget]
        variables = {"ANTHROPIC_API_KEY": "a-key-of-the-loopback-server", "WORKBENCH_LLM": ""}
        use = call(command, cwd=Path(home), variables=variables)
    line = next(line for line in use.output.splitlines() if line.startswith(MARK))
    return use, json.loads(line.removeprefix(MARK))


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", default="")
    parser.add_argument("--home", default="")
    parser.add_argument("--calls", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=32)
    parser.add_argument("--budget", default="")
    options = parser.parse_args()
    if options.client:
        print(MARK + json.dumps(asyncio.run(_client(options))))
        return
    rows: list[dict[str, Any]] = []
    for calls, parallel, faults, budget, limits in (
        (1_000, 32, "", "", "span 2.0 s, process 4.5 s, 1.9 ms CPU"),
        (10_000, 256, "", "", "25 CPU s, 300 MB"),
        (1_000, 256, FAULTS, "", "to the cent"),
        (1_000, 256, FAULTS, "0.02", "never above the budget"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            ledger = Path(folder) / "ledger.jsonl"
            extra = ["--latency-s", "0.05", *(["--faults", faults] if faults else [])]
            with model_server(ledger, *extra) as url:
                use, told = run_client(url, calls=calls, parallel=parallel, budget=budget)
            answered, lost, count = served(ledger)
        rows.append(
            {
                "calls": calls,
                "in flight": parallel,
                "faults": "yes" if faults else "no",
                "budget": budget or "-",
                "span s": told["span_s"],
                "process s": use.wall_s,
                "CPU s": use.cpu_s,
                "CPU ms/call": told["span_cpu_s"] / max(1, count) * 1000,
                "hit us": told.get("hit_us", 0.0),
                "peak MB": told["peak_mb"],
                "USD": told["usd"],
                "server USD": str(answered),
                "lost USD": told["lost_usd"],
                "server lost USD": str(lost),
                "answered": count,
                "stopped": told["stopped"][:40],
                "limit": limits,
            }
        )
    publish("gateway", rows)


if __name__ == "__main__":
    main()
