"""What happens between stretches of training: averages, validation, stopping, checkpoints."""

from __future__ import annotations

import copy
import ctypes
import io
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import nn

from workbench.core.errors import ConfigError
from workbench.diffusion.training_config import TrainingConfig, learning_rate_at
from workbench.store.artifacts import write_atomic

if TYPE_CHECKING:
    from workbench.diffusion.engine import Engine

__all__ = [
    "Average",
    "Checkpoint",
    "Divergence",
    "Progress",
    "Report",
    "Validation",
    "save_tensors",
]

_WINDOW = 200
_TOO_HIGH = 10.0
_TOO_LONG = 25


class Divergence(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Stops training whose loss or gradient is not finite, or whose loss has run away.

    Run away: more than 10 times the running median, 25 steps in a row.
    """

    def __init__(self) -> None:
        self._recent: list[float] = []
        self._high = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next look depends on."""
        return {"recent": self._recent, "high": self._high}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        self._recent, self._high = list(state_dict["recent"]), state_dict["high"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Engine, *_: Any) -> None:
        """Look at the losses and gradients of a stretch."""
        first = pl_module.step - len(pl_module.losses) + 1
        usual = statistics.median(self._recent) if self._recent else math.inf
        for step, (loss, norm) in enumerate(
            zip(pl_module.losses, pl_module.norms, strict=True), start=first
        ):
            finite = math.isfinite(loss) and math.isfinite(norm)
            self._high = self._high + 1 if loss > _TOO_HIGH * usual > 0 else 0
            if not finite or self._high == _TOO_LONG:
                began = step - _TOO_LONG + 1 if finite else step
                pl_module.stopped = f"diverged at step {began}"
                trainer.should_stop = True
                return
            if not self._high:
                self._recent.append(loss)
        del self._recent[:-_WINDOW]


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    """Write tensors and plain values into one file, atomically; raises as ``write_atomic``."""
    contents = io.BytesIO()
    torch.save(values, contents)
    write_atomic(path, contents.getvalue())


class Average(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Keeps an exponential average of the weights, as a model of its own.

    Source:
        Polyak & Juditsky 1992, doi:10.1137/0330046; the decay grows as (1 + step) / (10 + step)
        up to its value, as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay = decay
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next average depends on."""
        return {"model": self.model.state_dict(), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state_dict["model"])
        self._step = state_dict["step"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Engine) -> None:  # noqa: ARG002
        """Go where the model is."""
        self.model.to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Engine, *_: Any) -> None:  # noqa: ARG002
        """Take in the weights, as if they had been these since the last time."""
        decay = min(self._decay, (1 + pl_module.step) / (10 + pl_module.step))
        share = 1 - decay ** (pl_module.step - self._step)
        for average, now in zip(self.model.parameters(), pl_module.model.parameters(), strict=True):
            average.lerp_(now, share)
        for kept, buffer in zip(self.model.buffers(), pl_module.model.buffers(), strict=True):
            kept.copy_(buffer)
        self._step = pl_module.step


class Validation(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Measures the averaged weights, keeps the curve and the best weights, and stops in time."""

    def __init__(
        self,
        average: Average,
        config: TrainingConfig,
        *,
        validate: Callable[[nn.Module], dict[str, float]],
        metric: str,
    ) -> None:
        self._average = average
        self._config = config
        self._validate = validate
        self._metric = metric
        self.curve: list[dict[str, float]] = []
        self.initial: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self._losses: list[float] = []
        self._worse = 0
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next validation depends on."""
        names = ("curve", "initial", "best", "_losses", "_worse")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Engine) -> None:
        """Measure the initial weights: the best ones, should training diverge at once."""
        if not self.initial:
            self.initial = self._measure(trainer)
            if self._metric not in self.initial:
                known = ", ".join(self.initial) or "nothing finite"
                raise ConfigError(f"metric is {self._metric!r}; validation gives {known}")
            self._keep(self.initial, step=0)
        self._since = time.perf_counter()
        self._last = pl_module.samples

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Engine, *_: Any) -> None:
        """Add a row to the curve where one is due, and stop where nothing gets better."""
        self._losses += pl_module.losses
        step, config = pl_module.step, self._config
        due = step % config.validate_every == 0 or step == config.steps
        if pl_module.stopped or not due:
            return
        elapsed_s = time.perf_counter() - self._since
        values = self._measure(trainer)
        if self._metric not in values:
            pl_module.stopped = f"diverged at step {step}"
            trainer.should_stop = True
            return
        self.curve.append(
            {
                "step": float(step),
                "train_loss": statistics.fmean(self._losses),
                **values,
                "learning_rate": learning_rate_at(config, step=step - 1),
                "samples_per_s": (pl_module.samples - self._last) / elapsed_s,
            }
        )
        self._losses.clear()
        if values[self._metric] < self.best["values"][self._metric]:
            self._keep(values, step=step)
        else:
            self._worse += 1
        if self._worse == config.patience > 0 and step < config.steps:
            pl_module.stopped = f"early at step {step}"
            trainer.should_stop = True
        self._since, self._last = time.perf_counter(), pl_module.samples

    @torch.no_grad()
    def _measure(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return what the first process measures that is finite."""
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            # what it measures by is in the memory of the CPU, wherever the model is trained
            model = copy.deepcopy(self._average.model).cpu()
            values = {name: float(one) for name, one in self._validate(model).items()}
            _give_back_memory()
        values = trainer.strategy.broadcast(values)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _keep(self, values: dict[str, float], *, step: int) -> None:
        weights = self._average.model.state_dict()
        self.best = {
            "step": step,
            "values": values,
            "weights": {name: one.cpu().clone() for name, one in weights.items()},
        }
        self._worse = 0


def _give_back_memory() -> None:
    """Return freed memory to the system: batches of ever other sizes leave gaps in glibc's heap."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


class Checkpoint(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Writes the one checkpoint of a run, atomically, and at once when told to terminate.

    Lightning's own checkpoints repeat a batch when a run counted in steps is resumed (2.6.6);
    ours hold what the next step depends on, and resume to the same weights bit by bit.
    """

    def __init__(self, path: Path, *, run_id: str, every_s: float) -> None:
        self._path = path
        self._run_id = run_id
        self._every_s = every_s
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Engine, *_: Any) -> None:
        """Write, if the last one is old enough or there will be no other chance."""
        due = pl_module.terminated or time.monotonic() - self._last >= self._every_s
        if due and not pl_module.stopped and trainer.is_global_zero:
            save_tensors(self._path, {"run": self._run_id, **pl_module.saved()})
            self._last = time.monotonic()


class Progress(NamedTuple):
    """How far training is."""

    step: int
    total: int
    loss: float
    """Mean training loss of the last few steps."""
    eta_s: float
    """Wall seconds left at the rate of this process so far."""


class Report(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Tells someone how far training is."""

    def __init__(self, tell: Callable[[Progress], None], *, total: int) -> None:
        self._tell = tell
        self._total = total

    def on_train_start(self, trainer: pl.Trainer, pl_module: Engine) -> None:  # noqa: ARG002
        """Start the clock."""
        self._first, self._started = pl_module.step, time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Engine, *_: Any) -> None:
        """Tell, from the first process."""
        if not trainer.is_global_zero:
            return
        step = pl_module.step
        per_step_s = (time.perf_counter() - self._started) / (step - self._first)
        loss = statistics.fmean(pl_module.losses)
        self._tell(Progress(step, self._total, loss, per_step_s * (self._total - step)))
