"""What a target is: something that prompts go into and text comes out of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Decision", "PassThrough", "Response", "Target"]

Decision = Literal["pass", "dewrap", "redirect", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came through a target."""

    text: str
    """What the model behind it would receive; hostile, not yet redacted."""
    decision: Decision
    latency_ms: float


class Target(Protocol):
    """Something to attack. Deterministic targets make executions reproducible."""

    @property
    def name(self) -> str:
        """Short name, unique within an execution."""
        ...

    @property
    def identity(self) -> str:
        """Content id: differs where answers could differ (other model, other gain)."""
        ...

    @property
    def defends(self) -> bool:
        """Whether it claims to stop attacks; one that does not is a baseline."""
        ...

    def respond(self, prompts: Sequence[str]) -> list[Response]:
        """Return one response per prompt, in order."""
        ...


class PassThrough:
    """Gives every prompt on unchanged: what an undefended model would receive."""

    name = "bare"
    identity = "pass-through/1"
    defends = False

    def respond(self, prompts: Sequence[str]) -> list[Response]:
        """Return each prompt as it is."""
        return [Response(text=prompt, decision="pass", latency_ms=0.0) for prompt in prompts]
