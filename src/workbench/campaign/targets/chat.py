"""What all targets share that are talked to message by message."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from workbench.campaign.targets.base import Conversation, Decision, Kind, Response
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.pacing import Pacer
from workbench.campaign.targets.template import Asked
from workbench.llm.timing import Timing

__all__ = ["ChatTarget", "Said"]

_PARALLEL = 8


class Said(NamedTuple):
    """What a target said to one message."""

    text: str
    latency_ms: float
    usd: Decimal
    decision: Decision = "pass"


class ChatTarget(ABC):
    """Has conversations: every message goes out with the target's own replies before it.

    A message that the service declines ends its conversation.

    Args:
        spec: What somebody wrote.
        name: Its name where none was written.
        identity: Content id of what decides about its answers.
        timing: Clocks and sleep.
        tell: Called with a line when quiet hours hold it.
    """

    kind: Kind = "model"
    batch = 1
    is_metered = False

    def __init__(
        self,
        spec: TargetSpec,
        *,
        name: str,
        identity: str,
        timing: Timing | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.name = spec.name or name
        self.identity = identity
        self.defends = spec.defends
        self.parallel = spec.parallel or _PARALLEL
        self.usd_per_call = spec.usd_per_call
        self._spec = spec
        self._pace = Pacer(
            self.name,
            requests_per_minute=spec.requests_per_minute,
            quiet=spec.quiet,
            max_attempts=spec.max_attempts,
            pause_cap_s=spec.pause_cap_s,
            timing=timing,
            tell=tell,
        )

    async def respond(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return what it answers to each conversation; sends every message of it.

        Raises:
            TargetError: If it gave no usable answer.
        """
        return [await self._converse(turns) for turns in conversations]

    async def _converse(self, turns: Conversation) -> Response:
        said: list[Said] = []
        messages: list[dict[str, str]] = []
        conversation = uuid4().hex
        async with self._line(len(turns)) as line:
            for prompt in turns:
                messages.append({"role": "user", "content": prompt})
                asked = Asked(prompt, messages, conversation)
                said.append(await self._pace.attempts(partial(self._say, asked, line)))
                if said[-1].decision == "block":
                    break
                messages.append({"role": "assistant", "content": said[-1].text})
        return Response(
            text=said[-1].text,
            decision=said[-1].decision,
            latency_ms=math.fsum(one.latency_ms for one in said),
            usd=sum((one.usd for one in said), Decimal(0)),
            replies=tuple(one.text for one in said[:-1]),
        )

    def _line(self, messages: int) -> AbstractAsyncContextManager[Any]:  # noqa: ARG002
        """Give what a conversation of so many messages is held over."""
        return nullcontext()

    @abstractmethod
    async def _say(self, asked: Asked, line: Any) -> Said:
        """Return what the target says to a message, asked once."""

    async def close(self) -> None:  # noqa: B027 - not all have any
        """Close the connections."""
