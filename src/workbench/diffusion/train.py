"""Training: ``train(config, arrays) → (metrics, model)``, with Lightning, resumable."""

from __future__ import annotations

import io
import logging
import pickle
import time
import warnings
from pathlib import Path
from typing import Any, TypedDict

import lightning.pytorch as pl
import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.core.errors import ConfigError
from workbench.core.identity import content_id
from workbench.diffusion.baselines import mean_loss
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.datamodule import BatchLoader, TrainingArrays
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.module import CurveCallback, DenoiserModule
from workbench.diffusion.translator import DiffusionTranslator
from workbench.store.artifacts import write_atomic

__all__ = ["TrainingMetrics", "train"]

_LOG_EVERY = 50
_CHECKPOINT_EVERY_S = 30.0


class TrainingMetrics(TypedDict):
    """What a training run measured."""

    validation_loss: float
    """Mean 1 − cosine to the clean reference on the validation rows."""
    curve: list[dict[str, float]]
    """step, train_loss (squared error), validation_loss (1 − cosine)."""
    steps: int
    train_s: float
    """Wall seconds of the loop in this process."""
    samples_per_s: float
    flops: float
    """Counted over one step, forward and backward, times the steps."""


def train(
    config: PhaseConfig,
    arrays: TrainingArrays,
    *,
    folder: Path | None = None,
    checkpoint_every_s: float = _CHECKPOINT_EVERY_S,
) -> tuple[TrainingMetrics, DiffusionTranslator]:
    """Return metrics and the trained model; the same config and arrays give the same weights.

    Args:
        config: What to train.
        arrays: Unit rows to train and validate on.
        folder: Where to keep a checkpoint until training ends, and to resume from one of the
            same config and arrays, whoever left it; None keeps none.
        checkpoint_every_s: Least seconds between checkpoints.

    Raises:
        ConfigError: If the config asks for another width than the arrays have.
        StoreError: If a checkpoint cannot be written.
    """
    width = arrays.adversarial.shape[1]
    if config.dim != width:
        raise ConfigError(
            f"dim is {config.dim}, but the encoder gives {width}; set dim to {width} or choose "
            f"another encoder"
        )
    run_id = content_id([config.to_json(), arrays.id])
    checkpoint = folder / f"{run_id[:16]}.ckpt" if folder else None
    saved = _read_checkpoint(checkpoint, run_id=run_id) if checkpoint else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = DenoiserModule(config, saved=saved)
    flops_per_step = _count_flops(module, arrays)

    def validation_loss(denoiser: Denoiser) -> float:
        output = DiffusionTranslator(config, denoiser).vectors(arrays.validation_adversarial)
        return mean_loss(output, arrays.validation_clean)

    curve = CurveCallback(validation_loss, rows=[] if saved is None else saved["curve"])
    callbacks: list[pl.Callback] = [curve]
    if checkpoint:
        keeper = _Checkpoint(checkpoint, run_id=run_id, curve=curve, every_s=checkpoint_every_s)
        callbacks.append(keeper)
    loader = BatchLoader(
        arrays,
        batch_size=config.batch_size,
        batches=min(_LOG_EVERY, config.training_steps),
        seed=config.seed,
        step=module.first_step,
    )
    started = time.perf_counter()
    steps_left = config.training_steps - module.first_step
    if steps_left:
        # Lightning's banners and its advice about data loaders do not belong into notebooks.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            _trainer(max_steps=steps_left, callbacks=callbacks).fit(module, loader)
    train_s = time.perf_counter() - started
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    model = DiffusionTranslator(config, module.denoiser)
    return {
        "validation_loss": curve.rows[-1]["validation_loss"],
        "curve": curve.rows,
        "steps": config.training_steps,
        "train_s": train_s,
        "samples_per_s": steps_left * config.batch_size / train_s,
        "flops": flops_per_step * config.training_steps,
    }, model


def _trainer(*, max_steps: int, callbacks: list[pl.Callback]) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="32-true",
        max_steps=max_steps,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


class _Checkpoint(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Writes the one checkpoint of a run, atomically, between passes of the loader.

    Lightning's own checkpoints repeat a batch when a run counted in steps is resumed (2.6.6);
    ours hold what the next step depends on, and resume to the same weights bit by bit.
    """

    def __init__(self, path: Path, *, run_id: str, curve: CurveCallback, every_s: float) -> None:
        self._path = path
        self._run_id = run_id
        self._curve = curve
        self._every_s = every_s
        self._last = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: DenoiserModule) -> None:  # noqa: ARG002
        """Write, if the last one is old enough."""
        if time.monotonic() - self._last < self._every_s:
            return
        contents = io.BytesIO()
        torch.save({"run": self._run_id, "curve": self._curve.rows, **pl_module.saved()}, contents)
        write_atomic(self._path, contents.getvalue())
        self._last = time.monotonic()


def _read_checkpoint(path: Path, *, run_id: str) -> dict[str, Any] | None:
    """Return what a checkpoint holds, or None where there is none that is this run's and whole."""
    if not path.is_file():
        return None
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError):
        return None
    return saved if saved.get("run") == run_id else None


def _count_flops(module: DenoiserModule, arrays: TrainingArrays) -> int:
    loader = BatchLoader(arrays, batch_size=module.config.batch_size, batches=1, seed=0)
    batch = next(iter(loader))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(module.loss(*batch))
    module.zero_grad()
    return int(counter.get_total_flops())
