"""What risks may cost in a year: how often, and how much each time (the view of FAIR).

Each risk is a compound Poisson process: incidents come independently at its rate, and each costs a
lognormal amount. Expected values are exact; percentiles are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import DataError
from workbench.core.files import read_object
from workbench.core.settings import seeds_folder
from workbench.risk.records import EXPOSURES
from workbench.risk.score import USUAL, Codes, Floats
from workbench.store.risk_results import LossRow

__all__ = ["Losses", "annual_losses", "events_per_year"]

_Z_90: Final = 1.6448536269514722
"""Half width of a central 90 % range, in standard deviations."""
_TOP_ASSETS: Final = 10
_QUANTILES: Final = (0.05, 0.5, 0.95, 0.99)
_MIN_YEARS: Final = 1000
_MAX_EVENTS: Final = 10_000_000
_CHUNK_EVENTS: Final = 500_000
"""Drawn at a time, so that memory stays at some tens of MB."""


class Losses(NamedTuple):
    """What a year may cost."""

    expected_usd: Floats
    """Per risk, exact."""
    rows: list[LossRow]
    """``all``, then the costliest assets."""
    assumptions: dict[str, str]
    """What they rest on, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assumptions:
    """As in ``data/seeds/risk/loss.json``."""

    source: str
    most: float
    """Events per year at most."""
    reach: Floats
    """Chance that an event reaches the asset and becomes an incident, by exposure."""
    reach_model: float
    ranges: npt.NDArray[np.float64]
    """``(5, 2)``: dollars of an incident, 5 % and 95 %, by impact."""
    spread: float
    """95 % of a told incident cost ÷ its 5 %."""


def annual_losses(
    p: Floats,
    *,
    impact: Codes,
    exposure: Codes,
    assets: Sequence[str],
    incident_usd: Floats | None = None,
    model: npt.NDArray[np.bool_] | None = None,
    years: int = 10_000,
    seed: int = 0,
) -> Losses:
    """Return what risks may cost in a year, in dollars, each alone and together.

    Args:
        p: Chance of exploitation within 30 days, in [0, 1].
        impact: 1 to 5.
        exposure: Position in ``EXPOSURES``, -1 missing: taken as usual.
        assets: Of each risk.
        incident_usd: Mean cost of an incident where the inventory says, else NaN.
        model: Which are model risks; their chance holds the exposure already.
        years: Drawn; fewer where there are so many incidents that a year tells enough.
        seed: Of the drawing.

    Source:
        The Open Group, Risk Taxonomy (O-RT, FAIR): loss event frequency × loss magnitude.
    """
    assumed = _assumptions()
    models = np.zeros(len(p), dtype=bool) if model is None else model
    told = np.full(len(p), math.nan) if incident_usd is None else incident_usd
    rates = events_per_year(p) * _reach(exposure, models, assumed)
    mu, sigma = _magnitude(impact, told, assumed)
    expected: Floats = rates * np.exp(mu + sigma**2 / 2)
    names, asset = np.unique(np.asarray(assets, dtype=str), return_inverse=True)
    of_asset = np.bincount(asset, weights=expected, minlength=len(names))
    top = np.argsort(-of_asset, kind="stable")[:_TOP_ASSETS]
    top = top[of_asset[top] > 0]
    group = np.full(len(names), len(top))
    group[top] = np.arange(len(top))
    totals = _totals(
        rates, mu, sigma, group=group[asset], groups=len(top) + 1, years=years, seed=seed
    )
    rows = [_row("all", float(expected.sum()), totals.sum(axis=0))]
    rows += [_row(str(names[at]), float(of_asset[at]), totals[rank]) for rank, at in enumerate(top)]
    words = _words(assumed, years=totals.shape[1], seed=seed, told=int((told > 0).sum()))
    return Losses(expected_usd=expected, rows=rows, assumptions=words)


def events_per_year(p: Floats) -> Floats:
    """Return the yearly rate of events of which at least one comes within 30 days with chance p.

    ``-ln(1 - p) · 365 / 30``, and as the seeds say at most: certainty has no rate.
    """
    with np.errstate(divide="ignore"):
        rates = -np.log1p(-np.clip(p, 0.0, 1.0)) * (365 / 30)
    return np.minimum(rates, _assumptions().most)


def _reach(exposure: Codes, models: npt.NDArray[np.bool_], assumed: _Assumptions) -> Floats:
    usual = EXPOSURES.index(USUAL["exposure"])
    by_exposure = assumed.reach[np.where(exposure < 0, usual, exposure)]
    return np.where(models, assumed.reach_model, by_exposure)


