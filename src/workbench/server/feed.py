"""One reader of the store per user, for all of that user's sockets, and the diffs it has seen."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.core.errors import WorkbenchError
from workbench.server.diffs import apply, diff
from workbench.server.topics import interval_s, read_topic

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["Feed", "Feeds"]

_log = logging.getLogger(__name__)
_GAP_S = 0.1
"""Least time between two looks, however many new topics are asked for."""
_KEPT_BYTES = 256_000
_KEPT_DIFFS = 600
"""Of a user, for clients that come back: five minutes of a campaign that never rests."""
_KEPT_TOPICS = 100
"""That nobody follows at the moment."""
_LINGER_S = 60.0
"""How long a feed without sockets waits for one to come back."""
_IDLE_SHARE = 20
_BUSY_SHARE = 4
"""A topic rests at least 20 times as long as it took to read, and 4 times that for each feed: one
feed takes a twentieth of a core, and all of them together a quarter per topic followed."""
_RETRY_S = 5.0
_UNREADABLE = {"problem": "the store cannot be read at the moment; this is tried again"}


class _Step(NamedTuple):
    seq: int
    changes: list[list[Any]]
    size: int


class _Look(NamedTuple):
    topic: str
    value: Any
    rest_s: float
    """Until the topic is looked at again."""


class Feed:
    """The state of what one user follows, and how it came to it.

    Sequence numbers begin at tenths of seconds since 1970 and rise slower than these, so a number
    of an earlier feed, or of a server before this one, is always a lower one.

    Args:
        read: Topic and its value before → its value now; called in a thread of the pool.
        pool: Threads that read.
        feeds: How many feeds share the processor.
    """

    def __init__(
        self,
        read: Callable[[str, Any], Any],
        *,
        pool: ThreadPoolExecutor,
        feeds: Callable[[], int] = lambda: 1,
    ) -> None:
        self._read = read
        self._pool = pool
        self._feeds = feeds
        self.seq = int(time.time() * 10)
        self._floor = self.seq
        """The lowest number from which diffs lead to the present."""
        self._state: dict[str, Any] = {}
        self._due: dict[str, float] = {}
        self._steps: deque[_Step] = deque()
        self._bytes = 0
        self._wanted: Counter[str] = Counter()
        self._bells: set[asyncio.Event] = set()
        self._texts: dict[tuple[Collection[str], int | None], str] = {}
        """What was said since ``seq`` changed: sockets that stand alike are told the same."""
        self._wake = asyncio.Event()
        self._left_at = time.monotonic()
        self.is_over = False

    @property
    def sockets(self) -> int:
        """How many bells there are to ring."""
        return len(self._bells)

    def enter(self, bell: asyncio.Event) -> None:
        """Ring a bell whenever something changes, until it leaves."""
        self._bells.add(bell)

    def leave(self, bell: asyncio.Event) -> None:
        """Ring it no more."""
        self._bells.discard(bell)
        self._left_at = time.monotonic()

    def follow(self, topics: Collection[str], *, instead_of: Collection[str] = ()) -> None:
        """Read topics, and others no longer, on behalf of one socket."""
        self._wanted.update(topics)
        self._wanted.subtract(instead_of)
        self._wanted = +self._wanted
        for topic in topics:
            self._due.setdefault(topic, time.monotonic())
        self._wake.set()  # how long there is to rest depends on who is followed

    def message(self, topics: tuple[str, ...], since: int | None) -> tuple[int | None, str]:
        """Return the number of the state that a message leads to, and the message.

        The message is empty where there is nothing to say yet.

        Args:
            topics: Sorted, all of them followed.
            since: The number of the state that the client has; None for none.
        """
        if not all(topic in self._state for topic in topics):
            return since, ""
        if (topics, since) not in self._texts:
            self._texts[topics, since] = self._text(topics, since)
        return self.seq, self._texts[topics, since]

    def _text(self, topics: tuple[str, ...], since: int | None) -> str:
        places = {topic: at for at, topic in enumerate(topics)}
        state = [self._state[topic] for topic in topics]
        whole = _encode({"seq": self.seq, "topics": topics, "snapshot": state})
        if since is None or not self._floor <= since <= self.seq:
            return whole
        changes = [
            [[places[topic], *path], *value]
            for step in self._steps
            if step.seq > since
            for (topic, *path), *value in step.changes
            if topic in places
        ]
        if not changes:
            return ""
        told = _encode({"seq": self.seq, "diffs": changes})
        return told if len(told) < len(whole) else whole

    async def run(self) -> None:
        """Look at what is due until nobody has followed anything for a while."""
        try:
            while self._bells or time.monotonic() - self._left_at < _LINGER_S:
                self._wake.clear()
                await self._look()
                await asyncio.sleep(_GAP_S)
                await self._rest()
        finally:
            self.is_over = True
            self._ring()

    async def _rest(self) -> None:
        due = min((self._due[topic] for topic in self._wanted), default=float("inf"))
        rest_s = min(max(due - time.monotonic(), 0.0), _LINGER_S)
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _look(self) -> None:
        now_s = time.monotonic()
        due = [topic for topic in self._wanted if self._due[topic] <= now_s]
        if not due:
            return
        asked = [(topic, self._state.get(topic)) for topic in due]
        looks = await asyncio.get_running_loop().run_in_executor(self._pool, self._read_all, asked)
        found = {look.topic: look.value for look in looks}
        now_s = time.monotonic()
        self._due |= {look.topic: now_s + look.rest_s for look in looks}
        self._publish(found)

    def _read_all(self, asked: list[tuple[str, Any]]) -> list[_Look]:
        return [self._read_one(topic, before) for topic, before in asked]

    def _read_one(self, topic: str, before: Any) -> _Look:
        began_s = time.thread_time()
        try:
            value = self._read(topic, None if before == _UNREADABLE else before)
        except WorkbenchError as error:
            _log.warning("topic %s: %s", topic, error)
            return _Look(topic, _UNREADABLE, _RETRY_S)
        took_s = time.thread_time() - began_s
        share = max(_IDLE_SHARE, _BUSY_SHARE * self._feeds())
        return _Look(topic, value, max(interval_s(topic) - _GAP_S, took_s * share))

    def _publish(self, found: dict[str, Any]) -> None:
        """Take what was read into the state, and note how it changed."""
        idle = [topic for topic in self._state if topic not in self._wanted]
        for topic in idle[: max(0, len(idle) - _KEPT_TOPICS)]:  # read again, it is sent as a whole
            del self._state[topic], self._due[topic]
        changes = [
            change
            for topic, value in found.items()
            for change in (
                [[[topic, *path], *new] for path, *new in diff(self._state[topic], value)]
                if topic in self._state
                else [[[topic], value]]
            )
        ]
        if not changes:
            return
        self._state = apply(self._state, changes)
        self.seq += 1
        self._texts.clear()
        self._steps.append(_Step(self.seq, changes, len(_encode(changes))))
        self._bytes += self._steps[-1].size
        while self._bytes > _KEPT_BYTES or len(self._steps) > _KEPT_DIFFS:
            oldest = self._steps.popleft()
            self._bytes -= oldest.size
            self._floor = oldest.seq
        self._ring()

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


class Feeds:
    """The feeds of a server.

    Args:
        store_of: User → their store.
        threads: That read for all of them.
    """

    def __init__(self, store_of: Callable[[str], Store], *, threads: int = 2) -> None:
        self._store_of = store_of
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stream")
        self._feeds: dict[str, Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> int:
        """How many sockets there are in all."""
        return sum(feed.sockets for feed in self._feeds.values())

    def of(self, user: str) -> Feed:
        """Return the feed of a user; it reads as long as somebody is there to be told.

        Raises:
            ConfigError: If it is no user that a store can be of.
        """
        store = self._store_of(user)
        owner = store.settings.user  # servers without an own identity provider invent user names
        feed = self._feeds.get(owner)
        if feed is None or feed.is_over:

            def read(topic: str, before: Any) -> Any:
                return read_topic(store, topic, owner=owner, before=before)

            feed = Feed(read, pool=self._pool, feeds=lambda: len(self._feeds))
            self._feeds[owner] = feed
            task = asyncio.get_running_loop().create_task(feed.run(), name=f"feed of {owner}")
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._end(done, owner, feed))
        return feed

    async def close(self) -> None:
        """Stop reading; sockets are told that it is over."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _end(self, task: asyncio.Task[None], owner: str, feed: Feed) -> None:
        self._tasks.discard(task)
        if self._feeds.get(owner) is feed:
            del self._feeds[owner]
        if not task.cancelled() and (error := task.exception()):
            _log.error("the feed of %s ended: %s", owner, error, exc_info=error)


def _encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
