"""The texts that judges are trained on; used for nothing else in the product."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
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
    """Return the shipped judge set, or the one of a file.

    Args:
        path: JSON lines with ``label``, ``topic`` and ``text``.

    Raises:
        DataError: If the file is absent, a row is malformed, a text comes twice, or a label
            of :data:`LABELS` never comes.
    """
    path = path or seeds_folder() / "judge" / "judge.jsonl"
    if not path.is_file():
        raise DataError(f"no judge set at {path}; restore the file or give another")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    first: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if first.setdefault(row["text"], number) != number:
            raise DataError(f"{path}: row {number} repeats the text of row {first[row['text']]}")
    if absent := set(LABELS) - {row["label"] for row in rows}:
        raise DataError(f"{path}: no row is labelled {' or '.join(sorted(absent))}; add some")
    return JudgeSet(
        texts=[row["text"] for row in rows],
        labels=np.array([row["label"] for row in rows]),
        topics=np.array([row["topic"] for row in rows]),
        sha256=file_sha256(path),
    )


def _row(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not JSON ({error}); correct the line") from None
    good = isinstance(row, dict) and all(
        row.get(name) and isinstance(row[name], str) for name in _FIELDS
    )
    if not good or row["label"] not in LABELS:
        raise DataError(
            f"{path}:{number}: needs text, topic, and a label out of {', '.join(LABELS)}"
        )
    return {name: row[name] for name in _FIELDS}
