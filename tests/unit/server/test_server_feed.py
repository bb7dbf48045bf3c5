"""Feeds: a client that applies what it is told has the state, however it comes and goes."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import InputError, StoreError
from workbench.server import feed as feeds
from workbench.server.diffs import apply
from workbench.server.feed import Feed
from workbench.server.stream import StreamHandler
from workbench.server.topics import parse_topics

TOPICS = ("events", "jobs")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner) | st.lists(inner, max_size=3),
    max_leaves=6,
)


class Client:
    """Holds what it was told."""

    def __init__(self, topics: tuple[str, ...] = TOPICS) -> None:
        self.topics = topics
        self.told: Any = None
        self.state: Any = None
        self.seq: int | None = None
        self.snapshots = self.diffs = 0

    def hear(self, feed: Feed) -> None:
        self.seq, text = feed.message(self.topics, self.seq)
        if not text:
            return
        told = json.loads(text)
        assert told["seq"] == self.seq
        self.snapshots += "snapshot" in told
        self.diffs += "diffs" in told
        if "snapshot" in told:
            assert told["topics"] == list(self.topics)
        self.told = apply(self.told, told["diffs"]) if "diffs" in told else told["snapshot"]
        self.state = dict(zip(self.topics, self.told, strict=True))


def make_feed(source: dict[str, Any]) -> Feed:
    feed = Feed(lambda topic, before: source[topic], pool=ThreadPoolExecutor(1))
    feed.follow(sorted(source))
    return feed


def show(feed: Feed, source: dict[str, Any]) -> None:
    """Have a feed see what is there now."""
    feed._publish({topic: json.loads(json.dumps(value)) for topic, value in source.items()})


@given(st.lists(st.tuples(VALUES, VALUES, st.sets(st.integers(0, 2))), min_size=1, max_size=12))
@settings(max_examples=60)
def test_clients_that_hear_now_and_then_end_with_the_state(steps):
    source = {"events": {}, "jobs": {}}
    feed, clients = make_feed(source), [Client(), Client(), Client(("jobs",))]
    for events, jobs, hearing in steps:
        source.update(events=events, jobs=jobs)
        show(feed, source)
        for number in hearing:
            clients[number].hear(feed)
    for client in clients:
        client.hear(feed)
        assert json.dumps(client.state, sort_keys=True) == json.dumps(
            {topic: source[topic] for topic in client.topics}, sort_keys=True
        )


def test_nothing_is_said_where_nothing_changed_for_those_topics():
    source = {"events": {"a": 1}, "jobs": {"b": list(range(50))}}
    feed, both, one = make_feed(source), Client(), Client(("events",))
    show(feed, source)
    for client in (both, one):
        client.hear(feed)
    seq = feed.seq
    show(feed, source)
    assert feed.seq == seq
    source["jobs"]["b"][0] = -1
    show(feed, source)
    assert one.hear(feed) is None
    both.hear(feed)
    assert (one.diffs, both.diffs) == (0, 1)
    assert one.seq == both.seq == feed.seq


def test_a_client_that_was_away_gets_what_it_missed_and_beyond_the_ring_a_snapshot(monkeypatch):
    monkeypatch.setattr(feeds, "_KEPT_DIFFS", 4)
    source = {"events": {str(n): n for n in range(200)}, "jobs": {}}
    feed, near, far = make_feed(source), Client(), Client()
    show(feed, source)
    for client in (near, far):
        client.hear(feed)
    for round_ in range(6):
        source["events"]["7"] = 100 + round_
        show(feed, source)
        if round_ == 2:
            near.hear(feed)
    for client in (near, far):
        client.hear(feed)
        assert client.state == source
    assert (near.snapshots, near.diffs) == (1, 2)
    assert (far.snapshots, far.diffs) == (2, 0)
    assert len(feed._steps) <= 4


def test_what_is_kept_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(feeds, "_KEPT_BYTES", 1_000)
    source = {"events": {}, "jobs": {}}
    feed = make_feed(source)
    for round_ in range(50):
        source["events"] = {"text": str(round_) * 50}
        show(feed, source)
        assert sum(step.size for step in feed._steps) == feed._bytes <= 1_000


@pytest.mark.parametrize("seq", [0, 5, 10**15])
def test_a_number_of_another_time_gets_a_snapshot(seq):
    source = {"events": {"a": 1}, "jobs": {}}
    feed, client = make_feed(source), Client()
    show(feed, source)
    client.seq = seq
    client.hear(feed)
    assert client.state == source


def test_topics_that_nobody_follows_are_dropped_at_some_point(monkeypatch):
    monkeypatch.setattr(feeds, "_KEPT_TOPICS", 3)
    source = {"jobs": {}}
    feed = make_feed(source)
    for number in range(20):
        topic = f"job/{number}"
        feed.follow([topic])
        feed.follow([], instead_of=[topic])
        source["jobs"] = {"n": number}
        show(feed, {**source, topic: number})
    assert len(feed._state) <= 5


@asynccontextmanager
async def running(feed: Feed):
    bell = asyncio.Event()
    feed.enter(bell)
    task = asyncio.create_task(feed.run())
    yield bell
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert feed.is_over
    assert bell.is_set()


def test_a_feed_reads_what_is_followed_and_again_when_it_changed(monkeypatch):
    monkeypatch.setattr(feeds, "interval_s", lambda topic: 0.02)
    monkeypatch.setattr(feeds, "_GAP_S", 0.005)
    source: dict[str, Any] = {"jobs": {"a": 1}}
    reads: list[str] = []

    def read(topic: str, before: Any) -> Any:
        reads.append(topic)
        if topic == "cost":
            raise StoreError("gone")
        return source[topic]

    async def scenario() -> None:
        feed, client = Feed(read, pool=ThreadPoolExecutor(1)), Client(("cost", "jobs"))
        async with running(feed) as bell:
            feed.follow(client.topics)
            while client.state is None:
                await asyncio.wait_for(bell.wait(), 5)
                bell.clear()
                client.hear(feed)
            assert client.state["jobs"] == {"a": 1}
            assert "problem" in client.state["cost"]
            source["jobs"] = {"a": 2}
            await asyncio.wait_for(bell.wait(), 5)
            client.hear(feed)
            assert client.state["jobs"] == {"a": 2}
        assert reads.count("cost") == 1, "what cannot be read rests longer"

    asyncio.run(scenario())


def test_who_comes_back_at_once_is_read_for_at_once(monkeypatch):
    """The last one to leave lets a feed rest for long; a page that loads anew is back before."""
    monkeypatch.setattr(feeds, "interval_s", lambda topic: 0.02)
    monkeypatch.setattr(feeds, "_GAP_S", 0.005)
    source: dict[str, Any] = {"jobs": {"a": 1}}
    idle = asyncio.Event()

    class Resting(Feed):
        async def _rest(self) -> None:
            if not self._wanted:
                idle.set()
            await super()._rest()

    async def scenario() -> None:
        feed = Resting(lambda topic, before: source[topic], pool=ThreadPoolExecutor(1))
        client = Client(("jobs",))
        async with running(feed) as bell:
            feed.follow(client.topics)
            await asyncio.wait_for(bell.wait(), 5)
            client.hear(feed)
            feed.follow((), instead_of=client.topics)
            await asyncio.wait_for(idle.wait(), 5)
            bell.clear()
            source["jobs"] = {"a": 2}
            feed.follow(client.topics)
            await asyncio.wait_for(bell.wait(), 5)
            client.hear(feed)
            assert client.state == source

    asyncio.run(scenario())


def test_who_reads_slowly_has_one_message_on_its_way_and_then_the_present():
    """Between the two nothing piles up, however much happens."""
    source: dict[str, Any] = {"events": {}, "jobs": {}}
    feed, sent, door = make_feed(source), [], asyncio.Event()

    class Slow(StreamHandler):
        def __init__(self) -> None:
            self._feed, self._bell, self._topics, self._since = feed, asyncio.Event(), TOPICS, None

        async def write_message(self, message: str) -> None:
            sent.append(json.loads(message))
            await door.wait()

    async def scenario() -> None:
        slow = Slow()
        feed.enter(slow._bell)
        task = asyncio.create_task(slow._send())
        for round_ in range(2_000):
            source["jobs"] = {"n": round_, "more": "x" * (round_ % 100)}
            show(feed, source)
            await asyncio.sleep(0)
        assert len(sent) == 1
        door.set()
        while len(sent) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        assert sent[1]["snapshot"] == [source["events"], source["jobs"]]
        assert len(feed._steps) <= feeds._KEPT_DIFFS

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "asked",
    [
        None, "jobs", [], ["jobs"] * 99, [1], ["job/"], ["job/../x"], ["job/a b"], ["everything"],
        ["execution/" + "a" * 99], ["events\n"], [["jobs"]],
    ],
)  # fmt: skip
def test_what_is_no_list_of_topics_is_refused(asked):
    with pytest.raises(InputError):
        parse_topics(asked)


def test_topics_are_sorted_and_said_once():
    asked = ["jobs", "events", "jobs", "job/job-1", "execution/0a", "cost"]
    assert parse_topics(asked) == ("cost", "events", "execution/0a", "job/job-1", "jobs")
