"""How the services that the loopback server plays read requests and write answers."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from workbench.llm.loopback_faults import Refusal
from workbench.llm.loopback_ledger import Block, ServedModel, find_model
from workbench.llm.messages import Usage

__all__ = [
    "CLOSING",
    "Call",
    "Dialect",
    "Generated",
    "plain_body",
    "read_call",
    "read_key",
    "spoil",
    "whole",
]

Dialect = Literal["anthropic", "bedrock", "vertex", "openai"]
CLOSING = frozenset({"truncated", "stream_drop"})
"""Faults that end with a closed connection."""
_NO_ANSWER = {"id": 7, "type": "message_start", "message": {"id": 7}, "choices": "none"}
_TTLS = {None: "5m", "5m": "5m", "1h": "1h"}
_GONE = frozenset({"temperature", "top_p", "top_k"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A valid request for an answer."""

    dialect: Dialect
    model: ServedModel
    body: dict[str, Any]
    blocks: list[Block]
    prompt: str
    digest: str
    """Hex sha256 of the prompt."""
    max_tokens: int
    is_stream: bool
    is_regional: bool


class Generated(NamedTuple):
    """An answer, before it is written in a dialect."""

    number: int
    text: str
    stop_reason: str
    usage: Usage
    at: float
    is_batch: bool = False


def read_key(headers: Mapping[str, str], *, dialect: Dialect) -> str:
    """Return the API key (for signed Bedrock requests the access key's id), empty for none."""
    if dialect == "anthropic" and (key := headers.get("x-api-key")):
        return key
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    return rest if scheme == "Bearer" else rest.partition("Credential=")[2].partition("/")[0]


def read_call(  # noqa: PLR0911 - one per reason to refuse
    body: Any, *, dialect: Dialect, version: str, name: str = "", in_stream: bool = False
) -> Call | Refusal:
    """Return a request as the service understands it, or why it refuses.

    Args:
        body: The request's JSON.
        dialect: Whose API it came through.
        version: The ``anthropic-version`` header.
        name: The model, where the path names it.
        in_stream: Whether the path asks for a stream.
    """
    if not isinstance(body, dict):
        return Refusal(400, "the request body is not a JSON object")
    limit = body.get("max_tokens")
    if dialect == "openai":
        limit = body.get("max_completion_tokens", 4096 if limit is None else limit)
    elif not (version or body.get("anthropic_version")):
        return Refusal(400, "anthropic-version: header is required")
    elif gone := _GONE & body.keys():
        return Refusal(400, f"{', '.join(sorted(gone))}: not supported by this model")
    if not isinstance(limit, int) or limit < (dialect == "openai"):
        return Refusal(400, "max_tokens: a whole number >= 0 is required")
    if not body.get("messages"):
        return Refusal(400, "messages: at least one message is required")
    name = name or str(body.get("model"))
    model = find_model(name)
    if model is None or (dialect == "openai") == ("cache_write_5m" in model.prices):
        return Refusal(404, f"model: {name[:80]}")
    try:
        blocks = list(_read_blocks(body))
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        return Refusal(400, "messages: each needs a role and a content of text blocks")
    tokens = sum(block.tokens for block in blocks)
    if tokens > model.window:
        return Refusal(400, f"prompt is too long: {tokens} tokens > {model.window} maximum")
    prompt = "\n".join(block.text for block in blocks)
    return Call(
        dialect=dialect, model=model, body=body, blocks=blocks, prompt=prompt,
        digest=sha256(prompt.encode()).hexdigest(), max_tokens=limit,
        is_stream=in_stream or bool(body.get("stream")),
        is_regional=dialect == "bedrock" and not name.startswith("global."),
    )  # fmt: skip


