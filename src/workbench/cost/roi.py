"""What serving the sanitizer costs and saves in a year, with every assumption in the open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

from workbench.core.errors import ConfigError
from workbench.core.money import show_usd, usd
from workbench.cost.prices import Price, price
from workbench.scaling.energy import FACTOR_SOURCE, KWH_PER_CORE_HOUR
from workbench.store.results import Interval, SpendRow

__all__ = [
    "Assumption",
    "Latency",
    "Reduction",
    "Roi",
    "alternative_usd",
    "assume",
    "avoided_usd",
    "compute",
    "cost_claims",
    "measured_latency",
    "measured_reduction",
    "replaced",
    "serving_usd",
    "triage_usd",
]

_TABLE = Path(__file__).with_name("assumptions.json")
Kind = Literal["measured", "assumed"]

_SHARE = "share of successful attacks stopped"
_AS_GOOD = "nobody measured the alternative: taken to stop as many, so that incidents cancel out"
_DAYS, _MONTHS = 365, 12
_HOURS_PER_MS = 1 / 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """A figure that the arithmetic stands on."""

    name: str
    value: float
    low: float
    """Lower end tried in the sensitivity."""
    high: float
    """Upper end tried in the sensitivity."""
    unit: str
    source: str
    kind: Kind


class Latency(NamedTuple):
    """Milliseconds of one core per prompt, and where they come from."""

    interval: Interval
    """Median with 5th and 95th percentile."""
    source: str
    kind: Kind = "measured"

    @classmethod
    def given(cls, latency_ms: float) -> Latency:
        """Return what a person says it is."""
        same: Interval = {"value": latency_ms, "low": latency_ms, "high": latency_ms}
        return cls(same, "given by the user", "assumed")


class Reduction(NamedTuple):
    """Share of successful attacks that the sanitizer stops, and where it comes from."""

    interval: Interval
    source: str
    kind: Kind = "measured"


_NO_REDUCTION = Reduction({"value": 0.0, "low": 0.0, "high": 0.0}, "not measured: none", "assumed")


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


def measured_latency(
    results: Iterable[Mapping[str, Any]], *, experiment: str, target: str = ""
) -> Latency:
    """Return the latency that the newest analysis of a sanitizer measured.

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
        for name, interval in latencies.items():
            if name == target or (not target and name.startswith("sanitizer")):
                source = f"campaign of {experiment}, {name}: median, 5th, 95th percentile"
                return Latency(interval, source)
    wanted = repr(target) if target else "a sanitizer"
    measured = ", ".join(sorted(seen)) or "none"
    raise ConfigError(
        f"no latency of {wanted} (targets measured: {measured}); run the analysis step first or "
        "set latency_ms"
    )


def measured_reduction(
    results: Iterable[Mapping[str, Any]], *, experiment: str, target: str = ""
) -> Reduction:
    """Return by how much the newest analysis saw attacks succeed less; none if it did not look.

    Args:
        results: Results of kind ``analysis``, oldest first.
        experiment: Where they are from, for the source.
        target: Which target; empty for the first whose name starts with ``sanitizer``.
    """
    for result in reversed(list(results)):
        rates: dict[str, Interval] = {row["target"]: row["rate"] for row in result["totals"]}
        names = [
            name
            for name in rates
            if name == target or (not target and name.startswith("sanitizer"))
        ]
        bare = rates.get("bare")
        if bare and bare["low"] > 0 and names:
            behind = rates[names[0]]
            ends = {"value": "value", "low": "high", "high": "low"}
            reduction: Any = {
                end: min(max(1 - behind[other] / bare[end], 0.0), 1.0)  # type: ignore[literal-required]
                for end, other in ends.items()
            }
            source = f"campaign of {experiment}: attacks that succeed, {names[0]} beside bare"
            return Reduction(reduction, source)
    return _NO_REDUCTION


