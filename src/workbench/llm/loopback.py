"""A model server on 127.0.0.1 for tests, ablations and rehearsals; nothing leaves the machine.

It speaks the Anthropic Messages API (plain, streamed, batches, token counts), the same through
Bedrock and Vertex paths, and OpenAI chat completions; it validates, rate-limits, caches prompts and
bills as the services do, goes wrong on demand (:mod:`workbench.llm.loopback_faults`) and keeps a
ledger of its own (:mod:`workbench.llm.loopback_ledger`)::

    async with LoopbackServer(latency_s=0.05, faults=Faults(rates={"429": 0.05})) as server:
        client = anthropic.AsyncAnthropic(base_url=server.base_url, api_key="any")
        ...
        server.ledger.total_usd(), server.requests, server.max_in_flight_seen

    with LoopbackServer().serve_in_thread() as server:  # for sync callers
        ...

``python -m workbench.llm.loopback --ledger FILE --faults 429=0.05,drop=0.02`` prints its URL first
and appends each ledger row to FILE as a line of JSON before the answer is sent whole.

Base URLs: ``base_url`` for Anthropic and Bedrock, ``base_url + "/v1"`` for OpenAI and Vertex.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from workbench.core.errors import InputError
from workbench.core.money import ZERO
from workbench.llm.loopback_answers import Answers
from workbench.llm.loopback_batches import Batches, Sender
from workbench.llm.loopback_faults import ALWAYS_BILLED, Dice, Faults, Limits, Refusal, parse_faults
from workbench.llm.loopback_ledger import Ledger, PrefixCache, Row
from workbench.llm.loopback_wire import (
    CLOSING,
    Call,
    Dialect,
    Generated,
    plain_body,
    read_call,
    read_key,
    spoil,
    whole,
)  # fmt: skip
from workbench.llm.messages import Usage

if TYPE_CHECKING:
    from aiohttp import web

__all__ = ["Faults", "Ledger", "LoopbackServer", "main"]

_LARGEST_BODY = 32 * 2**20  # bytes, as the Messages API
_ROUTES: tuple[tuple[Dialect, str], ...] = (
    ("anthropic", "/v1/messages"),
    ("openai", "/v1/chat/completions"),
    ("bedrock", "/model/{model}/{verb:invoke|invoke-with-response-stream}"),
    ("vertex", "/v1/projects/{p}/locations/{r}/publishers/anthropic/models/{model}:{verb}"),
)


class _Exchange(NamedTuple):
    path: str
    sender: Sender
    call: Call | None
    fault: str = ""
    custom_id: str = ""


class LoopbackServer:
    """Model services in one process, with faults, limits and a ledger.

    Args:
        latency_s: Seconds until an answer begins, or those and seconds per token of the answer.
        faults: What goes wrong; nothing by default.
        answer: Request body → text; by default words or JSON that depend on seed and prompt.
        seed: Seed of answers and faults.
        requests_per_minute: Per organization and model, enforced and told in headers; 0 for none.
        tokens_per_minute: Prompt tokens not read from the prompt cache, likewise.
        batch_delay_s: Seconds until a batch has ended.
        port: TCP port; 0 takes a free one.
        keys: API key → organization; by default every key is good, all of one organization.
        minimum_prefix: Fewest tokens the prompt cache keeps; by default each model's own.
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
        keys: Mapping[str, str] | None = None,
        minimum_prefix: int | None = None,
        ledger_file: Path | None = None,
    ) -> None:
        self.base_url = ""
        self.ledger = Ledger(file=ledger_file)
        self.requests = 0
        """Requests for an answer so far, refused ones included, batches not."""
        self.max_in_flight_seen = 0
        """Most requests for an answer that were open at once."""
        self._in_flight, self._numbers = 0, count(1)
        self._port, self._keys, self._minimum_prefix = port, keys, minimum_prefix
        self._latency_s = latency_s if isinstance(latency_s, tuple) else (latency_s, 0.0)
        self._faults = faults or Faults()
        self._dice = Dice(self._faults, seed=seed)
        self._answers = Answers(seed=seed, spoil_items=self._faults.spoil_items, answer=answer)
        self._limits = Limits(requests=requests_per_minute, tokens=tokens_per_minute)
        self._cache = PrefixCache(clock=time.monotonic)
        self._batches = Batches(self._in_batch, delay_s=batch_delay_s)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; :attr:`base_url` says where."""
        from aiohttp import web

        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/v1/messages/count_tokens", partial(self._count, "anthropic"))
        vertex = _ROUTES[-1][1].replace("{model}:{verb}", "count-tokens:rawPredict")
        app.router.add_post(vertex, partial(self._count, "vertex"))
        app.router.add_route("*", "/v1/messages/batches{path:.*}", self._batch)
        for dialect, path in _ROUTES:
            app.router.add_post(path, partial(self._answer, dialect))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self.base_url = "http://{}:{}".format(*self._runner.addresses[0])

    async def stop(self) -> None:
        """Close all connections and the ledger's file."""
        if self._runner:
            await self._runner.cleanup()
        self.ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @contextmanager
    def serve_in_thread(self) -> Iterator[Self]:
        """Serve from a thread with its own event loop."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="loopback", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.stop(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _read(self, dialect: Dialect, request: web.Request) -> tuple[Sender, Any]:
        """Return who asks, and the body's JSON (None without a body) or a refusal."""
        from aiohttp import web

        key = read_key(request.headers, dialect=dialect)
        sender = Sender(sha256(key.encode()).hexdigest()[:12], (self._keys or {}).get(key, "one"))
        if not key or (self._keys is not None and key not in self._keys):
            return sender, Refusal(401, "invalid API key")
        try:
            body = await request.read()
            return sender, json.loads(body) if body else None
        except web.HTTPRequestEntityTooLarge:
            return sender, Refusal(413, "the request exceeds 32 MiB")
        except ValueError:
            return sender, Refusal(400, "the request body is not JSON")

    def _respond(self, content: dict[str, Any] | str | Refusal) -> web.Response:
        from aiohttp import web

        if isinstance(content, str):
            return web.Response(text=content, content_type="application/x-jsonl")
        name = f"req_{next(self._numbers):08d}"
        headers, status = {"request-id": name, "x-request-id": name}, 200
        if isinstance(content, Refusal):
            headers, status = {**headers, **content.headers}, content.status
            content = content.body(request_id=name)
        return web.json_response(content, status=status, headers=headers)

    async def _batch(self, request: web.Request) -> web.Response:
        sender, body = await self._read("anthropic", request)
        if isinstance(body, Refusal):
            return self._respond(body)
        found = self._batches.handle(
            request.match_info["path"].strip("/"), body=body if request.method == "POST" else None,
            query=request.query, sender=sender, base_url=self.base_url,
        )  # fmt: skip
        return self._respond(found)

    def _in_batch(self, entry: dict[str, Any], sender: Sender) -> dict[str, Any]:
        """Process and bill one request of a batch; return its result."""
        call = read_call(entry["params"], dialect="anthropic", version="batch")
        fault = self._dice.draw(in_batch=True)
        if fault == "expired":
            return {"type": "expired"}
        if fault == "errored":
            call = Refusal(500, "injected fault")
        if isinstance(call, Refusal):
            return {"type": "errored", "error": call.body(request_id="")}
        usage, writes = self._look_up(call, sender)
        self._cache.keep(writes)
        generated = self._generate(call, usage, is_batch=True)
        exchange = _Exchange("/v1/messages/batches", sender, call, custom_id=entry["custom_id"])
        self._enter(exchange, generated, is_answered=True)
        return {"type": "succeeded", "message": plain_body(call, generated)}

    async def _count(self, dialect: Dialect, request: web.Request) -> web.Response:
        _, body = await self._read(dialect, request)
        if isinstance(body, dict):
            version = request.headers.get("anthropic-version", "")
            call = read_call({**body, "max_tokens": 0}, dialect=dialect, version=version)
            if isinstance(call, Refusal):
                return self._respond(call)
            return self._respond({"input_tokens": sum(block.tokens for block in call.blocks)})
        return self._respond(body or Refusal(400, "the request body is not a JSON object"))

    async def _answer(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self._in_flight += 1
        self.max_in_flight_seen = max(self.max_in_flight_seen, self._in_flight)
        try:
            sender, body = await self._read(dialect, request)
            call = body
            if not isinstance(body, Refusal):
                call = read_call(
                    body, dialect=dialect, version=request.headers.get("anthropic-version", ""),
                    name=request.match_info.get("model", ""),
                    in_stream="stream" in request.match_info.get("verb", "").lower(),
                )  # fmt: skip
            if isinstance(call, Refusal):
                self._enter(_Exchange(request.path, sender, None), status=call.status)
                return self._respond(call)
            return await self._admit(request, sender, call)
        finally:
            self._in_flight -= 1

    async def _admit(self, request: web.Request, sender: Sender, call: Call) -> web.StreamResponse:
        usage, writes = self._look_up(call, sender)
        told = self._limits.take(
            organization=sender.organization, model=call.model.name,
            tokens=usage.prompt_tokens - usage.cache_read_tokens,
            is_openai=call.dialect == "openai",
        )  # fmt: skip
        fault = "" if isinstance(told, Refusal) else self._dice.draw()
        exchange = _Exchange(request.path, sender, call, fault)
        if fault.isdigit() and not isinstance(told, Refusal):
            wait_s = self._faults.retry_after_s if fault in {"429", "503", "529"} else 0
            wait = {"retry-after": f"{wait_s:g}"} if wait_s else {}
            told = Refusal(int(fault), "injected fault", told | wait)
        if isinstance(told, Refusal):
            self._enter(exchange, status=told.status)
            return self._respond(told)
        if fault == "drop":
            self._enter(exchange, status=0)
            return _hang_up(request)
        await asyncio.sleep(self._latency_s[0] + (self._faults.slow_s if fault == "slow" else 0.0))
        self._cache.keep(writes)
        generated = self._generate(call, usage)
        if fault == "drop_after":
            self._enter(exchange, generated, status=0)
            return _hang_up(request)
        name = f"req_{generated.number:08d}"
        headers = {"request-id": name, "x-request-id": name, **told}
        send = self._stream if call.is_stream or fault in CLOSING else self._send
        return await send(request, exchange, generated, headers)

    def _look_up(self, call: Call, sender: Sender) -> tuple[Usage, list[tuple[bytes, str]]]:
        own = self._minimum_prefix
        return self._cache.look_up(
            call.blocks, scope=f"{sender.organization}/{call.model.name}",
            minimum=call.model.minimum_prefix if own is None else own,
        )  # fmt: skip

    def _generate(self, call: Call, usage: Usage, *, is_batch: bool = False) -> Generated:
        text, stop_reason, tokens = self._answers.write(
            call.body, prompt=call.prompt, digest=call.digest, model=call.model.name,
            max_tokens=call.max_tokens,
        )  # fmt: skip
        number, usage = next(self._numbers), replace(usage, output_tokens=tokens)
        return Generated(number, text, stop_reason, usage, time.time(), is_batch)

    def _enter(
        self, exchange: _Exchange, generated: Generated | None = None, *, status: int = 200,
        is_answered: bool = False,
    ) -> None:  # fmt: skip
        path, sender, call, fault, custom_id = exchange
        usage, usd = Usage(), ZERO
        if call and generated and (fault in ALWAYS_BILLED or self._faults.lost_answers_bill):
            usage = generated.usage
            usd = call.model.price(usage, is_batch=generated.is_batch, is_regional=call.is_regional)
        row = Row(
            at=time.time(), path=path, status=status, key=sender.key, usage=usage, usd=usd,
            model=call.model.name if call else "", prompt_sha256=call.digest if call else "",
            is_answered=is_answered, fault=fault, custom_id=custom_id,
        )  # fmt: skip
        self.ledger.add(row)

    async def _send(
        self, request: web.Request, exchange: _Exchange, generated: Generated,
        headers: dict[str, str],
    ) -> web.StreamResponse:  # fmt: skip
        from aiohttp import web

        call, fault = exchange.call, exchange.fault
        assert call
        if self._latency_s[1]:
            await asyncio.sleep(self._latency_s[1] * generated.usage.output_tokens)
        [body], kind = spoil(whole(call, generated), call, fault)
        self._enter(exchange, generated, is_answered=fault in {"", "slow"} and _is_open(request))
        return web.Response(body=body, headers=headers | {"content-type": kind})

    async def _stream(
        self, request: web.Request, exchange: _Exchange, generated: Generated,
        headers: dict[str, str],
    ) -> web.StreamResponse:  # fmt: skip
        from aiohttp import web

        call, fault = exchange.call, exchange.fault
        assert call
        pieces = whole(call, generated)
        chunks, kind = spoil(pieces, call, fault)
        response = web.StreamResponse(headers=headers | {"content-type": kind})
        if not call.is_stream:
            response.content_length = len(pieces[0])
        pause_s = self._latency_s[1] * generated.usage.output_tokens / len(pieces)
        is_whole = fault in {"", "slow"}
        with suppress(ConnectionError):
            await response.prepare(request)
            for chunk in chunks[:-2]:
                await response.write(chunk)
                await asyncio.sleep(pause_s)
        self._enter(exchange, generated, is_answered=is_whole and _is_open(request))
        with suppress(ConnectionError):
            for chunk in chunks[-2:]:
                await response.write(chunk)
        if fault in CLOSING and request.transport:
            request.transport.close()
        return response


def _is_open(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _hang_up(request: web.Request) -> web.Response:
    from aiohttp import web

    if request.transport:
        request.transport.abort()
    return web.Response()


def main() -> None:
    """Serve until stopped; ``python -m workbench.llm.loopback --help``."""
    parser = argparse.ArgumentParser(prog="python -m workbench.llm.loopback")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", type=Path, dest="ledger_file", help="file of JSON lines")
    parser.add_argument("--faults", default="", help="e.g. 429=0.05,drop=0.02,retry_after_s=0.1")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("latency-s", "batch-delay-s", "requests-per-minute", "tokens-per-minute"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    given = vars(parser.parse_args())
    try:
        given["faults"] = parse_faults(given["faults"])
    except InputError as error:
        parser.error(str(error))

    async def serve() -> None:
        async with LoopbackServer(**given) as server:
            sys.stdout.write(server.base_url + "\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        asyncio.run(serve())


if __name__ == "__main__":
    main()
