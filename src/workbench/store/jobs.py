"""Jobs: what people asked for, how far it is, and how it ended; nobody sees another's."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Engine, RowMapping, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from workbench.core.errors import DataError, InputError
from workbench.core.identity import canonical_json, new_id
from workbench.core.money import ZERO
from workbench.core.plain import storable
from workbench.store import schema
from workbench.store.isolation import everybody
from workbench.store.owners import Owners, this_process
from workbench.store.records import now
from workbench.store.transaction import once, retried, transaction

__all__ = [
    "JOB_KINDS", "JOB_STATES", "Job", "JobKind", "JobState", "add_job", "cancel_job", "claim_job",
    "finish_job", "job", "jobs", "settle_lost_jobs", "tell_job",
]  # fmt: skip

JobKind = Literal["generate", "execute", "run", "experiment"]
JobState = Literal["queued", "running", "succeeded", "failed", "aborted", "lost"]
"""``lost``: its process died; it can be claimed again, and goes on."""
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
JOB_STATES: tuple[JobState, ...] = get_args(JobState)

_MOST_PER_PAGE = 200
_MOST_NAME = 200
_JOBS = schema.jobs


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something a person asked for."""

    id: str = field(default_factory=lambda: new_id("job"))
    kind: JobKind
    owner: str
    state: JobState = "queued"
    request: dict[str, Any] = field(default_factory=dict)
    """Plain JSON."""
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    done: int = 0
    total: int = 0
    """Of the units that ``done`` counts; 0 while unknown."""
    note: str = ""
    """What it is at, in words."""
    usd: Decimal = ZERO
    """Billed so far."""
    key: str = ""
    """Of the request, chosen by who asks: asked twice, it is one job."""
    created_at: str = field(default_factory=now)
    started_at: str = ""
    finished_at: str = ""
    process: str = ""
    """Which runs it, see ``store.owners.this_process``."""
    cancel: bool = False
    """Whether its owner asked it to stop."""


def add_job(engine: Engine, job: Job) -> Job:
    """Return the job as it stands: new, or the one that its owner added with the same key.

    Raises:
        InputError: If kind, owner or request make no sense, or the key is of another request.
    """
    _check(job)
    try:
        with transaction(engine) as connection:
            connection.execute(insert(_JOBS), asdict(job) | {"usd": str(job.usd)})
            return job
    except IntegrityError:
        if not job.key:
            raise InputError(
                f"there is a job {job.id!r} already; leave its id to be made"
            ) from None
    mine = (_JOBS.c.owner == job.owner) & (_JOBS.c.key == job.key)
    with transaction(engine) as connection:
        known = _first(connection, select(_JOBS).where(mine))
    if known is None:
        raise InputError(f"there is a job {job.id!r} already; leave its id to be made")
    if (known.kind, known.request) != (job.kind, job.request):
        raise InputError(
            f"key {job.key!r} was given with another request, of job {known.id}; choose a new key"
        )
    return known


def claim_job(engine: Engine, job_id: str, *, owner: str) -> Job | None:
    """Return the job, now run by this process; None if it does not wait to be run.

    Raises as :func:`job`.
    """
    values: dict[str, Any] = {"state": "running", "started_at": now(), "finished_at": ""}
    values |= {"error": "", "process": this_process(), "cancel": False}
    waits = _own(job_id, owner) & _JOBS.c.state.in_(["queued", "lost"])
    change = update(_JOBS).where(waits).values(**values)
    is_claimed = once(engine, lambda connection: connection.execute(change).rowcount)
    found = job(engine, job_id, owner=owner)
    return found if is_claimed else None


@retried
def tell_job(
    engine: Engine, job_id: str, *, done: int | None = None, total: int | None = None,
    note: str | None = None, usd: Decimal | None = None,
) -> bool:  # fmt: skip
    """Say how far a job of this process is; return whether it is to go on.

    It is not once its owner canceled it, or it is no longer this process's.
    """
    told: dict[str, Any] = {"done": done, "total": total}
    told |= {"note": None if note is None else storable(note)}
    told |= {"usd": None if usd is None else str(usd)}
    values = {name: value for name, value in told.items() if value is not None}
    mine = (_JOBS.c.id == job_id) & _runs_here()
    with transaction(everybody(engine)) as connection:
        if values:
            connection.execute(update(_JOBS).where(mine).values(**values))
        return connection.execute(select(_JOBS.c.cancel).where(mine)).scalar() is False


def finish_job(
    engine: Engine, job_id: str, *, state: JobState, result: Mapping[str, Any] | None = None,
    error: str = "",
) -> bool:  # fmt: skip
    """Say how a job of this process ended; return whether it was still this process's.

    Raises:
        ValueError: If ``state`` is no end.
    """
    if state in {"queued", "running", "lost"}:
        raise ValueError(f"state {state!r} is no end of a job")
    values = {"state": state, "result": dict(result or {}), "error": storable(error)}
    mine = (_JOBS.c.id == job_id) & _runs_here()
    change = update(_JOBS).where(mine).values(**values, finished_at=now())
    return once(everybody(engine), lambda connection: connection.execute(change).rowcount) > 0


