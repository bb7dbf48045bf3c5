"""Methods that move vectors, trained alike so that a table can compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor, nn

from workbench.core.errors import ConfigError
from workbench.core.identity import content_id
from workbench.diffusion.arrays import TrainingArrays
from workbench.diffusion.baselines import Constant, Identity, Ridge, Translator
from workbench.diffusion.ensemble import Ensemble, ambiguity, diversity
from workbench.diffusion.prior import Prior, PriorBatch, PriorConfig
from workbench.diffusion.process import apply_correction
from workbench.diffusion.redirect import bare_prompt
from workbench.diffusion.trainer import TrainingMetrics, train
from workbench.diffusion.training_config import TrainingConfig
from workbench.embedding.encoder import FloatArray

__all__ = ["METHODS", "PriorTranslator", "fit_ensemble", "fit_method", "fit_methods"]

METHODS: Final = ("identity", "constant", "ridge", "mlp", "hypotheses", "x0", "eps", "v", "bridge")
"""Methods in every table, baselines first; the last four are diffusion."""
_STEPS = {"x0": 1, "eps": 10, "v": 10, "bridge": 1}
"""Sampling steps: where there is one answer, more than these do not help (see the docs)."""
_FAVORED_TIMES = 4.0


class PriorTranslator:
    """A prior as a method that moves vectors: deterministic, without noise or at its mean."""

    def __init__(self, prior: Prior | Ensemble, *, name: str, steps: int = 1) -> None:
        self.name = name
        self.prior = prior.eval()
        first = prior.members[0] if isinstance(prior, Ensemble) else prior
        names = cast("Prior", first).config.samplers
        sampler = "ddim" if "ddim" in names else next(iter(names), None)
        self.sampling: dict[str, Any] = {"sampler": sampler, "steps": steps if sampler else 1}

    def vectors(self, X: FloatArray, *, gain: float = 1.0) -> FloatArray:  # noqa: N803
        """Return unit rows ``(n, dim)`` moved by the sampled correction; gain 0 leaves them."""
        if not len(X):
            return X
        prediction = self.prior.sample(bare_prompt(X), **self.sampling)
        return apply_correction(X, prediction[:, 0].numpy(), gain=gain)


class _Rows:
    """Prompts' vectors and what they should become, as rows for the trainer."""

    def __init__(self, arrays: TrainingArrays, *, favored: npt.NDArray[np.bool_]) -> None:
        target = torch.from_numpy(np.ascontiguousarray(arrays.clean))
        self.whole = PriorBatch(bare_prompt(arrays.adversarial), target)
        self.id = content_id([arrays.id, favored.tobytes().hex()])
        self._weights = torch.from_numpy(np.where(favored, _FAVORED_TIMES, 1.0))

    def draw(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        return torch.multinomial(self._weights, size, replacement=True, generator=generator)

    def batch(self, rows: Int[Tensor, " rows"]) -> PriorBatch:
        return self.whole.at(rows)


def fit_method(
    name: str,
    arrays: TrainingArrays,
    training: TrainingConfig,
    *,
    sizes: PriorConfig,
    folder: Path | None = None,
) -> tuple[Translator, TrainingMetrics | None]:
    """Return a method fitted to arrays, and what training measured where there was any.

    Args:
        name: One of :data:`METHODS`.
        arrays: Rows to fit, and rows that choose among penalties or steps.
        training: Of those that are trained.
        sizes: Fields of :class:`PriorConfig` beside network and process.
        folder: Where a killed training goes on from.

    Raises:
        ConfigError: If there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; known: {', '.join(METHODS)}")
    if name == "identity":
        return Identity(), None
    if name == "constant":
        return Constant.fit(arrays.clean), None
    if name == "ridge":
        return Ridge.fit(arrays), None
    everyone = np.ones(len(arrays.clean), bool)
    return _fit_prior(name, arrays, training, sizes=sizes, favored=everyone, folder=folder)


def _fit_prior(
    name: str,
    arrays: TrainingArrays,
    training: TrainingConfig,
    *,
    sizes: PriorConfig,
    favored: npt.NDArray[np.bool_],
    folder: Path | None,
) -> tuple[PriorTranslator, TrainingMetrics]:
    process = "regression" if name == "mlp" else name
    dim = arrays.adversarial.shape[1]
    config = replace(sizes, network="mlp", process=cast("Any", process), dim=dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        prior = Prior(config)
    rows = _Rows(arrays, favored=favored)

    def validate(model: nn.Module) -> dict[str, float]:
        moved = PriorTranslator(cast("Prior", model), name=name, steps=_STEPS.get(name, 1))
        cosines = moved.vectors(arrays.validation_adversarial) * arrays.validation_clean
        return {"loss": float(1 - np.mean(cosines.sum(axis=1, dtype=np.float64)))}

    run = content_id(config.to_json())
    metrics = train(prior, rows, training, validate=validate, metric="loss", folder=folder, run=run)
    return PriorTranslator(prior, name=name, steps=_STEPS.get(name, 1)), metrics


def fit_methods(
    names: Sequence[str],
    arrays: TrainingArrays,
    training: TrainingConfig,
    *,
    sizes: PriorConfig,
    folder: Path | None = None,
) -> list[Translator]:
    """Return the named methods fitted to the same rows; args as :func:`fit_method`."""
    return [fit_method(name, arrays, training, sizes=sizes, folder=folder)[0] for name in names]


def fit_ensemble(
    name: str,
    count: int,
    arrays: TrainingArrays,
    training: TrainingConfig,
    *,
    sizes: PriorConfig,
    specialties: Sequence[str],
    folder: Path | None = None,
) -> tuple[Translator, dict[str, float]]:
    """Return specialists that answer together, and how much they differ on validation.

    Each draws the rows of its specialties several times as often as the others.

    Args:
        name: A trained method of :data:`METHODS`.
        count: Members, >= 2.
        arrays: Rows to fit and to validate on.
        training: Of each member; their seeds follow from its seed.
        sizes: Of each member.
        specialties: Of each row, such as its category; they are dealt out to the members.
        folder: Where a killed training goes on from.

    Raises:
        ConfigError: If there are fewer than two members.
    """
    dealt = {one: place % max(count, 1) for place, one in enumerate(sorted(set(specialties)))}
    owners = np.array([dealt[one] for one in specialties])
    members = [
        _fit_prior(
            name,
            arrays,
            replace(training, seed=training.seed * count + place),
            sizes=sizes,
            favored=owners == place,
            folder=folder,
        )[0]
        for place in range(count)
    ]
    ensemble = Ensemble([cast("Prior", one.prior) for one in members])
    together = PriorTranslator(ensemble, name=f"{name}-x{count}", steps=_STEPS.get(name, 1))
    answers = ensemble.answers(bare_prompt(arrays.validation_adversarial), **together.sampling)
    off = ambiguity(answers, torch.from_numpy(np.ascontiguousarray(arrays.validation_clean)))
    return together, {"diversity": diversity(answers), **off._asdict()}
