"""What the service answers on one core: alone, together, overloaded, and when sent nonsense.

::

    python benchmarks/bench_serving.py [--model FOLDER] [--minutes 10] [--seconds 10]

Without a model a small one is trained first, on the quickstart's pairs; its network is that of any
other. The service is a process of its own on the first core, prompts of 32 tokens are sent from
the second. Of 32 callers each waits for its answer before it asks again: *one by one* the service
takes one text at a time while the others wait their turn, *together* it batches. *One caller* shows
what an answer takes that has the service to itself, and the idle time of a core between two. *Open
loop* are callers that come at random moments whether others were answered or not.

The second table sets the figures against their limits. Where other work shares the machine, look
at the column by CPU (a core has a thousand milliseconds a second): a ratio is met if both columns
say so. ``busy`` is the share of a core that the service had: where callers queue, what is missing
to 1 was somebody else's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench_latency import text_of
from measure import WORKBENCH, publish

LIMIT_PER_S, LIMIT_P99_MS = 100.0, 100.0
LIMIT_SPEEDUP, LIMIT_GOODPUT, LIMIT_GROWTH_MB, LIMIT_MINUTES = 3.0, 0.9, 32.0, 10.0
CALLERS, OVERLOAD = 32, 3.0
CONNECTIONS = 512
MIXED = 10_000
HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    "Content-Length: {size}\r\n\r\n"
)


@dataclass
class Seen:
    """What came back."""

    latencies_s: list[float] = field(default_factory=list)
    """Of answers with status 200."""
    statuses: Counter[int] = field(default_factory=Counter)
    untold: int = 0
    """Refusals for lack of room that did not say when to come again."""
    dropped: int = 0
    """Requests for which no connection was free here, or whose connection broke."""

    def quantile_ms(self, share: float) -> float:
        """Return a quantile of the latencies."""
        found = sorted(self.latencies_s)
        return 1000 * found[min(int(share * len(found)), len(found) - 1)] if found else float("nan")


class Connections:
    """Some connections to the service, kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open = 0

    async def send(self, request: bytes, seen: Seen) -> float:
        """Send a request, note what comes back, and return in how many seconds to come again."""
        started = time.perf_counter()
        if not self._free and self._open >= CONNECTIONS:
            seen.dropped += 1
            return 0.0
        try:
            if self._free:
                pair = self._free.pop()
            else:
                self._open += 1
                pair = await asyncio.open_connection("127.0.0.1", self._port)
            pair[1].write(request)
            head = await pair[0].readuntil(b"\r\n\r\n")
            await pair[0].readexactly(int(_header(head, b"content-length") or 0))
        except (OSError, asyncio.IncompleteReadError):
            self._open -= 1
            seen.dropped += 1
            return 0.0
        status = int(head[9:12])
        seen.statuses[status] += 1
        if status == 200:
            seen.latencies_s.append(time.perf_counter() - started)
        told = _header(head, b"retry-after")
        seen.untold += status in (429, 503) and not told
        if b"connection: close" in head.lower():
            pair[1].close()
            self._open -= 1
        else:
            self._free.append(pair)
        return float(told or 0)

    def close(self) -> None:
        """Close them."""
        for _, writer in self._free:
            writer.close()


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b": ")
        if key.lower() == name:
            return value.decode()
    return ""


def request_of(body: bytes, *, path: str = "/v1/sanitize", kind: str = "application/json") -> bytes:
    """Return the bytes of a request."""
    return HEAD.format(path=path, kind=kind, size=len(body)).encode() + body


async def closed_loop(
    port: int, requests: Sequence[bytes], *, callers: int, seconds: float
) -> Seen:
    """Return what callers saw that each wait for their answer before they ask again."""
    seen, connections = Seen(), Connections(port)
    ends_at = time.perf_counter() + seconds

    async def caller(first: int) -> None:
        place = first
        while time.perf_counter() < ends_at:
            wait_s = await connections.send(requests[place % len(requests)], seen)
            place += callers
            await asyncio.sleep(max(min(wait_s, ends_at - time.perf_counter()), 0))

    await asyncio.gather(*map(caller, range(callers)))
    connections.close()
    return seen


