"""The prior: from a prompt to unit vectors of what it should become, one or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.diffusion.condition import CONDITION_DIM
from workbench.diffusion.hypotheses import MultiHypothesis, winner_takes_most
from workbench.diffusion.networks import NETWORKS, Network, NetworkKind, Prompt, Reading
from workbench.diffusion.process import (
    Prediction,
    add_bridge_noise,
    add_noise,
    guess_loss,
    prediction_target,
    to_clean,
    to_latent,
)
from workbench.diffusion.sample import BRIDGE_SAMPLERS, NOISE_SAMPLERS, Sampler
from workbench.diffusion.schedule import ScheduleKind, bridge_levels, signal_levels

__all__ = ["PROCESSES", "Prior", "PriorBatch", "PriorConfig", "ProcessKind"]

ProcessKind: TypeAlias = Literal["x0", "eps", "v", "bridge", "regression", "hypotheses"]
PROCESSES: Final[tuple[ProcessKind, ...]] = get_args(ProcessKind)
"""Diffusion by what is predicted, a bridge from the prompt, and two that need one pass: the
permanent baselines of a direct prediction and of several hypotheses."""

_MAX_HEADS = 8
_NOISE_DRAWS = 4  # per prompt and step: reading prompts costs more, and the loss varies less
_COUNTS = "dim conditions hidden blocks heads levels hypotheses"


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """Everything that decides what a prior computes, but its weights."""

    network: NetworkKind = "gate"
    """What is read of a prompt: ``mlp`` the pooled vector, ``gate`` and ``attention`` tokens."""
    process: ProcessKind = "regression"
    """How an answer comes about, one of :data:`PROCESSES`."""
    schedule: ScheduleKind = "cosine"
    """Of processes that start from noise."""
    levels: int = 1_000
    """Noise levels: 1,000, 2,000 and 5,000 in the roadmap."""
    dim: int = 384
    """Width of the embedding."""
    conditions: int = CONDITION_DIM
    """Width of the condition."""
    hidden: int = 256
    """Width of the network, from which the rest follows; even."""
    blocks: int = 2
    """Residual blocks of the network."""
    heads: int = 4
    """Attention heads, 1 to 8; ``hidden`` is a multiple."""
    hypotheses: int = 8
    """Answers of process ``hypotheses``; at least 2 there."""
    condition_dropout: float = 0.1
    """Share of training rows whose condition is hidden, for guidance."""
    latent_scale: float = 1.0
    """Factor on latents before noise of variance 1 is added: more of it is less noise."""

    def __post_init__(self) -> None:
        for name in _COUNTS.split():
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        choices = {"network": NETWORKS, "process": PROCESSES, "schedule": get_args(ScheduleKind)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                said = getattr(self, name)
                raise ConfigError(f"{name} is {said!r}; write one of {', '.join(known)}")
        if self.heads > _MAX_HEADS or self.hidden % (2 * self.heads):
            raise ConfigError(
                f"hidden is {self.hidden} with {self.heads} heads; give at most {_MAX_HEADS} "
                f"heads and a hidden that is a multiple of twice their number"
            )
        if self.process == "hypotheses" and self.hypotheses < 2:  # noqa: PLR2004
            raise ConfigError("hypotheses is 1; give at least 2, or choose process 'regression'")
        if not 0 <= self.condition_dropout < 1:
            raise ConfigError(
                f"condition_dropout is {self.condition_dropout}; it must be in [0, 1)"
            )
        if not 0 < self.latent_scale < math.inf:
            raise ConfigError(f"latent_scale is {self.latent_scale}; it must be above 0")

    @property
    def prediction(self) -> Prediction:
        """What the network says."""
        return self.process if self.process in ("eps", "v") else "x0"

    @property
    def samplers(self) -> Mapping[str, Sampler]:
        """Samplers of the process by name, none where one pass is all there is."""
        if self.process == "bridge":
            return BRIDGE_SAMPLERS
        return NOISE_SAMPLERS if self.process in ("x0", "eps", "v") else {}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PriorConfig:
        """Return the config that :meth:`to_json` wrote; refuse an unknown field.

        Raises:
            ConfigError: If a field is unknown or out of range.
        """
        refuse_unknown(values, known=[one.name for one in fields(cls)], where="prior")
        return cls(**values)


class PriorBatch(NamedTuple):
    """Prompts, and for each one thing that it may become."""

    prompt: Prompt
    target: Float[Tensor, "batch dim"]
    """Unit rows."""

    def at(self, rows: Int[Tensor, " rows"]) -> PriorBatch:
        """Return some of the rows."""
        return PriorBatch(Prompt(*(one[rows] for one in self.prompt)), self.target[rows])


class _Asked(NamedTuple):
    """Prompts as samplers pass them on: what was read of them, and how much each reading counts."""

    origin: Float[Tensor, "batch 1 dim"]
    """Latents of the prompts, where residuals are zero."""
    readings: list[tuple[float, Reading]]

    def blend(self, output: Callable[[Reading], Tensor]) -> Tensor:
        """Return the weighted sum of the outputs for each reading."""
        return torch.stack([weight * output(reading) for weight, reading in self.readings]).sum(0)


class Prior(nn.Module):
    """A network with the process that it is trained for.

    ::

        loss = prior.loss(PriorBatch(prompt, target), generator)
        vectors = prior.sample(prompt, sampler="ddim", steps=10, candidates=16, generator=generator)
    """

    signal: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        sizes: dict[str, Any] = {
            "dim": config.dim,
            "conditions": config.conditions,
            "hidden": config.hidden,
            "blocks": config.blocks,
            "heads": config.heads,
            "pulls": config.prediction == "x0",
        }
        self.network: Network | MultiHypothesis = (
            MultiHypothesis(config.network, hypotheses=config.hypotheses, **sizes)
            if config.process == "hypotheses"
            else Network(config.network, **sizes)
        )
        levels = (
            bridge_levels(steps=config.levels)
            if config.process == "bridge"
            else signal_levels(steps=config.levels, kind=config.schedule)
        )
        self.register_buffer("signal", levels, persistent=False)

    def loss(self, batch: PriorBatch, generator: Generator) -> Float[Tensor, ""]:
        """Return the mean loss of a batch, at random noise levels and with some conditions hidden.

        Raises:
            ConfigError: If the widths are not those of the config.
        """
        prompt = self._checked(batch.prompt)
        hidden = torch.rand(len(prompt.pooled), 1, generator=generator)
        shown = (hidden >= self.config.condition_dropout).to(prompt.condition)
        reading = self.network.read(prompt._replace(condition=prompt.condition * shown))
        residual = to_latent(batch.target - prompt.pooled) * self.config.latent_scale
        if isinstance(self.network, MultiHypothesis):
            residuals, scores = self.network(reading)
            return winner_takes_most(residuals, scores, residual)
        if self.config.process == "regression":
            return guess_loss(self.network.direct(reading)[:, 0], residual)
        several = residual[:, None].expand(-1, _NOISE_DRAWS, -1)
        return self._denoising_loss(self.network, reading, several, generator)

    def sample(
        self,
        prompt: Prompt,
        *,
        sampler: str | None = None,
        steps: int = 1,
        candidates: int = 1,
        generator: Generator | None = None,
        guidance: float = 1.0,
    ) -> Float[Tensor, "batch candidates dim"]:
        """Return unit vectors of what prompts may become.

        Args:
            prompt: Prompts.
            sampler: One of the config's samplers; None where one pass is all there is.
            steps: Calls of the network, 1 to the config's levels.
            candidates: Vectors per prompt, drawn; of hypotheses the likeliest, best first.
            generator: Draws the noise. Without one there is none: the start is its mean, and all
                that is drawn is alike.
            guidance: 1 follows the condition as learned, 0 ignores it, more exaggerates it.

        Raises:
            ConfigError: If an argument does not fit the config.
        """
        self._check_sampling(sampler, steps=steps, candidates=candidates)
        with torch.no_grad():
            asked = self._ask(self._checked(prompt), guidance=guidance)
            if sampler is None or isinstance(self.network, MultiHypothesis):
                residual = self._one_pass(asked, candidates)
            else:
                start = asked.origin.expand(-1, candidates, -1).mul(0)
                if generator is not None and self.config.process != "bridge":
                    start = torch.randn(start.shape, generator=generator).to(start)
                residual = self.config.samplers[sampler](
                    partial(self._guess, self.network),
                    asked,
                    start=start,
                    signal=self.signal,
                    steps=steps,
                    generator=generator,
                )
            latent = asked.origin + residual / self.config.latent_scale
            vectors: Tensor = nn.functional.normalize(latent, dim=-1)
        return vectors

    def _denoising_loss(
        self, network: Network, reading: Reading, residual: Tensor, generator: Generator
    ) -> Float[Tensor, ""]:
        levels = torch.randint(1, self.config.levels + 1, residual.shape[:-1], generator=generator)
        levels = levels.to(residual.device)
        noise = torch.randn(residual.shape, generator=generator).to(residual)
        noising = add_bridge_noise if self.config.process == "bridge" else add_noise
        noisy = noising(residual, noise=noise, levels=levels, signal=self.signal)
        kept = self.signal[levels][..., None].to(residual)
        target = prediction_target(
            residual, noise=noise, kept=kept, prediction=self.config.prediction
        )
        times = (levels / self.config.levels).to(residual)
        return guess_loss(network.predict(noisy, times, reading), target)

    def _guess(self, network: Network, noisy: Tensor, times: Tensor, asked: _Asked) -> Tensor:
        """Return clean residuals, no farther out than a mean of unit vectors can be."""
        output = asked.blend(lambda reading: network.predict(noisy, times, reading))
        levels = (times * self.config.levels).round().long()
        kept = self.signal[levels][..., None].to(output)
        clean = to_clean(output, noisy=noisy, kept=kept, prediction=self.config.prediction)
        latent = asked.origin + clean / self.config.latent_scale
        excess = (latent.norm(dim=-1, keepdim=True) / math.sqrt(self.config.dim)).clamp(min=1)
        bounded: Tensor = (latent / excess - asked.origin) * self.config.latent_scale
        return bounded

    def _one_pass(self, asked: _Asked, candidates: int) -> Float[Tensor, "batch candidates dim"]:
        network = self.network
        if not isinstance(network, MultiHypothesis):
            return asked.blend(network.direct)
        residuals = asked.blend(lambda reading: network(reading)[0])
        best = asked.blend(lambda reading: network(reading)[1]).topk(candidates, dim=-1)
        return residuals.take_along_dim(best.indices[..., None], dim=1)

    def _ask(self, prompt: Prompt, *, guidance: float) -> _Asked:
        readings = [(guidance, self.network.read(prompt))]
        if guidance != 1:
            blank = prompt._replace(condition=torch.zeros_like(prompt.condition))
            readings.append((1 - guidance, self.network.read(blank)))
        return _Asked(to_latent(prompt.pooled)[:, None], readings)

    def _checked(self, prompt: Prompt) -> Prompt:
        found = (prompt.pooled.shape[-1], prompt.tokens.shape[-1], prompt.condition.shape[-1])
        wanted = (self.config.dim, self.config.dim, self.config.conditions)
        if found != wanted:
            raise ConfigError(
                f"pooled vectors, tokens and conditions are {found} wide; this prior takes {wanted}"
            )
        return prompt

    def _check_sampling(self, sampler: str | None, *, steps: int, candidates: int) -> None:
        known: list[str | None] = [*self.config.samplers] or [None]
        if sampler not in known:
            raise ConfigError(
                f"sampler is {sampler!r}; process {self.config.process!r} takes one of {known}"
            )
        if not 1 <= steps <= self.config.levels:
            raise ConfigError(f"steps is {steps}; choose 1 to {self.config.levels}")
        most = {"regression": 1, "hypotheses": self.config.hypotheses}.get(self.config.process)
        if candidates < 1 or (most and candidates > most):
            raise ConfigError(f"candidates is {candidates}; choose 1 to {most or 'any number'}")
