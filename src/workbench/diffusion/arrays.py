"""From pairs to arrays: which pairs train, and the vectors of their sides."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import stable_fraction
from workbench.embedding.encoder import Encoder, FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "RETOLD", "TrainingArrays", "at_most", "encode_pairs", "harmless", "select_pairs",
    "shared_pairs", "training_arrays", "wrapper_families",
]  # fmt: skip


RETOLD = "retold_"
"""How the families begin whose texts tell a request in other words."""


@dataclass(frozen=True, kw_only=True)
class TrainingArrays:
    """Unit rows to train on and to validate on."""

    adversarial: FloatArray
    """``(n, dim)``."""
    clean: FloatArray
    """``(n, dim)``, row by row what the prompt should become."""
    validation_adversarial: FloatArray
    """``(m, dim)``."""
    validation_clean: FloatArray
    """``(m, dim)``."""

    def __post_init__(self) -> None:
        if not len(self.adversarial) or not len(self.validation_adversarial):
            raise DataError("training needs training and validation pairs; grow the pair set")
        shapes = {self.adversarial.shape, self.clean.shape}
        validation = {self.validation_adversarial.shape, self.validation_clean.shape}
        widths = {shape[1:] for shape in shapes | validation}
        if len(shapes) > 1 or len(validation) > 1 or len(widths) > 1:
            raise DataError(f"the sides of the pairs do not match: {shapes}, {validation}")

    @property
    def id(self) -> str:
        """Hash of all rows, to tell whether a checkpoint belongs to them."""
        digest = hashlib.sha256()
        for name in _SIDES:
            digest.update(np.ascontiguousarray(getattr(self, name), "<f4").tobytes())
        return digest.hexdigest()


_SIDES = [one.name for one in fields(TrainingArrays)]


def shared_pairs(frame: pd.DataFrame, *, smallest: int) -> int:
    """Return how many wrapped training pairs any choice of ``smallest`` families has.

    Every member of a sweep over families can train on that many, so that only diversity differs.
    """
    counts = _wrapped(frame).groupby("wrapper_family").size().sort_values()
    _check_families(smallest, available=len(counts))
    return int(counts.iloc[:smallest].sum())


def select_pairs(
    frame: pd.DataFrame, *, wrapper_families: int, pairs: int, seed: int, requests: int = 0
) -> pd.DataFrame:
    """Return the rows to train on: ``pairs`` wrapped ones, and all unwrapped ones.

    The families come in an order shuffled by the seed, so that for one seed the families of a
    smaller run are part of those of a larger one; each gives the same number of pairs, as far as
    it has them. Unwrapped rows (benign texts that must stay) are the same in every run.

    Args:
        frame: Columns of a pair set; only split ``train`` is looked at.
        wrapper_families: How many families to use; 0 takes all.
        pairs: Wrapped pairs in all; 0 or less takes all that the families have.
        seed: Order of requests, of families and of pairs within them.
        requests: Unique requests, with and without wrappers; 0 takes all.

    Raises:
        ConfigError: If there are fewer requests, families or pairs than asked for.
    """
    if requests:
        frame = _of_requests(frame, requests, seed=seed)
    wrapped = _wrapped(frame)
    names = sorted(set(wrapped["wrapper_family"]), key=lambda one: _order(seed, one))
    wrapper_families = wrapper_families or len(names)
    _check_families(wrapper_families, available=len(names))
    chosen = wrapped[wrapped["wrapper_family"].isin(names[:wrapper_families])]
    pairs = max(pairs, 0)
    if pairs > len(chosen):
        raise ConfigError(
            f"pairs is {pairs}, but {wrapper_families} wrapper families have {len(chosen)} "
            f"training pairs; ask for at most that, or for more target_pairs"
        )
    order = chosen["id"].map(lambda one: _order(seed, one))
    shuffled = chosen.loc[order.sort_values().index]
    # round robin over families: first every family's first pair, then every second one
    turn = shuffled.groupby("wrapper_family").cumcount()
    taken = shuffled.loc[turn.sort_values(kind="stable").index[: pairs or None]]
    plain = (frame["split"] == "train") & ~_wears(frame)
    return frame[frame.index.isin(taken.index) | plain]


def _of_requests(frame: pd.DataFrame, count: int, *, seed: int) -> pd.DataFrame:
    groups = set(frame["group"][frame["split"] == "train"])
    if not 1 <= count <= len(groups):
        raise ConfigError(f"requests is {count}; the pair set trains on {len(groups)}")
    return frame[frame["group"].isin(sorted(groups, key=lambda one: _order(seed, one))[:count])]


def encode_pairs(
    frame: pd.DataFrame, *, encoder: Encoder, target: str = "clean"
) -> tuple[FloatArray, FloatArray]:
    """Return the vectors of prompts and of what they should become, each ``(n, dim)``.

    ``target`` is the column that says so: ``clean``, or ``core`` for the request without wrapper.
    """
    return encoder.encode(frame["adversarial"].tolist()), encoder.encode(frame[target].tolist())


def harmless(frame: pd.DataFrame) -> list[str]:
    """Return the texts of pairs that must stay: both sides equal, or else all clean sides."""
    same = frame[frame["adversarial"] == frame["clean"]]
    return list((frame if same.empty else same)["clean"])


def at_most(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return the frame with at most ``count`` rows of each split, always the same ones."""
    order = frame["id"].map(lambda one: stable_fraction("at-most", one))
    place = order.groupby(frame["split"]).rank(method="first")
    return frame[place <= count]


def training_arrays(
    frame: pd.DataFrame, *, validation: pd.DataFrame, encoder: Encoder, target: str = "clean"
) -> TrainingArrays:
    """Return the arrays of selected training rows and of validation rows; refuse empty ones."""
    parts = (encode_pairs(one, encoder=encoder, target=target) for one in (frame, validation))
    sides = [side for part in parts for side in part]
    return TrainingArrays(**dict(zip(_SIDES, sides, strict=True)))


def wrapper_families(frame: pd.DataFrame) -> int:
    """Return how many wrapper families rows wear; retellings are none."""
    return int(frame[_wears(frame)]["wrapper_family"].nunique())


def _wrapped(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["split"] == "train") & _wears(frame)]


def _wears(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return which rows wear a wrapper that could be taken off; a retelling has none."""
    family = frame["wrapper_family"]
    return (family != "") & ~family.str.startswith(RETOLD)


def _order(seed: int, name: str) -> float:
    return stable_fraction("select-pairs", str(seed), name)


def _check_families(asked: int, *, available: int) -> None:
    if not 1 <= asked <= available:
        raise ConfigError(
            f"wrapper_families is {asked}, but the pair set trains on {available}; "
            f"choose 1 to {available}"
        )
