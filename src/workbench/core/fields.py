"""Fields of what people write: a misspelt one is refused, with the name that was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches
from typing import Any

from workbench.core.errors import ConfigError

__all__ = ["refuse_unknown", "suggest"]


def refuse_unknown(names: Iterable[Any], *, known: Collection[str], where: str) -> None:
    """Refuse a name that is not among the known ones, e.g. a key of a mapping.

    Raises:
        ConfigError: Naming the place, the name and the one that was probably meant.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: unknown field {str(name)!r}; {suggest(name, known)}")


def suggest(name: Any, known: Collection[str]) -> str:
    """Return the known name that was probably meant by another, as a question, or all of them."""
    close = get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
