"""How many machines a load takes: a day simulated from measured batches, with what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError
from workbench.cost.prices import price
from workbench.cost.roi import Assumption
from workbench.scaling.energy import GCO2_PER_KWH, PUE
from workbench.serving.config import ServeConfig
from workbench.serving.queueing import Curve, Sample, arrivals, fit_curve, quantiles, simulate
from workbench.store.results import Interval

__all__ = [
    "Hardware", "Measured", "Peak", "Plan", "assumptions", "hardware", "hourly_rates", "plan",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Tell = Callable[[int, int], None]

_TABLE = Path(__file__).with_name("capacity.json")
_AROUND_S = 20
"""Simulated seconds before a burst, and as many after it."""
_PROMPTS_OF_DAY, _PROMPTS, _PROMPTS_TO_SIZE = 480_000, 60_000, 40_000
"""Simulated, at least, of all hours, of the busiest one, and for each size that is tried."""
_HOURS, _YEAR_HOURS, _HOUR_S, _DAY_S = 24, 8760, 3600, 86_400
_TOP_HOUR = 15
_MOST_LANES = 100
"""Of workers that are simulated for each window, where few prompts come."""
_MOST = 20
"""Times the least machines, from which no more are tried."""
_SENSITIVE = ("peak_to_mean", "burst_factor", "tokens_mean", "tokens_sigma", "front_ms")
_BETWEEN = {"tokens_mean": (100.0, 150.0, 200.0)}  # more than the ends, to draw a line


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What batches took, and where that was measured."""

    model: str
    what: str
    machine: str
    date: str
    samples: Sequence[Sample]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine that serves."""

    title: str
    workers: int
    batch_texts: int
    price: str
    """Of ``cost/prices.json``."""
    price_units: int
    """How many of those a machine is."""
    watts_idle: float
    watts_busy: float
    watts_source: str
    front_on_worker: bool
    """Whether HTTP and JSON take the time of what computes batches."""
    measured: Measured

    @property
    def usd_per_hour(self) -> float:
        """List price of a machine."""
        return float(price(self.price).usd) * self.price_units


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The busiest hour, as one of several ways to run it."""

    name: str
    p50_ms: Interval
    p95_ms: Interval
    p99_ms: Interval
    rejected: Interval
    """Share of prompts told to come again."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a load takes; intervals are median and range over simulated days."""

    hardware: Hardware
    curve: Curve
    assumptions: list[Assumption]
    days: int
    seed: int
    machines: int
    """One more than the load needs, so that one may be down; prompts go to workers at random."""
    fewest: int
    """The same where all workers took from one queue, the best that a balancer could do."""
    alone_p99_ms: float
    """What the longest hundredth of prompts takes at least, each alone on an idle worker."""
    asked_p99_ms: float
    meets: bool
    """Whether that many machines keep what was asked for."""
    day: Peak
    hours: list[Peak]  # from midnight on
    peaks: list[Peak]
    utilization: Interval
    failed_share: float
    """Share of prompts lost by failures of machines before anybody noticed."""
    usd_per_year: float
    kwh_per_year: Interval
    kgco2_per_year: Interval
    sensitivity: list[dict[str, Any]]
    """Per assumption and end: machines and dollars a year."""

    def value(self, name: str) -> float:
        """Return the value of an assumption."""
        return next(one.value for one in self.assumptions if one.name == name)

    @property
    def prompts_per_year(self) -> float:
        """How many prompts come in a year."""
        return self.value("prompts_per_day") * 365

    @property
    def kwh_per_prompt(self) -> float:
        """Kilowatt-hours at the building's meter, idle time included."""
        return self.kwh_per_year["value"] / self.prompts_per_year


