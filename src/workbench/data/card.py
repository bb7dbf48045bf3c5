"""The data card: what a pair set holds, where it came from, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.core.redact import redact
from workbench.data.dedupe import normalize
from workbench.data.pairs import SPLITS, PairSet
from workbench.store.results import PairsResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["make_card"]

_SAMPLES_PER_RELATION = 3
_SAMPLE_CHARS = 300


def make_card(pair_set: PairSet) -> PairsResult:
    """Return the card of a pair set; samples are plain text of at most 300 characters."""
    frame, manifest = pair_set.frame, pair_set.manifest
    return PairsResult(
        kind="pairs",
        version=pair_set.version,
        pairs=len(frame),
        unique_requests=len({normalize(core) for core in frame["core"]}),
        unique_groups=int(frame["group"].nunique()),
        wrapper_families=len(set(frame["wrapper_family"]) - {""}),
        near_duplicates=manifest["near_duplicates"],
        splits={split: int((frame["split"] == split).sum()) for split in SPLITS},
        by_category=_counts(frame["category"]),
        by_relation=_counts(frame["relation"]),
        by_family=_counts(frame["wrapper_family"].replace("", "(bare)")),
        dropped=manifest["dropped"],
        sources=manifest["sources"],
        seed=manifest["config"]["seed"],
        samples=_samples(frame),
    )


def _counts(column: pd.Series[Any]) -> dict[str, int]:
    counts = column.value_counts().to_dict()
    return {
        str(name): int(counts[name]) for name in sorted(counts, key=lambda one: (-counts[one], one))
    }


def _samples(frame: pd.DataFrame) -> list[dict[str, str]]:
    chosen = frame.groupby("relation", sort=True).head(_SAMPLES_PER_RELATION)
    fields = ("adversarial", "clean", "relation", "category", "split")
    return [
        {field: _plain(row[field]) for field in fields} for row in chosen.to_dict(orient="records")
    ]


def _plain(text: str) -> str:
    """Return one line without invisible or direction-changing characters."""
    shown = "".join(char if char.isprintable() else " " for char in redact(text))
    shown = " ".join(shown.split())
    return shown if len(shown) <= _SAMPLE_CHARS else shown[: _SAMPLE_CHARS - 1] + "\u2026"
