"""The data card: what a pair set holds, where it came from, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from workbench.core.redact import redact
from workbench.data.dedupe import normalize
from workbench.data.pairs import SPLITS, PairSet
from workbench.store.results import PairsResult

__all__ = ["make_card"]

_SAMPLES_PER_RELATION = 3
_SAMPLE_CHARS = 300
_SAMPLE_FIELDS = ["adversarial", "clean", "relation", "category", "split"]


def make_card(pair_set: PairSet) -> PairsResult:
    """Return the card of a pair set; samples are plain text of at most 300 characters."""
    frame, manifest = pair_set.frame, pair_set.manifest
    samples = frame.groupby("relation").head(_SAMPLES_PER_RELATION)[_SAMPLE_FIELDS].map(_plain)
    return PairsResult(
        kind="pairs",
        version=pair_set.version,
        pairs=len(frame),
        unique_requests=len({normalize(core) for core in frame["core"].unique()}),
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
        samples=[dict(zip(_SAMPLE_FIELDS, row, strict=True)) for row in samples.to_numpy()],
    )


def _counts(column: Iterable[str]) -> dict[str, int]:
    """Return value → rows, the most frequent first, equals by name."""
    return dict(sorted(Counter(column).items(), key=lambda item: (-item[1], item[0])))


def _plain(text: str) -> str:
    """Return one line without invisible or direction-changing characters."""
    shown = "".join(char if char.isprintable() else " " for char in redact(text))
    shown = " ".join(shown.split())
    return shown if len(shown) <= _SAMPLE_CHARS else shown[: _SAMPLE_CHARS - 1] + "\u2026"
