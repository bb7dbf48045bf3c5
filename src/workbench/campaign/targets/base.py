"""What a target is: something that prompts go into and text comes out of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias, get_args

from workbench.core.money import ZERO

__all__ = [
    "ASKED_FOR", "Conversation", "Decision", "Kind", "PassThrough", "Response", "Target", "worst",
]  # fmt: skip

Decision = Literal["pass", "dewrap", "redirect", "block"]
"""What a guard did, the one that changes least first; a model answers (``pass``) or its service
declines (``block``)."""
Kind = Literal["guard", "model"]
"""``guard``: its text is what a model behind it would receive · ``model``: it is an answer."""
Conversation: TypeAlias = tuple[str, ...]
"""What the attacker says, one message after another; the last one is the attack itself."""

ASKED_FOR: ContextVar[tuple[str, str, int]] = ContextVar("asked_for", default=("", "", 0))
"""Execution, case and trial for which targets are asked; set by whoever makes the attempts."""


def worst(decisions: Iterable[Decision]) -> Decision:
    """Return the decision that changes most."""
    return max(decisions, key=get_args(Decision).index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What came back for a conversation."""

    text: str
    """Of a guard, what the model behind it would receive; of a model, its last answer. Hostile,
    not yet redacted."""
    decision: Decision
    latency_ms: float
    """Of all turns together."""
    usd: Decimal = ZERO
    replies: tuple[str, ...] = ()
    """What came back on the turns before the last."""


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
    def kind(self) -> Kind:
        """Whether its text goes on to a model, or comes from one."""
        ...

    @property
    def defends(self) -> bool:
        """Whether it claims to stop attacks; one that does not is a baseline."""
        ...

    @property
    def parallel(self) -> int:
        """Most calls of :meth:`respond` at the same time, >= 1."""
        ...

    @property
    def batch(self) -> int:
        """Most conversations per call, >= 1."""
        ...

    @property
    def usd_per_call(self) -> Decimal:
        """Declared price of one message, set aside before it is sent; 0 for none."""
        ...

    @property
    def is_metered(self) -> bool:
        """Whether the gateway enters what it costs in the ledger, or it costs nothing."""
        ...

    async def respond(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return one response per conversation, in order; every turn is asked anew.

        Raises:
            BudgetError: At the limit; the execution stops and can be resumed.
            Exception: Anything else is a failure of this call alone.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class PassThrough:
    """Gives every prompt on unchanged: what an undefended model would receive."""

    name = "bare"
    identity = "pass-through/1"
    kind: Kind = "guard"
    defends = False
    parallel = 1
    batch = 64
    usd_per_call = ZERO
    is_metered = True

    async def respond(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return each conversation as it is."""
        return [
            Response(text="\n".join(turns), decision="pass", latency_ms=0.0)
            for turns in conversations
        ]

    async def close(self) -> None:
        """Nothing to close."""
