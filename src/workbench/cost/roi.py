"""What serving the sanitizer costs and saves in a year, with every assumption in the open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.core.errors import ConfigError
from workbench.core.money import show_usd, usd
from workbench.cost.prices import Price, price
from workbench.scaling.energy import FACTOR_SOURCE, KWH_PER_CORE_HOUR
from workbench.store.results import Interval, SpendRow

__all__ = [
    "Assumption", "Figure", "Roi", "alternative_usd", "assume", "avoided_usd", "by_hand",
    "compute", "cost_claims", "measured_latency", "measured_reduction", "replaced", "serving_usd",
    "triage_usd",
]  # fmt: skip

_TABLE = Path(__file__).with_name("assumptions.json")
Kind = Literal["measured", "assumed"]

_SHARE = "share of successful attacks stopped"
_AS_GOOD = "nobody measured the alternative: taken to stop as many, so that incidents cancel out"
_GIVEN = "given by the user"
_DAYS, _MONTHS = 365, 12
_HOURS_PER_MS = 1 / 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """A figure that the arithmetic stands on, with the ends tried in the sensitivity."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    source: str
    kind: Kind


class Figure(NamedTuple):
    """What runs measured or a person says, and where it comes from."""

    interval: Interval
    source: str
    kind: Kind = "measured"


@dataclass(frozen=True, kw_only=True)
class Roi:
    """The outcome for one set of assumptions."""

    annual_cost_usd: float
    """Cores that serve, people who look after them, and people who triage findings."""
    annual_alternative_usd: float
    """The same prompts through a commercial service."""
    annual_triage_usd: float
    """People who triage findings; part of the cost."""
    annual_avoided_usd: float
    """Incidents that do not happen here but would behind the alternative; below 0: the reverse."""
    annual_saving_usd: float
    """Alternative − cost + avoided."""
    payback_days: float | None
    """Days until what was spent, people's time included, is saved; None where nothing is saved."""
    cores: float
    """Cores kept running."""
    kwh_per_prompt: float
    annual_kwh: float
    sensitivity: list[dict[str, object]]
    """Per assumption: name, low, high, saving_at_low_usd, saving_at_high_usd; widest first."""


def _around(value: float, least: float, most: float) -> Interval:
    return {"value": value, "low": value * least, "high": value * most}


def by_hand(value: float) -> Figure:
    """Return the figure that a person says it is."""
    return Figure(_around(value, 1, 1), _GIVEN, "assumed")


_NO_REDUCTION = by_hand(0.0)._replace(source="not measured: none")


def measured_latency(
    results: Iterable[Mapping[str, Any]], *, experiment: str, target: str = ""
) -> Figure:
    """Return the ms of one core per prompt that the newest analysis of a sanitizer measured.

    Args:
        results: Results of kind ``analysis``, oldest first.
        experiment: Where they are from, for the source.
        target: Which target; empty for the first whose name starts with ``sanitizer``.

    Raises:
        ConfigError: If none measured it.
    """
    seen: set[str] = set()
    for result in reversed(list(results)):
        latencies = result["latency_ms"]
        seen |= set(latencies)
        if name := _sanitizer(latencies, target):
            source = f"campaign of {experiment}, {name}: median, 5th, 95th percentile"
            return Figure(latencies[name], source)
    wanted = repr(target) if target else "a sanitizer"
    raise ConfigError(
        f"no latency of {wanted} (targets measured: {', '.join(sorted(seen)) or 'none'}); run the"
        " analysis step first or set latency_ms"
    )


def measured_reduction(
    results: Iterable[Mapping[str, Any]], *, experiment: str, target: str = ""
) -> Figure:
    """Return the share of successful attacks that the newest analysis saw stopped.

    None where it did not look; arguments as for :func:`measured_latency`.
    """
    for result in reversed(list(results)):
        rates: dict[str, Interval] = {row["target"]: row["rate"] for row in result["totals"]}
        bare, name = rates.get("bare"), _sanitizer(rates, target)
        if bare and bare["low"] > 0 and name:
            behind = rates[name]
            reduction: Interval = {
                "value": _stopped(behind["value"], bare["value"]),
                "low": _stopped(behind["high"], bare["low"]),
                "high": _stopped(behind["low"], bare["high"]),
            }
            source = f"campaign of {experiment}: attacks that succeed, {name} beside bare"
            return Figure(reduction, source)
    return _NO_REDUCTION


