"""What the loopback server does wrong, by chance or by script, and its rate limits."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from workbench.core.errors import InputError, ModelError
from workbench.core.identity import seeded

__all__ = [
    "IN_BATCHES",
    "IS_BILLED",
    "Faults",
    "Limits",
    "RefusalError",
    "draws",
    "parse_faults",
]

_ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 409: "invalid_request_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 503: "api_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
IS_BILLED: dict[str, bool | None] = {
    "": True,
    "slow": True,  # the answer, slow_s later
    "drop": False,  # the connection closes before anything is generated
    "drop_after": True,  # the same, after the answer was generated
    "stream_drop": True,  # the connection closes in the middle of the answer
    "early_end": True,  # half an answer, ended as if it were whole
    "truncated": None,  # the body is shorter than its content-length
    "malformed": None,  # a body that is not JSON
    "html": None,  # a web page with status 200
    "wrong_schema": None,  # JSON without the fields of an answer
    "errored": False,  # one request of a batch fails
    "expired": False,  # one request of a batch is not processed in time
}
"""Fault → whether it is billed, None for with ``lost_answers_bill``; statuses never are."""
IN_BATCHES = frozenset({"errored", "expired"})
_NAMES = IS_BILLED.keys() | set(map(str, _ERROR_TYPES))


class RefusalError(ModelError):
    """The service's error instead of an answer; status 0 closes the connection instead."""

    def __init__(
        self, status: int, message: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}

    def body(self) -> dict[str, Any]:
        """Return JSON that both the Anthropic and the OpenAI client understand."""
        error = {"type": _ERROR_TYPES.get(self.status), "message": str(self), "code": None}
        return {"type": "error", "error": error, "request_id": None}


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How often what goes wrong; names other than HTTP statuses are in ``IS_BILLED``.

    Raises:
        InputError: If a name is unknown, or shares are negative or add up to more than 1.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    """Fault → share of requests."""
    script: Sequence[str] = ()
    """Faults of the next requests, in order, empty for none; ``rates`` hold afterwards."""
    retry_after_s: float = 0.0
    """Sent as ``retry-after`` with 429, 503 and 529; 0 for none."""
    slow_s: float = 1.0
    lost_answers_bill: bool = False

    def __post_init__(self) -> None:
        for name in {*self.rates, *self.script} - _NAMES:
            known = ", ".join(sorted(_NAMES - {""}))
            raise InputError(f"unknown fault {name[:40]!r}; known: {known}")
        total = sum(self.rates.values())
        if min(self.rates.values(), default=0) < 0 or not total <= 1:
            raise InputError(f"shares of faults add up to {total:g}; they must be in 0..1")


def parse_faults(text: str) -> Faults:
    """Return faults written as ``429=0.05,drop=0.02,retry_after_s=0.1``, or raise InputError."""
    given: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise InputError(f"fault {part[:40]!r}: write name=number, e.g. 429=0.05") from None
    options = {"retry_after_s", "slow_s", "lost_answers_bill"} & given.keys()
    return Faults(**{name: given.pop(name) for name in options}, rates=given)


def draws(faults: Faults, *, seed: int) -> Iterator[str]:
    """Give each request's fault, empty for none."""
    yield from faults.script
    names = [*faults.rates, ""]
    weights = [*faults.rates.values(), max(0.0, 1 - sum(faults.rates.values()))]
    chance = seeded("faults", seed)
    while True:
        yield chance.choices(names, weights)[0]


class Limits:
    """Requests and prompt tokens per minute, per scope; 0 for no limit.

    Each allowance fills evenly, up to one minute's worth: when it will be full says it all.
    """

    def __init__(self, *, requests: float, tokens: float) -> None:
        rates = {"requests": requests, "tokens": tokens}
        self._rates = {name: rate for name, rate in rates.items() if rate}
        self._full_at: dict[tuple[str, str], float] = {}

    def take(self, scope: str, *, tokens: int, is_openai: bool) -> dict[str, str]:
        """Return the headers of an admitted request, or raise a 429 with the time to wait."""
        now, needs = time.monotonic(), {"requests": 1, "tokens": tokens}
        full_s = {name: max(0.0, self._full_at.get((scope, name), 0) - now) for name in self._rates}
        after = {name: left + needs[name] * 60 / self._rates[name] for name, left in full_s.items()}
        wait_s = round(max(after.values(), default=0.0) - 60, 3)
        told: dict[str, str] = {}
        for name, seconds in (full_s if wait_s > 0 else after).items():
            self._full_at[scope, name] = now + seconds
            told |= _tell(name, self._rates[name], full_s=seconds, is_openai=is_openai)
        if wait_s > 0:
            told["retry-after"] = str(math.ceil(wait_s))
            raise RefusalError(429, "this request would exceed the rate limit", told)
        return told


def _tell(name: str, rate: float, *, full_s: float, is_openai: bool) -> dict[str, str]:
    at = datetime.fromtimestamp(math.ceil(time.time() + full_s), UTC)
    told = {
        "limit": f"{rate:.0f}",
        "remaining": str(round(rate * (1 - full_s / 60))),
        "reset": f"{full_s:.3f}s" if is_openai else f"{at:%Y-%m-%dT%H:%M:%SZ}",
    }
    kind = name.replace("tokens", "input-tokens")
    shape = f"x-ratelimit-{{}}-{name}" if is_openai else f"anthropic-ratelimit-{kind}-{{}}"
    return {shape.format(what): value for what, value in told.items()}
