"""Pages without Lab: my test sets, one of them, and a job. Plain HTML, no script, forms that post.

They do what the routes do, through the same functions. Jupyter's XSRF check guards every form.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from markupsafe import Markup
from tornado.web import authenticated

from workbench.campaign.plugins.catalog import PLUGINS
from workbench.core.identity import new_id
from workbench.server import readings, redteam
from workbench.server import schemas as s
from workbench.server.bodies import check, parse_query
from workbench.server.handlers import Visitor
from workbench.server.problems import Refusal, problem_of
from workbench.server.routes import Answer, Call

__all__ = ["PAGES"]

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'self'"
)
_PAGE = {"cursor": s.CURSOR, "limit": s.LIMIT}


class _Page(Visitor, JupyterHandler):
    """Shows something of the caller's, or does what a form says and shows what came of it."""

    ids: ClassVar[Mapping[str, Any]] = {}

    @property
    def content_security_policy(self) -> str:
        """No script, nothing from elsewhere."""
        return _POLICY

    async def prepare(self) -> None:  # type: ignore[override]
        """Refuse what is too large to be a form."""
        await super().prepare()
        self.refuse_large()

    def call(self, ids: Mapping[str, str], body: Mapping[str, Any] | None = None) -> Call:
        """Return what is asked, checked.

        Raises:
            Refusal: If an id, the query or the form makes no sense.
        """
        for name, schema in self.ids.items():
            try:
                check(ids[name], schema, where=name)
            except Refusal as refusal:
                raise Refusal(404, refusal.detail) from None
        return Call(
            store=self.user_store(), service=self.app.service, path=self.request.path, ids=ids,
            query=parse_query(self.request.query_arguments, schemas=_PAGE), body=body or {},
            key=self.get_body_argument("key", "")[:100], base=self.base_url,
        )  # fmt: skip

    async def do(self, run: Callable[[Call], Answer], call: Call) -> Answer:
        """Return what a route's function answers; works in a thread."""
        return await asyncio.to_thread(run, call)

    async def show(self, template: str, **values: Any) -> None:
        """Answer with a page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        page = _environment().get_template(template)
        usual = {"base": self.base_url, "who": self.user_store().settings.user,
                 "xsrf": Markup(self.xsrf_form_html()), "key": new_id("form")}  # noqa: S704  # fmt: skip
        await self.finish(page.render(**usual, **values))

    def see(self, path: str) -> None:
        """Lead on to a page below the extension's own."""
        self.redirect(f"{self.base_url}workbench/{path}", status=303)

    def write_error(self, status_code: int, **told: Any) -> None:
        """Answer with a page that says what is wrong."""
        error = (told.get("exc_info") or (None, None))[1]
        problem = problem_of(error, status=status_code, home=self.app.store.home)
        self.set_status(problem["status"])
        self.set_header("Content-Type", "text/html; charset=utf-8")
        page = _environment().get_template("problem.html.j2")
        self.finish(page.render(base=self.base_url, who="", problem=problem))


class _Sets(_Page):
    @authenticated
    @authorized
    async def get(self) -> None:
        """Show a page of the caller's test sets."""
        call = self.call({})
        answer = await self.do(redteam.datasets, call)
        jobs = await self.do(readings.jobs_of, _first_jobs(call))
        plugins = [{"name": name, "about": one.about} for name, one in PLUGINS]
        await self.show(
            "sets.html.j2", sets=answer.body, older=_older(answer), jobs=jobs.body, plugins=plugins
        )

    @authenticated
    @authorized
    async def post(self) -> None:
        """Start making a test set."""
        config: dict[str, Any] = {"plugins": self.get_body_arguments("plugins")}
        if strategies := self.get_body_argument("strategies", "").split():
            config["strategies"] = strategies
        config["max_tests"] = _whole(self.get_body_argument("max_tests", ""))
        body = {"config": config}
        check(body, s.GENERATE, where="form")
        made = await asyncio.to_thread(redteam.begin, self.call({}, body))
        self.see(f"jobs/{made.id}")


class _Set(_Page):
    ids: ClassVar[Mapping[str, Any]] = {"dataset": s.HASH}

    @authenticated
    @authorized
    async def get(self, **ids: str) -> None:
        """Show a test set with a page of its cases."""
        answer = await self.do(redteam.dataset, self.call(ids))
        await self.show("set.html.j2", set=answer.body, older=_older(answer))

    @authenticated
    @authorized
    async def post(self, **ids: str) -> None:
        """Execute the test set, or take it off the list."""
        if self.get_body_argument("do", "") == "forget":
            await self.do(redteam.forget, self.call(ids))
            self.see("")
            return
        body = {
            "datasetId": ids["dataset"],
            "providers": self.get_body_argument("providers", "").split(),
            "options": {"judges": self.get_body_argument("judges", "probes")},
        }
        check(body, s.EXECUTE, where="form")
        answer = await self.do(redteam.execute, self.call(ids, body))
        self.see(f"jobs/{answer.body['jobId']}")


class _Job(_Page):
    ids: ClassVar[Mapping[str, Any]] = {"job": s.JOB_ID}

    @authenticated
    @authorized
    async def get(self, **ids: str) -> None:
        """Show a job; the page loads itself anew while the job goes on."""
        answer = await self.do(readings.job_of, self.call(ids))
        await self.show("job.html.j2", job=answer.body)

    @authenticated
    @authorized
    async def post(self, **ids: str) -> None:
        """Ask the job to stop, or to go on."""
        is_more = self.get_body_argument("do", "") == "resume"
        answer = await self.do(readings.resume if is_more else readings.stop, self.call(ids))
        self.see(f"jobs/{answer.body['jobId']}")


PAGES = (
    (r"workbench/?", _Sets),
    (r"workbench/sets/(?P<dataset>[^/]+)", _Set),
    (r"workbench/jobs/(?P<job>[^/]+)", _Job),
)
"""Patterns and handlers."""


def _first_jobs(call: Call) -> Call:
    query = {"cursor": "", "limit": 10, "kind": "", "state": ""}
    return Call(store=call.store, service=call.service, path=call.path, query=query)


def _older(answer: Answer) -> str:
    """Return the query that leads to the next page, or an empty text."""
    _, _, rest = answer.headers.get("Link", "").partition("?")
    return rest.partition(">")[0]


def _whole(text: str) -> Any:
    """Return a number of a form; what is none is left for the schema to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text  # noqa: PLR2004


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_text"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False)
    theme = files("workbench.report") / "templates" / "theme.css"
    environment.globals["css"] = Markup(theme.read_text(encoding="utf-8"))  # noqa: S704 - our own
    return environment


def _visible(value: Any) -> Any:
    """Make what cannot be seen visible: control and direction characters, half surrogates."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        one if one.isprintable() or one in "\n\t" else f"⟨U+{ord(one):04X}⟩" for one in value
    )
