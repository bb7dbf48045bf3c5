"""A worker on an execution: makes a shard of it, whatever became of who had the shard before."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from multiprocessing import parent_process
from typing import TYPE_CHECKING

from workbench.campaign.execute import execution_id_of, refuse_lost, take
from workbench.campaign.opening import ExecuteOptions, Opened, open_all
from workbench.campaign.recorder import Recorder
from workbench.campaign.runner import Runner, Try, stopped
from workbench.core.errors import ConfigError
from workbench.core.settings import Settings
from workbench.store.campaigns import attempted, shard_name, why_stop
from workbench.store.database import Store, open_store

if TYPE_CHECKING:
    from workbench.campaign.targets.config import TargetSpec

__all__ = ["Crew", "Shard", "left_of", "work_on"]

_KEPT = 4
"""Crews that a worker keeps open: judges are loaded once, not for every shard."""
_LOOK_S = 0.1
"""Between looks whether the work of a process whose parent died has ended."""
_AT_WORK: set[int] = set()
"""Slots whose shards this process has in hand."""
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
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the coordinator asks to stop
    _AT_WORK.add(shard.slot)
    try:
        with _STARTING:
            loop = _loop()
        asyncio.run_coroutine_threadsafe(_work_on(shard), loop).result()
    finally:
        _AT_WORK.discard(shard.slot)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process: connections and rates of targets outlast a shard."""
    loop = asyncio.new_event_loop()
    for target in (loop.run_forever, _end_with_parent):
        threading.Thread(target=target, daemon=True, name="shards").start()
    return loop


def _end_with_parent() -> None:
    """End this process once its parent was killed and the shard in hand has ended."""
    if parent := parent_process():
        parent.join()
        while _AT_WORK:
            time.sleep(_LOOK_S)
        os._exit(1)


async def _work_on(shard: Shard) -> None:
    crew, opened = await _opened(shard.crew)
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

    async with take(store, shard_name(shard.execution, shard.slot), check=check) as lease:

        def why_now() -> str:
            refuse_lost(lease)
            return why()

        check()  # another may have begun while this waited
        left = await asyncio.to_thread(left_of, store, shard)
        recorder = Recorder(
            store, execution=shard.execution, graders=opened.graders, work=crew.work,
            watched=shard.watched, done=0, total=0, lease=lease,
        )  # fmt: skip
        runner = Runner(
            recorder, execution=shard.execution, why_stop=why_now, parallel=shard.parallel,
            budget_usd=None,  # it is set aside already
        )  # fmt: skip
        asked = [one for one in opened.targets if one.name in left]
        await runner.run(asked, lambda target: left[target.name])


_CREWS: dict[bytes, asyncio.Task[tuple[Crew, Opened, AsyncExitStack]]] = {}


async def _opened(packed: bytes) -> tuple[Crew, Opened]:
    """Return a crew with its targets and judges; the last few stay open."""
    if packed not in _CREWS:
        _CREWS[packed] = asyncio.ensure_future(_open(packed))
    try:
        crew, opened, _ = await _CREWS[packed]
    except BaseException:
        _CREWS.pop(packed, None)
        raise
    while len(_CREWS) > _KEPT:
        oldest = _CREWS.pop(next(iter(_CREWS)))
        if oldest.done() and not oldest.exception():
            await oldest.result()[2].aclose()
    return crew, opened


async def _open(packed: bytes) -> tuple[Crew, Opened, AsyncExitStack]:
    crew: Crew = pickle.loads(packed)  # noqa: S301 - of the coordinator, as this whole task is
    stack = AsyncExitStack()
    try:
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
