"""Scores of CVSS vectors, versions 2, 3.0, 3.1 and 4.0."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from workbench.core.errors import DataError
from workbench.risk.score import Floats

__all__ = ["cvss_score", "cvss_scores"]

_MAX_LENGTH: Final = 400
"""Of a vector; one of version 4 with every metric has about 200."""
_SHOWN: Final = 120
_MAX_PROBLEMS: Final = 100


def cvss_score(vector: str) -> float:
    """Return the score of a vector, 0 to 10: the base score, in version 4 with its threat metrics.

    A vector of version 2 may stand in parentheses, as NVD used to write it.

    Raises:
        DataError: If it is no vector of a known version; names the metric.

    Source:
        first.org/cvss, specifications 2.0, 3.0, 3.1 and 4.0, as in the library ``cvss``.
    """
    from cvss import CVSS2, CVSS3, CVSS4
    from cvss.exceptions import CVSSError

    text = vector.strip()
    if len(text) > _MAX_LENGTH:
        raise DataError(f"{_named(vector)} has {len(text):,} characters; no vector is that long")
    versions = {"CVSS:3.0/": CVSS3, "CVSS:3.1/": CVSS3, "CVSS:4.0/": CVSS4}
    version = versions.get(text[:9])
    if version is None:
        if text.startswith("CVSS"):
            raise DataError(f"{_named(vector)} is of no known version; give 2, 3.0, 3.1 or 4.0")
        version, text = CVSS2, text.removeprefix("(").removesuffix(")")
    try:
        return float(version(text).base_score)
    except CVSSError as error:
        raise DataError(f"{_named(vector)}: {_reason(error, text)}; correct the vector") from None


def cvss_scores(vectors: pa.Array | pa.ChunkedArray) -> tuple[Floats, list[str]]:
    """Return the score of each vector, NaN where null, empty or wrong, and what is wrong.

    Each different vector is computed once; 100 problems at most are told one by one.
    """
    column = vectors.combine_chunks() if isinstance(vectors, pa.ChunkedArray) else vectors
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan), []
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    problems: list[str] = []
    # One more than there are different ones: -1, the null, finds it.
    scores = np.full(len(column.dictionary) + 1, np.nan)
    for position, vector in enumerate(column.dictionary.to_pylist()):
        if vector is None or not vector.strip():
            continue
        try:
            scores[position] = cvss_score(vector)
        except DataError as error:
            problems.append(str(error))
    found: Floats = scores[np.asarray(column.indices.fill_null(-1))]
    if len(problems) > _MAX_PROBLEMS:
        left = len(problems) - _MAX_PROBLEMS
        problems[_MAX_PROBLEMS:] = [f"{left:,} more CVSS vectors are wrong; correct the source"]
    return found, problems


def _named(vector: str) -> str:
    cut = vector if len(vector) <= _SHOWN else vector[:_SHOWN] + "…"
    return f"CVSS vector {cut!r}"


def _reason(error: Exception, text: str) -> str:
    """Return the library's reason without the vector, which the message names already."""
    reason = " ".join(str(error).replace(f' "{text}"', "").split())
    return reason[:1].lower() + reason[1:_SHOWN]
