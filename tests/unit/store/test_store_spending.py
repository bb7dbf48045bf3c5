"""Spending added up by the database is the exact sum of the rows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_rows import model_row
from workbench.core.settings import read_settings
from workbench.cost.usage import spend
from workbench.store.database import open_store
from workbench.store.records import Run
from workbench.store.spending import GROUPS, billed_by, ledger_names, spending

NUMBERS = itertools.count()
EARLY, LATE = "2026-05-01T00:00:00.000000Z", "2026-05-20T00:00:00.000000Z"


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    store = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path_factory.mktemp("spent"))}))
    yield store
    store.engine.dispose()


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["anna", "bo", "rehearsal:anna"]),
            st.sampled_from(["generation", "execution"]), st.sampled_from(["small", "large"]),
            st.decimals(0, 100, places=9), st.sampled_from(["token", "core_s", "call"]),
            st.booleans(), st.sampled_from([EARLY, LATE]),
        ),
        max_size=30,
    ),
    since=st.sampled_from(["", LATE]),
)  # fmt: skip
def test_it_is_the_exact_sum_of_the_rows(one_store, rows, since):
    experiment = f"e{next(NUMBERS)}"
    made = [
        replace(
            model_row(usd=str(usd)), who=who, phase=phase, resource=resource, unit=unit,
            estimated=estimated, at=at, experiment=experiment,
        )
        for who, phase, resource, usd, unit, estimated, at in rows
    ]  # fmt: skip
    one_store.ledger.add(made)
    expected: dict[tuple[str, ...], Decimal] = {}
    for row in made:
        if row.at < since:
            continue
        name = row.who.removeprefix("rehearsal:")
        is_bill = row.unit == "token" or not row.estimated
        kind = "estimated" if not is_bill else "billed" if name == row.who else "rehearsed"
        key = (row.phase, row.resource, experiment, name, kind)
        expected[key] = expected.get(key, Decimal(0)) + row.usd
    names = ledger_names(one_store.engine, "experiment", since=since)
    assert (experiment in names) == any(row.at >= since for row in made)
    assert all(name in {"anna", "bo"} for name in ledger_names(one_store.engine, "who"))
    found = spending(one_store.engine, experiment=experiment, since=since)
    told = {
        (*(getattr(one, name) for name in GROUPS), kind): getattr(one, f"{kind}_usd")
        for one in found for kind in ("billed", "estimated", "rehearsed")
    }  # fmt: skip
    assert {key: usd for key, usd in told.items() if usd} == {
        k: v for k, v in expected.items() if v
    }
    assert [one.billed_usd for one in found] == sorted((o.billed_usd for o in found), reverse=True)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["anna", "bo", "rehearsal:anna"]),
            st.sampled_from(["generation", "execution"]), st.sampled_from(["first", "second", "?"]),
            st.decimals(0, 100, places=9), st.sampled_from(["token", "core_s", "kwh"]),
        ),
        max_size=30,
    ),
    by=st.sampled_from(["phase", "step", "who", "resource"]),
)  # fmt: skip
def test_what_somebody_was_billed_is_added_up_as_row_by_row(one_store, rows, by):
    number = next(NUMBERS)
    steps = {f"{step}-{number}": step for step in ("first", "second")}
    for run, step in steps.items():
        row = Run(
            id=run, experiment="any", step=step, notebook="n", phase="training", owner="anna",
            fingerprint="f", parameters={}, state="succeeded", folder="", started_at=EARLY,
        )  # fmt: skip
        one_store.runs.add(row)
    made = [
        replace(
            model_row(usd=str(usd), quantity=2.5), who=who, phase=phase, unit=unit,
            job=f"{step}-{number}", experiment=f"of{number}",
        )
        for who, phase, step, usd, unit in rows
    ]  # fmt: skip
    one_store.ledger.add(made)
    found = billed_by(one_store.engine, who="anna", by=by, experiment=f"of{number}")
    expected = spend([row for row in made if row.who == "anna"], by=by, steps=steps)
    assert [one["group"] for one in found] == [one["group"] for one in expected]
    for one, two in zip(found, expected, strict=True):
        assert {**one, "group": 0} == pytest.approx({**two, "group": 0})
        assert one["usd"] == two["usd"], "to the last of nine places"