async def open_loop(port: int, requests: Sequence[bytes], *, per_s: float, seconds: float) -> Seen:
    """Return what callers saw that come at random moments."""
    seen, connections, draw = Seen(), Connections(port), random.Random(0)  # noqa: S311
    started, due = time.perf_counter(), 0.0
    under_way: set[asyncio.Task[float]] = set()
    place = 0
    while due < seconds:
        wait = due - (time.perf_counter() - started)
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(connections.send(requests[place % len(requests)], seen))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        place += 1
        due += draw.expovariate(per_s)
    await asyncio.gather(*under_way)
    connections.close()
    return seen


@contextmanager
def service(home: Path, model: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """Give the port and the process of a service on the first core."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [WORKBENCH, "serve", "--open", "--port", str(port), "--model", str(model), *options]
    environment = os.environ | {"WORKBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        pin(process.pid, 0)
        wait_until_ready(port, process)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        if process.wait(60):
            raise SystemExit(f"the service ended with {process.returncode}")


def pin(pid: int, core: int) -> None:
    """Let a process run on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0) if pid else range(os.cpu_count() or 1))
        os.sched_setaffinity(pid, {cores[core % len(cores)]})


def wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when the service takes requests."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the service ended with {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the service is not ready after two minutes")


def measured(name: str, process: psutil.Process, seen_by: Any, *, seconds: float) -> dict[str, Any]:
    """Return a row of the table from what callers saw."""
    before, started = sum(process.cpu_times()[:2]), time.perf_counter()
    seen: Seen = asyncio.run(seen_by)
    wall_s, cpu_s = time.perf_counter() - started, sum(process.cpu_times()[:2]) - before
    answered = seen.statuses[200]
    return {
        "case": name,
        "per_s": answered / max(wall_s, seconds),
        "p50_ms": seen.quantile_ms(0.5),
        "p99_ms": seen.quantile_ms(0.99),
        "cpu_ms": 1000 * cpu_s / max(answered, 1),
        "busy": cpu_s / wall_s,
        "refused": sum(seen.statuses.values()) - answered,
        "untold": seen.untold,
        "5xx": sum(count for status, count in seen.statuses.items() if status >= 500),
        "dropped": seen.dropped,
    }


