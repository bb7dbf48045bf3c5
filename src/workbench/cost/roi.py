"""What serving the sanitizer costs and saves in a year, with every assumption in the open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from workbench.core.errors import ConfigError
from workbench.core.money import show_usd, usd
from workbench.cost.prices import Factor, Price, energy_factor, price
from workbench.store.results import Interval, SpendRow

__all__ = ["Assumption", "Roi", "assume", "compute", "cost_claims", "measured_latency", "replaced"]

_TABLE = Path(__file__).with_name("assumptions.json")
Kind = Literal["measured", "assumed"]

_DAYS = 365
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


@dataclass(frozen=True, kw_only=True)
class Roi:
    """The outcome for one set of assumptions."""

    annual_cost_usd: float
    """Cores that serve, and people who look after them."""
    annual_alternative_usd: float
    """The same prompts through a guard model behind an API."""
    annual_saving_usd: float
    payback_days: float | None
    """Days until what was spent, people's time included, is saved; None where nothing is saved."""
    cores: float
    """Cores kept running."""
    kwh_per_prompt: float
    annual_kwh: float
    sensitivity: list[dict[str, object]]
    """Per assumption: name, low, high, saving_at_low_usd, saving_at_high_usd; widest first."""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


def measured_latency(
    results: Iterable[Mapping[str, Any]], *, target: str = ""
) -> tuple[str, Interval]:
    """Return (target, latency in ms) of the newest analysis that measured a sanitizer.

    Args:
        results: Results of kind ``analysis``, oldest first.
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
                return name, interval
    wanted = repr(target) if target else "a sanitizer"
    measured = ", ".join(sorted(seen)) or "none"
    raise ConfigError(
        f"no latency of {wanted} (targets measured: {measured}); run the analysis step first or "
        "set latency_ms"
    )


def assume(
    *,
    prompts_per_day: int,
    latency_ms: Interval,
    latency_source: str,
    latency_kind: Kind = "measured",
    spent_usd: float,
) -> list[Assumption]:
    """Return the assumptions, those measured here and those that no run can measure.

    Args:
        prompts_per_day: Prompts to serve, > 0.
        latency_ms: One prompt on one core: median with 5th and 95th percentile.
        latency_source: Where the latency was measured.
        latency_kind: ``assumed`` where a person gave the latency.
        spent_usd: What the experiment cost so far.

    Raises:
        ConfigError: If ``prompts_per_day`` or the latency is not above 0.
    """
    if prompts_per_day <= 0 or latency_ms["value"] <= 0:
        raise ConfigError(
            f"prompts_per_day={prompts_per_day}, latency_ms={latency_ms['value']}: must be above 0"
        )
    volume = float(prompts_per_day)
    core, guard, power = price("cpu_core_hour"), price("guard_model_mtok"), energy_factor()
    core_usd, guard_usd, kwh = float(core.usd), float(guard.usd), power.value
    metered = "ledger of this experiment: metered seconds at list prices"
    rows: list[tuple[str, Interval, str, str, Kind]] = [
        ("prompts_per_day", _around(volume, 0.1, 1), "prompts", "what was asked", "assumed"),
        ("latency_ms", latency_ms, "ms of one core per prompt", latency_source, latency_kind),
        ("core_hour_usd", _around(core_usd, 0.5, 2), "USD", _dated(core), "assumed"),
        ("guard_usd_per_mtok", _around(guard_usd, 0.1, 1), "USD", _dated(guard), "assumed"),
        ("kwh_per_core_hour", _around(kwh, 0.5, 2), "kWh", _dated(power), "assumed"),
        ("spent_usd", _around(spent_usd, 1, 1), "USD, once", metered, "measured"),
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
        Own arithmetic: cost = prompts × latency ÷ utilization × price of a core hour +
        maintenance; alternative = prompts × tokens × price of a token.
    """
    by_name = {assumption.name: assumption for assumption in assumptions}
    if len(by_name) != len(assumptions):
        raise ConfigError("an ROI assumption is named twice; give each name once")
    base = {name: assumption.value for name, assumption in by_name.items()}
    cost, alternative = _year(base)
    saving = alternative - cost
    rows = []
    for name, assumption in by_name.items():
        ends = [_year({**base, name: end}) for end in (assumption.low, assumption.high)]
        at_low, at_high = (other - own for own, other in ends)
        rows.append(
            {
                "name": name,
                "low": assumption.low,
                "high": assumption.high,
                "saving_at_low_usd": at_low,
                "saving_at_high_usd": at_high,
                "swing_usd": abs(at_high - at_low),
            }
        )
    rows.sort(key=lambda row: (-float(str(row["swing_usd"])), str(row["name"])))
    core_hours = base["latency_ms"] * _HOURS_PER_MS / base["utilization"]
    once = base["spent_usd"] + base["build_hours"] * base["hourly_wage_usd"]
    kwh = base["latency_ms"] * _HOURS_PER_MS * base["kwh_per_core_hour"]
    return Roi(
        annual_cost_usd=cost,
        annual_alternative_usd=alternative,
        annual_saving_usd=saving,
        payback_days=once / saving * _DAYS if saving > 0 else None,
        cores=base["prompts_per_day"] * core_hours / 24,
        kwh_per_prompt=kwh,
        annual_kwh=kwh * base["prompts_per_day"] * _DAYS,
        sensitivity=[dict(row) for row in rows if row["swing_usd"]],
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
        ConfigError: If a name is not among them.
    """
    known = {assumption.name for assumption in assumptions}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"no ROI assumption {unknown[0]!r}; known: {', '.join(sorted(known))}")
    return [
        replace(
            one,
            value=float(values[one.name]),
            low=min(one.low, float(values[one.name])),
            high=max(one.high, float(values[one.name])),
            source="given by the user",
            kind="assumed",
        )
        if one.name in values
        else one
        for one in assumptions
    ]


def _year(values: Mapping[str, float]) -> tuple[float, float]:
    """Return a year's cost of serving here and of the alternative, in dollars.

    Raises:
        ConfigError: If an assumption is missing or makes no sense.
    """
    try:
        prompts = values["prompts_per_day"] * _DAYS
        hours = prompts * values["latency_ms"] * _HOURS_PER_MS / values["utilization"]
        people = values["maintenance_hours"] * values["hourly_wage_usd"]
        own = hours * values["core_hour_usd"] + people
        tokens = prompts * values["guard_tokens"]
        return own, tokens / 1e6 * values["guard_usd_per_mtok"]
    except KeyError as error:
        raise ConfigError(f"the ROI needs the assumption {error}; see cost.roi.assume") from None
    except ZeroDivisionError:
        raise ConfigError(
            "utilization=0: cores that never work serve nothing; give above 0"
        ) from None


def _around(value: float, least: float, most: float) -> Interval:
    return {"value": value, "low": value * least, "high": value * most}


def _dated(entry: Price | Factor) -> str:
    return f"{entry.source}; checked {entry.checked}"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
