"""One HTTP exchange with a model service: what it measured, and why it failed.

The SDKs of Anthropic and OpenAI come from one generator: their exceptions have the same names and
meanings, and both stand on ``httpx2``, so that one classification serves both.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from workbench.core.errors import ModelError
from workbench.core.redact import redact
from workbench.core.settings import Secret
from workbench.llm.messages import Fault, FaultKind, Reply, Usage

__all__ = ["Exchange", "one_line", "retry_after_s"]

_MESSAGE_MAX = 300
_MOST_TOKENS = 10_000_000
"""Far above every model's window: more is a mistake of the server, not a bill."""
_NAME = re.compile(r"[\w.:/@+-]{1,100}", re.ASCII)
_LIMIT_HEADERS = (b"anthropic-ratelimit-", b"x-ratelimit-")
_UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ModelError)
_NEVER_SENT = {"ClientConnectorError", "ConnectionTimeoutError"}
"""Exceptions of aiohttp that mean: no connection, so that nothing can be billed. The SDKs' own
tell too little, OpenAI's calls every dropped connection a timeout."""


class _Meaning(NamedTuple):
    kind: FaultKind
    is_retryable: bool
    may_be_billed: bool = False


_BY_STATUS = {
    401: _Meaning("denied", False),
    402: _Meaning("denied", False),
    403: _Meaning("denied", False),
    408: _Meaning("timeout", True, True),
    409: _Meaning("unavailable", True),
    429: _Meaning("rate_limit", True),
    504: _Meaning("timeout", True, True),
    529: _Meaning("overloaded", True),
}
_STATUS_BY_TYPE = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402,
    "permission_error": 403, "not_found_error": 404, "request_too_large": 413,
    "rate_limit_error": 429, "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip
"""Errors inside a stream or a batch come without a status; source: docs of the Messages API."""


@dataclass(kw_only=True)
class Exchange:
    """One HTTP request under way."""

    sdk: Any
    """The module ``anthropic`` or ``openai``."""
    key: Secret
    response: Any = None
    """That of ``httpx2``, once it is known."""
    started: float = field(default_factory=time.monotonic)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What an SDK raises for what a service does; anything else is a mistake of ours."""
        import httpx2

        base = self.sdk.APIError.__bases__[0]
        return (base, httpx2.HTTPError, TimeoutError, *_UNREADABLE)

    def reply(
        self, *, text: str, stop_reason: str | None, usage: Usage | None, model: str
    ) -> Reply | Fault:
        """Return the reply, or a fault where it does not say why it ends or what it cost."""
        if not stop_reason or usage is None or not _is_sensible(usage):
            return self.fault("malformed", "the answer has no stop reason or no sensible usage")
        response, headers = self.response, self.response.headers
        name = headers.get("request-id") or headers.get("x-request-id") or ""
        return Reply(
            text=_hide(text, key=self.key),  # a server may send back what it got
            stop_reason=stop_reason,
            usage=usage,
            model=self._name(model),
            request_id=self._name(name),
            latency_s=time.monotonic() - self.started,
            bytes_sent=int(response.request.headers.get("content-length") or 0),
            bytes_received=response.num_bytes_downloaded,
            headers=self._limits(),
        )

    def fault(self, kind: FaultKind, message: str, **other: Any) -> Fault:
        """Return a fault; by default retryable, and maybe billed."""
        status = self.response.status_code if self.response is not None else 0
        values = {"status": status, "may_be_billed": True, **other}
        message = one_line(message, key=self.key)
        return Fault(kind=kind, message=message, headers=self._limits(), **values)

    def fault_of(self, error: BaseException) -> Fault:
        """Return what an exception of :attr:`errors` means."""
        import httpx2

        sdk = self.sdk
        self.response = getattr(error, "response", None) or self.response
        if isinstance(error, sdk.APIStatusError):
            return self._fault_of_status(self.response.status_code, error.body)
        if isinstance(error, (sdk.APIResponseValidationError, *_UNREADABLE)):
            return self.fault("malformed", f"unreadable answer: {error}")
        names = set(_names(error))
        is_sent = _NEVER_SENT.isdisjoint(names)
        if "TimeoutError" in names:
            return self.fault("timeout", "no answer in time", may_be_billed=is_sent)
        if isinstance(error, (sdk.APIConnectionError, httpx2.HTTPError)):
            return self.fault(
                "dropped" if is_sent else "unavailable",
                f"connection failed: {error.__cause__ or error}",
                may_be_billed=is_sent,
            )
        return self.fault_of_body(getattr(error, "body", None) or str(error), may_be_billed=True)

    def fault_of_body(self, body: object, *, may_be_billed: bool) -> Fault:
        """Return what an error means that came without a status of its own."""
        detail = _detail(body)
        kind = str(detail.get("type", ""))
        return self._fault_of_status(_STATUS_BY_TYPE.get(kind, 500), body, may_be_billed)

    def _fault_of_status(self, status: int, body: object, may_be_billed: bool = False) -> Fault:
        if status == HTTPStatus.OK:  # the answer had begun when the service failed
            return self.fault_of_body(body, may_be_billed=True)
        is_server = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        otherwise = _Meaning("unavailable", True) if is_server else _Meaning("invalid", False)
        meaning = _BY_STATUS.get(status, otherwise)
        detail = _detail(body)
        headers = self.response.headers if self.response is not None else {}
        return self.fault(
            meaning.kind,
            f"HTTP {status}: {detail.get('type') or ''} {detail.get('message') or body}",
            status=status,
            is_retryable=meaning.is_retryable,
            may_be_billed=meaning.may_be_billed or may_be_billed,
            retry_after_s=retry_after_s(headers, now=time.time()),
        )

    def _name(self, text: str) -> str:
        """Return a name that a service gave, empty if it is none or shows the key."""
        return text if _NAME.fullmatch(text) and _hide(text, key=self.key) == text else ""

    def _limits(self) -> dict[str, str]:
        """Return the response's rate-limit headers."""
        found = () if self.response is None else self.response.headers.raw
        return {
            name.decode().lower(): value.decode(errors="replace")
            for name, value in found
            if name.lower().startswith(_LIMIT_HEADERS)
        }


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a service asks to wait, >= 0; None where it says nothing sensible.

    Args:
        headers: ``retry-after-ms``, or ``retry-after`` in seconds or as an HTTP date.
        now: Seconds since 1970.
    """
    text = headers.get("retry-after", "")
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif text[:1].isalpha():
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        else:
            seconds = float(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def one_line(text: str, *, key: Secret) -> str:
    """Return hostile text fit for a message: one short line without keys and personal data."""
    text = _hide(text, key=key)
    text = "".join(char if char.isprintable() else " " for char in text[: 20 * _MESSAGE_MAX])
    text = redact(" ".join(text.split()))
    return text if len(text) <= _MESSAGE_MAX else text[: _MESSAGE_MAX - 1] + "…"


def _is_sensible(usage: Usage) -> bool:
    return all(0 <= count <= _MOST_TOKENS for count in vars(usage).values())


def _hide(text: str, *, key: Secret) -> str:
    value = key.reveal()
    return text.replace(value, "[key]") if value else text


def _detail(body: object) -> Mapping[str, Any]:
    """Return the part of an error's body that says what happened, {} if it has none."""
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    return body if isinstance(body, Mapping) else {}


def _names(error: BaseException | None) -> Iterator[str]:
    """Yield the names of the classes of an exception and of its causes."""
    while error is not None:
        yield from (kind.__name__ for kind in type(error).__mro__)
        error = error.__cause__
