"""One run of a phase from pairs to result: train, put together, measure beside the baselines."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock

from workbench.core.identity import content_id
from workbench.diffusion.arrays import (
    at_most,
    select_pairs,
    shared_pairs,
    training_arrays,
    wrapper_families,
)
from workbench.diffusion.assemble import assemble, best_redirects
from workbench.diffusion.callbacks import Progress
from workbench.diffusion.checkpoint import (
    SanitizerParts,
    reader_of,
    sanitizer_id,
    save_sanitizer,
)
from workbench.diffusion.distributed import rank
from workbench.diffusion.evaluate import dewrap_losses, frontier
from workbench.diffusion.methods import fit_ensemble, fit_methods
from workbench.diffusion.phases import Phase
from workbench.diffusion.phases import phase as phase_of
from workbench.diffusion.prior import Prior
from workbench.diffusion.reader import Reader
from workbench.diffusion.sanitizer import Sanitizer
from workbench.diffusion.tagged import states_below, tagged_data
from workbench.diffusion.tagger import Tagger
from workbench.diffusion.tagging import train_tagger
from workbench.diffusion.trainer import TrainingMetrics
from workbench.embedding.encoder import Encoder
from workbench.embedding.states import StateCache
from workbench.judge.probe import Bench
from workbench.store.artifacts import Artifacts, clear_disk_errors
from workbench.store.results import FrontierRow

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Fitted", "PhaseRun", "Worth", "chosen", "fit_phase", "measure_phase", "taken", "train_phase",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PhaseRun:
    """What training a phase made of some pairs."""

    phase: Phase
    rows: pd.DataFrame
    """Pairs that were trained on."""
    validation: pd.DataFrame
    metrics: TrainingMetrics
    """Of the tagger."""
    redirects: list[dict[str, float | str]]
    """How well each prior led validation's requests to their safe texts."""
    parts: SanitizerParts
    reader: Reader
    """Of the tagger."""
    folder: Path
    """Where killed trainings go on from, until :meth:`forget`."""

    def keep(self, artifacts: Artifacts, *, kind: str) -> str:
        """Write the sanitizer as a model, and return its id; raises as ``save_sanitizer``."""
        model = sanitizer_id(self.parts)
        with artifacts.create("model", model, {"kind": kind} | dict(self.parts.about)) as folder:
            save_sanitizer(self.parts, folder)
        return model

    def forget(self) -> None:
        """Remove the checkpoints, once all that they are for is kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def result(self) -> dict[str, Any]:
        """Return the fields of ``store.results.TrainingResult`` that training itself decides."""
        return {
            **taken(self.metrics),
            "curve": [one | {"validation_loss": one["dewrap"]} for one in self.metrics["curve"]],
            "validation_loss": self.metrics["validation"]["dewrap"],
            "axes": {
                "wrapper_families": wrapper_families(self.rows),
                "pairs": len(self.rows),
                "requests": int(self.rows["group"].nunique()),
                "parameters": self.parts.tagger.parameters_trained,
            },
        }


def taken(metrics: TrainingMetrics) -> dict[str, Any]:
    """Return what training took: steps, seconds, throughput, counted FLOPs, and where.

    ``utilization`` is the counted FLOPs over what the GPUs could have done at their dense bf16
    peaks; None on CPUs, and where a peak is not known.

    Source:
        Chowdhery et al. 2022, arXiv:2204.02311, appendix B, with counted FLOPs for the model's.
    """
    attainable = metrics["attainable"]
    return {
        "steps": metrics["steps"],
        "train_s": metrics["train_s"],
        "samples_per_s": metrics["samples_per_s"],
        "flops": metrics["flops"],
        "hardware": metrics["hardware"],
        "processes": metrics["processes"],
        "utilization": metrics["flops"] / attainable if attainable else None,
    }


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What a run is worth beside the baselines."""

    frontier: list[FrontierRow]
    loss: float
    """The tagger's, 1 − cosine to the bare request on ``test_both``."""
    baselines: dict[str, float]
    """The same of each method."""
    spread: dict[str, float]
    """How much the members of the ensemble differ; empty without one."""


class Fitted(NamedTuple):
    """What training a phase came to, not yet put together."""

    metrics: TrainingMetrics
    """Of the tagger."""
    tagger: Tagger
    prior: Prior | None
    """Of the redirects; None where the nearest safe text does better."""
    redirects: list[dict[str, float | str]]
    cache: StateCache
    about: dict[str, Any]
    folder: Path


def chosen(frame: pd.DataFrame, parameters: Mapping[str, Any]) -> tuple[Phase, pd.DataFrame]:
    """Return the phase and the pairs that the parameters of notebook 02 stand for.

    Raises:
        ConfigError: If there is no such phase, or a setting is out of range.
        DataError: If there are too few pairs.
    """
    given, seed = dict(parameters), parameters["seed"]
    given["pairs"] = given["pairs"] or shared_pairs(frame, smallest=given["smallest_families"])
    of_rows = {name: given[name] for name in ("wrapper_families", "pairs", "requests")}
    changed = {name: given[name] for name in ("hidden", "tuned_layers", "rounds")}
    steps = given["training_steps"]
    return (
        phase_of(given["preset"], **changed, steps=steps, seed=seed),
        select_pairs(frame, **of_rows, seed=seed),
    )