def _magnitude(impact: Codes, told: Floats, assumed: _Assumptions) -> tuple[Floats, Floats]:
    """Return mean and deviation of the logarithm of an incident's cost."""
    low, high = np.log(assumed.ranges[impact.astype(np.intp) - 1]).T
    mu, sigma = (low + high) / 2, (high - low) / (2 * _Z_90)
    known = np.isfinite(told) & (told > 0)
    spread = math.log(assumed.spread) / (2 * _Z_90)
    mean = np.log(np.where(known, told, 1.0))
    return np.where(known, mean - spread**2 / 2, mu), np.where(known, spread, sigma)


def _totals(
    rates: Floats, mu: Floats, sigma: Floats, *, group: npt.NDArray[np.intp], groups: int,
    years: int, seed: int,
) -> Floats:  # fmt: skip
    """Return ``(groups, years)`` drawn losses.

    Risks whose incidents cost alike are one process, and all its incidents over all years come at
    once, each in a year of its own chance: exact, and as cheap as there are incidents.
    """
    kinds, kind = np.unique(np.stack([group, mu, sigma]), axis=1, return_inverse=True)
    yearly = np.bincount(kind.ravel(), weights=rates, minlength=kinds.shape[1])
    total = float(yearly.sum())
    if total * years > _MAX_EVENTS:
        years = max(min(years, _MIN_YEARS), int(_MAX_EVENTS / total))
    generator = np.random.default_rng(seed)
    sums = np.zeros(groups * years)
    counts = generator.poisson(yearly * years)
    # Cut after every so many incidents, within a kind too.
    ends = np.cumsum(counts)
    for start in range(0, int(ends[-1]) if len(ends) else 0, _CHUNK_EVENTS):
        stop = min(start + _CHUNK_EVENTS, int(ends[-1]))
        inside = np.clip(ends, start, stop) - np.clip(ends - counts, start, stop)
        where = np.flatnonzero(inside)
        here = inside[where]
        amounts = generator.standard_normal(stop - start, dtype=np.float32)
        amounts *= np.repeat(kinds[2, where].astype(np.float32), here)
        amounts += np.repeat(kinds[1, where].astype(np.float32), here)
        np.exp(amounts, out=amounts)
        year = generator.integers(0, years, stop - start)
        year += np.repeat(kinds[0, where].astype(np.int64) * years, here)
        sums += np.bincount(year, weights=amounts, minlength=len(sums))
    return sums.reshape(groups, years)


def _row(group: str, expected: float, totals: Floats) -> LossRow:
    p05, p50, p95, p99 = (float(value) for value in np.quantile(totals, _QUANTILES))
    return LossRow(group=group, expected=expected, p05=p05, p50=p50, p95=p95, p99=p99)


def _words(assumed: _Assumptions, *, years: int, seed: int, told: int) -> dict[str, str]:
    reach = ", ".join(
        f"{name} {share:g}" for name, share in zip(EXPOSURES, assumed.reach, strict=True)
    )
    ranges = "; ".join(
        f"impact {at} ${low:,.0f} to ${high:,.0f}"
        for at, (low, high) in enumerate(assumed.ranges, 1)
    )
    return {
        "source": assumed.source,
        "events": (
            "P within 30 days as a rate per year, -ln(1 - P) × 365/30,"
            f" at most {assumed.most:g} a year"
        ),
        "reach": (
            f"share of events that become an incident here: {reach}; of model risks"
            f" {assumed.reach_model:g}, since their P holds the exposure"
        ),
        "cost of an incident": (
            f"lognormal with 90 % of incidents within {ranges}; {told} risks use their asset's own"
            f" mean cost, with 95 % at {assumed.spread:g} times 5 %"
        ),
        "independence": (
            "incidents are independent and nothing is fixed in that year, so many risks on one"
            " asset add up"
        ),
        "drawing": f"{years:,} years, seed {seed}; expected values are exact",
    }


@cache
def _assumptions() -> _Assumptions:
    path = seeds_folder() / "risk" / "loss.json"
    read: Mapping[str, Any] = read_object(path)
    try:
        ranges = np.array([read["loss_usd_90_percent"][str(at)] for at in range(1, 6)], dtype=float)
        reach = np.array([read["reach"][name] for name in EXPOSURES], dtype=float)
        return _Assumptions(
            source=str(read["source"]),
            most=float(read["max_events_per_year"]),
            reach=reach,
            reach_model=float(read["reach"]["model"]),
            ranges=ranges,
            spread=float(read["incident_spread"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: {error!r}; reinstall the product") from error
