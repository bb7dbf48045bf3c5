"""A model behind the gateway as the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from workbench.campaign.targets.base import ASKED_FOR, Decision
from workbench.campaign.targets.chat import ChatTarget, Said
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.template import Asked
from workbench.core.identity import content_id
from workbench.core.money import ZERO
from workbench.llm.messages import Request, Turn
from workbench.llm.timing import Timing

if TYPE_CHECKING:
    from workbench.llm.gateway import Gateway

__all__ = ["ModelTarget"]


class ModelTarget(ChatTarget):
    """Asks a model through the gateway, which pays, limits and retries.

    Its answers are kept apart from all others: execution, target and case are their part of the
    response cache and the trial their variant, see ``base.ASKED_FOR``. So an execution that is
    resumed finds what it has paid for, and nothing else is ever answered from the cache. Where
    nobody says for which execution it is asked, each target stands for one of its own.

    Args:
        spec: What somebody wrote.
        gateway: Open, with phase ``execution`` and a configuration of ``spec.services_of``.
        service: Provider and address, since another server answers otherwise.
        timing: Clocks and sleep.
        tell: Called with a line when quiet hours hold it.
    """

    is_metered = True

    def __init__(
        self,
        spec: TargetSpec,
        *,
        gateway: Gateway,
        service: str,
        timing: Timing | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        decides = ["model", service, spec.model, spec.system, spec.max_tokens]
        name = f"{spec.provider}:{spec.model}"
        super().__init__(spec, name=name, identity=content_id(decides), timing=timing, tell=tell)
        self.usd_per_call = ZERO  # the gateway reserves and enters it
        self._gateway = gateway
        self._own = uuid4().hex

    async def _say(self, asked: Asked, line: Any) -> Said:  # noqa: ARG002
        execution, case, trial = ASKED_FOR.get()
        asked_for = content_id([execution or self._own, self.name, case])
        request = Request(
            prompt=_text(asked.prompt),
            system=self._spec.system,
            history=tuple(
                Turn("assistant" if one["role"] == "assistant" else "user", _text(one["content"]))
                for one in asked.messages[:-1]
            ),
            task="target",
            model=self._spec.model,
            namespace=f"target {asked_for}",
            variant=trial,
            max_tokens=self._spec.max_tokens,
        )
        answer = await self._gateway.ask(request)
        decision: Decision = "block" if answer.is_refusal else "pass"
        return Said(answer.text, 1000 * answer.latency_s, answer.usd, decision)


def _text(text: str) -> str:
    """Return a text as the services take it: without lone surrogates."""
    return text.encode("utf-8", "replace").decode()