def _sanitizer(names: Iterable[str], target: str) -> str:
    """Return the name that is meant, or nothing."""
    return next((n for n in names if n == target or (not target and n.startswith("sanitizer"))), "")


def _stopped(behind: float, bare: float) -> float:
    return min(max(1 - behind / bare, 0.0), 1.0)


def assume(
    *, prompts_per_day: int, latency: Figure, spent_usd: float, reduction: Figure = _NO_REDUCTION
) -> list[Assumption]:
    """Return the assumptions, those measured here and those that no run can measure.

    Args:
        prompts_per_day: Prompts to serve, > 0.
        latency: Milliseconds of one core per prompt.
        spent_usd: What the experiment cost so far.
        reduction: Share of successful attacks that the sanitizer stops, in [0, 1].

    Raises:
        ConfigError: If ``prompts_per_day`` or the latency is not above 0.
    """
    latency_ms, source, kind = latency
    if prompts_per_day <= 0 or latency_ms["value"] <= 0:
        raise ConfigError(
            f"prompts_per_day={prompts_per_day}, latency_ms={latency_ms['value']}: must be above 0"
        )
    volume = _around(prompts_per_day, 0.1, 1)
    core, guard, kwh = price("cpu_core_hour"), price("guard_model_mtok"), KWH_PER_CORE_HOUR
    core_usd, guard_usd = _around(float(core.usd), 0.5, 2), _around(float(guard.usd), 0.1, 1)
    as_good: Interval = {"value": reduction.interval["value"], "low": 0.0, "high": 1.0}
    metered = "ledger of this experiment: metered seconds at list prices"
    rows: list[tuple[str, Interval, str, str, Kind]] = [
        ("prompts_per_day", volume, "prompts", "what was asked", "assumed"),
        ("latency_ms", latency_ms, "ms of one core per prompt", source, kind),
        ("core_hour_usd", core_usd, "USD", _dated(core), "assumed"),
        ("guard_usd_per_mtok", guard_usd, "USD", _dated(guard), "assumed"),
        ("kwh_per_core_hour", _around(kwh, 0.5, 2), "kWh", FACTOR_SOURCE, "assumed"),
        ("spent_usd", _around(spent_usd, 1, 1), "USD, once", metered, "measured"),
        ("attack_reduction", reduction.interval, _SHARE, reduction.source, reduction.kind),
        ("alternative_reduction", as_good, _SHARE, _AS_GOOD, "assumed"),
    ]
    return [
        *(
            Assumption(name=name, **values, unit=unit, source=source, kind=kind)
            for name, values, unit, source, kind in rows
        ),
        *(Assumption(**row, kind="assumed") for row in _table()["assumed"]),
    ]


def compute(assumptions: list[Assumption]) -> Roi:
    """Return the year's cost, the alternative's, what is saved, and what that hangs on.

    Args:
        assumptions: As :func:`assume` gives them, any of them replaced.

    Raises:
        ConfigError: If an assumption is missing or named twice, or makes no sense.

    Source:
        Own arithmetic: the functions below.
    """
    base = {one.name: one.value for one in assumptions}
    if len(base) != len(assumptions):
        raise ConfigError("an ROI assumption is named twice; give each name once")
    cost, alternative, avoided, saving = _year(base)
    swings: list[dict[str, Any]] = []
    for one in assumptions:
        low, high = (_year({**base, one.name: value})[-1] for value in (one.low, one.high))
        row = {"name": one.name, "low": one.low, "high": one.high, "swing_usd": abs(high - low)}
        swings.append(row | {"saving_at_low_usd": low, "saving_at_high_usd": high})
    swings.sort(key=lambda row: (-row["swing_usd"], row["name"]))
    core_hours = base["latency_ms"] * _HOURS_PER_MS
    once = base["spent_usd"] + base["build_hours"] * base["hourly_wage_usd"]
    kwh = core_hours * base["kwh_per_core_hour"]
    return Roi(
        annual_cost_usd=cost,
        annual_alternative_usd=alternative,
        annual_triage_usd=triage_usd(base),
        annual_avoided_usd=avoided,
        annual_saving_usd=saving,
        payback_days=once / saving * _DAYS if saving > 0 else None,
        cores=base["prompts_per_day"] * core_hours / base["utilization"] / 24,
        kwh_per_prompt=kwh,
        annual_kwh=kwh * base["prompts_per_day"] * _DAYS,
        sensitivity=[row for row in swings if row["swing_usd"]],
    )


