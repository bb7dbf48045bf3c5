"""Ledger rows of compute, and what was spent by phase, step, person or resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal

from workbench.core.money import ZERO
from workbench.cost.calls import calls_of, estimate_vs_truth
from workbench.cost.prices import price
from workbench.scaling.energy import FACTOR_SOURCE, METHOD, estimate
from workbench.store.database import Store
from workbench.store.records import LedgerRow, Phase
from workbench.store.results import SpendRow

__all__ = ["compute_rows", "spend", "spent", "total"]

By = Literal["phase", "step", "who", "resource"]

_NANO_USD = Decimal("0.000000001")


def compute_rows(
    *, cpu_s: float, who: str, job: str, experiment: str, phase: Phase
) -> list[LedgerRow]:
    """Return the two ledger rows of CPU time: core seconds, and the energy they took.

    The price of a core hour contains its power, so the electricity is taken out of the CPU row
    and shown in its own: the two add up to the price of the core time, once.

    Args:
        cpu_s: CPU seconds of the job, metered, >= 0.
        who: Who pays.
        job: Id of the run.
        experiment: Name of the experiment.
        phase: What the run was for.

    Raises:
        ConfigError: If ``cpu_s`` is negative or not a number.
    """
    core_hour, electricity = price("cpu_core_hour"), price("electricity_kwh")
    kwh = estimate(cpu_s).kwh
    whole = (core_hour.usd * Decimal(str(cpu_s)) / 3600).quantize(_NANO_USD)
    power = (electricity.usd * Decimal(str(kwh))).quantize(_NANO_USD)

    cpu = LedgerRow(
        who=who,
        job=job,
        experiment=experiment,
        phase=phase,
        resource="cpu",
        quantity=cpu_s,
        unit="core_s",
        usd=whole - power,
        price_version=core_hour.version,
        estimated=True,
        note="metered seconds at a list price, less power",
    )
    note = f"estimated, not metered: {FACTOR_SOURCE}"
    return [cpu, replace(cpu, resource="energy", quantity=kwh, unit="kwh", usd=power, note=note)]


def spend(
    rows: Iterable[LedgerRow], *, by: By = "phase", steps: Mapping[str, str] | None = None
) -> list[SpendRow]:
    """Return ledger rows summed by group, dearest first; shares are of the dollars.

    Args:
        rows: Rows of a ledger.
        by: What to group by.
        steps: Run id to step, for ``by="step"``; unknown runs are their own group, ``other``.
    """
    totals: dict[str, tuple[float, float, Decimal]] = {}
    for row in rows:
        group = (steps or {}).get(row.job, "other") if by == "step" else str(getattr(row, by))
        cpu_s, kwh, dollars = totals.get(group, (0.0, 0.0, ZERO))
        cpu_s += row.quantity if row.unit == "core_s" else 0.0
        kwh += row.quantity if row.unit == "kwh" else 0.0
        totals[group] = (cpu_s, kwh, dollars + row.usd)
    whole = sum((dollars for _, _, dollars in totals.values()), ZERO)
    ordered = sorted(totals.items(), key=lambda item: (-item[1][2], item[0]))
    return [
        SpendRow(
            group=group,
            cpu_s=cpu_s,
            kwh=kwh,
            usd=float(dollars),
            share=float(dollars / whole) if whole else 0.0,
        )
        for group, (cpu_s, kwh, dollars) in ordered
    ]


def spent(store: Store, experiment: str) -> dict[str, Any]:
    """Return what an experiment cost, as ``store.results.CostResult`` tells it.

    Every row that its ledger has counts, reruns included.
    """
    rows = store.ledger.rows(experiment=experiment)
    steps = {run.id: run.step for run in store.runs.find(experiment=experiment)}
    by_phase = spend(rows)
    whole = total(by_phase)
    return {
        "by_phase": by_phase,
        "by_step": spend(rows, by="step", steps=steps),
        "total": whole,
        "gco2": estimate(whole["cpu_s"]).gco2,
        "energy_method": METHOD,
        "calls": calls_of(rows),
        "estimates": estimate_vs_truth(store, experiment),
    }


def total(rows: Iterable[SpendRow]) -> SpendRow:
    """Return the sum of spend rows, as the row ``total``."""
    listed = list(rows)
    return SpendRow(
        group="total",
        cpu_s=sum(row["cpu_s"] for row in listed),
        kwh=sum(row["kwh"] for row in listed),
        usd=sum(row["usd"] for row in listed),
        share=1.0 if listed else 0.0,
    )
