"""The one handler of all API routes: what is asked is read, done in a thread, and answered."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado.web import HTTPError, authenticated

from workbench.server.bodies import MOST_BYTES, check, parse_body, parse_query
from workbench.server.identity import RESOURCE
from workbench.server.problems import MEDIA_TYPE, Refusal, problem_of
from workbench.server.routes import Answer, Call, Route

if TYPE_CHECKING:
    from workbench.server.extension import WorkbenchApp
    from workbench.store.database import Store

__all__ = ["NotFoundHandler", "RouteHandler", "Visitor"]

_KEY = re.compile(r"[!-~]{1,200}")


class Visitor(ExtensionHandlerMixin):
    """What every handler of the extension knows of who asks."""

    auth_resource = RESOURCE

    @property
    def app(self) -> WorkbenchApp:
        """The extension that this server runs."""
        return cast("WorkbenchApp", self.extensionapp)

    def user_store(self) -> Store:
        """Return the store of who asks, which shows nobody else's rows."""
        one = cast("APIHandler", self)
        return self.app.store_of(one.current_user.username)

    def refuse_large(self) -> None:
        """Refuse a body that is larger than any request of the extension.

        Raises:
            Refusal: 413.
        """
        size = len(cast("APIHandler", self).request.body)
        if size > MOST_BYTES:
            raise Refusal(413, f"the body has {size:,} bytes; send {MOST_BYTES:,} at most")


class _Problems(Visitor, APIHandler):
    """Answers every error as problem details."""

    async def prepare(self) -> None:  # type: ignore[override]
        """Refuse who is nobody, comes from a foreign page, or sends too much."""
        await super().prepare()
        self.refuse_large()

    def write_error(self, status_code: int, **told: Any) -> None:
        """Answer with problem details; what was not meant to be raised stays in the log."""
        error = (told.get("exc_info") or (None, None))[1]
        found = problem_of(error, status=status_code, home=self.app.store.home)
        self.set_status(found["status"])
        for name, value in (error.headers if isinstance(error, Refusal) else {}).items():
            self.set_header(name, value)
        if found["status"] == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.allowed()))
        self.finish(json.dumps(found), set_content_type=MEDIA_TYPE)

    def allowed(self) -> list[str]:
        """Return the methods that the path has."""
        return ["GET"]

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        """Log what is the server's fault, not what is the client's."""
        found = problem_of(error, status=500, home=self.app.store.home)
        is_ours = found["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR
        if is_ours and not isinstance(error, HTTPError):
            super().log_exception(kind, error, trace)


class RouteHandler(_Problems):
    """Serves the routes of one path, one per method."""

    def initialize(self, name: str, *, routes: Mapping[str, Route]) -> None:
        """Take the routes of the path, by method."""
        super().initialize(name=name)
        self.routes = routes

    def allowed(self) -> list[str]:
        """Return the methods that the path has."""
        return sorted(self.routes)

    @authenticated
    @authorized
    async def get(self, **ids: str) -> None:
        """Serve the path's GET."""
        await self._serve(ids)

    @authenticated
    @authorized
    async def post(self, **ids: str) -> None:
        """Serve the path's POST."""
        await self._serve(ids)

    @authenticated
    @authorized
    async def delete(self, **ids: str) -> None:
        """Serve the path's DELETE."""
        await self._serve(ids)

    async def _serve(self, ids: Mapping[str, str]) -> None:
        route = self.routes.get(self.request.method or "")
        if route is None:
            raise Refusal(405, f"{self.request.path} has no {self.request.method}")
        if inspect.iscoroutinefunction(route.run):
            call = await asyncio.to_thread(self._read, route, ids)
            answer = await cast("Awaitable[Answer]", route.run(call))
            data = _bytes(answer)
        else:
            answer, data = await asyncio.to_thread(self._answer, route, ids)
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")
        self.finish(data or None, set_content_type=route.media_type)

    def _answer(self, route: Route, ids: Mapping[str, str]) -> tuple[Answer, bytes]:
        answer = cast("Callable[[Call], Answer]", route.run)(self._read(route, ids))
        return answer, _bytes(answer)

    def _read(self, route: Route, ids: Mapping[str, str]) -> Call:
        """Return what is asked, checked; opens the store of who asks."""
        for name, schema in route.ids.items():
            try:
                check(ids[name], schema, where=name)
            except Refusal as refusal:
                raise Refusal(404, f"no such {name}: {refusal.detail}") from None
        request = self.request
        body: Mapping[str, Any] = {}
        if route.body is not None:
            sent_as = request.headers.get("Content-Type", "")
            body = parse_body(request.body, media_type=sent_as, schema=route.body)
        key = request.headers.get("Idempotency-Key")
        if key is not None and not _KEY.fullmatch(key):
            raise Refusal(400, f"Idempotency-Key {key[:40]!r}: send 1 to 200 visible characters")
        store = self.user_store()
        is_owner = store.settings.user == self.app.store.settings.user
        return Call(
            store=store,
            whole=self.app.store if is_owner else None,
            service=self.app.service,
            path=request.path,
            ids=ids,
            query=parse_query(request.query_arguments, schemas=route.query),
            body=body,
            key=key or "",
            base=self.base_url,
        )


class NotFoundHandler(_Problems):
    """Says that there is no such path, to those who may know."""

    @authenticated
    async def get(self) -> None:
        """Refuse with 404."""
        raise Refusal(404, f"no path {self.request.path}; see workbench/api/openapi.json")

    post = put = patch = delete = head = get


def _bytes(answer: Answer) -> bytes:
    if answer.body is None or isinstance(answer.body, bytes):
        return answer.body or b""
    return json.dumps(answer.body, allow_nan=False, default=str).encode()
