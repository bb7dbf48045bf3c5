"""The ASGI app: routes, problem details, and a front that counts what is under way."""

from __future__ import annotations

import json
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.core.errors import InputError, WorkbenchError
from workbench.serving.bodies import parse_sanitize, read_json
from workbench.serving.refusal import Overloaded, Refusal
from workbench.serving.service import Service

__all__ = ["make_app", "problem"]

_LOG = logging.getLogger(__name__)
_SANITIZE = "/v1/sanitize"
_ALWAYS = ("/healthz", "/readyz", "/metrics")
_ID = re.compile(r"[0-9a-f]{0,64}")


def make_app(service: Service, *, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """Return the app of a service; whoever runs it loads and drains the service.

    Args:
        service: Does the work; closed when the app ends.
        more: Routes beside its own.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await service.close()

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, Refusal):
            service.count_refusal(error)
        return problem(request, error)

    routes = [*_routes(service), *more]
    inner = Starlette(
        routes=routes, lifespan=lifespan,
        exception_handlers={HTTPException: refused, Exception: problem},
    )  # fmt: skip
    paths = frozenset(one.path for one in routes if isinstance(one, Route))
    return _Front(inner, service, paths)


def problem(_: Request, error: Exception) -> Response:
    """Return an error as RFC 9457 problem details; what nobody meant to say is not told."""
    if not isinstance(error, HTTPException):
        error = HTTPException(500, "an error of the service's own; its log says where")
    title = HTTPStatus(error.status_code).phrase
    told = {"type": "about:blank", "title": title, "status": error.status_code}
    return _json(
        {**told, "detail": error.detail}, status=error.status_code,
        headers=dict(error.headers or {}), media_type="application/problem+json",
    )  # fmt: skip


def _routes(service: Service) -> list[Route]:
    async def sanitize(request: Request) -> Response:
        key = await service.authorized(request.headers)
        body = await read_json(request, service.config)
        texts, condition, gain = parse_sanitize(body, gain=service.config.gain)
        made = await service.sanitize(texts, key=key, condition=condition, gain=gain)
        return _json({"results": made})

    async def reload(request: Request) -> Response:
        service.check_admin(await service.authorized(request.headers))
        model = (await read_json(request, service.config)).get("model", "")
        if not isinstance(model, str) or not _ID.fullmatch(model):  # never a folder of this machine
            raise Refusal(422, "model must be the id of a model in the store, or empty")
        try:
            return _json({"model": await service.reload(model)})
        except InputError:
            raise Refusal(422, "no usable model of that id; the old one goes on") from None
        except WorkbenchError:
            raise Overloaded(10, "the store cannot be used; the old model goes on", status=503,
                             reason="store") from None  # fmt: skip

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready = service.is_ready
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4")

    return [
        Route(_SANITIZE, sanitize, methods=["POST"]),
        Route("/admin/reload", reload, methods=["POST"]),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
    ]


class _Front:
    """Counts requests under way, and keeps texts out of what is logged."""

    def __init__(self, app: ASGIApp, service: Service, paths: frozenset[str]) -> None:
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _ALWAYS:
            await self._app(scope, receive, send)
            return
        service, status, started = self._service, 0, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        service.in_flight += 1
        try:
            await self._answer(scope, receive, sent)
        except Exception as error:  # noqa: BLE001 - its message may quote what was sent
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            last = traceback.extract_tb(error.__traceback__)[-1]
            _LOG.error("%s at %s:%s", type(error).__name__, last.name, last.lineno)
        finally:
            service.in_flight -= 1
            route = scope["path"] if scope["path"] in self._paths else "other"
            service.metrics.requests.labels(route, str(status)).inc()
            service.metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        # under load most are refused: here it costs least
        refused = service.refusal() if scope["path"] == _SANITIZE else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            service.count_refusal(refused)
            await problem(Request(scope), refused)(scope, receive, send)


def _json(
    value: Any, *, status: int = 200, headers: dict[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:  # fmt: skip
    # ASCII, since a text may hold half a surrogate pair, which UTF-8 cannot say
    body = json.dumps(value, default=vars, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type)
