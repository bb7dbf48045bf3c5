"""What a strategy is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from workbench.core.errors import ConfigError

__all__ = ["LAYER", "PLAIN", "Kind", "Strategy", "chain_name"]

PLAIN: Final = "plain"
"""Name of the empty chain: the goal as it is."""
LAYER: Final = "+"
"""Between the strategies of a chain; the first is applied first."""

Kind: TypeAlias = Literal["encoding", "wrapper", "framing", "augmentation", "model"]
"""The letters change; a story that training never saw goes around the request; it is put in another
way, known from papers; it is perturbed at random; a model rewrites it."""


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One disguise. Others register theirs under the entry-point group ``workbench.strategy``."""

    name: str
    """Unique name without ``+``, e.g. ``base64``."""
    kind: Kind
    """What is done to the request."""
    taxonomy: tuple[str, ...]
    """Keys of ``plugins.catalog.TAXONOMY``."""
    description: str
    """One sentence about the technique."""
    disguise: Callable[..., str] | None = None
    """``(text, *, seed)`` → the text in disguise; the same arguments give the same text. Nothing
    where a model has to be asked."""

    def __post_init__(self) -> None:
        if self.disguise is None and self.kind != "model":
            raise ConfigError(
                f"strategy {self.name!r} is of kind {self.kind!r} without a disguise; give it one"
            )


def chain_name(names: Sequence[str]) -> str:
    """Return what ``catalog.parse_chain`` reads: ``a+b``, or ``plain`` for none."""
    return LAYER.join(names) or PLAIN
