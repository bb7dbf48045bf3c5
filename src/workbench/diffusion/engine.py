"""Optimizer steps: what one batch does to a model, wherever it runs and however it is split."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from workbench.core.errors import ConfigError
from workbench.core.gpus import peak_flops
from workbench.core.identity import stable_fraction
from workbench.diffusion.distributed import WholeDraws
from workbench.diffusion.training_config import TrainingConfig, learning_rate_at
from workbench.diffusion.training_data import TrainingData

__all__ = ["Engine"]

_LOG = logging.getLogger(__name__)
_STATE = (
    "step", "stopped", "notes", "samples", "_flops", "_counted", "train_s", "cpu_s", "hardware",
    "attainable",
)  # fmt: skip
_COUNTED = 20
"""Operations are counted in one step of so many: batches differ, and counting takes time."""


class _Planned(NamedTuple):
    """What is known of an optimizer step beforehand."""

    rows: Tensor
    seed: int
    learning_rate: float


class Engine(pl.LightningModule):  # type: ignore[misc]  # Lightning is skipped
    """Optimizer steps of a model on data, in stretches; each depends on seed and step alone.

    One batch of Lightning's loop is a stretch of steps: Lightning places the model, starts
    processes, synchronizes gradients and handles signals, and what it does around every batch
    would take as long as a step of a small model.

    Args:
        model: A :class:`~workbench.diffusion.training_data.Trainable`.
        data: Rows in memory.
        config: How to train.
        keepers: Callbacks whose state belongs to a checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        data: TrainingData,
        config: TrainingConfig,
        *,
        keepers: list[pl.Callback],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model: Any = model
        self.step = 0
        self.stopped = ""
        self.notes: list[str] = []
        self.samples = 0
        """Rows drawn so far, over all processes."""
        self._flops, self._counted = 0.0, 0
        self.train_s = self.cpu_s = 0.0
        self.hardware = ""
        """What the GPUs call themselves, or ``cpu``."""
        self.attainable = 0.0
        """FLOPs that all GPUs could have done in their steps; NaN where a peak is not known."""
        self.losses: list[float] = []
        """Of the last stretch, step by step, as ``norms`` are the lengths of its gradients."""
        self.norms: list[float] = []
        self.terminated = False
        """Whether this is the last stretch because a process was told to end."""
        self._data = data
        self._config = config
        self._keepers = keepers
        self._optimizer_state: dict[str, Any] | None = None
        self._told_to_end = False

    @property
    def flops(self) -> float:
        """Operations so far, over all processes, by those of the steps that were counted."""
        return self._flops / max(self._counted, 1) * self.step

    def saved(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            **{name: getattr(self, name) for name in _STATE},
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "keepers": [one.state_dict() for one in self._keepers],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what :meth:`saved` returned."""
        for name in _STATE:
            setattr(self, name, saved[name])
        self.model.load_state_dict(saved["model"])
        self._optimizer_state = saved["optimizer"]
        for keeper, state in zip(self._keepers, saved["keepers"], strict=True):
            keeper.load_state_dict(state)

    # Lightning brings the weights of a forked process home; with these it brings all the rest
    get_extra_state = saved
    set_extra_state = restore

    def note(self, text: str) -> None:
        """Say aloud, and keep, that something was done otherwise than asked."""
        _LOG.warning(text)
        self.notes.append(text)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return fused AdamW; every step sets its learning rate.

        Source:
            Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
        """
        self._trained = [one for one in self.model.parameters() if one.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._trained, weight_decay=self._config.weight_decay, fused=True
        )
        if self._optimizer_state is not None:
            self._optimizer.load_state_dict(self._optimizer_state)
        return self._optimizer

    def on_fit_start(self) -> None:
        """Get ready on the device."""
        self._rank, self._processes = self.global_rank, self.trainer.world_size
        self._draws, self._noise = torch.Generator(), torch.Generator()
        config = self._config
        self._micro = math.ceil(config.batch_size / self._processes / config.accumulation)
        is_gpu = self.device.type == "cuda"
        self.hardware = torch.cuda.get_device_name(self.device) if is_gpu else "cpu"
        self._peak = peak_flops(self.hardware) or math.nan

    def on_train_start(self) -> None:
        """Take SIGTERM from Lightning, which would talk to other processes amid a step (2.6.6)."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_told_to_end", True))

    def on_train_batch_end(self, *_: Any) -> None:
        """End the program if told to, after the callbacks have kept what there is."""
        if self.terminated:
            raise SystemExit(128 + signal.SIGTERM)

    def training_step(self, stop: int, batch_index: int) -> None:  # noqa: ARG002
        """Make the optimizer steps up to one."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        plan = [self._planned(step) for step in range(self.step, stop)]
        # what a module draws by itself, as for dropout, comes from torch's own generators
        torch.default_generator.manual_seed(plan[0].seed + self._rank)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(plan[0].seed + self._rank)
        self.model.train()
        losses, norms = [], []
        for planned in plan:
            loss, norm = self._optimizer_step(planned)
            losses.append(loss)
            norms.append(norm)
            self.step += 1
        told = losses[0].new_tensor(float(self._told_to_end))
        summed = self.trainer.strategy.reduce(torch.stack([*losses, told]), reduce_op="sum")
        *self.losses, processes_told = summed.tolist()
        self.norms, self.terminated = torch.stack(norms).tolist(), processes_told > 0
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        own = told.new_tensor([cpu_s, wall_s * self._peak], dtype=torch.float64)
        cpu_s, attainable = self.trainer.strategy.reduce(own, reduce_op="sum").tolist()
        self.train_s += wall_s
        self.cpu_s += cpu_s
        self.attainable += attainable

    def _planned(self, step: int) -> _Planned:
        config = self._config
        seed = int(stable_fraction("batch", str(config.seed), str(step)) * 2**52)
        rows = self._data.draw(config.batch_size, self._draws.manual_seed(seed))
        return _Planned(rows, seed, learning_rate_at(config, step=step))

    def _optimizer_step(self, planned: _Planned) -> tuple[Tensor, Tensor]:
        """Return this process's part of the loss, and the length of the whole gradient."""
        while (loss := self._gradients(planned.rows, seed=planned.seed)) is None:
            self._halve()
        self.samples += len(planned.rows)
        norm = self._clip()
        self._optimizer.param_groups[0]["lr"] = planned.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        # a stretch is one autocast, whose copies of the weights are now old
        torch.clear_autocast_cache()
        return loss, norm

    def _clip(self) -> Tensor:
        """Return the length of the gradient before it is shortened.

        Source:
            Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
        """
        limit = self._config.clip_norm
        norm = nn.utils.get_total_norm([one.grad for one in self._trained if one.grad is not None])
        # a GPU would have to be waited for to find out whether there is anything to do
        if self.device.type != "cpu" or norm > limit:
            nn.utils.clip_grads_with_norm_(self._trained, limit, norm)
        return norm

    def _gradients(self, rows: Tensor, *, seed: int) -> Tensor | None:
        """Return this process's part of the loss after backward; None is out of memory."""
        share = self._share(len(rows))
        if self.step % _COUNTED or not share:
            return self._backward(rows, share, seed=seed)
        with FlopCounterMode(display=False) as counter:
            loss = self._backward(rows, share, seed=seed)
        if loss is not None:
            self._flops += counter.get_total_flops() * len(rows) / len(share)
            self._counted += 1
        return loss

    def _share(self, whole: int) -> range:
        """Return which of a batch's rows are this process's."""
        rank, processes = self._rank, self._processes
        return range(whole * rank // processes, whole * (rank + 1) // processes)

    def _backward(self, rows: Tensor, share: range, *, seed: int) -> Tensor | None:
        parts = []
        try:
            for start in share[:: self._micro]:
                stop = min(start + self._micro, share.stop)
                loss = self._loss(rows, start, stop, seed=seed)
                if stop - start < len(rows):
                    loss = loss * ((stop - start) / len(rows))
                with self._synchronized(stop == share.stop):
                    self._run_backward(loss)
                parts.append(loss.detach())
            if not share:  # fewer rows than processes, which wait for each other's gradients
                loss = torch.stack([one.sum() for one in self._trained]).sum() * 0
                self._run_backward(loss)
                parts.append(loss.detach())
        except torch.OutOfMemoryError:
            return None
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def _run_backward(self, loss: Tensor) -> None:
        if self._processes > 1:  # whose gradients are averaged, and should be summed
            loss = loss * self._processes
            self.trainer.strategy.pre_backward(loss)
        torch.autograd.backward(loss)

    def _synchronized(self, is_last: bool) -> AbstractContextManager[Any]:
        """Return a context whose backward waits for other processes only if it is the last."""
        alone = is_last or self._processes == 1
        return nullcontext() if alone else self.trainer.strategy.model.no_sync()

    def _loss(self, rows: Tensor, start: int, stop: int, *, seed: int) -> Tensor:
        batch = self._data.batch(rows[start:stop])
        if self.device.type != "cpu":
            batch = move_data_to_device(batch, self.device)
        noise, whole = self._noise.manual_seed(seed + 1), len(rows)
        is_split = stop - start < whole
        drawing = (
            WholeDraws(noise, start=start, stop=stop, whole=whole) if is_split else nullcontext()
        )
        with drawing:
            loss: Tensor = self.model.loss(batch, noise)
        return loss

    def _halve(self) -> None:
        """Make micro-batches of half the rows; refuse where that cannot help."""
        self._optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        told = f"out of memory at step {self.step + 1} with {self._micro} rows at a time"
        if self._micro == 1:
            raise ConfigError(f"{told}; choose a smaller model")
        if self._processes > 1:
            # the others already wait for gradients that will not come
            raise ConfigError(
                f"{told}; set accumulation to {2 * self._config.accumulation} or more and run "
                f"again, training goes on from its checkpoint"
            )
        self._micro = math.ceil(self._micro / 2)
        self.note(f"{told}: went on with {self._micro}")
