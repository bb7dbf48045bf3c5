"""What a phase costs on named GPUs: estimated from counted FLOPs, beside what is claimed."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.core.errors import ConfigError
from workbench.core.gpus import Gpu, gpus
from workbench.scaling.claims import PHASES, Phase, span
from workbench.scaling.energy import GCO2_PER_KWH, PUE, gpu_energy
from workbench.store.results import Interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COST_NOTE", "Prices", "Rate", "Work", "claimed_phases", "cost", "work"]

_UTILIZATION = np.array([0.3, 0.46, 0.05])
_STEP_S = np.array([3e-4, 1e-4, 1e-3])
"""Each as taken, at best and at worst."""
COST_NOTE = (
    "estimated: passes over the pairs, batch and FLOPs per sample and parameter as in the runs "
    "here; counted FLOPs over the dense bf16 peak × 30 % utilization (5 to 46 %, assumed; large "
    "language models reached 21 to 46 %, arXiv:2204.02311, table 3), but no step under 0.3 "
    "ms (0.1 to 1, assumed; kernels must be launched); board watts × PUE "
    f"{PUE}, {GCO2_PER_KWH:g} gCO2 per kWh; list prices by the GPU-hour, hosts left out"
)
"""How the cost of a phase is estimated, in words, with every assumption."""


class Rate(Protocol):
    """A dated list price, as ``cost.prices`` has it."""

    @property
    def usd(self) -> Decimal:
        """Return the dollars per unit."""

    @property
    def source(self) -> str:
        """Return where it is from."""

    @property
    def checked(self) -> str:
        """Return the date on which a person looked."""


Prices = Mapping[str, Rate]
"""Dollars by name: ``gpu_<name>_hour`` and, where there is one, ``gpu_<name>_spot_hour``."""


class Work(NamedTuple):
    """A training job, counted."""

    flops: float
    steps: float
    samples: float


def work(frame: pd.DataFrame, *, pairs: float, parameters: float, models: float = 1) -> Work:
    """Return the work of training at another size, from what the runs counted and took.

    FLOPs per sample grow with the parameters; passes over the pairs and the batch stay as they
    were.

    Args:
        frame: Training runs with flops, steps, samples, pairs and parameters.
        pairs: To train on.
        parameters: Of one model.
        models: Size of the ensemble.
    """
    mean = frame[["flops", "steps", "samples", "pairs", "parameters"]].mean()
    samples = float(mean["samples"] / mean["pairs"]) * pairs * models
    each = float(mean["flops"] / mean["samples"] / mean["parameters"]) * parameters
    steps = float(mean["steps"] / mean["samples"]) * samples
    return Work(flops=each * samples, steps=steps, samples=samples)


def cost(job: Work, gpu: Gpu, prices: Prices) -> dict[str, Any]:
    """Return hours, dollars, energy and CO2 of a job on one GPU, as intervals.

    Args:
        job: What is to be done.
        gpu: On what.
        prices: Dollars of an hour of it; without a spot price ``spot_usd`` is None.

    Raises:
        ConfigError: If the GPU has no price; an unknown price is never taken for 0.
    """
    key = f"gpu_{gpu.name.lower().replace(' ', '_')}"
    if f"{key}_hour" not in prices:
        raise ConfigError(f"no price '{key}_hour': add it to the price table with source and date")
    listed, spot = prices[f"{key}_hour"], prices.get(f"{key}_spot_hour")
    of_hour = gpu_energy(hours=1, watts=gpu.watts)
    each = np.maximum(job.flops / job.steps / gpu.peak_flops / _UTILIZATION, _STEP_S)
    hours = job.steps * each / 3600
    return {
        "gpu": gpu.name,
        "gpu_hours": _interval(hours),
        "usd": _interval(hours * float(listed.usd)),
        "spot_usd": _interval(hours * float(spot.usd)) if spot else None,
        "kwh": _interval(hours * of_hour.kwh),
        "kgco2": _interval(hours * of_hour.gco2 / 1000),
        "prices": f"{listed.source}; checked {listed.checked}",
    }


def claimed_phases(frame: pd.DataFrame, prices: Prices) -> list[dict[str, object]]:
    """Return a row per phase of the roadmap: what it claims, beside what is computed here.

    ``*_computed`` is its training on one GPU of the kind that it names, from the FLOPs counted
    here; ``*_of_its_hours`` follows from its own GPUs and hours. Never a comparison of results.
    """
    return [_beside(phase, frame, prices) for phase in PHASES if phase.gpus]


def _beside(phase: Phase, frame: pd.DataFrame, prices: Prices) -> dict[str, object]:
    gpu, (least, most) = gpus()[phase.gpu], (phase.gpus * hours for hours in phase.hours)
    job = work(frame, pairs=phase.pairs, parameters=phase.parameters, models=phase.models)
    computed = cost(job, gpu, prices)
    usd, kwh = (computed[what]["value"] / computed["gpu_hours"]["value"] for what in ("usd", "kwh"))
    return {
        "phase": phase.name,
        "gpu": gpu.name,
        "gpu_hours_claimed": span((least, most)),
        "gpu_hours_computed": computed["gpu_hours"],
        "usd_claimed": span(phase.usd),
        "usd_of_its_hours": span((least * usd, most * usd)),
        "usd_computed": computed["usd"],
        "kwh_claimed": phase.kwh,
        "kwh_of_its_hours": span((least * kwh, most * kwh)),
        "kwh_computed": computed["kwh"],
        "kgco2_claimed": phase.kgco2,
        "kgco2_computed": computed["kgco2"],
        "kind": "claimed",
    }


def _interval(ends: NDArray[np.float64]) -> Interval:
    value, low, high = ends.tolist()
    return {"value": value, "low": low, "high": high}
