"""The strategies: every text transform, every wrapper family that training never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, Literal

from workbench.core.errors import ConfigError
from workbench.core.registry import Registry
from workbench.data.transforms import TRANSFORMS
from workbench.data.wrappers import family_split, load_wrappers, wrap

__all__ = [
    "LAYER", "PLAIN", "Strategy", "chain_kind", "chain_name", "default_chains", "parse_chain",
    "strategies",
]  # fmt: skip

PLAIN: Final = "plain"
"""Name of the empty chain: the goal as it is."""
LAYER: Final = "+"
"""Between the strategies of a chain; the first is applied first."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One disguise. Others register theirs under the entry-point group ``workbench.strategy``."""

    name: str
    """Unique name without ``+``, e.g. ``base64``."""
    kind: Literal["encoding", "wrapper"]
    """Whether the letters change or a story goes around them."""
    taxonomy: tuple[str, ...]
    """Keys of ``plugins.catalog.TAXONOMY``."""
    disguise: Callable[..., str]
    """``(text, *, seed)`` → the text in disguise; the same arguments give the same text."""


@cache
def strategies() -> Registry[Strategy]:
    """Return the registry of strategies; reads the shipped wrappers at the first call."""
    found = [
        Strategy(name=name, kind="encoding", taxonomy=("AML.T0068",), disguise=transform.apply)
        for name, transform in TRANSFORMS
    ]
    found += [
        Strategy(
            name=f"wrap-{wrapper.family}",
            kind="wrapper",
            taxonomy=("AML.T0051", "AML.T0054"),
            disguise=partial(wrap, family=wrapper.family),
        )
        for wrapper in load_wrappers()
        if family_split(wrapper.family) == "test"
    ]
    registry: Registry[Strategy] = Registry("strategy")
    for strategy in found:
        registry.register(strategy.name)(strategy)
    return registry


def default_chains() -> tuple[str, ...]:
    """Return what an empty choice means: plain, each strategy alone, two layered ones."""
    wrapper = next(name for name, strategy in strategies() if strategy.kind == "wrapper")
    layered = (f"leetspeak{LAYER}base64", f"{wrapper}{LAYER}base64")
    return (PLAIN, *strategies().names(), *layered)


def parse_chain(text: str) -> tuple[Strategy, ...]:
    """Return the strategies that ``a+b`` names, first applied first; none for ``plain``.

    Raises:
        ConfigError: If a name is unknown or empty, or ``plain`` stands inside a chain.
    """
    if text == PLAIN:
        return ()
    names = text.split(LAYER)
    if PLAIN in names or "" in names:
        raise ConfigError(f"chain {text!r} has an empty or plain layer; write names like a+b")
    return tuple(strategies().get(name) for name in names)


def chain_name(names: Sequence[str]) -> str:
    """Return what :func:`parse_chain` reads: ``a+b``, or ``plain`` for none."""
    return LAYER.join(names) or PLAIN


def chain_kind(names: Sequence[str]) -> Literal["plain", "encoding", "wrapper", "layered"]:
    """Return what a chain of strategy names does to a goal."""
    if not names:
        return PLAIN
    return strategies().get(names[0]).kind if len(names) == 1 else "layered"
