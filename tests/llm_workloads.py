"""Model calls against a loopback server, both in processes of their own, for tests of the gateway.

``python tests/llm_workloads.py JSON`` buys what :class:`Work` says, as the environment's settings
and configuration say, and ends with the exit status of the command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import partial
from hashlib import sha256
from pathlib import Path

from sqlalchemy import func, select

from workbench.cli.opening import interrupt
from workbench.core.errors import WorkbenchError
from workbench.core.settings import read_settings
from workbench.llm.gateway import open_gateway
from workbench.llm.messages import Request
from workbench.store import schema
from workbench.store.database import open_store

KEY = "sk-ant-test-0123456789abcdef"
MODEL = "claude-haiku-5-5"
LEDGER = "LEDGER"
"""Stands for the ledger's file among the words of a server."""
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"}


@dataclass(frozen=True, kw_only=True)
class Work:
    """Requests to buy."""

    count: int
    phase: str = "generation"
    name: str = "work"
    first: int = 0
    callers: int = 0
    """That many at the same time, each with one request, instead of ``map``."""


def request(number: int, **changes) -> Request:
    """Return one of many different small requests."""
    values = {"prompt": f"record {number:05d}", "task": "summary", "max_tokens": 60}
    return Request(**values | changes)


def digest(number: int) -> str:
    """Return what the server's ledger calls that request."""
    return sha256(request(number).prompt.encode()).hexdigest()


def key_of(number: int, *, url: str) -> str:
    """Return under what the store keeps the answer of a server."""
    return request(number).key(service=f"anthropic {url}", model=MODEL)


def variables(home: Path, llm: dict, *, run: str = "run-1", user: str = "tester", **more) -> dict:
    """Return the environment of a process that works in a store."""
    env = {name: value for name, value in os.environ.items() if name not in PROXIES}
    return env | {
        "WORKBENCH_HOME": str(home),
        "WORKBENCH_USER": user,
        "WORKBENCH_RUN_ID": run,
        "WORKBENCH_EXPERIMENT": "trial",
        "WORKBENCH_LLM": json.dumps(llm),
        "ANTHROPIC_API_KEY": KEY,
        **more,
    }


def start(work: Work, env: dict) -> subprocess.Popen:
    """Start a process that does the work; its first line of output says that it is about to."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps(asdict(work))],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class Served:
    """A loopback server in another process, and its ledger."""

    def __init__(self, process: subprocess.Popen, ledger: Path) -> None:
        self.process = process
        self.url = process.stdout.readline().strip()
        self._ledger = ledger

    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self._ledger.read_text().splitlines()]

    def total_usd(self) -> Decimal:
        return sum((Decimal(row["usd"]) for row in self.rows()), Decimal(0))

    def answered_usd(self) -> Decimal:
        rows = (row for row in self.rows() if row["is_answered"])
        return sum((Decimal(row["usd"]) for row in rows), Decimal(0))

    def asked(self) -> Counter[str]:
        """Return how often each prompt reached the server and got further than a refusal."""
        return Counter(row["prompt_sha256"] for row in self.rows() if row["status"] in {0, 200})


@contextmanager
def served(folder: Path, **options):
    """Give a server that runs until the end of the block."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with served_by(folder, ["-m", "workbench.llm.loopback", "--ledger", LEDGER, *words]) as server:
        yield server


@contextmanager
def served_by(folder: Path, words: list[str], **variables: str):
    """Give the server that Python runs by some words, until the end of the block."""
    ledger = folder / "served.jsonl"
    ledger.touch()
    process = subprocess.Popen(
        [sys.executable, *(str(ledger) if word == LEDGER else word for word in words)],
        env=os.environ | variables, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield Served(process, ledger)
        finally:
            process.kill()


def ledger_of(store, *outcomes: str) -> list:
    """Return the ledger rows of some outcomes."""
    return [row for row in store.ledger.rows() if row.details.get("outcome") in outcomes]


def spent(rows) -> Decimal:
    return sum((row.usd for row in rows), Decimal(0))


def flights_of(store) -> int:
    """Return how many calls are in flight."""
    with store.engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(schema.flights)).scalar()


def stored_keys(store) -> set[str]:
    """Return the keys of all answers that are kept."""
    with store.engine.connect() as connection:
        return set(connection.execute(select(schema.responses.c.key)).scalars())


async def _buy(store, work: Work) -> list:
    import anthropic  # noqa: F401 - takes a second, which is no moment to be killed at

    async with open_gateway(
        store, phase=work.phase, work=work.name, tell=partial(_say, to=sys.stderr)
    ) as gateway:
        requests = [request(work.first + n) for n in range(work.count)]
        _say("ready")
        if not work.callers:
            return await gateway.map(requests)
        return await asyncio.gather(*map(gateway.ask, requests))


def _say(line: str, *, to=None) -> None:
    stream = to or sys.stdout
    stream.write(line + "\n")
    stream.flush()


def main() -> int:
    """Do the work; print outcomes and answers as JSON."""
    signal.signal(signal.SIGTERM, interrupt)
    work = Work(**json.loads(sys.argv[1]))
    store = open_store(read_settings())
    try:
        outcomes = asyncio.run(_buy(store, work))
    except WorkbenchError as error:
        _say(f"error: {error}", to=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _say("error: interrupted; what is done is kept, run again to go on", to=sys.stderr)
        return 130
    finally:
        store.engine.dispose()
    kinds = Counter(getattr(one, "outcome", "failed") for one in outcomes)
    _say(json.dumps({"kinds": kinds, "texts": [getattr(one, "text", None) for one in outcomes]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
