"""The texts that judges are trained on; used for nothing else in the product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.core.files import read_table, text_in
from workbench.core.identity import file_sha256
from workbench.core.settings import seeds_folder

__all__ = ["LABELS", "JudgeSet", "load_judge_set"]

LABELS = ("harmful", "benign", "lookalike")
"""Only ``harmful`` is unsafe; a look-alike is safe but sounds harmful."""
_FIELDS = ("label", "topic", "text")


@dataclass(frozen=True, kw_only=True)
class JudgeSet:
    """Labelled texts; texts of one topic stay together when some are held out."""

    texts: list[str]
    labels: npt.NDArray[np.str_]
    topics: npt.NDArray[np.str_]
    sha256: str
    """Hash of the file that they were read from."""


def load_judge_set(path: Path | None = None) -> JudgeSet:
    """Return the shipped judge set, or that of a file of lines with label, topic and text.

    Raises:
        DataError: If the file is absent, a row is malformed, a text comes twice, or a label
            of :data:`LABELS` never comes.
    """
    path = path or seeds_folder() / "judge" / "judge.jsonl"
    table = read_table(path)
    rows = []
    first: dict[str, str] = {}
    for place, given in zip(table.places, table.rows, strict=True):
        row = {name: text_in(given, name, place=place) for name in _FIELDS}
        if row["label"] not in LABELS:
            raise DataError(f"{place}: needs a label out of {', '.join(LABELS)}")
        if first.setdefault(row["text"], place) != place:
            raise DataError(f"{place} repeats the text of {first[row['text']]}")
        rows.append(row)
    if absent := set(LABELS) - {row["label"] for row in rows}:
        raise DataError(f"{path}: no row is labelled {' or '.join(sorted(absent))}; add some")
    return JudgeSet(
        texts=[row["text"] for row in rows],
        labels=np.array([row["label"] for row in rows]),
        topics=np.array([row["topic"] for row in rows]),
        sha256=file_sha256(path),
    )
