"""The loopback server's HTTP: what comes in is read, limited, answered or spoiled, and billed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.llm.loopback import wire
from workbench.llm.loopback.answers import Answers
from workbench.llm.loopback.batches import BATCHES, Batches
from workbench.llm.loopback.faults import IN_BATCHES, IS_BILLED, Faults, Limits, RefusalError, draws
from workbench.llm.loopback.ledger import MODELS, Ledger, PrefixCache, Row, plain_name, price
from workbench.llm.messages import Usage
from workbench.llm.transport import LOOPBACK_NAME

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["LoopbackServer"]

_ROUTES: tuple[tuple[wire.Dialect, str], ...] = (
    ("anthropic", "/v1/messages"),
    ("openai", "/v1/chat/completions"),
    ("bedrock", "/model/{model}/{verb:invoke|invoke-with-response-stream}"),
    ("vertex", "/v1/projects/{p}/locations/{r}/publishers/anthropic/models/{model}:{verb}"),
)


class LoopbackServer:
    """Model services in one process, each API key an organization of its own.

    Args:
        latency_s: Seconds until an answer begins, or those and seconds per token of the answer.
        faults: What goes wrong; nothing by default.
        answer: Request body → text; by default words or JSON that depend on seed and prompt.
        seed: Seed of answers and faults.
        requests_per_minute: Per API key and model, enforced and told in headers; 0 for none.
        tokens_per_minute: Prompt tokens not read from the prompt cache, likewise.
        batch_delay_s: Seconds until a batch has ended.
        port: TCP port; 0 takes a free one.
        ledger_file: File that gets each ledger row as a line of JSON.
    """

    def __init__(
        self,
        *,
        latency_s: float | tuple[float, float] = 0.0,
        faults: Faults | None = None,
        answer: Callable[[dict[str, Any]], str] | None = None,
        seed: int = 0,
        requests_per_minute: float = 0,
        tokens_per_minute: float = 0,
        batch_delay_s: float = 0.0,
        port: int = 0,
        ledger_file: Path | None = None,
    ) -> None:
        self.base_url = ""
        self.ledger = Ledger(file=ledger_file)
        self.requests = 0
        """Requests for an answer so far, refused ones included, batches not."""
        self.max_in_flight_seen = 0
        """Most requests for an answer that were open at once."""
        self._in_flight, self._numbers, self._port = 0, count(1), port
        self._latency_s = latency_s if isinstance(latency_s, tuple) else (latency_s, 0.0)
        self._faults = faults or Faults()
        self._drawn = draws(self._faults, seed=seed)
        self._answers = Answers(seed=seed, answer=answer)
        self._limits = Limits(requests=requests_per_minute, tokens=tokens_per_minute)
        self._cache = PrefixCache(clock=time.monotonic)
        self._batches = Batches(self._process, delay_s=batch_delay_s)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        from aiohttp import web

        app = web.Application(client_max_size=32 * 2**20)  # as the Messages API
        app.on_response_prepare.append(_sign)
        for dialect, path in _ROUTES:
            app.router.add_post(path, partial(self._handle, partial(self._answer, dialect)))
        app.router.add_route("*", BATCHES + "{path:.*}", partial(self._handle, self._batch))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.base_url = "http://{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner:
            await self._runner.cleanup()
        self.ledger.close()

    @contextmanager
    def serve_in_thread(self) -> Iterator[Self]:
        """Serve from a thread with its own event loop, for callers without one."""
        from anyio.from_thread import start_blocking_portal

        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self):
            yield self

    async def _handle(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]], request: web.Request
    ) -> web.StreamResponse:
        """Answer, or say why not in the service's words."""
        from aiohttp import web

        try:
            return await handler(request)
        except RefusalError as refusal:
            if not refusal.status and request.transport:
                request.transport.abort()
            headers = refusal.headers | self._names()
            return web.json_response(refusal.body(), status=refusal.status or 500, headers=headers)

    def _names(self) -> dict[str, str]:
        name = f"req_{next(self._numbers):08d}"
        return {"request-id": name, "x-request-id": name}

    async def _batch(self, request: web.Request) -> web.Response:
        from aiohttp import web

        key = wire.read_key(request.headers)
        if request.method == "POST":
            text = self._batches.create(await _read(request), key=key, base_url=self.base_url)
        else:
            text = self._batches.look(request.match_info["path"].strip("/"), key=key)
        return web.Response(text=text, content_type="application/json")

    def _process(self, entry: dict[str, Any], key: str) -> dict[str, Any]:
        """Process and bill one request of a batch; return its result."""
        row = Row(path=BATCHES, key=key, custom_id=entry["custom_id"])
        fault = next(self._drawn)
        if fault == "expired":
            return {"type": "expired"}
        if fault == "errored":
            return {"type": "errored", "error": RefusalError(500, "injected fault").body()}
        try:
            call = wire.read_call(entry["params"], dialect="batch")
        except RefusalError as refusal:
            return {"type": "errored", "error": refusal.body()}
        usage, prefixes = self._look_up(call, row)
        self._cache.keep(prefixes)
        _, body = self._generate(call, usage, row)
        row.is_answered = True
        self.ledger.add(row)
        return {"type": "succeeded", "message": body}

    async def _answer(self, dialect: wire.Dialect, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self._in_flight += 1
        self.max_in_flight_seen = max(self.max_in_flight_seen, self._in_flight)
        row = Row(path=request.path)
        try:
            row.key = wire.read_key(request.headers)
            call = wire.read_call(
                await _read(request), dialect=dialect,
                version=request.headers.get("anthropic-version", ""),
                name=request.match_info.get("model", ""), verb=request.match_info.get("verb", ""),
            )  # fmt: skip
            return await self._serve(request, call, row)
        except RefusalError as refusal:
            row.status = refusal.status
            self.ledger.add(row)
            raise
        finally:
            self._in_flight -= 1

    async def _serve(self, request: web.Request, call: wire.Call, row: Row) -> web.StreamResponse:
        usage, prefixes = self._look_up(call, row)
        headers = self._limits.take(
            f"{row.key}/{row.model}", tokens=usage.prompt_tokens - usage.cache_read_tokens,
            is_openai=call.dialect == "openai",
        )  # fmt: skip
        fault = next(self._drawn)
        row.fault = fault = "" if fault in IN_BATCHES else fault
        if fault.isdigit():
            if self._faults.retry_after_s and fault in {"429", "503", "529"}:
                headers["retry-after"] = f"{self._faults.retry_after_s:g}"
            raise RefusalError(int(fault), "injected fault", headers)
        if fault == "drop":
            raise RefusalError(0)
        await asyncio.sleep(self._latency_s[0] + (self._faults.slow_s if fault == "slow" else 0.0))
        self._cache.keep(prefixes)
        text, body = self._generate(call, usage, row)
        if fault == "drop_after":
            raise RefusalError(0)
        chunks = wire.framed(call, text, body)
        return await self._send(request, call, row, chunks, headers | self._names())

    def _look_up(self, call: wire.Call, row: Row) -> tuple[Usage, dict[bytes, str]]:
        row.model, row.prompt_sha256 = plain_name(call.model), call.digest
        minimum = MODELS[row.model]["prefix"]
        return self._cache.look_up(call.blocks, scope=f"{row.key}/{row.model}", minimum=minimum)

    def _generate(self, call: wire.Call, usage: Usage, row: Row) -> tuple[str, dict[str, Any]]:
        text, stop_reason, tokens = self._answers.write(call)
        usage = replace(usage, output_tokens=tokens)
        if IS_BILLED[row.fault] or self._faults.lost_answers_bill:
            row.usage = usage
            row.usd = price(usage, model=call.model, is_batch=call.dialect == "batch")
        number = next(self._numbers)
        return text, wire.body_of(call, text, stop_reason=stop_reason, usage=usage, number=number)

    async def _send(
        self, request: web.Request, call: wire.Call, row: Row, whole: list[bytes],
        headers: dict[str, str],
    ) -> web.StreamResponse:  # fmt: skip
        from aiohttp import web

        chunks, headers["content-type"] = wire.spoil(whole, call, row.fault)
        response = web.StreamResponse(headers=headers)
        pause_s = self._latency_s[1] * row.usage.output_tokens / len(whole)
        if not call.is_stream:
            response.content_length = len(whole[0] if row.fault in wire.CLOSING else chunks[0])
            await asyncio.sleep(pause_s)
        with suppress(ConnectionError):
            await response.prepare(request)
            for chunk in chunks[:-2]:
                await response.write(chunk)
                await asyncio.sleep(pause_s)
        is_open = request.transport is not None and not request.transport.is_closing()
        row.is_answered = row.fault in {"", "slow"} and is_open
        self.ledger.add(row)
        with suppress(ConnectionError):
            for chunk in chunks[-2:]:
                await response.write(chunk)
        if row.fault in wire.CLOSING and request.transport:
            request.transport.close()
        return response


async def _read(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise RefusalError(400, "the request body is not JSON") from None


async def _sign(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = LOOPBACK_NAME
