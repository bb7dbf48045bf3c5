"""Routes of both phases: generate a test set, read one's own, execute one against providers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from workbench.campaign import testsets
from workbench.core.errors import DataError
from workbench.server.problems import Refusal
from workbench.server.routes import Answer, Call, next_link, read_cursor, write_cursor
from workbench.store.test_sets import owned_page, owned_test_set

if TYPE_CHECKING:
    from workbench.store.jobs import Job, JobKind

__all__ = ["begin", "dataset", "datasets", "execute", "forget", "generate", "run"]

_MOMENT_S = 10.0
"""How long an answer waits for the test set; past it the client is told where to look."""
_POLL_S = 0.05
_GOING_ON = frozenset({"queued", "running"})


async def generate(call: Call) -> Answer:
    """Start making a test set; answer with it if that takes no longer than a moment."""
    from workbench.store.jobs import job

    made = await asyncio.to_thread(begin, call)
    until = monotonic() + _MOMENT_S
    while made.state in _GOING_ON and monotonic() < until:
        await asyncio.sleep(_POLL_S)
        made = await asyncio.to_thread(job, call.store.engine, made.id, owner=call.user)
    if made.state == "succeeded":
        told = {name: made.result[name] for name in ("datasetId", "testCount")}
        return Answer(body={"jobId": made.id, **told}, headers=_place(call, made))
    if made.state in _GOING_ON:
        return _accepted(call, made)
    raise Refusal(422, f"job {made.id} {made.state}: {made.error}", headers=_place(call, made))


def begin(call: Call) -> Job:
    """Return the job that makes a test set, started."""
    return _submit(call, "generate")


def execute(call: Call) -> Answer:
    """Start sending a test set of one's own to providers."""
    _owned(call, call.body["datasetId"])
    return _accepted(call, _submit(call, "execute"))


def run(call: Call) -> Answer:
    """Start both phases in one job, as before they were separated."""
    return _accepted(call, _submit(call, "run"))


def datasets(call: Call) -> Answer:
    """Return a page of the caller's test sets, newest first."""
    limit = call.query["limit"]
    before = read_cursor(call.query["cursor"], str, str)
    rows = owned_page(
        call.store.engine,
        owner=call.user,
        before=(before[0], before[1]) if before else None,
        limit=limit + 1,
    )
    cursor = ""
    if len(rows) > limit:
        last = rows[limit - 1]
        cursor = write_cursor(last["created_at"], last["test_set"])
    return Answer(body=[_summary(row) for row in rows[:limit]], headers=next_link(call, cursor))


def dataset(call: Call) -> Answer:
    """Return one of the caller's test sets, with a page of its cases."""
    row = _owned(call, call.ids["dataset"])
    start = (read_cursor(call.query["cursor"], int) or [0])[0]
    end = start + call.query["limit"]
    whole = testsets.stored(call.store, row["test_set"])
    tests = [{"id": case.id, **case.to_json()} for case in islice(whole, start, end)]
    cursor = write_cursor(end) if end < len(whole) else ""
    body = {**_summary(row), "tests": tests, "metadata": row["metadata"]}
    return Answer(body=body, headers=next_link(call, cursor))


def forget(call: Call) -> Answer:
    """Take a test set off the caller's list."""
    row = _owned(call, call.ids["dataset"])
    try:
        testsets.delete(call.store, row["test_set"])
    except DataError as error:
        raise Refusal(409, str(error)) from None
    return Answer(status=204)


def _summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a test set as lists show it."""
    facts = row["metadata"]
    recipe = facts.get("recipe") or {}
    return {
        "dataset_id": row["test_set"],
        "test_count": facts.get("tests", 0),
        "created_at": row["created_at"],
        "plugins": _names(recipe.get("plugins")),
        "strategies": _names(recipe.get("strategies")),
    }


def _names(given: Any) -> list[str]:
    """Return names of a recipe, which whoever imported a test set has written."""
    return [str(one) for one in given] if isinstance(given, list) else []


def _owned(call: Call, test_set: str) -> dict[str, Any]:
    row = owned_test_set(call.store.engine, test_set, owner=call.user)
    if row is None:
        raise Refusal(404, f"you own no test set {test_set}; list yours to see the ids")
    return row


def _submit(call: Call, kind: JobKind) -> Job:
    return call.service.submit(kind, dict(call.body), owner=call.user, key=call.key)


def _accepted(call: Call, made: Job) -> Answer:
    return Answer(body={"jobId": made.id}, status=202, headers=_place(call, made))


def _place(call: Call, made: Job) -> dict[str, str]:
    return {"Location": f"{call.base}workbench/api/jobs/{made.id}"}
