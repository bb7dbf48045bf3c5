"""How a model is trained, whatever the model: a validated config and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown

__all__ = ["Accelerator", "Precision", "TrainingConfig", "learning_rate_at"]

Precision = Literal["auto", "32-true", "bf16-mixed"]
Accelerator = Literal["auto", "cpu", "cuda"]

_Rule = tuple[Callable[[Any], bool], str]
_POSITIVE: _Rule = (lambda value: value >= 1, "at least 1")
_COUNT: _Rule = (lambda value: value >= 0, "at least 0")
_SHARE: _Rule = (lambda value: 0 <= value < 1, "in [0, 1)")
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("steps", "batch_size", "accumulation", "validate_every"), _POSITIVE),
    **dict.fromkeys(("warmup_steps", "patience", "devices", "seed"), _COUNT),
    **dict.fromkeys(("weight_decay", "ema_decay"), _SHARE),
    "learning_rate": (lambda value: 0 < value < 1, "in (0, 1)"),
    "clip_norm": (lambda value: value > 0, "above 0"),
    "precision": (get_args(Precision).__contains__, " or ".join(get_args(Precision))),
    "accelerator": (get_args(Accelerator).__contains__, " or ".join(get_args(Accelerator))),
}
_WHERE = {"accumulation", "devices", "strategy"}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides what training makes from a model and its data."""

    steps: int = 2000
    """Optimizer steps."""
    batch_size: int = 128
    """Rows per optimizer step, over all devices."""
    accumulation: int = 1
    """Micro-batches that each device makes of its share of a batch."""
    learning_rate: float = 5e-4
    """Peak learning rate of AdamW; it decays to zero along a cosine."""
    warmup_steps: int = 0
    """Optimizer steps until the peak."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW, on all weights."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.999
    """Share of the averaged weights that a step keeps; less in the first steps. 0 averages none."""
    precision: Precision = "auto"
    """``auto`` is bf16-mixed on a GPU and 32-true on a CPU, where bf16 would take three times as
    long."""
    accelerator: Accelerator = "auto"
    """``auto`` is cuda where there is one."""
    devices: int = 0
    """Processes per machine; 0 is every GPU, one process on a CPU, and what torchrun or srun
    started."""
    strategy: str = "auto"
    """Lightning strategy for more than one process; ``auto`` is DDP."""
    validate_every: int = 100
    """Steps between validations; the last step is always validated."""
    patience: int = 0
    """Validations without a better metric until training stops; 0 never stops."""
    seed: int = 0
    """Seed of batches and noise."""

    def __post_init__(self) -> None:
        for name, (is_valid, wanted) in _RULES.items():
            if not is_valid(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")
        for name, limit in (("accumulation", "batch_size"), ("warmup_steps", "steps")):
            value, most = getattr(self, name), getattr(self, limit)
            if value > most:
                raise ConfigError(f"{name} is {value}; it must be at most {limit}, {most}")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingConfig:
        """Return the config that :meth:`to_json` wrote; refuse an unknown field."""
        refuse_unknown(values, known=[one.name for one in fields(cls)], where="training")
        return cls(**values)

    @property
    def decisive(self) -> dict[str, Any]:
        """Return what decides the weights: all but how a batch is spread over machines."""
        return {name: value for name, value in asdict(self).items() if name not in _WHERE}


def learning_rate_at(config: TrainingConfig, *, step: int) -> float:
    """Return the learning rate of a step, counted from 0: a linear rise, then half a cosine.

    Source:
        Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5 with one cycle and minimum 0.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
