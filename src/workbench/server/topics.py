"""What sockets can be told of: topics, each a small JSON value read from the store.

``jobs``           id → :func:`_job` of the newest jobs
``job/ID``         the same of one job, or null
``execution/ID``   as ``store.live.watched_execution`` returns it, or null
``events``         [kind, subject, id] of the newest event of each kind
``cost``           since, quota (credits, or null) and phases: phase → usd, credits

Everything is of one user. Ids and summaries only: what is large is fetched through the REST API.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from workbench.core.errors import InputError
from workbench.core.settings import project_root
from workbench.store.jobs import job, jobs
from workbench.store.live import newest_events, watched_execution
from workbench.store.usage import read_quotas, usage, window_start

if TYPE_CHECKING:
    from workbench.store.database import Store
    from workbench.store.jobs import Job

__all__ = ["interval_s", "parse_topics", "read_topic"]

_POLL_S = 0.5
_COST_S = 5.0
_MOST_TOPICS = 20
_MOST_JOBS = 20
_MOST_RESULT = 2_000
"""Bytes of JSON; a longer result is fetched."""
_SHOWN = 300
_LATE_IDS = 100
"""Events that are read again: on PostgreSQL a lower id may become visible after a higher one."""
_TOPIC = re.compile(r"jobs|events|cost|(job|execution)/[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


def interval_s(topic: str) -> float:
    """Return how long after one look at a topic the next one is due, at the earliest."""
    return _COST_S if topic == "cost" else _POLL_S


def parse_topics(asked: Any) -> tuple[str, ...]:
    """Return topics, each once and sorted.

    Raises:
        InputError: If that is no list of them, or there are too many.
    """
    if not isinstance(asked, list) or not 1 <= len(asked) <= _MOST_TOPICS:
        raise InputError(f"subscribe takes a list of 1 to {_MOST_TOPICS} topics")
    for topic in asked:
        if not isinstance(topic, str) or not _TOPIC.fullmatch(topic):
            raise InputError(
                f"no topic {str(topic)[:80]!r}; write jobs, job/ID, execution/ID, events or cost"
            )
    return tuple(sorted(set(asked)))


def read_topic(store: Store, topic: str, *, owner: str, before: Any) -> Any:
    """Return the value of a topic for a user; nobody else's are told apart from what is not there.

    Args:
        store: Of that user.
        topic: As :func:`parse_topics` returned it.
        owner: The user.
        before: What was last read of it; None at first.
    """
    kind, _, found = topic.partition("/")
    if kind == "jobs":
        newest = jobs(store.engine, owner=owner, limit=_MOST_JOBS)
        return {one.id: _job(one) for one in newest}
    if kind == "job":
        try:
            return _job(job(store.engine, found, owner=owner))
        except InputError:
            return None
    if kind == "execution":
        return watched_execution(store.engine, found, owner=owner)
    if kind == "events":
        return _events(store, owner, before or [])
    return _cost(store, owner)


def _events(store: Store, owner: str, before: list[list[Any]]) -> list[list[Any]]:
    """Return the newest events; each kind keeps its place, so that a change is a few digits."""
    after = max([_LATE_IDS, *(number for _, _, number in before)]) - _LATE_IDS
    known = {kind: (subject, number) for kind, subject, number in before}
    for kind, (number, subject) in newest_events(store.engine, owner=owner, after=after).items():
        known[kind] = (subject, number)
    return [[kind, *told] for kind, told in known.items()]


def _cost(store: Store, owner: str) -> dict[str, Any]:
    """Return what a user has spent in the present window, as texts: exact, and no float's noise."""
    quotas = read_quotas(project_root())
    since, quota = window_start(quotas.window), quotas.of(owner)
    found = usage(store.engine, owner, since=since, credit_usd=quotas.credit_usd)
    return {
        "since": since,
        "quota": None if quota is None else str(quota),
        "phases": {
            one.phase: {"usd": str(one.usd), "credits": f"{one.credits:.2f}"} for one in found
        },
    }


def _job(one: Job) -> dict[str, Any]:
    """Return a job as sockets tell it; what changes often stands together and is sent together."""
    result: Any = one.result
    if len(json.dumps(result)) > _MOST_RESULT:
        result = None
    return {
        "kind": one.kind,
        "state": one.state,
        "cancel": one.cancel,
        "created_at": one.created_at,
        "started_at": one.started_at,
        "finished_at": one.finished_at,
        "progress": {
            "done": one.done, "total": one.total, "note": one.note[:_SHOWN], "usd": str(one.usd),
        },
        "result": result,
        "error": one.error[:_SHOWN],
    }  # fmt: skip
