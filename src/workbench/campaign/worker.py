"""A worker on an execution: makes a shard of it, whatever became of who had the shard before."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from workbench.campaign.execute import execution_id_of, take
from workbench.campaign.opening import ExecuteOptions, Opened, open_all
from workbench.campaign.recorder import Recorder
from workbench.campaign.runner import Runner, Try, stopped
from workbench.core.errors import ConfigError
from workbench.core.settings import Settings
from workbench.store.campaigns import attempted, shard_name, why_stop
from workbench.store.database import Store, open_store, or_another_worker, refuse_other_disk

if TYPE_CHECKING:
    from workbench.campaign.targets.config import TargetSpec

__all__ = ["Crew", "Shard", "left_of", "work_on"]

_KEPT = 4
"""Crews that a worker keeps open: judges are loaded once, not for every shard."""
_CLOSE_S = 5.0
_STARTING = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Crew:
    """What every worker on an execution opens, once."""

    settings: Settings
    specs: tuple[TargetSpec, ...]
    """Of the targets, their rates divided."""
    options: ExecuteOptions
    work: str
    test_set: str
    host: str
    """Machine of whoever deals."""
    executor: str
    """As ``core.cluster.open_executor`` takes it."""
    workers: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Tries that one worker makes."""

    execution: str
    token: str
    """Of the lease of the execution: who dealt it."""
    slot: int
    crew: bytes
    """A pickled :class:`Crew`; the same bytes, the same targets and judges."""
    watched: frozenset[str]
    parallel: Mapping[str, int]
    """Target → the slot's part of its bound."""
    tries: Mapping[str, Sequence[Try]]
    """Target → what to send."""
    losses: int = 0
    """Workers that it cost since something of it was stored."""


def work_on(shard: Shard) -> None:
    """Make the tries of a shard that are not stored; runs in a worker.

    Sends prompts, writes to the store.

    Raises:
        ConfigError: If what this worker has makes another execution, e.g. other judges.
        WorkbenchError: As the runner; what came back is stored.
    """
    with _STARTING:
        loop = _loop()
    asyncio.run_coroutine_threadsafe(_work_on(shard), loop).result()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process: connections and rates of targets outlast a shard."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="shards").start()
    Finalize(None, _close, exitpriority=1)  # the end of a process calls no atexit of a spawned one
    return loop


def _close() -> None:
    """Close what this process has open."""

    async def close_all() -> None:
        for opening in _CREWS.values():
            if opening.done() and not opening.cancelled() and not opening.exception():
                await opening.result()[2].aclose()

    with suppress(TimeoutError):  # the store may hang
        asyncio.run_coroutine_threadsafe(close_all(), _loop()).result(_CLOSE_S)


async def _work_on(shard: Shard) -> None:
    async with _opened(shard.crew) as (crew, opened):
        await _make(shard, crew, opened)


async def _make(shard: Shard, crew: Crew, opened: Opened) -> None:
    mine = execution_id_of(
        crew.test_set, opened.targets, opened.graders, trials=crew.options.trials,
        label=crew.options.label,
    )  # fmt: skip
    if mine != shard.execution:
        raise ConfigError(
            f"a worker's targets and judges make execution {mine[:12]}, not"
            f" {shard.execution[:12]}; give all workers the same store, files and data"
        )
    store = opened.store

    def why() -> str:
        if (parent := parent_process()) and not parent.is_alive():
            return "the process that dealt this work was killed"
        return why_stop(store.engine, shard.execution, token=shard.token)

    def check() -> None:
        if reason := why():
            raise stopped(reason)

    async with AsyncExitStack() as stack:
        with or_another_worker():
            slot = shard_name(shard.execution, shard.slot)
            lease = await stack.enter_async_context(take(store, slot, check=check))
            check()  # another may have begun while this waited
            left = await asyncio.to_thread(left_of, store, shard)
        recorder = Recorder(
            store, execution=shard.execution, graders=opened.graders, work=crew.work,
            watched=shard.watched, done=0, total=0, lease=lease,
        )  # fmt: skip
        runner = Runner(
            recorder, execution=shard.execution, why_stop=why, parallel=shard.parallel,
            budget_usd=None,  # it is set aside already
            lease=lease,
        )  # fmt: skip
        asked = [one for one in opened.targets if one.name in left]
        await runner.run(asked, lambda target: left[target.name])


_CREWS: dict[bytes, asyncio.Task[tuple[Crew, Opened, AsyncExitStack]]] = {}
"""In the order of their last use."""
_SHARDS: Counter[bytes] = Counter()
"""Crew → the shards of it that are worked on."""


@asynccontextmanager
async def _opened(packed: bytes) -> AsyncIterator[tuple[Crew, Opened]]:
    """Give a crew with its targets and judges; the last few stay open, and those in use."""
    _CREWS[packed] = (
        _CREWS.pop(packed) if packed in _CREWS else asyncio.ensure_future(_open(packed))
    )
    _SHARDS[packed] += 1
    try:
        with or_another_worker():
            try:
                crew, opened, _ = await _CREWS[packed]
            except BaseException:
                _CREWS.pop(packed, None)
                raise
        yield crew, opened
    finally:
        _SHARDS[packed] -= 1
        idle = [one for one in _CREWS if not _SHARDS[one]]
        for oldest in idle[: max(0, len(_CREWS) - _KEPT)]:
            await (await _CREWS.pop(oldest))[2].aclose()


async def _open(packed: bytes) -> tuple[Crew, Opened, AsyncExitStack]:
    crew: Crew = pickle.loads(packed)  # noqa: S301 - of the coordinator, as this whole task is
    stack = AsyncExitStack()
    try:
        refuse_other_disk(crew.settings, host=crew.host)
        store = open_store(crew.settings)
        stack.callback(store.engine.dispose)
        opened = await open_all(
            store, crew.specs, crew.options, work=crew.work, stack=stack, tell=_log.info
        )
        for target in opened.targets:
            stack.push_async_callback(target.close)
    except BaseException:
        await stack.aclose()
        raise
    return crew, opened, stack


def left_of(store: Store, shard: Shard) -> dict[str, Sequence[Try]]:
    """Return what of a shard is not stored, by target."""
    left: dict[str, Sequence[Try]] = {}
    for name, tries in shard.tries.items():
        cases: Collection[str] = {one.case.id for one in tries}
        stored = attempted(store.engine, shard.execution, target=name, cases=cases)
        if some := [one for one in tries if (one.case.id, one.trial) not in stored]:
            left[name] = some
    return left
