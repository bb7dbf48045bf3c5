"""The training engine: ``train(model, data, config) → metrics`` for any model with a loss.

In memory, on one or many devices, resumable at any moment.
"""

from __future__ import annotations

import atexit
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from workbench.core.errors import DataError
from workbench.core.identity import content_id
from workbench.diffusion.callbacks import (
    Average,
    Checkpoint,
    Divergence,
    Progress,
    Report,
    Validation,
    save_tensors,
)
from workbench.diffusion.distributed import placement
from workbench.diffusion.engine import Engine
from workbench.diffusion.training_config import TrainingConfig
from workbench.diffusion.training_data import Trainable, TrainingData, tensors_id

__all__ = ["TrainingMetrics", "train"]

_FORMAT = 2
"""Of checkpoints; those of another are left alone."""
_STRETCH = 20
_CHECKPOINT_EVERY_S = 30.0
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError)


class TrainingMetrics(TypedDict):
    """What a training run measured."""

    metric: str
    """Name of what decided, lower being better."""
    best: float
    """Its lowest value; the model holds the weights that had it."""
    best_step: int
    """0 where no step was better than the initial weights."""
    validation: dict[str, float]
    """All that was measured at the best step."""
    initial: dict[str, float]
    """The same of the initial weights."""
    curve: list[dict[str, float]]
    """step, train_loss, what validation gives, learning_rate, samples_per_s."""
    steps: int
    """Optimizer steps made."""
    stopped: str
    """``early at step N`` or ``diverged at step N``; empty where all steps were made."""
    notes: list[str]
    """What was done otherwise than asked."""
    processes: int
    """Of those that made the last steps."""
    hardware: str
    """What their GPUs call themselves, or ``cpu``."""
    train_s: float
    """Wall seconds of the steps, those before a resume included, validation not."""
    cpu_s: float
    """CPU seconds of the same, over all processes."""
    samples_per_s: float
    flops: float
    """Forward and backward, over all processes, by those of every 20th step."""
    attainable: float
    """FLOPs that the GPUs could have done in these seconds at their dense bf16 peaks; 0 on CPUs,
    and where a peak is not known."""


def train(
    model: Trainable,
    data: TrainingData,
    config: TrainingConfig,
    *,
    validate: Callable[[nn.Module], dict[str, float]],
    metric: str,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    start: Mapping[str, Tensor] | None = None,
    run: str = "",
    checkpoint_every_s: float = _CHECKPOINT_EVERY_S,
) -> TrainingMetrics:
    """Return what training measured; the model then has its best averaged weights.

    The same model, data and config give the same weights, bit by bit on a CPU, however often
    training is killed and called again.

    Args:
        model: A module with a loss and its initial weights; changed in place.
        data: Rows to train on.
        config: How to train.
        validate: Measures a model of the same kind, in the first process only.
        metric: The measured value that decides, lower being better.
        folder: Where to keep a checkpoint until training ends, and then what it came to, and to
            go on from either of the same run, whoever left it; all processes must see it. What is
            in it is the caller's to remove. None keeps none.
        progress: Told every few steps, in the first process only.
        start: Weights of an earlier model to go on from; None keeps the model's own.
        run: Id of whatever else decides the outcome, such as the model's config.
        checkpoint_every_s: Least seconds between checkpoints.

    Raises:
        ConfigError: If the config does not fit the machine, or the metric is not measured.
        DataError: If the checkpoint or the starting weights hold NaN, or do not fit the model.
        StoreError: If a checkpoint cannot be written.
    """
    module = cast("nn.Module", model)
    if start is not None:
        _load_start(module, start)
    average = Average(module, decay=config.ema_decay)
    validation = Validation(average, config, validate=validate, metric=metric)
    callbacks: list[pl.Callback] = [Divergence(), average, validation]
    engine = Engine(module, data, config, keepers=callbacks.copy())
    path = done = None
    if folder:
        run_id = content_id(
            [_FORMAT, config.decisive, data.id, tensors_id(module.state_dict()), run]
        )
        path, done = (folder / f"{run_id[:16]}.{end}" for end in ("ckpt", "done"))
        if found := _finished(done, run_id=run_id):
            module.load_state_dict(found["weights"])
            module.eval()
            return cast("TrainingMetrics", found["metrics"])
        callbacks.append(Checkpoint(path, run_id=run_id, every_s=checkpoint_every_s))
        _resume(engine, path, run_id=run_id)
    if progress:
        callbacks.append(Report(progress, total=config.steps))
    trainer = _fit(engine, callbacks, config)
    best = validation.best
    module.load_state_dict(best["weights"])
    module.eval()
    metrics = _measured(engine, validation, metric=metric, processes=trainer.world_size)
    if path and done and trainer.is_global_zero:
        save_tensors(done, {"run": run_id, "metrics": metrics, "weights": best["weights"]})
        path.unlink(missing_ok=True)
    trainer.strategy.barrier()
    return metrics


