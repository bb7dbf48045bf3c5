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
from workbench.store.database import open_store
from workbench.store.spending import GROUPS, ledger_names, spending

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
