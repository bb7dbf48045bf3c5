"""What ``workbench evaluate`` leaves of a sanitizer, on labelled prompts."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from workbench.store.results import Interval, JudgeReport

__all__ = ["EvaluationResult", "FigureRow"]


class FigureRow(Interval):
    """One figure of an evaluation, with its 95 % interval."""

    method: str
    """``sanitizer``; ``identity``, which sends every prompt on; ``length``, which takes the longer
    prompt for the more harmful; or a judge by its id."""
    metric: str
    gain: float
    """Of the sanitizer; 1 where it does not matter."""
    by: str
    """Column whose rows of one value these are; empty: all rows."""
    of: str
    """The value."""
    n: int
    """Rows that count; of an AUROC those of both labels."""


class EvaluationResult(TypedDict):
    """``kind: evaluation`` (``workbench evaluate``)."""

    kind: Literal["evaluation"]
    models: list[str]
    """Ids of the sanitizers; of several, figures are means over them."""
    encoder: str
    """What cosines are measured with: never the sanitizer's own."""
    data: str
    """Hash of the labelled prompts."""
    origin: str
    """Where they are from, in words: a file, or a pair set and its splits."""
    precision: str
    """Of the sanitizer's encoder: float32 or int8."""
    stamp: dict[str, Any]
    """Commit, versions of libraries and seed."""
    rows: dict[str, int]
    """Prompts by what they are: harmful, benign, lookalike, wrapped, and in all."""
    groups: int
    """Of prompts that are not independent."""
    gallery: dict[str, int]
    """Texts by kind among which outputs are looked up."""
    gallery_id: str
    seed: int
    method: str
    """How intervals, matching and galleries come about, in words."""
    last_word: str
    """Id of the judge that blocks inside, which reports nothing; empty: none does."""
    judges: list[JudgeReport]
    """The judges that report, with their error on held-out topics of their own set."""
    figures: list[FigureRow]
