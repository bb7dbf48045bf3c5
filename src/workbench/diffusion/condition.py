"""What is known about a prompt beside its text, as one row of numbers; unknown is all zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.core.errors import ConfigError
from workbench.core.identity import stable_fraction

__all__ = ["CONDITION_DIM", "CONTEXTS", "DOMAINS", "Condition", "condition_rows"]

CONTEXTS: Final = ("educational", "research", "general")
DOMAINS: Final = ("general", "medical", "financial", "legal")
_LANGUAGE_BITS = 8
_LOG_CHARS_MAX = math.log1p(100_000)
CONDITION_DIM: Final = len(CONTEXTS) + len(DOMAINS) + _LANGUAGE_BITS + 1 + 2


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Signals beside the text; each may be unknown."""

    context: str = ""
    """One of :data:`CONTEXTS`; empty where unknown."""
    domain: str = ""
    """One of :data:`DOMAINS`; another one counts as unknown."""
    language: str = ""
    """BCP 47 tag; empty where unknown."""
    chars: int = 0
    """Length of the prompt; 0 where unknown."""
    detail: float | None = None
    """Wanted degree of detail of the answer, 0 to 1."""

    def __post_init__(self) -> None:
        if self.context not in ("", *CONTEXTS):
            raise ConfigError(f"context is {self.context!r}; known: {', '.join(CONTEXTS)}")
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise ConfigError(f"detail is {self.detail}; it must be in [0, 1]")

    def row(self) -> list[float]:
        """Return ``CONDITION_DIM`` numbers, those of an unknown signal all zero."""
        language = [
            (1 if stable_fraction("language", self.language, str(bit)) < 0.5 else -1)  # noqa: PLR2004
            / math.sqrt(_LANGUAGE_BITS)
            for bit in range(_LANGUAGE_BITS)
        ]
        return [
            *(float(self.context == one) for one in CONTEXTS),
            *(float(self.domain == one) for one in DOMAINS),
            *(language if self.language else [0.0] * _LANGUAGE_BITS),
            math.log1p(self.chars) / _LOG_CHARS_MAX,
            # two numbers, so that no detail at all differs from unknown
            *((0.0, 0.0) if self.detail is None else (self.detail, 1 - self.detail)),
        ]


def condition_rows(
    conditions: Sequence[Condition],
) -> Float[Tensor, "batch conditions"]:
    """Return conditions as float32 rows of ``CONDITION_DIM`` numbers."""
    rows = [one.row() for one in conditions]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), CONDITION_DIM)
