"""The bare target: no defense at all."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.campaign.targets.base import Response

__all__ = ["PassThrough"]


class PassThrough:
    """Gives every prompt on unchanged: what an undefended model would receive."""

    name = "bare"
    identity = "pass-through/1"
    defends = False

    def respond(self, prompts: Sequence[str]) -> list[Response]:
        """Return each prompt as it is."""
        return [Response(text=prompt, decision="pass", latency_ms=0.0) for prompt in prompts]
