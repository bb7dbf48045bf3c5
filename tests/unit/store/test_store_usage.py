from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger_rows import model_row
from workbench.core.errors import BudgetError, ConfigError
from workbench.core.settings import read_settings
from workbench.cost.alerts import read_thresholds
from workbench.store.database import open_store
from workbench.store.usage import (
    Quotas,
    parse_quotas,
    read_quotas,
    refuse_over_quota,
    usage,
    window_start,
)

NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)  # a Wednesday
AT = "2026-05-20T11:00:00.000000Z"


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    store = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path_factory.mktemp("usage"))}))
    yield store
    store.engine.dispose()


def row(usd="0.01", **values):
    return replace(model_row(usd=usd), **{"who": "anna", "at": AT, **values})


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["anna", "bo", "rehearsal:anna", "annanna"]),
            st.sampled_from(["generation", "execution", "triage"]),
            st.decimals(0, 100, places=9),
            st.sampled_from(["2026-05-01", "2026-05-20"]),
        ),
        max_size=30,
    )
)
def test_usage_is_the_exact_sum_of_ones_own_rows(one_store, rows):
    n = next(NUMBERS)  # names of its own for each example
    one_store.ledger.add(
        [row(str(usd), who=f"{who}-{n}", phase=phase, at=at) for who, phase, usd, at in rows]
    )
    found = {one.phase: one for one in usage(one_store.engine, f"anna-{n}", since="2026-05-10")}
    for phase in ("generation", "execution", "triage"):
        paid = (
            usd for who, of, usd, at in rows if (who, of) == ("anna", phase) and at > "2026-05-10"
        )
        one = found.get(phase)
        assert (one.usd if one else 0) == sum(paid, Decimal(0))
        assert one is None or one.credits == one.usd * 100


def test_only_what_is_billed_counts(store):
    store.ledger.add(
        [
            row("1"),
            row("2", estimated=True),  # a lost call at its worst case
            row("4", unit="call"),  # a target that is paid
            row("8", unit="core_s", estimated=True),
        ]
    )
    (one,) = usage(store.engine, "anna", since="", credit_usd=Decimal("0.5"))
    assert (one.phase, one.usd, one.credits) == ("execution", 7, 14)


@pytest.mark.parametrize(
    ("window", "start"), [("day", "2026-05-20"), ("week", "2026-05-18"), ("month", "2026-05-01")]
)
def test_windows_are_of_the_calendar(window, start):
    assert window_start(window, now=NOON) == f"{start}T00:00:00.000000Z"


def test_who_is_over_quota_is_refused_and_told_what_to_do(store):
    quotas = Quotas(default=Decimal(100), users={"bo": Decimal(0)})
    engine = store.engine
    store.ledger.add([row("0.99"), row("50", at="2026-04-30T23:59:59.999999Z")])
    store.ledger.add([row("50", who="rehearsal:anna")])
    refuse_over_quota(engine, "anna", quotas=quotas, now=NOON)
    store.ledger.add([row("0.01")])
    with pytest.raises(BudgetError, match=r"'anna' is 100 credits a month: 100\.00 .*raise"):
        refuse_over_quota(engine, "anna", quotas=quotas, now=NOON)
    with pytest.raises(BudgetError, match="'bo' is 0 credits"):
        refuse_over_quota(engine, "bo", quotas=quotas, now=NOON)
    refuse_over_quota(engine, "anna", quotas=Quotas(), now=NOON)


def test_quotas_stand_beside_alerts_in_one_file(tmp_path):
    assert read_quotas(tmp_path) == Quotas()
    file = tmp_path / "alerts.yaml"
    file.write_text("quotas: {credit_usd: 0.02, window: week, default: 50, users: {anna: 70.5}}\n")
    found = read_quotas(tmp_path)
    assert (found.credit_usd, found.window) == (Decimal("0.02"), "week")
    assert (found.of("anna"), found.of("bo")) == (Decimal("70.5"), 50)
    assert read_thresholds(tmp_path)  # the shipped ones
    file.write_text(
        file.read_text() + "alerts: [{metric: calls, window: day, limit: 1, action: warn}]\n"
    )
    assert len(read_thresholds(tmp_path)) == 1
    assert read_quotas(tmp_path) == found


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ([], "write a mapping"), ({"user": {}}, "did you mean 'users'"),
        ({"credit_usd": 0}, "is 0"),
        ({"credit_usd": -1}, "no number"), ({"window": "moth"}, "did you mean 'month'"),
        ({"users": 3}, "write e.g."), ({"users": {"a": True}}, "no number"),
        ({"default": float("inf")}, "no number"),
    ],
)  # fmt: skip
def test_quotas_that_make_no_sense_are_refused(section, told):
    with pytest.raises(ConfigError, match=told):
        parse_quotas(section, where="alerts.yaml, quotas")
