"""Growing the shards of a plan into a folder: those that are not there yet, by many processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for_process
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias

from workbench.core.errors import WorkbenchError
from workbench.core.identity import file_sha256
from workbench.data.plan import Plan, ShardPlan
from workbench.data.shards import grow_shard, write_shard

__all__ = ["Progress", "grow_all"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the pairs that are ready and the pairs in all, after every shard."""


def grow_all(
    plan: Plan, place: Path, *, workers: int, total: int, tell: Progress | None
) -> list[dict[str, Any]]:
    """Return what was counted of each shard, growing those that are not there yet."""
    shards: dict[int, dict[str, Any]] = {}
    for number in range(len(plan.shards)):
        if counts := _finished(place, f"{number:05d}"):
            shards[number] = counts
    missing = [number for number in range(len(plan.shards)) if number not in shards]

    def report() -> None:
        if tell:
            tell(sum(shard["rows"] for shard in shards.values()), total)

    report()
    with _executor(min(workers, len(missing))) as executor:
        waiting = iter(missing)
        running: dict[Future[dict[str, Any]], int] = {}
        while True:
            # few at a time: a plan waits here rather than in the executor's queue
            for number in islice(waiting, workers - len(running)):
                plan_ = plan.shards[number]
                running[executor.submit(_make, plan_, place, f"{number:05d}")] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                shards[running.pop(future)] = future.result()
                report()
    return [shards[number] for number in range(len(plan.shards))]


def _make(plan: ShardPlan, place: Path, name: str) -> dict[str, Any]:
    return write_shard(grow_shard(plan), place, name=name)


def _finished(place: Path, name: str) -> dict[str, Any] | None:
    """Return the counts of a shard that an earlier try wrote; None where anything is amiss."""
    try:
        counts: dict[str, Any] = json.loads((place / f"{name}.json").read_bytes())
        is_whole = file_sha256(place / counts["file"]) == counts["sha256"]
        is_whole = is_whole and (place / counts["quarantine"]).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return counts if is_whole else None


@contextmanager
def _executor(workers: int) -> Iterator[Executor]:
    if workers <= 1:
        with _Here() as here:
            yield here
        return
    # spawned, not forked: the parent may have threads, of torch for one
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_serve) as pool:
            yield pool
    except BrokenProcessPool:
        raise WorkbenchError(
            "a worker was killed, perhaps for its memory; finished shards are kept, run the same"
            " command again with fewer workers"
        ) from None


def _serve() -> None:
    """Prepare a worker: Ctrl-C is the parent's to answer, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_process([sentinel])
    os._exit(1)  # a killed parent closes no queue


class _Here(Executor):
    """Runs at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
