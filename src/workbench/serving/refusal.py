"""Requests that are not served: one shape, which every endpoint renders in its own format."""

from __future__ import annotations

import math
from collections.abc import Mapping

from starlette.exceptions import HTTPException

__all__ = ["Overloaded", "Refusal"]


class Refusal(HTTPException):
    """A request that is not served, and why; ``status_code``, ``detail`` and ``headers`` say it.

    Args:
        status: HTTP status.
        detail: Names the thing, the value and the fix, in one line; never a prompt's text.
        headers: To be sent with it.
        reason: One word for the metrics.
    """

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None,
        reason: str = "invalid",
    ) -> None:  # fmt: skip
        super().__init__(status, detail, headers)
        self.reason = "key" if status == 401 else reason  # noqa: PLR2004


class Overloaded(Refusal):
    """Not now: too much waits, or a key asked too often; ``retry_after_s`` says when.

    Args:
        retry_after_s: When to ask again; whole seconds are sent, at least one.
        detail: Why.
        status: 429, or 503 where this process serves nobody at the moment.
        reason: One word for the metrics.
    """

    def __init__(
        self, retry_after_s: float, detail: str, *, status: int = 429, reason: str = "overload"
    ) -> None:
        self.retry_after_s = max(math.ceil(retry_after_s), 1)
        headers = {"Retry-After": str(self.retry_after_s)}
        super().__init__(status, detail, headers=headers, reason=reason)
