"""How the Anthropic Messages API answers: refusals, errors, and what an answer used.

Source: https://platform.claude.com/docs/en/api/messages and …/errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workbench.core.identity import new_id
from workbench.llm.messages import Usage
from workbench.serving.turns import count

__all__ = ["error", "event", "refusal", "usage"]

_ERRORS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 413: "request_too_large",
    429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip
_NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}


def error(status: int, message: str) -> dict[str, Any]:
    """Return the API's JSON of an error."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def refusal(body: Mapping[str, Any], text: str) -> bytes:
    """Return an answer that declines: JSON, or all events where a stream was asked for."""
    stop = {"stop_reason": "refusal", "stop_sequence": None}
    block = {"type": "text", "text": text}
    message = {
        "id": new_id("msg"), "type": "message", "role": "assistant",
        "model": str(body.get("model")), "content": [block], **stop, "usage": _NO_TOKENS,
    }  # fmt: skip
    if body.get("stream") is not True:
        return json.dumps(message).encode()
    begun: dict[str, Any] = {"content": [], "stop_reason": None}
    delta = {"type": "text_delta", "text": text}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | begun},
        {"type": "content_block_start", "index": 0, "content_block": block | {"text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": _NO_TOKENS},
        {"type": "message_stop"},
    ]
    return b"".join(map(event, events))


def event(values: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"event: {values['type']}\ndata: {json.dumps(values)}\n\n".encode()


def usage(found: Mapping[str, Any]) -> Usage:
    """Return the tokens that an answer's ``usage`` says."""
    written = found.get("cache_creation")
    written = written if isinstance(written, dict) else {}
    hour = count(written.get("ephemeral_1h_input_tokens"))
    return Usage(
        input_tokens=count(found.get("input_tokens")),
        cache_read_tokens=count(found.get("cache_read_input_tokens")),
        cache_write_5m_tokens=max(count(found.get("cache_creation_input_tokens")) - hour, 0),
        cache_write_1h_tokens=hour,
        output_tokens=count(found.get("output_tokens")),
    )
