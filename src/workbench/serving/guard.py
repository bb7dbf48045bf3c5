"""Model APIs with a guard before them: users' texts are sanitized, then the request goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, Protocol

import anyio
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from workbench.core.errors import ConfigError
from workbench.core.money import ZERO
from workbench.core.plain import one_line
from workbench.llm.messages import Usage
from workbench.llm.prices import Prices
from workbench.serving import anthropic_messages, openai_chat
from workbench.serving.cleaning import Cleaner, Sanitizing
from workbench.serving.keys import Key
from workbench.serving.refusal import Overloaded, Refusal
from workbench.serving.relay import EVENTS, Client, Dialect, Meter
from workbench.serving.turns import Passage, count, passages, read_body, write_body
from workbench.serving.upstream import Api, Upstream
from workbench.store.ledger import TOKEN
from workbench.store.records import LedgerRow

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["REFUSAL", "Guarding", "guard_routes"]

REFUSAL = "This request was stopped by a prompt safety guard; it did not reach the model."
"""What a blocked prompt is answered."""
_DECISION = "x-workbench-decision"
_OWN_KEY = "x-workbench-key"
_BODY_S = 120.0
_LONG = 100_000
"""Bytes from which a body is read beside the event loop."""
_MOST_NAME = 100
_BYTES_PER_TOKEN = 4
_PATHS: dict[str, dict[Api, str]] = {
    "/v1/messages": {"anthropic": "/v1/messages"},
    "/v1/messages/count_tokens": {"anthropic": "/v1/messages/count_tokens"},
    "/v1/chat/completions": {"openai": "/chat/completions"},
    "/v1/models": {"anthropic": "/v1/models", "openai": "/models"},
}
"""Path here → path below the base URL of each API."""
_DIALECTS: dict[Api, Dialect] = {"anthropic": anthropic_messages, "openai": openai_chat}


class Guarding(Sanitizing, Protocol):
    """What the guard needs of the service."""

    async def authorized(self, headers: Mapping[str, str]) -> Key:
        """Return the key of a request, or refuse it."""

    def book(self, row: LedgerRow) -> None:
        """Enter a row in the ledger, some time soon."""

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a request that is not served."""


def guard_routes(
    service: Guarding,
    upstream: Upstream,
    *,
    turns: Literal["all", "last"] = "all",
    prices: Prices | None = None,
    max_body_bytes: int = 32 * 2**20,
    max_held_bytes: int = 2**30,
) -> list[Route]:
    """Return the routes of the model APIs that have an upstream.

    Who serves them closes the upstream at the end. No middleware around them may collect an answer
    or read ``receive``: Starlette's ``BaseHTTPMiddleware`` does both.

    Args:
        service: Knows keys, sanitizes, keeps the ledger.
        upstream: Where requests go on to.
        turns: Texts of which turns are sanitized: all of a chat, or those after the last answer.
        prices: Of models, where the service pays.
        max_body_bytes: Longest body; images are in it.
        max_held_bytes: Of all bodies at a time, until they are answered.
    """
    cleaner, known = Cleaner(service, turns=turns), prices or Prices()
    room = _Room(left=max_held_bytes)
    routes = []
    for path, beyond in _PATHS.items():
        paths = {api: there for api, there in beyond.items() if api in upstream.apis}
        if paths:
            endpoint = _Endpoint(service, upstream, cleaner, known, paths, max_body_bytes, room)
            method = "GET" if path == "/v1/models" else "POST"
            routes.append(Route(path, endpoint, methods=[method], name=path))
    return routes


@dataclass(frozen=True, slots=True)
class _Call:
    """One request of a client that may ask."""

    request: Request
    api: Api
    client: Client
    key: Key