def _read_blocks(body: Mapping[str, Any]) -> Iterator[Block]:
    """Give a request's texts in the service's order: another schema is another cached prefix."""
    schema = (body.get("output_config") or {}).get("format") or body.get("response_format")
    groups = [(0, body.get("tools")), (0, [schema] if schema else None), (0, body.get("system"))]
    groups += [(3, message["content"]) for message in body["messages"]]
    for number, (extra, content) in enumerate(groups, start=1):
        parts = [{"text": content}] if isinstance(content, str) else content or ()
        for place, part in enumerate(parts, start=1):
            is_last = number == len(groups) and place == len(parts)
            control = part.get("cache_control") or (is_last and body.get("cache_control"))
            text = part["text"] if "text" in part else json.dumps(part, separators=(",", ":"))
            tokens = -(-len(text.encode()) // 4) + (extra if place == 1 else 0)
            yield Block(text, tokens, _TTLS[control.get("ttl")] if control else "")


def _usage(call: Call, generated: Generated) -> dict[str, Any]:
    usage = generated.usage
    if call.dialect == "openai":
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
    return {
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "service_tier": "batch" if generated.is_batch else "standard",
    }


def plain_body(call: Call, generated: Generated) -> dict[str, Any]:
    """Return a whole answer's JSON."""
    if call.dialect == "openai":
        message = {"role": "assistant", "content": generated.text}
        choice = {"index": 0, "message": message, "finish_reason": _finish(generated)}
        return _chat(call, generated, "chat.completion", [choice]) | {
            "usage": _usage(call, generated)
        }
    return {
        "id": f"msg_{generated.number:08d}",
        "type": "message",
        "role": "assistant",
        "model": call.model.name,
        "content": [{"type": "text", "text": generated.text}] if generated.text else [],
        "stop_reason": generated.stop_reason,
        "stop_sequence": None,
        "usage": _usage(call, generated),
    }


def _chat(call: Call, generated: Generated, kind: str, choices: list[Any]) -> dict[str, Any]:
    name, created = f"chatcmpl-{generated.number:08d}", int(generated.at)
    model = call.model.name
    return {"id": name, "object": kind, "created": created, "model": model, "choices": choices}


def _finish(generated: Generated) -> str:
    return "length" if generated.stop_reason == "max_tokens" else "stop"


def whole(call: Call, generated: Generated) -> list[bytes]:
    """Return an answer's body, or a stream's events; without the last two that is not whole."""
    if not call.is_stream:
        return [json.dumps(plain_body(call, generated)).encode()]
    size = max(16, len(generated.text) // 8)
    pieces = [generated.text[at : at + size] for at in range(0, len(generated.text), size)]
    make = _chat_chunks if call.dialect == "openai" else _message_events
    framed = [_frame(call.dialect, event) for event in make(call, generated, pieces)]
    return [*framed, b"data: [DONE]\n\n"] if call.dialect == "openai" else framed


def _message_events(
    call: Call, generated: Generated, pieces: list[str]
) -> Iterator[dict[str, Any]]:
    message = plain_body(call, generated)
    usage = message["usage"]
    begun = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": message | begun}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in pieces:
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": generated.stop_reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": usage}
    yield {"type": "message_stop"}


def _chat_chunks(call: Call, generated: Generated, pieces: list[str]) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _chat(call, generated, "chat.completion.chunk", [choice])

    yield chunk({"role": "assistant", "content": ""})
    yield from (chunk({"content": piece}) for piece in pieces)
    yield chunk({}, _finish(generated))
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield chunk({}) | {"choices": [], "usage": _usage(call, generated)}


def _frame(dialect: Dialect, event: dict[str, Any]) -> bytes:
    """Return one event of a stream: a server-sent event, on Bedrock AWS's binary framing."""
    data = json.dumps(event)
    if dialect != "bedrock":
        name = "" if dialect == "openai" else f"event: {event['type']}\n"
        return f"{name}data: {data}\n\n".encode()
    payload = json.dumps({"bytes": base64.b64encode(data.encode()).decode()}).encode()
    headers = b"".join(
        struct.pack(">B", len(name)) + name + struct.pack(">BH", 7, len(value)) + value
        for name, value in (
            (b":event-type", b"chunk"),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def spoil(chunks: list[bytes], call: Call, fault: str) -> tuple[list[bytes], str]:
    """Return what is sent of a whole answer, and its media type."""
    kind = "text/event-stream" if call.is_stream else "application/json"
    if call.is_stream and call.dialect == "bedrock":
        kind = "application/vnd.amazon.eventstream"
    if fault == "html":
        return [b"<html><body><h1>Service unavailable</h1></body></html>"], "text/html"
    if fault == "malformed":
        chunks = [chunks[0].replace(b"{", b"{{", 1), *chunks[1:]]
    elif fault == "wrong_schema":
        data = json.dumps(_NO_ANSWER).encode()
        chunks = [_frame(call.dialect, _NO_ANSWER) if call.is_stream else data]
    elif fault == "early_end" or fault in CLOSING:
        half = len(chunks[0]) // 2
        chunks = chunks[: len(chunks) // 2] if call.is_stream else [chunks[0][:half]]
    return chunks, kind