def _measured(
    engine: Engine, validation: Validation, *, metric: str, processes: int
) -> TrainingMetrics:
    best = validation.best
    return {
        "metric": metric,
        "best": best["values"][metric],
        "best_step": best["step"],
        "validation": best["values"],
        "initial": validation.initial,
        "curve": validation.curve,
        "steps": engine.step,
        "stopped": engine.stopped,
        "notes": engine.notes,
        "processes": processes,
        "train_s": engine.train_s,
        "cpu_s": engine.cpu_s,
        "samples_per_s": engine.samples / engine.train_s,
        "flops": engine.flops,
        "hardware": engine.hardware,
        "attainable": engine.attainable if math.isfinite(engine.attainable) else 0.0,
    }


def _fit(engine: Engine, callbacks: list[pl.Callback], config: TrainingConfig) -> pl.Trainer:
    """Return Lightning's trainer after the steps that are left."""
    gpus = list(range(torch.cuda.device_count()))
    with _quiet(), _interruptible(), torch.random.fork_rng(devices=gpus):
        trainer = pl.Trainer(
            barebones=True,
            max_epochs=1,
            callbacks=callbacks,
            use_distributed_sampler=False,
            **placement(config),
        )
        if engine.step < config.steps:
            trainer.fit(engine, _Stretches(config, first=engine.step))
    if torch.distributed.is_initialized():
        atexit.register(_leave)
    return trainer


def _leave() -> None:
    """End the talk with other processes; Lightning does so for GPUs alone, others may crash."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Stretches:
    """The steps up to which to go without a look, in order."""

    def __init__(self, config: TrainingConfig, *, first: int) -> None:
        ends = {*range(0, config.steps, _STRETCH), *range(0, config.steps, config.validate_every)}
        self._ends = sorted(end for end in {*ends, config.steps} if end > first)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ends)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's banners and its advice about data loaders out of notebooks."""
    log = logging.getLogger("lightning.pytorch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        log.setLevel(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Leave Ctrl+C what it is: Lightning would end the program (2.6.6)."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise


def _load_start(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    _refuse_nan(start, where="the starting weights")
    try:
        model.load_state_dict(start)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"the starting weights do not fit this model: {reason}") from error


def _finished(path: Path, *, run_id: str) -> dict[str, Any] | None:
    """Return what training of this run came to, where it is done."""
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        return found if found["run"] == run_id else None
    except _UNREADABLE:
        return None


def _resume(engine: Engine, path: Path, *, run_id: str) -> None:
    """Go on from a checkpoint, where there is one of this run."""
    if not path.is_file():
        return
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except _UNREADABLE:
        engine.note(f"{path.name} was damaged: started anew")
        return
    if saved.pop("run", None) != run_id:
        return
    _refuse_nan(saved["model"], where=str(path))
    engine.restore(saved)


def _refuse_nan(weights: Mapping[str, Tensor], *, where: str) -> None:
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise DataError(f"{where}: {name} holds NaN or infinity; remove it and train anew")
