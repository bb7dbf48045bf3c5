"""How the OpenAI Chat Completions API answers: refusals, errors, and what an answer used.

Source: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from workbench.core.identity import new_id
from workbench.llm.messages import Usage
from workbench.serving.turns import count

__all__ = ["error", "event", "refusal", "usage"]

_NO_TOKENS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_ERRORS = {401: "authentication_error", 402: "insufficient_quota", 429: "rate_limit_error"}


def error(status: int, message: str) -> dict[str, Any]:
    """Return the API's JSON of an error."""
    kind = _ERRORS.get(status, "server_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def refusal(body: Mapping[str, Any], text: str) -> bytes:
    """Return an answer that declines: JSON, or all events where a stream was asked for.

    The text is the ``content`` too: many clients show nothing else.
    """
    said = {"role": "assistant", "content": text, "refusal": text}
    choice = {"index": 0, "logprobs": None, "finish_reason": "content_filter"}
    answer = {
        "id": new_id("chatcmpl"), "object": "chat.completion", "created": int(time.time()),
        "model": str(body.get("model")),
    }  # fmt: skip
    if body.get("stream") is not True:
        choices = [choice | {"message": said}]
        return json.dumps(answer | {"choices": choices, "usage": _NO_TOKENS}).encode()
    chunk = answer | {"object": "chat.completion.chunk"}
    begun = [choice | {"delta": said, "finish_reason": None}]
    sent = [chunk | {"choices": begun}, chunk | {"choices": [choice | {"delta": {}}]}]
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        sent.append(chunk | {"choices": [], "usage": _NO_TOKENS})
    return b"".join([*map(event, sent), b"data: [DONE]\n\n"])


def event(values: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"data: {json.dumps(values)}\n\n".encode()


def usage(found: Mapping[str, Any]) -> Usage:
    """Return the tokens that an answer's ``usage`` says; its prompt includes those of the cache."""
    details = found.get("prompt_tokens_details")
    read = count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    return Usage(
        input_tokens=max(count(found.get("prompt_tokens")) - read, 0),
        cache_read_tokens=read,
        output_tokens=count(found.get("completion_tokens")),
    )
