"""A trained denoiser as a translator of vectors; needs torch, not Lightning."""

from __future__ import annotations

import math

import numpy as np
import torch

from workbench.core.errors import DataError
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.process import apply_correction, to_latent
from workbench.diffusion.sample import ddim
from workbench.diffusion.schedule import signal_levels
from workbench.embedding.encoder import FloatArray

__all__ = ["DiffusionTranslator"]


class DiffusionTranslator:
    """Moves vectors by a correction sampled from a denoiser.

    Sampling takes one step from zero, the mean of the noise, unless asked otherwise: the default
    is deterministic, and with one target per prompt it is also the better guess (measured on
    unseen requests in unseen wrappers, 1 − cosine .520, against .531 from seeded noise and .526
    in 10 steps).
    """

    name = "diffusion"

    def __init__(self, config: PhaseConfig, denoiser: Denoiser) -> None:
        self.config = config
        self.denoiser = denoiser.eval()
        self._signal = signal_levels(steps=config.diffusion_steps)

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(one.numel() for one in self.denoiser.parameters())

    def vectors(self, X: FloatArray, *, gain: float = 1.0, seed: int | None = None) -> FloatArray:  # noqa: N803
        """Return unit rows ``(n, dim)`` moved by the sampled correction.

        Gain 0 leaves the rows, 1 is the prediction; without a seed of the noise it starts from 0.

        Raises:
            DataError: If the width is not the one it was trained on.
        """
        if X.ndim != 2 or X.shape[1] != self.config.dim:  # noqa: PLR2004
            raise DataError(
                f"vectors have shape {X.shape}; this model was trained on width {self.config.dim}"
            )
        if not len(X):
            return X
        rows = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        start = torch.zeros_like(rows)
        if seed is not None:
            start.normal_(generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            latent = ddim(
                self.denoiser,
                to_latent(rows),
                start=start,
                signal=self._signal,
                steps=self.config.sampling_steps,
            )
        correction = (latent / math.sqrt(self.config.dim)).numpy()
        return apply_correction(X, X + correction, gain=gain)
