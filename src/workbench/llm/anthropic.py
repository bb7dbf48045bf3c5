"""Claude through Anthropic's SDK: at Anthropic, on Bedrock and on Vertex.

The SDK's traces are off, because the gateway has spans of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

from workbench.core.errors import ConfigError, InputError, WorkbenchError
from workbench.core.settings import Secret
from workbench.llm.faults import Exchange, one_line
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.sdk import SdkTransport, events_of
from workbench.llm.transport import Sending

__all__ = ["AnthropicTransport", "BedrockTransport", "VertexTransport", "payload"]

T = TypeVar("T")

_counts = attrgetter("processing", "succeeded", "errored", "canceled", "expired")
_BATCH_TIMEOUT_S = 600.0
"""For everything about a batch; its results may be hundreds of megabytes."""


def payload(request: Request, sending: Sending) -> dict[str, Any]:
    """Return the body of a Messages call.

    Source:
        ``messages.parse`` of the SDK for the schema; newer models refuse sampling parameters.
    """
    body: dict[str, Any] = {
        "model": sending.model,
        "max_tokens": 0 if sending.prewarm else request.max_tokens,
        "messages": [
            *({"role": role, "content": text} for role, text in request.history),
            {"role": "user", "content": request.prompt},
        ],
    }
    if request.system:
        block: dict[str, Any] = {"type": "text", "text": request.system}
        if sending.prompt_cache != "off":
            block["cache_control"] = {"type": "ephemeral", "ttl": sending.prompt_cache}
        body["system"] = [block]
    if request.schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": _schema(request)}}
    return body


class _ClaudeTransport(SdkTransport):
    _package = "anthropic"
    _options: Mapping[str, Any] = {"open_telemetry": False}

    async def send(self, request: Request, sending: Sending) -> Reply | Fault:
        """Send once, without retries; give what came back.

        Raises:
            InputError: If the SDK refuses to send the request.
            ConfigError: If credentials are missing. In both cases nothing was sent.
        """
        body = payload(request, sending)
        on_text = None if sending.prewarm else sending.on_text
        if on_text:
            body["stream"] = True

        async def call(client: Any, exchange: Exchange) -> Reply | Fault:
            create = client.messages.with_raw_response.create
            answer = await (await self._open(create, body, exchange)).parse()
            if on_text:
                return await _read_stream(answer, on_text, exchange)
            return _read(answer, exchange)

        return await self._exchange(call, key=sending.key, timeout_s=sending.timeout_s)


class AnthropicTransport(_ClaudeTransport):
    """Anthropic's own service, or a server that speaks as it does, with Message Batches."""

    provider = "anthropic"
    _client_class = "AsyncAnthropic"
    _own_address = "https://api.anthropic.com"
    _key_variable = "ANTHROPIC_API_KEY"

    async def submit(
        self, requests: Mapping[str, Request], sending: Mapping[str, Sending]
    ) -> str | Fault:
        """Submit requests by custom id, all under one key; give the batch's id."""
        if not requests:
            raise InputError("a batch without requests; submit at least one")
        items = [
            {"custom_id": name, "params": payload(request, sending[name])}
            for name, request in requests.items()
        ]

        async def submit(client: Any, exchange: Exchange) -> str:
            create = client.messages.batches.with_raw_response.create
            raw = await self._open(create, {"requests": items}, exchange)
            return str((await raw.parse()).id)

        key = next(iter(sending.values())).key
        return await self._exchange(submit, key=key, timeout_s=_BATCH_TIMEOUT_S)

    async def has_ended(self, batch: str, *, key: Secret) -> bool | Fault:
        """Give whether every request of a batch has been processed."""
        path = _batch_id(batch)

        async def look(client: Any, _: Exchange) -> bool:
            found = await client.messages.batches.retrieve(path)
            return bool(found.processing_status == "ended")

        return await self._look(look, key)

    async def collect(self, batch: str, *, key: Secret) -> Mapping[str, Reply | Fault] | Fault:
        """Give what came back by custom id; a request that the service lost is missing."""
        path = f"/v1/messages/batches/{_batch_id(batch)}/results"

        async def collect(client: Any, exchange: Exchange) -> Mapping[str, Reply | Fault] | Fault:
            import httpx2

            # by its known path: the SDK goes to whatever address the batch names, with the key
            exchange.response = response = await client.get(path, cast_to=httpx2.Response)
            results: dict[str, Reply | Fault] = {}
            for line in filter(None, map(bytes.strip, response.content.splitlines())):
                entry = json.loads(line)
                if not isinstance(entry, dict) or "custom_id" not in entry:
                    return exchange.fault("malformed", "a result of the batch names no request")
                result = _read_result(entry, exchange)
                if isinstance(result, Reply):  # its share of the download, which is no latency
                    result = replace(result, bytes_received=len(line), latency_s=0.0)
                results[str(entry["custom_id"])] = result
            return results

        return await self._look(collect, key)

    async def recent(self, *, key: Secret) -> Sequence[tuple[str, float, int]] | Fault:
        """Give (id, created at in seconds since 1970, number of requests) of the newest batches."""

        async def look(client: Any, _: Exchange) -> Sequence[tuple[str, float, int]]:
            page = await client.messages.batches.list(limit=100)
            return [
                (batch.id, batch.created_at.timestamp(), sum(_counts(batch.request_counts)))
                for batch in page.data
            ]

        return await self._look(look, key)

    async def _look(self, call: Callable[[Any, Exchange], Awaitable[T]], key: Secret) -> T | Fault:
        given = await self._exchange(call, key=key, timeout_s=_BATCH_TIMEOUT_S)
        # to look is never billed, so it may be done again
        return replace(given, may_be_billed=False) if isinstance(given, Fault) else given


