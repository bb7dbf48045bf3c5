"""Where a harmful request is led instead: a prior proposes vectors, a gallery has safe texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np
import torch

from workbench.core.errors import DataError
from workbench.diffusion.condition import CONDITION_DIM, Condition, condition_rows
from workbench.diffusion.networks import Prompt
from workbench.diffusion.prior import Prior
from workbench.embedding.encoder import FloatArray

__all__ = ["Candidate", "Gallery", "Redirector", "Rewriter", "bare_prompt"]

_KEPT = 3
_STEPS = 5
"""More do not help (``benchmarks/bench_redirect.py``)."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text that could be sent on instead of a prompt."""

    text: str
    origin: Literal["span", "gallery", "rewriter"]
    """A piece of the prompt, a known safe text, or one that a model wrote."""
    score: float
    """What candidates of one origin are ranked by: mean probability of a span's tokens, cosine of
    a gallery's text to the nearest vector that the prior proposes."""


class Rewriter(Protocol):
    """Writes safe texts, for instance by a model; whoever passes one in pays for it."""

    def __call__(self, requests: Sequence[str]) -> list[str]:
        """Return a safe request for each harmful one; empty where it has none."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Known safe texts and their vectors."""

    texts: tuple[str, ...]
    vectors: FloatArray
    """Unit rows, ``(len(texts), dim)``."""

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.vectors):
            raise DataError(f"gallery has {len(self.texts)} texts, {len(self.vectors)} vectors")

    def nearest(self, proposals: FloatArray, *, count: int = _KEPT) -> list[Candidate]:
        """Return the texts nearest to any of the proposed vectors, ``(k, dim)``, best first."""
        cosines = (self.vectors @ proposals.T).max(axis=1, initial=-1)
        best = np.argsort(-cosines, kind="stable")[:count]
        return [
            Candidate(text=self.texts[place], origin="gallery", score=float(cosines[place]))
            for place in best.tolist()
        ]


def bare_prompt(vectors: FloatArray, conditions: Sequence[Condition] = ()) -> Prompt:
    """Return prompts of which only vectors, ``(n, dim)``, and perhaps conditions are known."""
    count, dim = vectors.shape
    known = condition_rows(conditions) if conditions else torch.zeros(count, CONDITION_DIM)
    pooled = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
    return Prompt(pooled, torch.zeros(count, 0, dim), torch.zeros(count, 0).bool(), known)


class Redirector:
    """Proposes safe texts for harmful requests.

    Args:
        prior: From a request's vector to those of safe requests beside it. None takes the request
            itself: its nearest safe texts.
        gallery: What can be proposed.
        candidates: Vectors that the prior proposes per request.
    """

    def __init__(self, prior: Prior | None, *, gallery: Gallery, candidates: int = 8) -> None:
        self.prior = prior
        self.gallery = gallery
        self.candidates = candidates

    def __call__(
        self, vectors: FloatArray, *, conditions: Sequence[Condition] = (), seed: int = 0
    ) -> list[list[Candidate]]:
        """Return at most three texts for each vector, ``(n, dim)``, best first; deterministic."""
        if not len(vectors):
            return []
        return [self.gallery.nearest(one) for one in self.propose(vectors, conditions, seed=seed)]

    def propose(
        self, vectors: FloatArray, conditions: Sequence[Condition] = (), *, seed: int = 0
    ) -> FloatArray:
        """Return unit vectors of what requests may become, ``(n, candidates, dim)``."""
        if self.prior is None:
            return vectors[:, None]
        if not self.prior.config.samplers:
            return self._sampled(bare_prompt(vectors, conditions))
        known = conditions or [Condition()] * len(vectors)
        return np.concatenate(
            [
                # noise of its own: what a request becomes is not its neighbors' business
                self._sampled(bare_prompt(vectors[place : place + 1], [condition]), seed=seed)
                for place, condition in enumerate(known)
            ]
        )

    def _sampled(self, prompt: Prompt, *, seed: int | None = None) -> FloatArray:
        prior = cast("Prior", self.prior)
        names = prior.config.samplers
        proposed = prior.sample(
            prompt,
            sampler="ddim" if "ddim" in names else next(iter(names), None),
            steps=_STEPS if names else 1,
            candidates=1 if prior.config.process == "regression" else self.candidates,
            generator=None if seed is None else torch.Generator().manual_seed(seed),
        )
        return proposed.numpy()
