"""The Lightning side of training: one step, its optimizer, and what is logged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.process import add_noise, guess_loss, interpolate
from workbench.diffusion.schedule import signal_levels

__all__ = ["CurveCallback", "DenoiserModule"]


class DenoiserModule(pl.LightningModule):  # type: ignore[misc]  # Lightning is skipped
    """A denoiser with its loss.

    Args:
        config: What to train.
        saved: What :meth:`saved` returned when training stopped; None starts anew.
    """

    def __init__(self, config: PhaseConfig, *, saved: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.first_step = 0 if saved is None else int(saved["step"])
        self.denoiser = Denoiser(config)
        self.losses: list[Tensor] = []
        self._optimizer_state = None if saved is None else saved["optimizer"]
        if saved is not None:
            self.denoiser.load_state_dict(saved["denoiser"])
        self.signal = signal_levels(steps=config.diffusion_steps).float()

    @property
    def step(self) -> int:
        """Optimizer steps made, those before a resume included."""
        return self.first_step + int(self.global_step)

    def saved(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            "step": self.step,
            "denoiser": self.denoiser.state_dict(),
            "optimizer": self.optimizers().optimizer.state_dict(),
        }

    def loss(
        self,
        prompt: Float[Tensor, "batch dim"],
        residual: Float[Tensor, "batch dim"],
        generator: Generator,
    ) -> Float[Tensor, ""]:
        """Return the mean squared error of the guess of mixed pairs at random noise levels."""
        prompt, residual = interpolate(prompt, residual, generator=generator)
        top = self.config.diffusion_steps
        levels = torch.randint(1, top + 1, (len(residual),), generator=generator)
        noise = torch.randn(residual.shape, generator=generator)
        noisy = add_noise(residual, noise=noise, levels=levels, signal=self.signal)
        return guess_loss(self.denoiser(noisy, levels / top, prompt), residual)

    def training_step(self, batch: tuple[Tensor, Tensor, Generator], batch_index: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch of the loader."""
        loss = self.loss(*batch)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> Any:
        """Return fused AdamW and its cosine decay, stepped every step."""
        optimizer = torch.optim.AdamW(
            self.denoiser.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        total = self.config.training_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: 0.5 * (1 + math.cos(math.pi * min((self.first_step + step) / total, 1))),
        )
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class CurveCallback(pl.Callback):  # type: ignore[misc]  # Lightning is skipped
    """Keeps the loss curve, one row per pass of the loader; rows of before a resume are kept."""

    def __init__(
        self, validation_loss: Callable[[Denoiser], float], *, rows: list[dict[str, float]]
    ) -> None:
        self._validation_loss = validation_loss
        self.rows = rows

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: DenoiserModule) -> None:  # noqa: ARG002
        """Add the mean training loss since the last row, and the validation loss."""
        mean = float(torch.stack(pl_module.losses).mean())
        pl_module.losses.clear()
        validation = self._validation_loss(pl_module.denoiser)
        pl_module.denoiser.train()
        self.rows.append(
            {"step": float(pl_module.step), "train_loss": mean, "validation_loss": validation}
        )
