"""Prices, ledger rows of compute, and spend."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.cost.prices import price, prices
from workbench.cost.usage import compute_rows, spend, spent, total
from workbench.scaling.energy import estimate

WHO = {"who": "tester", "job": "run-1", "experiment": "sweep"}


def test_every_price_has_a_unit_a_source_and_a_date():
    for entry in prices().values():
        assert entry.usd > 0
        assert "https://" in entry.source
        assert date.fromisoformat(entry.checked) >= date(2026, 1, 1)


def test_an_unknown_price_is_refused_never_zero():
    with pytest.raises(ConfigError, match="no price 'gold'"):
        price("gold")


@given(cpu_s=st.floats(0, 1e7))
def test_cpu_and_energy_rows_add_up_to_the_core_hours_once(cpu_s):
    rows = compute_rows(cpu_s=cpu_s, phase="training", **WHO)
    whole = price("cpu_core_hour").usd * Decimal(str(cpu_s)) / 3600
    assert abs(sum(row.usd for row in rows) - whole) <= Decimal("1e-9")
    assert all(row.usd >= 0 and row.estimated for row in rows)
    assert [row.unit for row in rows] == ["core_s", "kwh"]


def test_ledger_and_forecast_agree_on_energy():
    _, energy = compute_rows(cpu_s=1234.5, phase="training", **WHO)
    assert energy.quantity == pytest.approx(estimate(1234.5).kwh, rel=1e-12)


def test_seconds_that_make_no_sense_are_refused():
    for cpu_s in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="cpu_s"):
            compute_rows(cpu_s=cpu_s, phase="training", **WHO)


@pytest.mark.parametrize("by", ["phase", "step", "who", "resource"])
def test_every_grouping_has_the_same_total(store, by):
    for number, phase in enumerate(("training", "execution", "training")):
        who = {**WHO, "job": f"run-{number}"}
        store.ledger.add(compute_rows(cpu_s=100.0 * (number + 1), phase=phase, **who))
    store.ledger.add(compute_rows(cpu_s=9e9, phase="training", **{**WHO, "experiment": "other"}))
    rows = spend(store.ledger.rows(experiment="sweep"), by=by)
    whole = total(rows)
    assert whole["cpu_s"] == pytest.approx(600)
    assert whole["usd"] == pytest.approx(600 / 3600 * 0.0425)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert [row["usd"] for row in rows] == sorted((row["usd"] for row in rows), reverse=True)


def test_spend_by_step_names_steps():
    rows = compute_rows(cpu_s=1.0, phase="training", **WHO)
    assert [row["group"] for row in spend(rows, by="step", steps={"run-1": "train"})] == ["train"]
    assert [row["group"] for row in spend(rows, by="step")] == ["other"]


def test_nothing_spent_is_an_empty_table(store):
    assert spent(store, "sweep")["by_phase"] == spend([]) == []
    assert total([])["usd"] == 0


def test_a_bill_adds_up_by_phase_and_by_step(store):
    store.ledger.add(compute_rows(cpu_s=3600.0, phase="training", **WHO))
    bill = spent(store, WHO["experiment"])
    assert bill["by_phase"][0] | {"group": "total"} == bill["total"]
    assert [row["group"] for row in bill["by_step"]] == ["other"]
    assert bill["total"]["cpu_s"] == 3600
    assert bill["gco2"] == pytest.approx(bill["total"]["kwh"] * 436)
