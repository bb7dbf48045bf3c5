"""A trained sanitizer in front of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.campaign.targets.base import Response
from workbench.core.errors import ConfigError
from workbench.core.identity import text_id

if TYPE_CHECKING:
    from workbench.diffusion.sanitizer import Sanitizer

__all__ = ["SanitizerTarget"]


class SanitizerTarget:
    """What a sanitizer lets through at one gain, which multiplies the odds of harm."""

    defends = True

    def __init__(self, sanitizer: Sanitizer, *, gain: float = 1.0) -> None:
        if not gain >= 0:
            raise ConfigError(f"gain is {gain}; give a number >= 0")
        self._sanitizer = sanitizer
        self._gain = float(gain)
        self.name = f"sanitizer@{self._gain}"
        judged = repr(sanitizer.judge.threshold) if sanitizer.judge else "no judge"
        self.identity = text_id("sanitizer", sanitizer.id, repr(self._gain), judged)

    def respond(self, prompts: Sequence[str]) -> list[Response]:
        """Return what the sanitizer made of each prompt."""
        return [
            Response(text=one.text, decision=one.decision, latency_ms=sum(one.latency_ms.values()))
            for one in self._sanitizer(prompts, gain=self._gain)
        ]
