"""How the services that the loopback server plays read requests and write answers."""

from __future__ import annotations

import json
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from workbench.llm.loopback.faults import RefusalError
from workbench.llm.loopback.ledger import MODELS, Block, plain_name
from workbench.llm.messages import Usage

__all__ = ["CLOSING", "Call", "Dialect", "body_of", "framed", "read_call", "read_key", "spoil"]

Dialect = Literal["anthropic", "bedrock", "vertex", "batch", "openai"]
CLOSING = frozenset({"truncated", "stream_drop"})
"""Faults that end with a closed connection."""
_NO_ANSWER = {"id": 7, "type": "message_start", "message": {"id": 7}, "choices": "none"}
_GONE = frozenset({"temperature", "top_p", "top_k"})
_FINISH = {"end_turn": "stop", "max_tokens": "length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A valid request for an answer."""

    dialect: Dialect
    model: str
    """As the request names it."""
    body: dict[str, Any]
    blocks: list[Block]
    prompt: str
    digest: str
    """Hex sha256 of the prompt."""
    schema: dict[str, Any]
    """Of the answer; empty for free text."""
    max_tokens: int
    is_stream: bool


def read_key(headers: Mapping[str, str]) -> str:
    """Return the fingerprint of the API key or, for signed Bedrock requests, of the key's id."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    signed = rest.partition("Credential=")[2].partition("/")[0]
    key = headers.get("x-api-key") or (rest if scheme == "Bearer" else signed)
    if not key:
        raise RefusalError(401, "invalid API key")
    return sha256(key.encode()).hexdigest()[:12]


def read_call(
    body: Any, *, dialect: Dialect, version: str = "", name: str = "", verb: str = ""
) -> Call:
    """Return a request as the service understands it, or raise why it refuses.

    ``version`` is the header of that name; some paths say the model's ``name`` and a ``verb``.
    """
    if not isinstance(body, dict) or not body.get("messages"):
        raise RefusalError(400, "messages: at least one message is required")
    limit, is_openai = body.get("max_tokens"), dialect == "openai"
    if is_openai:
        limit = body.get("max_completion_tokens", 4096 if limit is None else limit)
    elif not (version or body.get("anthropic_version") or dialect == "batch"):
        raise RefusalError(400, "anthropic-version: header is required")
    elif gone := _GONE & body.keys():
        raise RefusalError(400, f"{', '.join(sorted(gone))}: not supported by this model")
    if not isinstance(limit, int) or limit < is_openai:
        raise RefusalError(400, "max_tokens: a whole number >= 0 is required")
    name = name or str(body.get("model"))
    plain = plain_name(name)
    if plain not in MODELS or is_openai == plain.startswith("claude"):
        raise RefusalError(404, f"model: {name[:80]}")
    try:
        asked = (body.get("output_config") or {}).get("format") or body.get("response_format") or {}
        schema = asked.get("schema") or asked.get("json_schema", {}).get("schema") or {}
        blocks = list(_read_blocks(body, schema))
    except (AttributeError, KeyError, TypeError, UnicodeEncodeError):
        raise RefusalError(400, "messages: each needs a role and a content of texts") from None
    if sum(block.tokens for block in blocks) > MODELS[plain]["window"]:
        raise RefusalError(400, f"prompt is too long: more than {MODELS[plain]['window']} tokens")
    prompt = "\n".join(block.text for block in blocks)
    return Call(
        dialect=dialect, model=name, body=body, blocks=blocks, prompt=prompt,
        digest=sha256(prompt.encode()).hexdigest(), schema=schema, max_tokens=limit,
        is_stream=bool(body.get("stream")) or "stream" in verb.lower(),
    )  # fmt: skip


def _read_blocks(body: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Block]:
    """Give a request's texts in the service's order: another schema is another cached prefix."""
    groups = [(0, body.get("tools")), (0, [schema] if schema else None), (0, body.get("system"))]
    groups += [(3, message["content"]) for message in body["messages"]]
    for extra, content in groups:
        parts = [{"text": content}] if isinstance(content, str) else content or ()
        for place, part in enumerate(parts):
            text = part["text"] if "text" in part else json.dumps(part, separators=(",", ":"))
            tokens = -(-len(text.encode()) // 4) + (0 if place else extra)
            control = part.get("cache_control")
            yield Block(text, tokens, control.get("ttl", "5m") if control else "")


def body_of(
    call: Call, text: str, *, stop_reason: str, usage: Usage, number: int
) -> dict[str, Any]:
    """Return a whole answer's JSON."""
    model = plain_name(call.model)
    if call.dialect == "openai":
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": _FINISH[stop_reason]}
        return {
            "id": f"chatcmpl-{number:08d}", "object": "chat.completion",
            "created": int(time.time()), "model": model, "choices": [choice],
            "usage": {
                "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.output_tokens,
                "total_tokens": usage.total_tokens,
            },
        }  # fmt: skip
    writes = {
        "ephemeral_5m_input_tokens": usage.cache_write_5m_tokens,
        "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
    }
    return {
        "id": f"msg_{number:08d}", "type": "message", "role": "assistant", "model": model,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": stop_reason, "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
            "cache_creation_input_tokens": sum(writes.values()), "cache_creation": writes,
            "service_tier": "batch" if call.dialect == "batch" else "standard",
        },
    }  # fmt: skip


def framed(call: Call, text: str, body: dict[str, Any]) -> list[bytes]:
    """Return an answer as it is sent: its JSON, or events, the last two of which complete it."""
    if not call.is_stream:
        return [json.dumps(body).encode()]
    size = max(16, len(text) // 8)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    if call.dialect != "openai":
        return [_frame(call, event) for event in _message_events(body, pieces)]
    chunks = [_frame(call, chunk) for chunk in _chat_chunks(call, body, pieces)]
    return [*chunks, b"data: [DONE]\n\n"]


def _message_events(message: dict[str, Any], pieces: list[str]) -> Iterator[dict[str, Any]]:
    usage, stop_reason = message["usage"], message["stop_reason"]
    begun = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": message | begun}
    part: dict[str, Any] = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": part}
    for piece in pieces:
        part = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": part}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}
    yield {"type": "message_stop"}


def _chat_chunks(call: Call, answer: dict[str, Any], pieces: list[str]) -> Iterator[dict[str, Any]]:
    chunk = answer | {"object": "chat.completion.chunk", "usage": None}
    for piece in ["", *pieces]:
        delta = {"role": "assistant", "content": piece}
        yield chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    finish = answer["choices"][0]["finish_reason"]
    yield chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield chunk | {"choices": [], "usage": answer["usage"]}


def _frame(call: Call, event: dict[str, Any]) -> bytes:
    """Return one event of a stream: a server-sent event, on Bedrock AWS's binary framing."""
    data = json.dumps(event).encode()
    if call.dialect == "openai":
        return b"data: %b\n\n" % data
    if call.dialect != "bedrock":
        return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data)
    headers, payload = b"\x0b:event-type\x07\x00\x05chunk", b'{"bytes": "%b"}' % b64encode(data)
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
        plain = json.dumps(_NO_ANSWER).encode()
        chunks = [_frame(call, _NO_ANSWER) if call.is_stream else plain]
    elif fault == "early_end" or fault in CLOSING:
        half = len(chunks[0]) // 2
        chunks = chunks[: len(chunks) // 2] if call.is_stream else [chunks[0][:half]]
    return chunks, kind
