"""What the loopback server does wrong, by chance or by script, and its rate limits.

================ ==================================================== ==========================
name             what the client sees                                 billed
================ ==================================================== ==========================
``429`` etc.     this status with the service's JSON error            no
``drop``         the connection closes before anything is generated   no
``drop_after``   the same, after the answer was generated             yes
``stream_drop``  the connection closes in the middle of the answer    yes
``early_end``    half an answer, ended as if it were whole            yes
``truncated``    the body is shorter than its ``content-length``      with ``lost_answers_bill``
``malformed``    a body that is not JSON                              with ``lost_answers_bill``
``html``         a web page with status 200                           with ``lost_answers_bill``
``wrong_schema`` JSON without the fields of an answer                 with ``lost_answers_bill``
``slow``         the answer, ``slow_s`` later                         yes
``errored``      one request of a batch fails                         no
``expired``      one request of a batch is not processed in time      no
================ ==================================================== ==========================
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from workbench.core.errors import InputError

__all__ = ["ALWAYS_BILLED", "Dice", "Faults", "Limits", "Refusal", "parse_faults"]

_ERROR_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 409: "invalid_request_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 503: "api_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
ALWAYS_BILLED = frozenset({"", "slow", "drop_after", "stream_drop", "early_end"})
_IN_BATCHES = frozenset({"errored", "expired"})
_OTHERS = frozenset({"drop", "truncated", "malformed", "html", "wrong_schema"})
_NAMES = ALWAYS_BILLED | _IN_BATCHES | _OTHERS | frozenset(map(str, _ERROR_TYPES))


class Refusal(NamedTuple):
    """An error instead of an answer."""

    status: int
    message: str
    headers: Mapping[str, str] = {}

    def body(self, *, request_id: str) -> dict[str, Any]:
        """Return JSON that both the Anthropic and the OpenAI client understand."""
        error = {"type": _ERROR_TYPES[self.status], "message": self.message, "code": None}
        return {"type": "error", "error": error, "request_id": request_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what goes wrong; see this module's table.

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
    spoil_items: float = 0.0
    """Share of the items of a list that are left out or broken."""

    def __post_init__(self) -> None:
        for name in {*self.rates, *self.script} - _NAMES:
            known = ", ".join(sorted(_NAMES - {""}))
            raise InputError(f"unknown fault {name[:40]!r}; known: {known}")
        total, least = sum(self.rates.values()), min((0, *self.rates.values(), self.spoil_items))
        if least < 0 or not max(total, self.spoil_items) <= 1:
            raise InputError(f"shares of faults add up to {total:g}; they must be in 0..1")


def parse_faults(text: str) -> Faults:
    """Return faults, and their options, written as ``429=0.05,drop=0.02,retry_after_s=0.1``.

    Raises:
        InputError: If a part is not ``name=number``, or :class:`Faults` refuses it.
    """
    rates: dict[str, float] = {}
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        is_option = name in {"retry_after_s", "slow_s", "spoil_items", "lost_answers_bill"}
        try:
            (options if is_option else rates)[name] = float(value)
        except ValueError:
            raise InputError(f"fault {part[:40]!r}: write name=number, e.g. 429=0.05") from None
    return Faults(rates=rates, **options)


class Dice:
    """Draws each request's fault."""

    def __init__(self, faults: Faults, *, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._script = list(faults.script)
        self._rates = dict(faults.rates)

    def draw(self, *, in_batch: bool = False) -> str:
        """Return the next request's fault, empty for none."""
        if self._script and (not self._script[0] or (self._script[0] in _IN_BATCHES) == in_batch):
            return self._script.pop(0)
        left = self._random.random()
        for name, share in self._rates.items():
            left -= share if (name in _IN_BATCHES) == in_batch else 0
            if left < 0:
                return name
        return ""


class _Bucket:
    """Fills evenly, up to one minute's worth."""

    def __init__(self, per_minute: float) -> None:
        self.per_minute = self.left = per_minute
        self._at = time.monotonic()

    def wait_s(self, amount: float) -> float:
        now = time.monotonic()
        self.left = min(self.per_minute, self.left + (now - self._at) * self.per_minute / 60)
        self._at = now
        return max(0.0, (amount - self.left) * 60 / self.per_minute)

    def headers(self, name: str, *, is_openai: bool) -> dict[str, str]:
        full_s = self.wait_s(self.per_minute)
        at = datetime.fromtimestamp(math.ceil(time.time() + full_s), UTC)
        kind = "input-tokens" if name == "tokens" else name
        told = {
            "limit": f"{self.per_minute:.0f}",
            "remaining": str(max(0, int(self.left))),
            "reset": f"{full_s:.3f}s" if is_openai else f"{at:%Y-%m-%dT%H:%M:%SZ}",
        }
        shape = f"x-ratelimit-{{}}-{name}" if is_openai else f"anthropic-ratelimit-{kind}-{{}}"
        return {shape.format(what): value for what, value in told.items()}


class Limits:
    """Requests and prompt tokens per minute, per organization and model; 0 for no limit."""

    def __init__(self, *, requests: float, tokens: float) -> None:
        self._rates = {"requests": requests, "tokens": tokens}
        self._buckets: dict[tuple[str, str], dict[str, _Bucket]] = {}

    def take(
        self, *, organization: str, model: str, tokens: int, is_openai: bool
    ) -> dict[str, str] | Refusal:
        """Return the headers of an admitted request, or a 429 that says when to come back."""
        fresh = {name: _Bucket(rate) for name, rate in self._rates.items() if rate}
        buckets = self._buckets.setdefault((organization, model), fresh)
        needs = {"requests": 1, "tokens": tokens}
        wait_s = max((bucket.wait_s(needs[name]) for name, bucket in buckets.items()), default=0.0)
        told: dict[str, str] = {}
        for name, bucket in buckets.items():
            bucket.left -= 0 if wait_s else needs[name]
            told |= bucket.headers(name, is_openai=is_openai)
        if wait_s:
            told["retry-after"] = str(math.ceil(wait_s))
            return Refusal(429, "this request would exceed the rate limit", told)
        return told
