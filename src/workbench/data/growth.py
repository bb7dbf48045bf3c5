"""Growing the shards of a plan into a folder: those that are not there yet, by many workers.

Processes of this machine write their shards themselves. Workers of a cluster need no disk of ours:
they send the pairs back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from workbench.core.cluster import open_executor
from workbench.core.identity import file_sha256
from workbench.data.plan import Plan, ShardPlan
from workbench.data.shards import grow_shard, write_shard

__all__ = ["Progress", "grow_all"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the pairs that are ready and the pairs in all, after every shard."""


def grow_all(
    plan: Plan,
    place: Path,
    *,
    executor: str,
    workers: int,
    total: int,
    tell: Progress | None,
) -> list[dict[str, Any]]:
    """Return what was counted of each shard, growing those that are not there yet.

    Raises:
        WorkerLost: If workers keep dying; finished shards are kept.
    """
    shards: dict[int, dict[str, Any]] = {}
    for number in range(len(plan.shards)):
        if counts := _finished(place, f"{number:05d}"):
            shards[number] = counts
    missing = [number for number in range(len(plan.shards)) if number not in shards]

    def report() -> None:
        if tell:
            tell(sum(shard["rows"] for shard in shards.values()), total)

    report()
    is_here = executor == "processes"
    jobs = min(workers, len(missing))
    is_alone = not missing or (is_here and jobs <= 1)
    with _Here() if is_alone else open_executor(executor, jobs=max(1, jobs)) as pool:
        waiting = iter(missing)
        running: dict[Future[Any], int] = {}
        while True:
            # few at a time: a plan waits here rather than in the executor's queue
            room = getattr(pool, "width", workers) - len(running)  # workers may go away
            for number in islice(waiting, max(0, room)):
                shard, name = plan.shards[number], f"{number:05d}"
                future = (
                    pool.submit(_make, shard, place, name)
                    if is_here
                    else pool.submit(grow_shard, shard)
                )
                running[future] = number
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                made: Any = future.result()
                is_made = isinstance(made, dict)
                shards[number] = made if is_made else write_shard(made, place, name=f"{number:05d}")
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


class _Here(Executor):
    """Runs at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
