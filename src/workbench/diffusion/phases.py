"""The phases of scaling as validated configs: what each trains, and how large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from workbench.core.errors import ConfigError
from workbench.diffusion.prior import PriorConfig, ProcessKind
from workbench.diffusion.tagger import TaggerConfig
from workbench.diffusion.training_config import TrainingConfig

__all__ = ["PHASES", "Phase", "phase"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """All that decides what a training run makes from its pairs."""

    tagger: TaggerConfig
    training: TrainingConfig
    """Of the tagger, each round."""
    prior: PriorConfig
    """The roadmap's diffusion on vectors, beside its baselines."""
    prior_training: TrainingConfig
    rounds: int = 1
    """Of the tagger's training; each after the first draws what the one before got wrong."""
    members: int = 1
    """Priors of the ensemble."""
    encoder: str = "minilm"
    """Encoder that the prior's width is of."""
    redirects: tuple[ProcessKind, ...] = ("hypotheses", "x0", "regression")
    """Priors that compete for leading harmful requests elsewhere; none takes the nearest text."""
    measured: int = 2_000
    """Most texts of a split that routing is chosen on and that the frontier is measured on."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        parts = ("tagger", "training", "prior", "prior_training")
        configs = {name: getattr(self, name).to_json() for name in parts}
        plain = {name: getattr(self, name) for name in ("rounds", "members", "encoder", "measured")}
        return configs | plain | {"redirects": list(self.redirects)}


_SMALL = TrainingConfig(steps=120, batch_size=64, validate_every=60, warmup_steps=20)
PHASES: Final = {
    "quickstart": Phase(
        tagger=TaggerConfig(hidden=128, tuned_layers=0),
        training=replace(_SMALL, steps=200, validate_every=100, learning_rate=1e-2, ema_decay=0.98),
        prior=PriorConfig(network="mlp", process="x0", hidden=128),
        prior_training=replace(_SMALL, batch_size=128, ema_decay=0.98),
        redirects=(),
        measured=200,
    ),
    "quickstart-tuned": Phase(
        tagger=TaggerConfig(hidden=384, tuned_layers=2),
        training=replace(_SMALL, steps=80, validate_every=40, ema_decay=0.97),
        prior=PriorConfig(network="mlp", process="x0", hidden=128),
        prior_training=replace(_SMALL, batch_size=128, ema_decay=0.98),
        measured=200,
    ),
    "phase-0": Phase(
        tagger=TaggerConfig(tuned_layers=2),
        training=TrainingConfig(steps=1_000, batch_size=64, warmup_steps=50, ema_decay=0.998),
        prior=PriorConfig(network="mlp", process="x0", hidden=512),
        prior_training=TrainingConfig(steps=2_000, batch_size=32, ema_decay=0.995),
    ),
    "phase-1": Phase(
        tagger=TaggerConfig(tuned_layers=3),
        training=TrainingConfig(steps=1_500, batch_size=64, warmup_steps=100, ema_decay=0.998),
        prior=PriorConfig(network="mlp", process="x0", hidden=512, levels=1_000),
        prior_training=TrainingConfig(steps=4_000, batch_size=128),
        measured=1_000,
    ),
    "phase-2": Phase(
        tagger=TaggerConfig(tuned_layers=3),
        training=TrainingConfig(steps=6_000, batch_size=128, warmup_steps=200),
        prior=PriorConfig(network="mlp", process="x0", dim=768, hidden=1_024, levels=2_000),
        prior_training=TrainingConfig(steps=50_000, batch_size=256, warmup_steps=500),
        members=3,
        encoder="sentence-transformers/all-mpnet-base-v2",
    ),
    "phase-3": Phase(
        tagger=TaggerConfig(tuned_layers=6),
        training=TrainingConfig(steps=30_000, batch_size=512, warmup_steps=1_000),
        prior=PriorConfig(network="mlp", process="x0", dim=1_024, hidden=2_048, levels=5_000),
        prior_training=TrainingConfig(steps=200_000, batch_size=1_024, warmup_steps=1_000),
        members=5,
        encoder="BAAI/bge-large-en-v1.5",
    ),
}
"""The first two are ours, for a laptop; the others are the roadmap's, whose attention heads the
tagger's layers have: a prior sees one pooled vector here, over which there is nothing to attend."""


def phase(
    name: str,
    *,
    hidden: int = 0,
    tuned_layers: int = -1,
    steps: int = 0,
    rounds: int = 0,
    seed: int = 0,
) -> Phase:
    """Return a phase with some settings changed; 0, of layers -1, leaves what the phase says.

    Args:
        name: One of :data:`PHASES`.
        hidden: Width of the tagger's heads and of the prior.
        tuned_layers: Layers of the encoder that are trained further.
        steps: Optimizer steps, of the tagger and of the prior.
        rounds: Of the tagger's training.
        seed: Of weights, batches and noise.

    Raises:
        ConfigError: If there is no such phase, or a setting is out of range.
    """
    if name not in PHASES:
        raise ConfigError(f"unknown phase {name!r}; known: {', '.join(PHASES)}")
    chosen = PHASES[name]
    sizes: dict[str, Any] = {"hidden": hidden} if hidden else {}
    layers = {"tuned_layers": tuned_layers} if tuned_layers >= 0 else {}
    return replace(
        chosen,
        rounds=rounds or chosen.rounds,
        tagger=replace(chosen.tagger, **sizes, **layers),
        training=_run(chosen.training, steps=steps, seed=seed),
        prior=replace(chosen.prior, **sizes),
        prior_training=_run(chosen.prior_training, steps=steps, seed=seed),
    )


def _run(training: TrainingConfig, *, steps: int, seed: int) -> TrainingConfig:
    steps = steps or training.steps
    return replace(training, seed=seed, steps=steps, warmup_steps=min(training.warmup_steps, steps))
