"""All strategies: transforms, wrappers that training never saw, framings, model-driven ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

from workbench.campaign.strategies.base import LAYER, PLAIN, Strategy
from workbench.campaign.strategies.best_of_n import best_of_n
from workbench.campaign.strategies.framings import framings
from workbench.campaign.strategies.model_driven import model_strategies
from workbench.core.errors import ConfigError
from workbench.core.registry import Registry
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import family_split, load_wrappers, wrap

__all__ = ["chain_kind", "default_chains", "parse_chain", "strategies"]

_PYRIT = "pyrit-"
"""How names begin that stand for PyRIT's converters, loaded when one is asked for."""
_LAYERED = ("leetspeak+base64", "past_tense+refusal_suppression", "homoglyph+role_play")


@cache
def strategies() -> Registry[Strategy]:
    """Return the registry of strategies; reads the shipped wrappers and framings once."""
    found = [
        Strategy(
            name=name,
            kind="encoding",
            taxonomy=("AML.T0068",),
            description=transform.description,
            disguise=transform.apply,
        )
        for name, transform in TRANSFORMS
    ]
    found += [
        Strategy(
            name=f"wrap-{wrapper.family}",
            kind="wrapper",
            taxonomy=("AML.T0051", "AML.T0054"),
            description="A made-up setting goes around the request: "
            f"{wrapper.family.replace('_', ' ')}.",
            disguise=partial(wrap, family=wrapper.family),
        )
        for wrapper in load_wrappers()
        if family_split(wrapper.family) == "test"
    ]
    augmentation = Strategy(
        name="best_of_n",
        kind="augmentation",
        taxonomy=("AML.T0054", "AML.T0068"),
        description="Words are scrambled, letters change case and some become their neighbors.",
        disguise=best_of_n,
    )
    registry: Registry[Strategy] = Registry("strategy")
    for strategy in (*found, *framings(), augmentation, *model_strategies()):
        registry.register(strategy.name)(strategy)
    return registry


def default_chains() -> tuple[str, ...]:
    """Return what an empty choice means: plain, each deterministic strategy alone, some layered.

    Strategies that ask a model spend money, so they run only when named.
    """
    free = [
        name
        for name, strategy in strategies()
        # not PyRIT's: whether they are loaded depends on what was asked for before
        if strategy.disguise is not None and not name.startswith(_PYRIT)
    ]
    wrapper = next(name for name in free if strategies().get(name).kind == "wrapper")
    return (PLAIN, *free, *_LAYERED, f"{wrapper}{LAYER}base64")


def parse_chain(text: str) -> tuple[Strategy, ...]:
    """Return the strategies that ``a+b`` names, first applied first; none for ``plain``.

    Raises:
        ConfigError: If a name is unknown or empty, ``plain`` stands inside a chain, or PyRIT's
            strategies are named where it is not installed.
    """
    if text == PLAIN:
        return ()
    names = text.split(LAYER)
    if PLAIN in names or "" in names:
        raise ConfigError(f"chain {text!r} has an empty or plain layer; write names like a+b")
    return tuple(map(_strategy, names))


def chain_kind(names: Sequence[str]) -> str:
    """Return what a chain of strategy names does to a goal.

    That is a :data:`~base.Kind`, or ``plain``, ``layered``, or ``foreign`` where others made it.
    """
    if len(names) != 1:
        return "layered" if names else PLAIN
    try:
        return _strategy(names[0]).kind
    except ConfigError:
        return "foreign"


def _strategy(name: str) -> Strategy:
    if name.startswith(_PYRIT):
        _add_pyrit()
    return strategies().get(name)


@cache
def _add_pyrit() -> None:
    from workbench.campaign.interop.pyrit import pyrit_strategies

    for strategy in pyrit_strategies():
        strategies().register(strategy.name)(strategy)
