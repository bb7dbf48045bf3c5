"""Routes of jobs, and of what others may read: results, cost, usage, register, experiments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.settings import project_root
from workbench.cost.metrics import exposition
from workbench.cost.usage import total
from workbench.server.problems import Refusal
from workbench.server.routes import Answer, Call, next_link, read_cursor, write_cursor
from workbench.store.risks import risks
from workbench.store.spending import billed_by
from workbench.store.test_sets import owners_of
from workbench.store.usage import read_quotas, usage, window_start

if TYPE_CHECKING:
    from workbench.store.jobs import Job

__all__ = [
    "cost", "experiments", "job_of", "jobs_of", "metrics", "register", "result", "resume",
    "shown", "stop", "usage_of",
]  # fmt: skip


def jobs_of(call: Call) -> Answer:
    """Return a page of the caller's jobs, newest first."""
    from workbench.store.jobs import jobs

    limit = call.query["limit"]
    before = read_cursor(call.query["cursor"], str)
    try:
        found = jobs(
            call.store.engine, owner=call.user, kind=call.query["kind"],
            state=call.query["state"], before=before[0] if before else "", limit=limit,
        )  # fmt: skip
    except DataError as error:
        raise Refusal(422, f"query: cursor: {error}") from None
    cursor = write_cursor(found[-1].id) if len(found) == limit else ""
    return Answer(body=[shown(one) for one in found], headers=next_link(call, cursor))


def job_of(call: Call) -> Answer:
    """Return one of the caller's jobs as it stands."""
    return Answer(body=shown(_job(call)))


def stop(call: Call) -> Answer:
    """Ask one of the caller's jobs to stop; what it has stored is kept."""
    return Answer(body=shown(call.service.cancel(_job(call).id, call.user)), status=202)


def resume(call: Call) -> Answer:
    """Go on with one of the caller's jobs that was lost, failed or was stopped."""
    found = call.service.resume(_job(call).id, owner=call.user)
    place = {"Location": f"{call.base}workbench/api/jobs/{found.id}"}
    return Answer(body=shown(found), status=202, headers=place)


def result(call: Call) -> Answer:
    """Return the whole artifact of a run or an execution of the caller's."""
    read = {"runs": _run, "executions": _execution}[call.ids["category"]]
    return read(call, call.ids["run"])


def cost(call: Call) -> Answer:
    """Return what the caller was billed, by group."""
    experiment, by = call.query["experiment"], call.query["by"]
    found = billed_by(call.store.engine, who=call.user, by=by, experiment=experiment)
    body = {"experiment": experiment, "by": by, "rows": found, "total": total(found)}
    return Answer(body=body)


def usage_of(call: Call) -> Answer:
    """Return the credits that the caller used, by phase, and the quota."""
    quotas = read_quotas(project_root())
    since = call.query.get("since") or window_start(quotas.window)
    found = usage(call.store.engine, call.user, since=since, credit_usd=quotas.credit_usd)
    quota = quotas.of(call.user)
    phases = {one.phase: {"usd": str(one.usd), "credits": float(one.credits)} for one in found}
    body = {"user": call.user, "since": since, "window": quotas.window, "phases": phases,
            "credit_usd": str(quotas.credit_usd),
            "credits": float(sum(one.credits for one in found)),
            "quota": None if quota is None else float(quota)}  # fmt: skip
    return Answer(body=body)


def register(call: Call) -> Answer:
    """Return a page of the risk register, worst first; it is the same for everybody."""
    limit = call.query["limit"]
    start = (read_cursor(call.query["cursor"], int) or [0])[0]
    found = risks(
        call.store.engine,
        status=call.query["status"],
        level=call.query["level"],
        limit=limit + 1,
        offset=start,
    )
    cursor = write_cursor(start + limit) if len(found) > limit else ""
    return Answer(body=found[:limit], headers=next_link(call, cursor))


def experiments(call: Call) -> Answer:
    """Return a page of the caller's experiments, newest first, and the states of their steps."""
    limit = call.query["limit"]
    start = (read_cursor(call.query["cursor"], int) or [0])[0]
    names = call.store.runs.experiments()  # this store shows the caller's alone
    page = [_experiment(call, name) for name in names[start : start + limit]]
    cursor = write_cursor(start + limit) if len(names) > start + limit else ""
    return Answer(body=page, headers=next_link(call, cursor))


def metrics(call: Call) -> Answer:
    """Return metrics as Prometheus reads them: all for who runs the server, else one's own."""
    return Answer(body=exposition(call.whole or call.store))


def shown(one: Job) -> dict[str, Any]:
    """Return a job as its owner sees it."""
    told = asdict(one)
    hidden = ("id", "owner", "key", "process", "cancel")
    kept = {name: value for name, value in told.items() if name not in hidden}
    return {"jobId": one.id, **kept, "usd": str(one.usd)}


def _job(call: Call) -> Job:
    from workbench.store.jobs import job

    try:
        return job(call.store.engine, call.ids["job"], owner=call.user)
    except (ConfigError, DataError):
        raise Refusal(404, f"you have no job {call.ids['job']}; list yours") from None


def _run(call: Call, run: str) -> Answer:
    try:
        found = call.store.runs.get(run)
    except ConfigError:
        found = None
    if found is None or found.owner != call.user:
        raise Refusal(404, f"you have no run {run!r}; list your experiments")
    hidden = ("folder", "kernel_pid", "owner")
    told = {name: value for name, value in asdict(found).items() if name not in hidden}
    return Answer(body=_artifact("runs", run, told))


def _execution(call: Call, execution: str) -> Answer:
    from workbench.campaign.executions import load_execution

    missing = Refusal(404, f"you have no finished execution {execution!r}; see your jobs")
    if not call.store.artifacts.exists("execution", execution):
        raise missing
    try:
        found = load_execution(call.store, execution)
    except DataError:
        raise missing from None
    if call.user not in owners_of(call.store.engine, found.test_set):
        raise missing
    start = (read_cursor(call.query["cursor"], int) or [0])[0]
    end = start + call.query["limit"]
    told = {name: value for name, value in vars(found).items() if name not in {"path", "resumed"}}
    told |= {"usd": str(found.usd), "targets": list(found.targets)}
    page = [vars(one) | {"usd": str(one.usd)} for one in islice(found.attempts(), start, end)]
    cursor = write_cursor(end) if end < found.count else ""
    body = _artifact("executions", execution, told, attempts=page)
    return Answer(body=body, headers=next_link(call, cursor))


def _artifact(
    category: str, run: str, told: Mapping[str, Any], *, attempts: list[Any] | None = None
) -> dict[str, Any]:
    return {"category": category, "run": run, "result": dict(told), "attempts": attempts or []}


def _experiment(call: Call, name: str) -> dict[str, Any]:
    row = call.store.runs.experiment(name)
    names = ("name", "state", "started_at", "finished_at")
    states = Counter(run.state for run in call.store.runs.find(experiment=name))
    return {**{name: row[name] for name in names}, "steps": dict(states)}
