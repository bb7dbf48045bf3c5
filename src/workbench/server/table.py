"""The table of routes, from which the handlers and the OpenAPI document are made."""

from __future__ import annotations

from workbench.server import readings, redteam
from workbench.server import schemas as s
from workbench.server.openapi import document
from workbench.server.routes import Answer, Call, Route

__all__ = ["ROUTES"]

_API = "workbench/api"
_RUN = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"}
_CATEGORY = {"enum": ["runs", "executions"]}
_PAGE = {"cursor": s.CURSOR, "limit": s.LIMIT}
_BY = {"enum": ["phase", "step", "who", "resource"], "default": "phase"}
_NAME = {"type": "string", "maxLength": 200, "default": ""}
_SINCE = {
    "type": "string", "format": "date", "description": "In UTC; without it the quota's window.",
}  # fmt: skip


def _openapi(call: Call) -> Answer:
    return Answer(body=document(ROUTES, base=call.base))


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST", path=f"{_API}/redteam/generate", name="generate", run=redteam.generate,
        about="Make a test set: 200 with its id within ten seconds, else 202 with its job.",
        body=s.GENERATE, answers={200: s.GENERATED, 202: s.STARTED}, refusals=(402, 502),
    ),
    Route(
        method="POST", path=f"{_API}/redteam/execute", name="execute", run=redteam.execute,
        about="Send a test set of your own to providers; answers with the job.",
        body=s.EXECUTE, answers={202: s.STARTED}, refusals=(402, 404),
    ),
    Route(
        method="POST", path=f"{_API}/redteam/run", name="run", run=redteam.run,
        about="Make a test set and send it to providers in one job.",
        body=s.RUN, answers={202: s.STARTED}, refusals=(402,),
    ),
    Route(
        method="GET", path=f"{_API}/redteam/datasets", name="datasets", run=redteam.datasets,
        about="Your test sets, newest first.",
        query=_PAGE, answers={200: s.DATASETS}, is_paged=True,
    ),
    Route(
        method="GET", path=f"{_API}/redteam/datasets/{{dataset}}", name="dataset",
        about="One of your test sets with a page of its cases.",
        run=redteam.dataset, ids={"dataset": s.HASH},
        query=_PAGE, answers={200: s.DATASET}, refusals=(404,), is_paged=True,
    ),
    Route(
        method="DELETE", path=f"{_API}/redteam/datasets/{{dataset}}", name="forget",
        about="Take a test set off your list; 409 where results refer to it.",
        run=redteam.forget, ids={"dataset": s.HASH}, answers={204: None}, refusals=(404, 409),
    ),
    Route(
        method="GET", path=f"{_API}/jobs", name="jobs", run=readings.jobs_of,
        about="Your jobs, newest first.",
        query={**_PAGE, "kind": s.JOB_KIND, "state": s.JOB_STATE},
        answers={200: s.JOBS}, is_paged=True,
    ),
    Route(
        method="GET", path=f"{_API}/jobs/{{job}}", name="job", run=readings.job_of,
        about="One of your jobs as it stands.",
        ids={"job": s.JOB_ID}, answers={200: s.JOB}, refusals=(404,),
    ),
    Route(
        method="DELETE", path=f"{_API}/jobs/{{job}}", name="stop", run=readings.stop,
        about="Ask one of your jobs to stop; one that has ended stays as it is.",
        ids={"job": s.JOB_ID}, answers={202: s.JOB}, refusals=(404,),
    ),
    Route(
        method="POST", path=f"{_API}/jobs/{{job}}/resume", name="resume", run=readings.resume,
        about="Go on with a job that was lost, failed or was stopped; nothing is sent twice.",
        ids={"job": s.JOB_ID}, answers={202: s.JOB}, refusals=(404, 422),
    ),
    Route(
        method="GET", path=f"{_API}/results/{{category}}/{{run}}", name="result",
        about="The whole result of a run, or an execution with a page of its attempts.",
        run=readings.result, ids={"category": _CATEGORY, "run": _RUN},
        query=_PAGE, answers={200: s.ATTEMPTS}, refusals=(404,), is_paged=True,
    ),
    Route(
        method="GET", path=f"{_API}/cost", name="cost", run=readings.cost,
        about="What you were billed, by group.",
        query={"experiment": _NAME, "by": _BY}, answers={200: s.COST},
    ),
    Route(
        method="GET", path=f"{_API}/usage", name="usage", run=readings.usage_of,
        about="The credits you used, by phase, and your quota.",
        query={"since": _SINCE}, answers={200: s.USAGE},
    ),
    Route(
        method="GET", path=f"{_API}/register", name="register", run=readings.register,
        about="The risk register, worst first; shared by everybody.",
        query={**_PAGE, "status": s.RISK_STATUS, "level": s.RISK_LEVEL},
        answers={200: s.RISKS}, is_paged=True,
    ),
    Route(
        method="GET", path=f"{_API}/experiments", name="experiments", run=readings.experiments,
        about="Your experiments, newest first.",
        query=_PAGE, answers={200: s.EXPERIMENTS}, is_paged=True,
    ),
    Route(
        method="GET", path=f"{_API}/openapi.json", name="openapi", run=_openapi,
        about="This document.", answers={200: s.FREE},
    ),
    Route(
        method="GET", path="workbench/metrics", name="metrics", run=readings.metrics,
        about="Metrics for Prometheus.", answers={200: s.TEXT},
        media_type="text/plain; version=0.0.4; charset=utf-8",
    ),
)  # fmt: skip