def assume(
    *,
    prompts_per_day: int,
    latency: Latency,
    spent_usd: float,
    reduction: Reduction = _NO_REDUCTION,
) -> list[Assumption]:
    """Return the assumptions, those measured here and those that no run can measure.

    Args:
        prompts_per_day: Prompts to serve, > 0.
        latency: Of one prompt on one core.
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
    volume = float(prompts_per_day)
    core, guard, kwh = price("cpu_core_hour"), price("guard_model_mtok"), KWH_PER_CORE_HOUR
    core_usd, guard_usd = float(core.usd), float(guard.usd)
    as_good: Interval = {"value": reduction.interval["value"], "low": 0.0, "high": 1.0}
    metered = "ledger of this experiment: metered seconds at list prices"
    rows: list[tuple[str, Interval, str, str, Kind]] = [
        ("prompts_per_day", _around(volume, 0.1, 1), "prompts", "what was asked", "assumed"),
        ("latency_ms", latency_ms, "ms of one core per prompt", source, kind),
        ("core_hour_usd", _around(core_usd, 0.5, 2), "USD", _dated(core), "assumed"),
        ("guard_usd_per_mtok", _around(guard_usd, 0.1, 1), "USD", _dated(guard), "assumed"),
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
        ConfigError: If an assumption is missing or named twice.

    Source:
        Own arithmetic, see :func:`serving_usd`, :func:`triage_usd`, :func:`alternative_usd` and
        :func:`avoided_usd`.
    """
    by_name = {assumption.name: assumption for assumption in assumptions}
    if len(by_name) != len(assumptions):
        raise ConfigError("an ROI assumption is named twice; give each name once")
    base = {name: assumption.value for name, assumption in by_name.items()}
    cost, alternative, avoided = _year(base)
    saving = alternative - cost + avoided

    def saved(name: str, value: float) -> float:
        own, other, difference = _year({**base, name: value})
        return other - own + difference

    rows: list[tuple[float, str, dict[str, object]]] = []
    for one in assumptions:
        low, high = saved(one.name, one.low), saved(one.name, one.high)
        row = {"name": one.name, "low": one.low, "high": one.high, "swing_usd": abs(high - low)}
        row |= {"saving_at_low_usd": low, "saving_at_high_usd": high}
        rows.append((-abs(high - low), one.name, row))
    core_hours = base["latency_ms"] * _HOURS_PER_MS / base["utilization"]
    once = base["spent_usd"] + base["build_hours"] * base["hourly_wage_usd"]
    kwh = base["latency_ms"] * _HOURS_PER_MS * base["kwh_per_core_hour"]
    return Roi(
        annual_cost_usd=cost,
        annual_alternative_usd=alternative,
        annual_triage_usd=triage_usd(base),
        annual_avoided_usd=avoided,
        annual_saving_usd=saving,
        payback_days=once / saving * _DAYS if saving > 0 else None,
        cores=base["prompts_per_day"] * core_hours / 24,
        kwh_per_prompt=kwh,
        annual_kwh=kwh * base["prompts_per_day"] * _DAYS,
        sensitivity=[row for swing, _, row in sorted(rows, key=itemgetter(0, 1)) if swing],
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
        {
            "name": row["name"],
            "claimed": row["claimed"],
            "measured": measured.get(row["measure"], "not measured"),
            "note": row["note"],
            "kind": "claimed",
        }
        for row in _table()["claims"]
    ]


def replaced(assumptions: list[Assumption], values: Mapping[str, float]) -> list[Assumption]:
    """Return the assumptions with other values, marked as given by the user.

    Raises:
        ConfigError: If a name is not among them, or a value is no number from 0 up.
    """
    known = {assumption.name for assumption in assumptions}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"no ROI assumption {name!r}; known: {', '.join(sorted(known))}")
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"ROI assumption {name}={value!r}: give a number, 0 or more")
    return [
        _given(one, float(values[one.name])) if one.name in values else one for one in assumptions
    ]


def _given(one: Assumption, value: float) -> Assumption:
    low, high = min(one.low, value), max(one.high, value)
    return replace(one, value=value, low=low, high=high, source="given by the user", kind="assumed")


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


def _year(values: Mapping[str, float]) -> tuple[float, float, float]:
    """Return a year's cost here, of the alternative, and of incidents avoided, in dollars."""
    try:
        cost = serving_usd(values) + triage_usd(values)
        return cost, alternative_usd(values), avoided_usd(values)
    except KeyError as error:
        raise ConfigError(f"the ROI needs the assumption {error}; see cost.roi.assume") from None
    except ZeroDivisionError:
        raise ConfigError(
            "utilization=0: cores that never work serve nothing; give above 0"
        ) from None


def _around(value: float, least: float, most: float) -> Interval:
    return {"value": value, "low": value * least, "high": value * most}


def _dated(entry: Price) -> str:
    return f"{entry.source}; checked {entry.checked}"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