@dataclass(slots=True)
class _Room:
    """Bytes that bodies may still hold, all together."""

    left: int


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """One path, as an ASGI app: when the client leaves, what is done for it ends."""

    service: Guarding
    upstream: Upstream
    cleaner: Cleaner
    prices: Prices
    paths: dict[Api, str]
    most_bytes: int
    room: _Room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = _Room(left=0)
        try:
            await self._answer(scope, receive, send, held=held)
        finally:
            self.room.left += held.left

    async def _answer(self, scope: Scope, receive: Receive, send: Send, *, held: _Room) -> None:
        request = Request(scope, receive)
        api = next(iter(self.paths))
        if len(self.paths) > 1 and "anthropic-version" not in request.headers:
            api = "openai"
        client = Client(scope, receive, send, _DIALECTS[api])
        try:
            call = _Call(request, api, client, await self._key_of(request))
            raw = await self._read(request, held) if request.method == "POST" else None
        except ClientDisconnect:
            return
        except Refusal as refusal:
            await self._refuse(client, refusal)
            return
        async with anyio.create_task_group() as group:
            group.start_soon(_leave_with_client, receive, group.cancel_scope)
            try:
                await (self._pass_on(call) if raw is None else self._guard(call, raw))
            except Refusal as refusal:
                await self._refuse(client, refusal)
            group.cancel_scope.cancel()

    async def _refuse(self, client: Client, refusal: Refusal) -> None:
        self.service.count_refusal(refusal)
        await client.refuse(refusal)

    @property
    def _pays(self) -> bool:
        return self.upstream.config.payer == "service"

    async def _key_of(self, request: Request) -> Key:
        """Return who asks; where the client pays, the API's own header has a key of the model."""
        headers: Mapping[str, str] = request.headers
        if not self._pays:
            names = {"x-api-key": _OWN_KEY, "host": "host"}
            headers = {name: headers[own] for name, own in names.items() if own in headers}
        try:
            return await self.service.authorized(headers)
        except Refusal as refusal:
            if self._pays or refusal.status_code != HTTPStatus.UNAUTHORIZED:
                raise
            raise Refusal(401, f"no key of this service; send it as {_OWN_KEY}") from None

    async def _read(self, request: Request, held: _Room) -> bytes:
        """Return a body that is neither packed nor too long nor too slow; note what it holds."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a page of another site may send without asking
            raise Refusal(415, "send the body as Content-Type: application/json")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "send the body unpacked, without Content-Encoding")
        found = bytearray()
        try:
            with anyio.fail_after(_BODY_S):
                async for chunk in request.stream():
                    found += chunk
                    held.left += len(chunk)
                    self.room.left -= len(chunk)
                    if self.room.left < 0:
                        raise Overloaded(1, "the bodies under way are too large together")
                    if len(found) > self.most_bytes:
                        raise Refusal(413, f"the body exceeds {self.most_bytes:,} bytes; cut it")
        except TimeoutError:
            raise Refusal(408, f"the body took longer than {_BODY_S:g} s; send it again") from None
        return bytes(found)

    async def _guard(self, call: _Call, raw: bytes) -> None:
        """Clean the request and pass it on, or decline in the model's place."""
        if len(raw) > _LONG:
            body, found = await to_thread.run_sync(_read_chat, raw)
        else:
            body, found = _read_chat(raw)
        decision = await self.cleaner.clean(found, key=call.key)
        call.client.headers[_DECISION] = decision
        is_count = call.request.url.path.endswith("count_tokens")
        if decision == "block":
            kind = EVENTS if body.get("stream") is True and not is_count else "application/json"
            refusal = call.client.dialect.refusal(body, REFUSAL)
            await call.client.answer(b'{"input_tokens": 0}' if is_count else refusal, kind=kind)
            return
        model = "" if is_count else str(body.get("model"))[:_MOST_NAME] or "no name"
        is_changed = decision != "pass"
        if self._pays and model:
            await self._check_price(model, api=call.api)
            is_changed |= call.api == "openai" and _ask_for_usage(body)
        sent = write_body(body) if is_changed else raw
        await self._pass_on(call, sent, model=model, most_tokens=_most_tokens(body))

    async def _pass_on(
        self, call: _Call, body: bytes | None = None, *, model: str = "", most_tokens: int = 0
    ) -> None:
        """Send a request on and its answer back; what a model was used for is booked."""
        began, meter, request = time.monotonic(), Meter(), call.request
        answer, is_used = None, True  # unless told otherwise: also where the client left
        try:
            async with self.upstream.request(
                call.api, self.paths[call.api], headers=request.headers,
                query=request.query_params, body=body,
            ) as answer:  # fmt: skip
                is_used = answer.status == HTTPStatus.OK
                await call.client.relay(answer, meter)
        except Refusal as refusal:
            is_used &= bool(answer) or refusal.status_code == HTTPStatus.GATEWAY_TIMEOUT
            raise
        finally:
            if model and is_used:
                names = answer.headers if answer else {}
                self._book(
                    call, meter, model=model, bytes_sent=len(body or b""), most_tokens=most_tokens,
                    request_id=names.get("request-id") or names.get("x-request-id", ""),
                    latency_s=round(time.monotonic() - began, 4),
                )  # fmt: skip

    async def _check_price(self, model: str, *, api: Api) -> None:
        """Refuse a model whose price is not known; the first look loads the table of prices."""
        try:
            await to_thread.run_sync(lambda: self._usd(Usage(), model=model, api=api))
        except ConfigError:
            raise Refusal(400, "model: no price is known for it, so this key cannot pay") from None

    def _usd(self, usage: Usage, *, model: str, api: Api) -> Any:
        return self.prices.price_of(usage, model=model, provider=api)

    def _book(
        self, call: _Call, meter: Meter, *, model: str, bytes_sent: int, most_tokens: int,
        request_id: str, latency_s: float,
    ) -> None:  # fmt: skip
        """Enter what an answer used; what a broken-off one does not say is held to be more."""
        usage = call.client.dialect.usage(meter.found)
        is_estimated = not (meter.is_whole and meter.found)
        if is_estimated:
            usage = replace(
                usage,
                input_tokens=usage.input_tokens
                if usage.prompt_tokens
                else bytes_sent // _BYTES_PER_TOKEN,
                output_tokens=max(
                    usage.output_tokens, meter.bytes // _BYTES_PER_TOKEN or most_tokens
                ),
            )
        tokens = {name.removesuffix("_tokens"): value for name, value in asdict(usage).items()}
        self.service.book(
            LedgerRow(
                who=call.key.owner,
                job=call.key.id,
                experiment="service",
                phase="serving",
                resource=one_line(model) or "model",
                quantity=usage.total_tokens,
                unit=TOKEN,
                usd=self._usd(usage, model=model, api=call.api) if self._pays else ZERO,
                price_version=self.prices.price_version() if self._pays else "",
                estimated=is_estimated,
                note="" if self._pays else "paid by the client",
                details={
                    **tokens,
                    "calls": 1,
                    "provider": call.api,
                    "outcome": "sent" if meter.is_whole else "lost",
                    "bytes_sent": bytes_sent,
                    "bytes_received": meter.bytes,
                    "latency_s": latency_s,
                    "request_id": one_line(request_id)[:_MOST_NAME],
                },
            )
        )


async def _leave_with_client(receive: Receive, scope: anyio.CancelScope) -> None:
    """End what is done for a client when it has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _most_tokens(body: Mapping[str, Any]) -> int:
    """Return how many tokens an answer has that is made whole before any of it is seen."""
    given = body.get("max_completion_tokens") or body.get("max_tokens")
    return 0 if body.get("stream") is True else count(given) * max(count(body.get("n")), 1)


def _read_chat(raw: bytes) -> tuple[dict[str, Any], list[Passage]]:
    body = read_body(raw)
    return body, passages(body)


def _ask_for_usage(body: dict[str, Any]) -> bool:
    """Have a stream say at its end what it used; return whether that changed the request."""
    if body.get("stream") is not True:
        return False
    given = body.get("stream_options")
    body["stream_options"] = (given if isinstance(given, dict) else {}) | {"include_usage": True}
    return True