@retried
def cancel_job(engine: Engine, job_id: str, *, owner: str) -> Job:
    """Return the job, asked to stop; one that does not run is aborted at once.

    One that has ended stays as it is. Raises as :func:`job`.
    """
    mine = _own(job_id, owner)
    ends = {"state": "aborted", "finished_at": now(), "cancel": True}
    with transaction(engine) as connection:
        waits = mine & _JOBS.c.state.in_(["queued", "lost"])
        connection.execute(update(_JOBS).where(waits).values(**ends))
        connection.execute(
            update(_JOBS).where(mine, _JOBS.c.state == "running").values(cancel=True)
        )
    return job(engine, job_id, owner=owner)


@retried
def job(engine: Engine, job_id: str, *, owner: str) -> Job:
    """Return a job of a user's.

    Raises:
        DataError: If this user has none of that id.
    """
    with transaction(engine) as connection:
        found = _first(connection, select(_JOBS).where(_own(job_id, owner)))
    if found is None:
        raise DataError(f"{owner!r} has no job {job_id[:80]!r}; list the jobs for their ids")
    return found


@retried
def jobs(
    engine: Engine, *, owner: str, kind: str = "", state: str = "", key: str = "",
    before: str = "", limit: int = 50,
) -> list[Job]:  # fmt: skip
    """Return a user's jobs, newest first.

    Args:
        engine: Of the store.
        owner: Whose.
        kind: Only of this kind.
        state: Only in this state.
        key: Only the one that was asked for with this key.
        before: Only older ones than this job: the last of the page before.
        limit: Most to return, 1 to 200.

    Raises:
        InputError: If a filter means nothing.
    """
    for name, value, known in (("kind", kind, JOB_KINDS), ("state", state, JOB_STATES)):
        if value and value not in known:
            raise InputError(f"{name} {value[:60]!r} is none of {', '.join(known)}")
    if not 1 <= limit <= _MOST_PER_PAGE:
        raise InputError(f"limit {limit}: give 1 to {_MOST_PER_PAGE}")
    query = select(_JOBS).where(_JOBS.c.owner == owner)
    query = query.where(_JOBS.c.kind == kind) if kind else query
    query = query.where(_JOBS.c.state == state) if state else query
    query = query.where(_JOBS.c.key == key) if key else query
    if before:
        at = job(engine, before, owner=owner).created_at
        same = (_JOBS.c.created_at == at) & (_JOBS.c.id < before)
        query = query.where((_JOBS.c.created_at < at) | same)
    query = query.order_by(_JOBS.c.created_at.desc(), _JOBS.c.id.desc()).limit(limit)
    with transaction(engine) as connection:
        return [_job(row) for row in connection.execute(query).mappings()]


def settle_lost_jobs(engine: Engine) -> list[Job]:
    """Return the jobs of dead processes, of all users, which are now lost; for who runs them.

    One that its owner had canceled is aborted.
    """
    owners = Owners(time.time)
    table, lost = _JOBS, []
    with transaction(everybody(engine)) as connection:
        running = [
            _job(row)
            for row in connection.execute(
                select(table).where(table.c.state == "running")
            ).mappings()
        ]
        for one in running:
            if owners.is_alive(one.process, at=one.started_at):
                continue
            state: JobState = "aborted" if one.cancel else "lost"
            same = (table.c.id == one.id) & (table.c.state == "running")
            same &= table.c.process == one.process
            why = "" if one.cancel else "its process died; resume it, what is done is kept"
            values = {"state": state, "finished_at": now(), "error": why}
            if connection.execute(update(table).where(same).values(**values)).rowcount:
                lost.append(replace(one, state=state, finished_at=values["finished_at"], error=why))
    return lost


def _check(job: Job) -> None:
    if job.kind not in JOB_KINDS:
        raise InputError(f"kind {str(job.kind)[:60]!r} is none of {', '.join(JOB_KINDS)}")
    for name, value in (("owner", job.owner), ("key", job.key)):
        if len(value) > _MOST_NAME or (value and not value.isprintable()):
            raise InputError(f"{name} {value[:60]!r}: give <= {_MOST_NAME} printable characters")
    if not job.owner:
        raise InputError("a job needs an owner; say for whom it is")
    try:
        text = canonical_json(job.request)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the request of a {job.kind} job is not plain JSON: {error}") from None
    if not _is_storable(job.request) or storable(text) != text:
        raise InputError(f"the request of a {job.kind} job holds what no database keeps; mend it")


def _is_storable(value: Any) -> bool:
    """Return whether JSON text keeps a value as it is: lists, not tuples; no NUL in any text."""
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value) and all(
            _is_storable(one) for pair in value.items() for one in pair
        )
    if isinstance(value, list):
        return all(map(_is_storable, value))
    if isinstance(value, str):
        return storable(value) == value
    return (
        value is None
        or isinstance(value, int)
        or (isinstance(value, float) and math.isfinite(value))
    )


def _own(job_id: str, owner: str) -> Any:
    return (_JOBS.c.id == job_id) & (_JOBS.c.owner == owner)


def _runs_here() -> Any:
    return (_JOBS.c.state == "running") & (_JOBS.c.process == this_process())


def _first(connection: Connection, query: Select[Any]) -> Job | None:
    row = connection.execute(query).mappings().first()
    return _job(row) if row else None


def _job(row: RowMapping) -> Job:
    return Job(**{one.name: row[one.name] for one in fields(Job)} | {"usd": Decimal(row["usd"])})