def speed(
    home: Path, model: Path, requests: Sequence[bytes], precision: str, *, seconds: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cases of batching in one precision, and their figures."""
    patient = ("--precision", precision, "--queue-s", "5")  # these wait as long as it takes
    with service(home, model, *patient, "--batch", "1") as (port, process):
        alone = measured(
            f"{precision}, one caller", process,
            closed_loop(port, requests, callers=1, seconds=seconds), seconds=seconds,
        )  # fmt: skip
        single = measured(
            f"{precision}, one by one", process,
            closed_loop(port, requests, callers=CALLERS, seconds=seconds), seconds=seconds,
        )  # fmt: skip
    with service(home, model, *patient) as (port, process):
        many = measured(
            f"{precision}, together", process,
            closed_loop(port, requests, callers=CALLERS, seconds=seconds), seconds=seconds,
        )  # fmt: skip
    with service(home, model, "--precision", precision) as (port, process):
        hundred = measured(
            f"{precision}, open loop at {LIMIT_PER_S:g}/s", process,
            open_loop(port, requests, per_s=LIMIT_PER_S, seconds=seconds), seconds=seconds,
        )  # fmt: skip
    per_s, faster = many["per_s"], many["per_s"] / single["per_s"]
    by_cpu = single["cpu_ms"] / many["cpu_ms"]
    lost = hundred["refused"] + hundred["dropped"]
    return [alone, single, many, hundred], [
        figure(f"{precision}: prompts/s one by one", single["per_s"],
               by_cpu=1000 / single["cpu_ms"]),
        figure(f"{precision}: prompts/s together", per_s, by_cpu=1000 / many["cpu_ms"],
               limit=f">= {LIMIT_PER_S:g}", met=per_s >= LIMIT_PER_S),
        figure(f"{precision}: together / one by one", faster,
               by_cpu=by_cpu, limit=f">= {LIMIT_SPEEDUP:g}",
               met=min(faster, by_cpu) >= LIMIT_SPEEDUP),
        figure(f"{precision}: p99 ms at {LIMIT_PER_S:g}/s", hundred["p99_ms"],
               limit=f"<= {LIMIT_P99_MS:g}", met=hundred["p99_ms"] <= LIMIT_P99_MS),
        figure(f"{precision}: unanswered at {LIMIT_PER_S:g}/s", lost, limit="0", met=not lost),
    ]  # fmt: skip


def overload(
    home: Path, model: Path, requests: Sequence[bytes], *, seconds: float, minutes: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cases of three times as many requests as can be answered, and their figures."""
    with service(home, model) as (port, process):
        peak = measured(
            "peak", process, closed_loop(port, requests, callers=CALLERS, seconds=seconds),
            seconds=seconds,
        )  # fmt: skip
        per_s, whole = OVERLOAD * peak["per_s"], 60 * minutes
        asyncio.run(open_loop(port, requests, per_s=per_s, seconds=min(whole, 10)))
        before = process.memory_info().rss
        row = measured(
            f"overload, {per_s:.0f}/s for {whole:.0f} s", process,
            open_loop(port, requests, per_s=per_s, seconds=whole), seconds=whole,
        )  # fmt: skip
        grown = (process.memory_info().rss - before) / 2**20
        again = measured(
            "peak, afterwards", process,
            closed_loop(port, requests, callers=CALLERS, seconds=seconds), seconds=seconds,
        )  # fmt: skip
    kept = row["per_s"] / max(peak["per_s"], again["per_s"])
    kept_by_cpu = min(peak["cpu_ms"], again["cpu_ms"]) / row["cpu_ms"]
    grew = f"memory MB grown in {minutes:g} min of overload"
    return [peak, row, again], [
        figure(f"goodput at {OVERLOAD:g} x overload / peak", kept, by_cpu=kept_by_cpu,
               limit=f">= {LIMIT_GOODPUT:g}", met=min(kept, kept_by_cpu) >= LIMIT_GOODPUT),
        figure(grew, grown, limit=f"<= {LIMIT_GROWTH_MB:g} in {LIMIT_MINUTES:g} min",
               met=grown <= LIMIT_GROWTH_MB, tried=minutes >= LIMIT_MINUTES),
        figure(f"of {row['refused']:,} refused, not told when to retry", row["untold"], limit="0",
               met=not row["untold"], tried=row["refused"] > 0),
    ]  # fmt: skip


def figure(
    name: str, value: float, *, by_cpu: float | None = None, limit: str = "", met: bool = True,
    tried: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Return a row of the second table; ``tried`` is whether this run could have missed it."""
    verdict = "" if not limit else "missed" if not met else "met" if tried else "too short to tell"
    return {
        "figure": name, "measured": value, "by_cpu": "" if by_cpu is None else by_cpu,
        "limit": limit, "verdict": verdict,
    }  # fmt: skip


def mixed(
    home: Path, model: Path, requests: Sequence[bytes], *, count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the case of valid and broken requests side by side, and its figures."""
    broken = [
        request_of(b"{"), request_of(b"[]"), request_of(b'{"text": 1}'), request_of(b""),
        request_of(b"\xff\xfe"), request_of(b"[" * 50_000),
        request_of(b'{"text": "a", "gain": NaN}'),
        request_of(b'{"text": "a", "gain": -1}'), request_of(b'{"text": "a", "gain": 1e400}'),
        request_of(b'{"texts": []}'), request_of(json.dumps({"texts": ["a"] * 1000}).encode()),
        request_of(json.dumps({"text": "\ud800" * 10}).encode()),
        request_of(json.dumps({"text": "\x00\u202e" * 9, "language": "\ud800"}).encode()),
        request_of(json.dumps({"text": "word " * 20_000}).encode()),
        request_of(b'{"text": ""}'), request_of(b'{"text": "a", "context": "moon"}'),
        request_of(b'{"text": "a"}', kind="text/plain"), request_of(b"{}", path="/nowhere"),
        request_of(b'{"text": "a", "detail": true}'), request_of(b"x" * 1_100_000),
        b"GET /v1/sanitize HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /admin/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/sanitize HTTP/1.1\r\nHost: example.org\r\nContent-Length: 2\r\n\r\n{}",
    ]  # fmt: skip
    draw = random.Random(0)  # noqa: S311
    sent = [
        draw.choice(broken) if draw.random() < 0.5 else draw.choice(requests) for _ in range(count)
    ]

    async def send_all(port: int) -> Seen:
        seen, connections, left = Seen(), Connections(port), iter(sent)

        async def caller() -> None:
            for one in left:
                await connections.send(one, seen)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        connections.close()
        return seen

    with service(home, model, "--queue-s", "30") as (port, process):
        row = measured(f"mixed, {count:,}, half broken", process, send_all(port), seconds=0)
    enough = count >= MIXED
    return [row], [
        figure(f"5xx in {count:,} mixed requests", row["5xx"], limit=f"0 in {MIXED:,}",
               met=not row["5xx"], tried=enough),
        figure(f"unanswered of {count:,} mixed requests", row["dropped"], limit=f"0 in {MIXED:,}",
               met=not row["dropped"], tried=enough),
    ]  # fmt: skip


def small_model(home: Path) -> Path:
    """Return the folder of a sanitizer trained for this."""
    from workbench.core.settings import read_settings
    from workbench.data.build import build_pairs, load_pairs
    from workbench.data.config import BuildConfig
    from workbench.diffusion.arrays import select_pairs
    from workbench.diffusion.phase_run import train_phase
    from workbench.diffusion.phases import phase
    from workbench.embedding.vectors import open_encoder
    from workbench.store.database import open_store

    store = open_store(read_settings({"WORKBENCH_HOME": str(home)}))
    build_pairs(store, BuildConfig(target_pairs=2000))
    data = load_pairs(store, "")
    rows = select_pairs(data.frame, wrapper_families=0, pairs=-1, requests=0, seed=0)
    trained = train_phase(
        phase("quickstart", hidden=128, tuned_layers=0, steps=400, rounds=1, seed=0), rows,
        validation=data.part("validation"), encoder=open_encoder(store), pair_set=data.version,
        home=home,
    )  # fmt: skip
    return store.artifacts.path("model", trained.keep(store.artifacts, kind="sanitizer"))


def main() -> None:
    """Measure, print what was seen and how it compares with the limits, and keep both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="Of each short measurement.")
    parser.add_argument("--minutes", type=float, default=10.0, help="Of overload.")
    parser.add_argument("--mixed", type=int, default=MIXED, help="Valid and broken requests.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["WORKBENCH_HOME"] = folder
        model = chosen.model or small_model(home)
        from workbench.diffusion.sanitizer import Sanitizer

        sanitizer = Sanitizer.load(model)
        texts = [text_of(sanitizer, 32, wrapped=False, first=place) for place in range(64)]
        requests = [request_of(json.dumps({"text": text}).encode()) for text in texts]
        pin(0, 1)
        parts = [
            speed(home, model, requests, precision, seconds=chosen.seconds)
            for precision in ("float32", "int8")
        ]
        parts += [
            overload(home, model, requests, seconds=chosen.seconds, minutes=chosen.minutes),
            mixed(home, model, requests, count=chosen.mixed),
        ]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(
            0, range(os.cpu_count() or 1)
        )  # the machine's cores are told, not ours
    publish("serving_cases", [row for cases, _ in parts for row in cases])
    publish("serving", [row for _, figures in parts for row in figures])


if __name__ == "__main__":
    main()
