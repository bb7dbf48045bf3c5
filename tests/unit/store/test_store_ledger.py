"""The ledger: exact dollars, nothing changed, nothing lost."""

from __future__ import annotations

import multiprocessing
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.core.settings import read_settings
from workbench.store.database import open_store
from workbench.store.ledger import Ledger
from workbench.store.records import LedgerRow


def row(job="job", *, usd="0", experiment="trial", **fields):
    facts = {
        "who": "tester",
        "phase": "training",
        "resource": "cpu",
        "quantity": 1.0,
        "unit": "core_s",
        "price_version": "p/1",
    }
    return LedgerRow(job=job, experiment=experiment, usd=Decimal(usd), **{**facts, **fields})


def test_rows_come_back_equal_and_in_order(store):
    rows = [
        row("one", usd="0.10", note="ä <b>\n", estimated=True),
        row("two", usd="-3", cache_hit=True),
        row("two", unit="token", work="w", details={"calls": 1, "deep": [{"ä": None}]}),
        row("one", usd="1E-12", quantity=1e-9, unit="kwh"),
    ]
    store.ledger.add(rows)
    assert store.ledger.rows() == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(amount=st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_a_dollar_amount_is_exact(store, amount):
    store.ledger.add([row(f"of {amount}", usd=str(amount))])
    assert store.ledger.rows(jobs=[f"of {amount}"])[-1].usd == amount


def test_a_thousand_tenths_of_a_cent_are_a_dollar(store):
    store.ledger.add(row(usd="0.001") for _ in range(1000))
    assert sum(one.usd for one in store.ledger.rows()) == Decimal(1)


def test_rows_are_found_by_experiment_and_by_job(store):
    store.ledger.add([row("a", experiment="x"), row("b", experiment="x"), row("a", experiment="y")])
    assert [(one.job, one.experiment) for one in store.ledger.rows(experiment="x")] == [
        ("a", "x"), ("b", "x"),
    ]  # fmt: skip
    assert [one.experiment for one in store.ledger.rows(jobs=["a"])] == ["x", "y"]
    assert len(store.ledger.rows(experiment="y", jobs=["a"])) == 1
    assert store.ledger.rows(jobs=[]) == []
    assert store.ledger.rows(experiment="none") == []


def test_adding_nothing_is_nothing(store):
    store.ledger.add([])
    store.ledger.add(iter(()))
    assert store.ledger.rows() == []


def test_a_row_that_does_not_fit_takes_its_companions_with_it(store):
    with pytest.raises(Exception, match="NOT NULL"):
        store.ledger.add([row("good"), row("bad", resource=None)])
    assert store.ledger.rows() == []


def test_nothing_can_be_changed_or_removed():
    public = {name for name in vars(Ledger) if not name.startswith("_")}
    assert public == {"add", "rows", "totals"}


def _add_many(home, number):
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "t"}))
    for _ in range(25):
        store.ledger.add([row(f"job-{number}", usd="0.01"), row(f"job-{number}", unit="kwh")])
    store.engine.dispose()


def test_rows_of_processes_that_write_at_once_are_all_kept(store):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_add_many, args=(str(store.home), number)) for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    for number in range(3):
        assert len(store.ledger.rows(jobs=[f"job-{number}"])) == 50