def cost_claims(roi: Roi, *, spent: SpendRow, training_s: float) -> list[dict[str, object]]:
    """Return what the source documents claim on cost and energy, beside what was measured here.

    Args:
        roi: The outcome to set beside the claims.
        spent: What the experiment cost so far.
        training_s: Mean seconds of one training run; 0 where none was measured.

    Returns:
        name, claimed, measured and note as text, kind ``claimed``.
    """
    payback = "never" if roi.payback_days is None else f"{roi.payback_days:,.0f} days"
    measured = {
        "annual_saving_usd": f"{roi.annual_saving_usd:,.0f} USD, computed from the assumptions",
        "kwh_per_prompt": f"{roi.kwh_per_prompt:.2g} kWh, estimated",
        "spent_kwh": f"{spent['kwh']:.2g} kWh, estimated",
        "spent_usd": f"{show_usd(usd(spent['usd']))}, estimated",
        "training_s": f"{training_s:.1f} s" if training_s else "not measured",
        "payback_days": f"{payback}, computed from the assumptions",
    }
    return [
        {name: row[name] for name in ("name", "claimed", "note")}
        | {"measured": measured.get(row["measure"], "not measured"), "kind": "claimed"}
        for row in _table()["claims"]
    ]


def replaced(assumptions: list[Assumption], values: Mapping[str, float]) -> list[Assumption]:
    """Return the assumptions with other values, marked as given by the user.

    Raises:
        ConfigError: If a name is not among them, or a value is no number from 0 up.
    """
    found = {one.name: one for one in assumptions}
    for name, value in values.items():
        if name not in found:
            raise ConfigError(f"no ROI assumption {name!r}; known: {', '.join(sorted(found))}")
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"ROI assumption {name}={value!r}: give a number, 0 or more")
        one = found[name]
        found[name] = replace(
            one, value=float(value), low=min(one.low, value), high=max(one.high, value),
            source=_GIVEN, kind="assumed",
        )  # fmt: skip
    return list(found.values())


def serving_usd(values: Mapping[str, float]) -> float:
    """Return a year's dollars of serving.

    prompts × ms of a core ÷ utilization × dollars of a core hour + hours of upkeep × wage.
    """
    prompts = values["prompts_per_day"] * _DAYS
    hours = prompts * values["latency_ms"] * _HOURS_PER_MS / values["utilization"]
    return hours * values["core_hour_usd"] + values["maintenance_hours"] * values["hourly_wage_usd"]


def triage_usd(values: Mapping[str, float]) -> float:
    """Return a year's dollars of triage: findings × minutes of a person each × wage."""
    hours = values["findings_per_month"] * _MONTHS * values["triage_minutes"] / 60
    return hours * values["hourly_wage_usd"]


def alternative_usd(values: Mapping[str, float]) -> float:
    """Return a year's dollars of the alternative.

    Prompts × (tokens × dollars of a token, or for a share of them dollars per prompt).
    """
    by_token = values["guard_tokens"] / 1e6 * values["guard_usd_per_mtok"]
    share = values["per_prompt_share"]
    usd_per_prompt = (1 - share) * by_token + share * values["commercial_usd_per_prompt"]
    return values["prompts_per_day"] * _DAYS * usd_per_prompt


def avoided_usd(values: Mapping[str, float]) -> float:
    """Return a year's dollars of incidents avoided beyond those that the alternative avoids.

    Incidents a year without protection × dollars each × difference of the shares stopped.
    """
    more = values["attack_reduction"] - values["alternative_reduction"]
    return values["incidents_per_year"] * values["incident_usd"] * more


def _year(values: Mapping[str, float]) -> tuple[float, float, float, float]:
    """Return a year's dollars: cost here, of the alternative, avoided, saved."""
    try:
        cost = serving_usd(values) + triage_usd(values)
        alternative, avoided = alternative_usd(values), avoided_usd(values)
    except KeyError as error:
        raise ConfigError(f"the ROI needs the assumption {error}; see cost.roi.assume") from None
    except ZeroDivisionError:
        raise ConfigError("utilization=0: cores that never work serve nothing; give more") from None
    return cost, alternative, avoided, alternative - cost + avoided


def _dated(entry: Price) -> str:
    return f"{entry.source}; checked {entry.checked}"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
