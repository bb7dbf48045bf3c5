"""Which tier and model answers a request, by its task and difficulty; see ``models.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, InputError
from workbench.core.fields import suggest
from workbench.llm.config import GatewayConfig
from workbench.llm.messages import Difficulty, Request, Tier

__all__ = ["Route", "Router"]

_TABLE = Path(__file__).with_name("models.json")
_TIERS: tuple[Tier, ...] = ("cheap", "standard", "strong")
_STEPS: dict[Difficulty, int] = {"simple": -1, "normal": 0, "complex": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who answers."""

    tier: Tier
    model: str
    """Empty where a rule answers."""
    reason: str
    """Why, in a few words."""


class Router:
    """Routes requests as the shipped table says, and the configuration over it."""

    def __init__(self, config: GatewayConfig) -> None:
        table = _table()
        self._config = config
        self._models: dict[Tier, str] = {**table["providers"][config.provider], **config.models}
        self._tasks: dict[str, Tier] = {**table["tasks"], **config.tasks}
        self._ttl_s: dict[str, float | None] = {**table["ttl_s"], **config.ttl_s}
        self._windows: dict[str, int] = table["window_tokens"]

    def route(self, request: Request) -> Route:
        """Return who answers a request.

        Raises:
            ConfigError: If its task is unknown or no model is known for its tier.
            InputError: If its prompt is certainly too long for the model.
        """
        if request.model:
            route = Route(tier=self._tier_of(request.model), model=request.model, reason="named")
        else:
            route = self._by_task(request)
        self._check_length(request, route.model)
        return route

    def ttl_s(self, namespace: str) -> float | None:
        """Return how many seconds an answer of that namespace is kept; None for ever."""
        return self._ttl_s.get(namespace, self._ttl_s["default"])

    def _by_task(self, request: Request) -> Route:
        tier = self._tasks.get(request.task)
        if tier is None:
            raise ConfigError(
                f"unknown task {request.task[:80]!r}; {suggest(request.task, self._tasks)} (others"
                " go under llm: tasks: in the experiment file)"
            )
        reason = f"task {request.task}, {request.difficulty}"
        if not self._config.savings.routing:
            tier, reason = "strong", "routing is off"
        elif tier == "none":
            return Route(tier="none", model="", reason=f"task {request.task}: a rule answers")
        else:
            step = _TIERS.index(tier) + _STEPS[request.difficulty]
            tier = _TIERS[min(max(step, 0), len(_TIERS) - 1)]
        return Route(tier=tier, model=self._model(tier), reason=reason)

    def _model(self, tier: Tier) -> str:
        if model := self._models.get(tier):
            return model
        raise ConfigError(
            f"no {tier} model is known for the provider {self._config.provider}; name one in the"
            f" experiment file, e.g. llm: {{models: {{{tier}: NAME}}}}"
        )

    def _tier_of(self, model: str) -> Tier:
        """Return a model's tier; one that no tier names is taken for strong, the dearest."""
        return next((tier for tier in _TIERS if self._models.get(tier) == model), "strong")

    def _check_length(self, request: Request, model: str) -> None:
        """Refuse what cannot fit, if every word is at least one token and any byte at most one.

        No token of a known tokenizer of these services joins words across white space.
        """
        known = (tokens for name, tokens in self._windows.items() if name in model)
        window = next(known, request.size_bytes)
        if request.size_bytes <= window:
            return
        texts = (request.system, request.prompt, *(turn.text for turn in request.history))
        words = sum(len(text.split()) for text in texts)
        if words > window:
            raise InputError(
                f"a prompt of {words:,} words exceeds the {window:,} tokens that {model} reads;"
                " shorten it, e.g. with workbench.llm.context.fit"
            )


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