def fit_phase(
    phase: Phase,
    rows: pd.DataFrame,
    *,
    validation: pd.DataFrame,
    encoder: Encoder,
    home: Path,
    pair_set: str,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Return the trained parts of a phase; what is trained already is not trained again.

    Args:
        phase: What to train.
        rows: Pairs to train on.
        validation: Pairs of other requests.
        encoder: The published encoder.
        home: Where states are cached and checkpoints are kept; all processes must see it.
        pair_set: Version of the pairs.
        progress: Told every few steps of the tagger, in the first process only.

    Raises:
        DataError: If there are too few pairs.
        StoreError: If the home cannot be written.
    """
    about = {"pair_set": pair_set, "phase": phase.to_json()}
    folder = home / "checkpoints" / content_id([about, sorted(rows["id"])])[:32]
    cache = states_below(phase.tagger, home / "states")
    data: dict[str, Any] = {"cache": cache, "encoder": encoder}
    with ExitStack() as stack:
        with clear_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if rank()[0] == 0:  # whoever trains the same elsewhere ends first
                stack.enter_context(FileLock(folder.with_suffix(".lock")))
                folder.mkdir(exist_ok=True)  # who ended may have removed it
            # of several processes one computes the states, and the others find them
            with FileLock(folder / "lock"):
                training = tagged_data(rows, **data)
                held = tagged_data(validation, **data, most=phase.measured)
        metrics, tagger = train_tagger(
            phase.tagger, phase.training, data=training, validation=held, rounds=phase.rounds,
            folder=folder, progress=progress,
        )  # fmt: skip
        prior, redirects = best_redirects(
            rows, validation, encoder=encoder, config=phase.prior_training,
            processes=phase.redirects, folder=folder,
        )  # fmt: skip
    return Fitted(metrics, tagger, prior, redirects, cache, about, folder)


def train_phase(
    phase: Phase,
    rows: pd.DataFrame,
    *,
    validation: pd.DataFrame,
    encoder: Encoder,
    home: Path,
    pair_set: str,
) -> PhaseRun:
    """Return a trained tagger with its redirects, routing and gallery; as :func:`fit_phase`."""
    fitted = fit_phase(
        phase, rows, validation=validation, encoder=encoder, home=home, pair_set=pair_set
    )
    reader = _reader(fitted.tagger, fitted.cache)
    parts = assemble(
        fitted.tagger, fitted.prior, reader=reader, training=rows, validation=validation,
        encoder=encoder, about=fitted.about, most=phase.measured,
    )  # fmt: skip
    return PhaseRun(
        phase=phase, rows=rows, validation=validation, metrics=fitted.metrics,
        redirects=fitted.redirects, parts=parts._replace(trained=taken(fitted.metrics)),
        reader=reader, folder=fitted.folder,
    )  # fmt: skip


def measure_phase(
    run: PhaseRun,
    frame: pd.DataFrame,
    *,
    methods: Sequence[str],
    gains: Sequence[float],
    published: Encoder,
    encoder: Encoder,
    bench: Bench,
) -> Worth:
    """Return what a run is worth on the test splits of the pairs, beside methods fitted alike.

    Args:
        run: What was trained.
        frame: Pairs of all splits; at most ``measured`` of each are used.
        methods: Names of :data:`workbench.diffusion.methods.METHODS`.
        gains: Of the frontier.
        published: Encoder whose vectors the tagger gives.
        encoder: Encoder whose vectors the methods of the frontier move.
        bench: Judges on vectors of ``encoder``.

    Raises:
        DataError: If there is nothing to measure on.
    """
    phase, tested = run.phase, at_most(frame, run.phase.measured)
    trained: dict[str, Any] = {
        "training": phase.prior_training, "sizes": phase.prior, "folder": run.folder,
    }  # fmt: skip

    def arrays(of: Encoder, target: str) -> Any:
        return training_arrays(run.rows, validation=run.validation, encoder=of, target=target)

    routing, redirector = run.parts.routing, run.parts.redirector
    sanitizer = Sanitizer(run.reader, routing=routing, redirector=redirector)
    cleaners = fit_methods(methods, arrays(encoder, "clean"), **trained)
    points = frontier(cleaners, sanitizer, tested, encoder=encoder, bench=bench, gains=gains)
    cores = arrays(published, "core")
    unwrappers = fit_methods(methods, cores, **trained)
    spread: dict[str, float] = {}
    if phase.members > 1:
        ensemble, spread = fit_ensemble(
            phase.prior.process, phase.members, cores, **trained,
            specialties=run.rows["category"].tolist(),
        )  # fmt: skip
        unwrappers.append(ensemble)
    losses = dewrap_losses(sanitizer.reader, unwrappers, tested, encoder=published)
    return Worth(frontier=points, loss=losses.pop("tagger"), baselines=losses, spread=spread)


def _reader(tagger: Tagger, cache: StateCache) -> Reader:
    """Return the reader of a tagger; where no layer is its own, all runs share cached states."""
    if tagger.config.tuned_layers:
        return reader_of(tagger)
    return Reader(tagger.heads, encoder=cache.encoder, cache=cache)
