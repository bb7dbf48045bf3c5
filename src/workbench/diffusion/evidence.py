"""What an evaluation measures on: labelled prompts and outputs, as arrays, vectors and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from workbench.core.identity import sorted_ids_hash, text_id
from workbench.diffusion.intervals import Codes
from workbench.embedding.encoder import Encoder, FloatArray
from workbench.judge.calibrate import Floats
from workbench.judge.probe import Judge

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evidence", "Output", "gallery_of"]

_AT_ONCE = 256


class Output(NamedTuple):
    """What a method makes of every prompt."""

    method: str
    gain: float
    texts: list[str]
    """Empty where it sends nothing on."""
    spans: list[tuple[int, int]]
    """Characters of the request, as the method sees it: all of them where it sees none."""


class Evidence:
    """Labelled prompts as arrays, and all texts of an evaluation encoded and judged once.

    Args:
        table: Of :func:`workbench.diffusion.labelled.complete`.
        outputs: Of all methods and gains.
        encoder: Measures cosines.
        judges: Those that report.
        redirects: Safe texts that the sanitizer leads to.
        tell: Told how many texts are done, of how many.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        outputs: Sequence[Output],
        *,
        encoder: Encoder,
        judges: Sequence[Judge],
        redirects: Sequence[str] = (),
        tell: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self.table = table
        self.judges = judges
        self.prompts: list[str] = table["prompt"].tolist()
        self.chars = np.array([len(text) for text in self.prompts])
        self.harmful = table["harmful"].to_numpy(bool)
        self.lookalike = table["lookalike"].to_numpy(bool) & ~self.harmful
        named: list[str] = table["core"].tolist()
        self.has_core = np.array([bool(core) for core in named])
        self.cores = [core or text for core, text in zip(named, self.prompts, strict=True)]
        """The request; the prompt where it is not known."""
        differs = [core != text for core, text in zip(self.cores, self.prompts, strict=True)]
        self.wrapped = self.has_core & np.array(differs)
        """Whether the request is known and wears something."""
        self.references: list[tuple[str, ...]] = table["clean"].tolist()
        self.groups: Codes = np.unique(table["group"].to_numpy(str), return_inverse=True)[1]
        self.gallery = gallery_of(table, redirects)
        kept = chain.from_iterable(map(self.kept, outputs))
        sent = chain.from_iterable(one.texts for one in outputs)
        texts = list(
            dict.fromkeys(
                chain(
                    self.prompts, self.cores, *self.gallery.values(), *self.references, kept, sent
                )
            )
        )
        self._places = {text: place for place, text in enumerate(texts)}
        rows: list[FloatArray] = []
        scores: list[list[Floats]] = []
        for start in range(0, len(texts), _AT_ONCE):
            some = texts[start : start + _AT_ONCE]
            rows.append(encoder.encode(some))
            scores.append([judge.score(some) for judge in judges])
            tell(start + len(some), len(texts))
        self._vectors = np.concatenate(rows)
        self._scores = [np.concatenate(each) for each in zip(*scores, strict=True)]

    @property
    def gallery_id(self) -> str:
        """Hash of the gallery."""
        kinds = self.gallery.items()
        return sorted_ids_hash(text_id(kind, text) for kind, texts in kinds for text in texts)

    def kept(self, output: Output) -> list[str]:
        """Return the request of each prompt, as a method sees it."""
        both = zip(self.prompts, output.spans, strict=True)
        return [text[first:end] for text, (first, end) in both]

    def vectors(self, texts: Iterable[str]) -> FloatArray:
        """Return unit rows of texts that were among those given."""
        return self._vectors[[self._places[text] for text in texts]]

    def known(self, *kinds: str) -> FloatArray:
        """Return unit rows of the gallery's texts of some kinds."""
        return self.vectors(text for kind in kinds for text in self.gallery[kind])

    def scores(self, texts: Iterable[str]) -> list[Floats]:
        """Return each judge's probabilities that texts are unsafe."""
        places = [self._places[text] for text in texts]
        return [scores[places] for scores in self._scores]


def gallery_of(table: pd.DataFrame, redirects: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts that outputs are looked up among, by kind, each once.

    The kinds are ``harmful``, ``benign``, ``clean`` and ``redirect``; a text that is of several is
    of the first, so that no list of safe texts can whitewash a harmful request.
    """
    named, harmful = table["core"] != "", table["harmful"]
    kinds = {
        "harmful": table.loc[named & harmful, "core"],
        "benign": table.loc[named & ~harmful, "core"],
        "clean": chain.from_iterable(table["clean"]),
        "redirect": redirects,
    }
    taken: set[str] = set()
    found = {}
    for kind, texts in kinds.items():
        found[kind] = [text for text in dict.fromkeys(texts) if text and text not in taken]
        taken.update(found[kind])
    return found
