"""A guard over real sockets, in front of whatever upstream a test has."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from threading import Thread
from typing import Any

import uvicorn
from aiohttp import web
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette

from workbench.diffusion.sanitizer import SanitizedPrompt
from workbench.serving.guard import guard_routes
from workbench.serving.refusal import Refusal
from workbench.serving.upstream import Upstream, UpstreamConfig
from workbench.store.records import LedgerRow
from workbench.store.service_keys import Key

KEY = "wb-key"


def verdict(text: str) -> SanitizedPrompt:
    """Return what the words of a text ask for; safer than a text that would really be blocked."""
    if "BLOCK" in text:
        decision, made = "block", ""
    elif "REDIRECT" in text.replace("\n", ""):
        decision, made = "redirect", "a safe text"
    elif "WRAP:" in text:
        decision, made = "dewrap", text.partition("WRAP:")[2].strip()
    else:
        decision, made = "pass", text
    return SanitizedPrompt(
        prompt=text, text=made, decision=decision, span=None, confidence=1.0, candidates=(),
        scores={}, latency_ms={},
    )  # fmt: skip


class RuleService:
    """Sanitizes by those rules; remembers what it was asked and what was booked."""

    def __init__(self) -> None:
        self.model_id = "one"
        self.portion = (64, 8192)
        self.seen: list[str] = []
        self.rows: list[LedgerRow] = []
        self.refusal: Refusal | None = None
        self.refused: list[str] = []

    async def authorized(self, headers: Mapping[str, str]) -> Key:
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not given.startswith(KEY):
            raise Refusal(401, "no such key")
        return Key(id=given, owner="anna")

    async def sanitize(self, texts: Sequence[str], *, key: Key) -> list[SanitizedPrompt]:
        if self.refusal:
            raise self.refusal
        self.seen += texts
        return [verdict(text) for text in texts]

    def book(self, row: LedgerRow) -> None:
        self.rows.append(row)

    def count_refusal(self, refusal: Refusal) -> None:
        self.refused.append(refusal.reason)

    def booked(self, rows: int) -> list[LedgerRow]:
        """Return the rows, once there are so many: an answer may be read before it is booked."""
        ends_at = time.monotonic() + 10
        while len(self.rows) < rows and time.monotonic() < ends_at:
            time.sleep(0.005)
        assert len(self.rows) == rows
        return self.rows


def guard_app(service: RuleService, config: UpstreamConfig, **options: Any) -> Starlette:
    """Return an app with the guard's routes alone."""
    upstream = Upstream(config, keys=options.pop("keys", None))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()

    return Starlette(routes=guard_routes(service, upstream, **options), lifespan=lifespan)


@contextmanager
def serve_app(app: Any) -> Iterator[str]:
    """Serve an app from a thread; give its base URL."""
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    sock.listen()
    thread = Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    try:
        yield "http://{}:{}".format(*sock.getsockname())
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


class OddUpstream:
    """A service that answers what it is told to, and remembers what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.handler: Any = None
        self.base_url = ""

    @contextmanager
    def serve(self) -> Iterator[OddUpstream]:
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._run()):
            yield self

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.base_url = "http://{}:{}".format(*runner.addresses[0])
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.path_qs, headers, raw))
        if self.handler:
            return await self.handler(request)
        return web.Response(body=raw or b"{}", content_type="application/json")

    def sent(self) -> Any:
        """Return the JSON of the last request."""
        return json.loads(self.requests[-1][2])