@cache
def hardware(name: str) -> Hardware:
    """Return shipped hardware: ``cpu`` or ``gpu``.

    Raises:
        ConfigError: If there is none of that name.
    """
    table = _table()["hardware"]
    if name not in table:
        raise ConfigError(f"no hardware {name!r} in capacity.json; known: {', '.join(table)}")
    row = dict(table[name])
    measured = dict(row.pop("measured"))
    samples = [Sample(*one) for one in measured.pop("samples")]
    return Hardware(measured=Measured(samples=samples, **measured), **row)


def assumptions(given: Mapping[str, float] | None = None) -> list[Assumption]:
    """Return the shipped assumptions, some with other values.

    Raises:
        ConfigError: If a name is not among them, or a value makes no sense.
    """
    known = {row["name"]: Assumption(kind="assumed", **row) for row in _table()["assumed"]}
    for name, value in (given or {}).items():
        if name not in known:
            raise ConfigError(f"no assumption {name!r}; known: {', '.join(known)}")
        known[name] = replace(known[name], value=value, source="given by the user")
    _check({name: one.value for name, one in known.items()})
    return list(known.values())


def hourly_rates(values: Mapping[str, float]) -> Floats:
    """Return ``(24,)`` prompts per second between bursts; with the bursts they make the day.

    The wave is a von Mises curve with the wanted ratio of its top to its mean.
    """
    from scipy.optimize import brentq

    hours = np.arange(_HOURS)

    def wave(sharpness: float) -> Floats:
        shape = np.exp(sharpness * (np.cos(2 * np.pi * (hours - _TOP_HOUR) / _HOURS) - 1))
        normed: Floats = shape / shape.mean()
        return normed

    peak = values["peak_to_mean"]
    sharpness = brentq(lambda one: wave(one).max() - peak, 0, 500) if peak > 1 else 0.0
    burst_share = values["bursts_per_hour"] * values["burst_s"] / _HOUR_S
    mean = values["prompts_per_day"] / _DAY_S / (1 + burst_share * (values["burst_factor"] - 1))
    made: Floats = mean * wave(float(sharpness))
    return made


def plan(
    machine: Hardware, *, given: Mapping[str, float] | None = None, seed: int = 0, days: int = 5,
    sensitivity: bool = True, tell: Tell = lambda _done, _total: None,
) -> Plan:  # fmt: skip
    """Return what a load takes on machines of a kind.

    Args:
        machine: One of them, with its measured batches.
        given: Assumptions to replace.
        seed: Of chance.
        days: How many.
        sensitivity: Also size for both ends of what matters most.
        tell: Told how much is done, of how much.

    Raises:
        ConfigError: If an assumption makes no sense.
    """
    made = assumptions(given)
    values = {one.name: one.value for one in made}
    ends = [(one, end) for one in made if sensitivity and one.name in _SENSITIVE
            for end in sorted({one.low, one.high, *_BETWEEN.get(one.name, ())})]  # fmt: skip
    day, total = _Day(machine, values, seed=seed, days=days), 3 + len(ends)
    machines, meets = _size(day)
    fewest, _ = _size(day, shared=True)
    tell(1, total)
    whole, utilization, hours = day.whole(machines)
    peaks = [
        day.peak("all machines", machines),
        day.peak("one machine down", machines - 1),
        day.peak("all machines, one queue", machines, shared=True),
    ]
    tell(3, total)
    rows = []
    for done, (one, end) in enumerate(ends, start=4):
        other = _Day(machine, {**values, one.name: end}, seed=seed, days=days)
        count, kept = _size(other, near=machines)
        rows.append({"name": one.name, "value": end, "machines": count, "meets": kept,
                     "usd_per_year": count * machine.usd_per_hour * _YEAR_HOURS})  # fmt: skip
        tell(done, total)

    def kwh(busy: float) -> float:
        """Return a year's at the building's meter, all machines on all the time."""
        watts = machine.watts_idle + busy * (machine.watts_busy - machine.watts_idle)
        return machines * watts * PUE * _YEAR_HOURS / 1000

    return Plan(
        hardware=machine,
        curve=day.curve,
        assumptions=made,
        days=days,
        fewest=fewest,
        seed=seed,
        machines=machines,
        alone_p99_ms=day.alone_p99_ms,
        asked_p99_ms=day.asked_p99_ms,
        meets=meets,
        day=whole,
        hours=hours,
        peaks=peaks,
        utilization=utilization,
        failed_share=values["detect_s"] / values["machine_days_between_failures"] / _DAY_S,
        usd_per_year=machines * machine.usd_per_hour * _YEAR_HOURS,
        kwh_per_year=_each(kwh, utilization),
        kgco2_per_year=_each(lambda busy: kwh(busy) * GCO2_PER_KWH / 1000, utilization),
        sensitivity=rows,
    )