class _CloudTransport(_ClaudeTransport):
    async def _open(
        self, create: Callable[..., Awaitable[Any]], body: Mapping[str, Any], exchange: Exchange
    ) -> Any:
        with self._set_up():
            return await super()._open(create, body, exchange)

    def _client(self, key: str) -> Any:
        with self._set_up():
            return super()._client(key)

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        import anthropic

        try:
            yield
        except (anthropic.AnthropicError, WorkbenchError, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001 the clouds' libraries raise what they like
            cloud = type(self).__name__.removesuffix("Transport")
            reason = one_line(f"{type(error).__name__}: {error}", key=Secret(""))
            raise ConfigError(f"{cloud} is not set up; log in and set a region: {reason}") from None


class BedrockTransport(_CloudTransport):
    """Claude on Amazon Bedrock; without a key, credentials as the AWS tools find them."""

    provider = "aws"
    _client_class = "AsyncAnthropicBedrock"
    _needs = ("boto3", "bedrock")


class VertexTransport(_CloudTransport):
    """Claude on Google Vertex; its key is an access token, otherwise as the gcloud tools log in.

    ``CLOUD_ML_REGION`` and ``ANTHROPIC_VERTEX_PROJECT_ID`` say where.
    """

    provider = "google"
    _client_class = "AsyncAnthropicVertex"
    _key_argument = "access_token"
    _needs = ("google.auth", "vertex")


def _schema(request: Request) -> dict[str, Any]:
    import anthropic

    try:
        return anthropic.transform_schema(dict(request.schema or {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the schema of a request cannot be used: {error}") from None


def _read(message: Any, exchange: Exchange) -> Reply | Fault:
    if message is None:  # the body was "null"
        return exchange.fault("malformed", "the answer is empty")
    return exchange.reply(
        text="".join(block.text for block in message.content if block.type == "text"),
        stop_reason=message.stop_reason,
        usage=_usage(message.usage),
        model=str(message.model),
    )


async def _read_stream(
    stream: Any, on_text: Callable[[str], None], exchange: Exchange
) -> Reply | Fault:
    message: Any = None
    last: Any = None
    pieces: list[str] = []
    async with stream:
        async for event in events_of(stream, exchange):
            if event.type == "message_start":
                message = event.message
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                pieces.append(event.delta.text)
                on_text(event.delta.text)
            elif event.type == "message_delta":
                last = event
    if message is None or last is None:
        return exchange.fault("malformed", "the stream ended early")
    for name, value in last.usage:
        if isinstance(value, int):  # totals so far, which go before those at the start
            setattr(message.usage, name, value)
    return exchange.reply(
        text="".join(pieces),
        stop_reason=last.delta.stop_reason,
        usage=_usage(message.usage),
        model=str(message.model),
    )


def _usage(usage: Any) -> Usage:
    written = usage.cache_creation
    return Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_input_tokens or 0,
        cache_write_5m_tokens=(
            written.ephemeral_5m_input_tokens if written else usage.cache_creation_input_tokens or 0
        ),
        cache_write_1h_tokens=written.ephemeral_1h_input_tokens if written else 0,
        output_tokens=usage.output_tokens,
    )


def _read_result(entry: Mapping[str, Any], exchange: Exchange) -> Reply | Fault:
    from anthropic.types.messages import MessageBatchIndividualResponse

    try:
        result: Any = MessageBatchIndividualResponse.model_validate(entry).result
    except ValueError:
        return exchange.fault("malformed", "a result of the batch is not readable")
    if result.type == "succeeded":
        return _read(result.message, exchange)
    if result.type == "errored":
        return exchange.fault_of_body(result.error.to_dict(), may_be_billed=False)
    return exchange.fault(
        "unavailable", f"the request {result.type} in its batch", may_be_billed=False
    )


def _batch_id(batch: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", batch):
        raise InputError(f"{batch[:40]!r} is no batch id; use one that submit or recent gave")
    return batch
