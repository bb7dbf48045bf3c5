"""The phases of training as validated configs; one knob, ``hidden``, sets the size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown

__all__ = ["PHASE_PRESETS", "PhaseConfig", "preset"]

_COUNTS = "dim hidden blocks diffusion_steps sampling_steps training_steps batch_size"


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """Everything that decides what a training run makes from its arrays."""

    dim: int = 384
    """Width of the embedding that is translated."""
    hidden: int = 256
    """Width of the denoiser, even; time features and parameters follow from it."""
    blocks: int = 2
    """Residual blocks of the denoiser."""
    diffusion_steps: int = 1000
    """Noise levels of the forward process."""
    sampling_steps: int = 1
    """DDIM steps from noise to prediction."""
    training_steps: int = 200
    """Optimizer steps."""
    batch_size: int = 128
    """Pairs per optimizer step, drawn with replacement."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW; it decays to zero along a cosine."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    seed: int = 0
    """Seed of initial weights, batches and noise."""

    def __post_init__(self) -> None:
        for name in _COUNTS.split():
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden % 2:
            raise ConfigError(f"hidden is {self.hidden}; it must be even")
        if self.sampling_steps > self.diffusion_steps:
            raise ConfigError(
                f"sampling_steps is {self.sampling_steps}; it must be at most "
                f"diffusion_steps, {self.diffusion_steps}"
            )
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate is {self.learning_rate}; it must be in (0, 1)")
        if not 0 <= self.weight_decay < 1:
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be in [0, 1)")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PhaseConfig:
        """Return the config that :meth:`to_json` wrote; refuse an unknown field."""
        refuse_unknown(values, known=[one.name for one in fields(cls)], where="training")
        return cls(**values)


PHASE_PRESETS: dict[str, dict[str, Any]] = {
    "quickstart": {},
    "current": {"hidden": 512, "batch_size": 32, "training_steps": 4000},
    "phase-1": {"hidden": 512, "training_steps": 20_000},
}
"""Phases, as what they set beside the defaults. ``quickstart`` is ours, the others are the
roadmap's; its phases 2 and 3 ask for wider encoders and ensembles, which are not there yet."""


def preset(name: str, **changes: Any) -> PhaseConfig:
    """Return a phase's config with some settings changed.

    Raises:
        ConfigError: If there is no such phase, or a setting is unknown or out of range.
    """
    if name not in PHASE_PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PHASE_PRESETS)}")
    return PhaseConfig.from_json(PHASE_PRESETS[name] | changes)