class _Day:
    """A load on machines of a kind, simulated at hours and bursts that stand for all of a day.

    Of each hour two windows are simulated, one without a burst and one around one; each on workers
    that get their share of the prompts at random, so that no two have to be simulated together.
    Windows count for as much of the day as they stand for.
    """

    def __init__(
        self, machine: Hardware, values: Mapping[str, float], *, seed: int, days: int
    ) -> None:
        self._machine, self._values, self._seed, self._days = machine, values, seed, days
        self.curve = fit_curve(machine.measured.samples)
        self._config = ServeConfig(batch_texts=machine.batch_texts)
        front_s = values["front_ms"] / 1000
        self._front_s, self._beside_s = (
            (front_s, 0.0) if machine.front_on_worker else (0.0, front_s)
        )
        self.rates = hourly_rates(values)
        tokens = self._tokens(np.random.default_rng(seed), (100_000,))
        texts_s = self.curve.text_seconds(tokens)
        alone_s = self.curve.each_s + texts_s + front_s
        self.alone_p99_ms = 1000 * float(np.quantile(alone_s, 0.99))
        self.asked_p99_ms = max(values["slo_p99_ms"], 2 * self.alone_p99_ms)
        least_s = float(texts_s.mean()) + self._front_s + self.curve.each_s / machine.batch_texts
        self.least = max(2, math.floor(self.rates.max() * least_s / machine.workers) + 1)
        """Machines; with one fewer even the calm of the busiest hour is too much."""

    def whole(self, machines: int) -> tuple[Peak, Interval, list[Peak]]:
        """Return what becomes of a day's prompts, how much of it a worker works, and its hours."""
        rates, at, hours = np.unique(self.rates.round(9), return_inverse=True, return_counts=True)
        all_day, *each = self._run("the whole day", rates, hours, machines, prompts=_PROMPTS_OF_DAY)
        return *all_day, [replace(each[one][0], name=f"{hour}:00") for hour, one in enumerate(at)]

    def peak(
        self, name: str, machines: int, *, shared: bool = False, prompts: int = _PROMPTS
    ) -> Peak:
        """Return what becomes of the prompts of the busiest hour."""
        rates, hours = self.rates.max(keepdims=True), np.ones(1, dtype=int)
        return next(self._run(name, rates, hours, machines, prompts=prompts, shared=shared))[0]

    def keeps(self, machines: int, *, shared: bool = False) -> bool:
        """Return whether the busiest hour goes as asked for with one of them down."""
        peak = self.peak("", machines - 1, shared=shared, prompts=_PROMPTS_TO_SIZE)
        return (
            peak.p99_ms["value"] <= self.asked_p99_ms
            and peak.rejected["value"] <= self._values["rejected_share"]
        )

    def _run(
        self, name: str, rates: Floats, hours: npt.NDArray[np.int_], machines: int, *,
        prompts: int, shared: bool = False,
    ) -> Iterator[tuple[Peak, Interval]]:  # fmt: skip
        """Simulate hours of given rates, each as often as it stands in a day: all, then each."""
        workers = 1 if shared else machines * self._machine.workers
        burst_s, bursts = round(self._values["burst_s"]), self._values["bursts_per_hour"]
        window_s = burst_s + 2 * _AROUND_S
        windows = np.tile(rates[:, None, None] / workers, (1, 2, window_s))
        windows[:, 1, _AROUND_S : _AROUND_S + burst_s] *= self._values["burst_factor"]
        weights = np.outer(hours, [_HOUR_S / window_s - bursts, bursts]).ravel()
        windows = windows.reshape(-1, window_s)
        lanes = 1 if shared else math.ceil(prompts / self._days / windows.sum())
        lanes = min(lanes, _MOST_LANES)
        rng = np.random.default_rng(self._seed)
        times = arrivals(np.tile(windows, (self._days * lanes, 1)), step_s=1.0, rng=rng)
        outcome = simulate(
            times, self._tokens(rng, times.shape), curve=self.curve, config=self._config,
            front_s=self._front_s, workers=machines * self._machine.workers if shared else 1,
            rng=rng,
        )  # fmt: skip
        answered_ms = 1000 * (outcome.latency_s + self._beside_s)
        weights = np.tile(weights, self._days * lanes)

        def told(parts: Sequence[npt.NDArray[np.int64]]) -> tuple[Peak, Interval]:
            found: list[list[float]] = []
            for part in parts:
                share, latency = weights[part], answered_ms[part]
                row, place = np.nonzero(np.isfinite(latency))
                came = np.isfinite(times[part]).sum(axis=1) @ share
                rejected = outcome.rejected[part].sum(axis=1) @ share / max(came, 1)
                busy = outcome.busy_s[part] @ share / share.sum() / window_s
                reached = quantiles(latency[row, place], share[row])
                found.append([*reached, float(rejected), float(busy)])
            p50, p95, p99, rejections, busy_share = map(_range, zip(*found, strict=True))
            peak = Peak(name=name, p50_ms=p50, p95_ms=p95, p99_ms=p99, rejected=rejections)
            return peak, busy_share

        days = np.split(np.arange(len(times)), self._days)
        yield told(days)
        for one in range(len(rates)):
            yield told([part[part // 2 % len(rates) == one] for part in days])

    def _tokens(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        sigma = self._values["tokens_sigma"]
        made = rng.lognormal(math.log(self._values["tokens_mean"]) - sigma**2 / 2, sigma, shape)
        return np.clip(made, 1, self._config.max_tokens)


def _size(day: _Day, *, near: int = 0, shared: bool = False) -> tuple[int, bool]:
    """Return how many machines keep what is asked for, one of them down, and whether they do.

    Args:
        day: The load.
        near: Where to begin.
        shared: Whether all workers take from one queue.
    """
    low, high = day.least - 1, max(near, day.least)
    while not (kept := day.keeps(high, shared=shared)) and high < _MOST * day.least:
        low, high = high, math.ceil(high * 1.3)
    while kept and high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if day.keeps(middle, shared=shared) else (middle, high)
    return high, kept


def _each(call: Callable[[float], float], one: Interval) -> Interval:
    return {"value": call(one["value"]), "low": call(one["low"]), "high": call(one["high"])}


def _range(values: Sequence[float]) -> Interval:
    return {"value": float(np.median(values)), "low": min(values), "high": max(values)}


def _check(values: Mapping[str, float]) -> None:
    """Refuse values that make no sense.

    Raises:
        ConfigError: If one does not.
    """
    limits = {"bursts_per_hour": (0, 30), "burst_s": (1, 60),
              "peak_to_mean": (1, 12), "burst_factor": (1, 100)}  # fmt: skip
    least_0 = ("front_ms", "tokens_sigma", "rejected_share", "detect_s")
    for name, value in values.items():
        low, high = limits.get(name, (0.0 if name in least_0 else 1e-9, math.inf))
        if not (low <= value <= high and math.isfinite(value)):
            raise ConfigError(f"assumption {name}={value}: give a number from {low:g} to {high:g}")


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
