"""A trained sanitizer in front of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.campaign.targets.base import Conversation, Kind, Response, worst
from workbench.core.errors import ConfigError
from workbench.core.identity import text_id
from workbench.core.money import ZERO

if TYPE_CHECKING:
    from workbench.diffusion.sanitizer import Sanitizer

__all__ = ["SanitizerTarget"]


class SanitizerTarget:
    """What a sanitizer lets through at one gain, which multiplies the odds of harm.

    It looks at one message at a time, as it does in front of a chat: of several turns all that come
    through are given, and the worst decision counts.
    """

    kind: Kind = "guard"
    defends = True
    parallel = 1
    batch = 64
    usd_per_call = ZERO
    is_metered = True

    def __init__(self, sanitizer: Sanitizer, *, gain: float = 1.0) -> None:
        if not gain >= 0:
            raise ConfigError(f"gain is {gain}; give a number >= 0")
        self._sanitizer = sanitizer
        self._gain = float(gain)
        self.name = f"sanitizer@{self._gain}"
        judged = repr(sanitizer.judge.threshold) if sanitizer.judge else "no judge"
        self.identity = text_id("sanitizer", sanitizer.id, repr(self._gain), judged)

    async def respond(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return what the sanitizer made of each conversation."""
        return await asyncio.to_thread(self.sanitized, conversations)

    def sanitized(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return the same, without an event loop."""
        made = iter(self._sanitizer([turn for turns in conversations for turn in turns],
                                    gain=self._gain))  # fmt: skip
        responses = []
        for turns in conversations:
            mine = [next(made) for _ in turns]
            responses.append(
                Response(
                    text="\n".join(one.text for one in mine),
                    decision=worst(one.decision for one in mine),
                    latency_ms=sum(sum(one.latency_ms.values()) for one in mine),
                    replies=tuple(one.text for one in mine[:-1]),
                )
            )
        return responses

    async def close(self) -> None:
        """Nothing to close."""
