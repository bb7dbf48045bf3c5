"""What callers send: read up to a limit and within a time, then taken apart with suspicion."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.diffusion.condition import Condition
from workbench.serving.config import ServeConfig
from workbench.serving.refusal import Refusal

__all__ = ["parse_sanitize", "read_json"]

_TEXTS = ("context", "domain", "language")
_KNOWN = ("text", "texts", "gain", "detail", *_TEXTS)
_LONGEST = 64


async def read_json(request: Request, config: ServeConfig) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Raises:
        Refusal: 400 if it is no JSON object, 408 if it came too slowly, 413 if it is too long, 415
            if it is said to be something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page of another site may send without asking
        raise Refusal(415, "send the body as Content-Type: application/json")
    body = await _read(request, config)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON; send an object") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is JSON but no object; send an object")
    return found


async def _read(request: Request, config: ServeConfig) -> bytes:
    most = config.max_body_bytes
    too_long = Refusal(413, f"the body is longer than {most:,} bytes; send less", reason="size")
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and (len(told) > len(str(most)) or int(told) > most):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(config.body_s):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_long
    except TimeoutError:
        raise Refusal(
            408, f"the body took longer than {config.body_s:g} s; send it again"
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "the caller left before its body had come") from None
    return bytes(body)


def parse_sanitize(body: Mapping[str, Any], *, gain: float) -> tuple[list[str], Condition, float]:
    """Return the texts, what is known of them, and the gain.

    Args:
        body: What came.
        gain: Where it says none.

    Raises:
        Refusal: 422, if it makes no sense.
    """
    known = {
        name: _given(body, name, lambda value: isinstance(value, str), "a short text", "")
        for name in _TEXTS
    }
    detail = _given(body, "detail", _is_number, "a number from 0 to 1", None)
    gain = float(_given(body, "gain", _is_number, "a number from 0 up", gain))
    try:
        refuse_unknown((str(name)[:_LONGEST] for name in body), known=_KNOWN, where="body")
        return _texts(body), Condition(**known, detail=detail), gain
    except ConfigError as error:
        raise Refusal(422, str(error)) from None


def _texts(body: Mapping[str, Any]) -> list[str]:
    if ("text" in body) == ("texts" in body):
        raise ConfigError("body: give either text or texts")
    texts = body["texts"] if "texts" in body else [body["text"]]
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise ConfigError("body: text is a string, texts is a list of strings")
    return texts


def _given(
    body: Mapping[str, Any], name: str, fits: Callable[[Any], bool], wanted: str, default: Any
) -> Any:
    value = body.get(name)
    if value is None:
        return default
    if not fits(value) or (
        isinstance(value, str) and (len(value) > _LONGEST or not value.isprintable())
    ):
        raise Refusal(422, f"body: {name} must be {wanted}")
    return value


def _is_number(value: Any) -> bool:
    # also refuses NaN, infinity and what no float can hold
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6  # noqa: PLR2004
