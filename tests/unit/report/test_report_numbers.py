"""Numbers as people read them, and intervals over seeds against scipy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench.report.blocks import Passages
from workbench.report.seeds import doubling_interval, seed_interval
from workbench.report.tables import (
    counts,
    dollars,
    duration,
    energy,
    number,
    percent,
    records,
    short,
    table,
)


@given(st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=12, unique=True))
def test_seed_interval_agrees_with_scipy(thousandths: list[int]) -> None:
    values = [one / 1000 for one in thousandths]
    found = seed_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=found["value"], scale=stats.sem(values))
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=1e-9, abs=1e-12)
    assert found["low"] <= found["value"] <= found["high"]


@given(st.lists(st.integers(-10_000, 10_000), min_size=4, max_size=12, unique=True))
def test_effect_of_doubling_agrees_with_scipy(thousandths: list[int]) -> None:
    x = [3, 6, 12, 20, 40, 60][: len(thousandths)] * 2
    y = [one / 1000 for one in thousandths]
    x = x[: len(y)]
    found = doubling_interval(x, y)
    line = stats.linregress([math.log2(one) for one in x], y)
    half = stats.t.ppf(0.975, len(y) - 2) * line.stderr
    assert found is not None
    assert found["value"] == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
    assert found["high"] - found["low"] == pytest.approx(2 * half, rel=1e-4, abs=1e-6)


def test_one_size_has_no_slope() -> None:
    assert doubling_interval([3, 3, 3], [0.1, 0.2, 0.3]) is None


@pytest.mark.parametrize(
    ("kwh", "shown"), [(2.6e-4, "260 mWh"), (0.0139, "13.9 Wh"), (500.0, "500 kWh"), (0.0, "0 mWh")]
)
def test_energy(kwh: float, shown: str) -> None:
    assert energy(kwh).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("usd", "shown"), [(-1234.5, "−$1,234"), (0.00279, "$0.00279"), (12.5, "$12.50")]
)
def test_dollars(usd: float, shown: str) -> None:
    assert dollars(usd) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2000, "2,000"),
        (-3, "−3"),
        (0.0, "0"),
        (0.4, "0.400"),
        (123.4, "123"),
        (-0.0123, "−0.0123"),
        (45678.9, "45,679"),
        (6.48e-5, "6.48 × 10⁻⁵"),
        (4.1e11, "4.10 × 10¹¹"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


@given(st.floats(1e-300, 1e300))
def test_number_keeps_the_value(value: float) -> None:
    shown = number(value).replace(",", "").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    assert float(shown.replace(" × 10", "e")) == pytest.approx(value, rel=6e-3)


def test_small_negative_rate_is_not_minus_zero() -> None:
    assert percent(-1e-9) == "0.0\u00a0%"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == shown


def test_counts_are_ordered_and_sum_to_one() -> None:
    rows = counts("x", ["x", "n"], {"b": 1, "a": 1, "c": 2}).rows
    assert [row[0] for row in rows] == ["c", "a", "b"]
    assert [row[2] for row in rows] == ["50.0\u00a0%", "25.0\u00a0%", "25.0\u00a0%"]


def test_records_show_every_key_and_value() -> None:
    rows = [{"a": 1, "b": {"value": 0.5, "low": 0.25, "high": 0.75}}, {"c": [True, None, "x"]}]
    made = records("x", rows)
    assert [column.name for column in made.columns] == ["a", "b", "c"]
    assert [[str(cell) for cell in row] for row in made.rows] == [
        ["1", "0.500 [0.250, 0.750]", "–"],
        ["–", "–", "yes, –, x"],
    ]


def test_long_tables_and_texts_say_what_they_leave_out() -> None:
    assert "700 more rows" in table("x", ["n"], [("1",)] * 1000).note
    cut = Passages.of([{"sent": "a" * 2000, "who": "b"}] * 100, texts=("sent",))
    assert len(cut.passages) == 40
    assert cut.passages[0][1][0][1].endswith("… (500 more characters)")


def test_short_cuts_hashes_only() -> None:
    assert short("ab" * 32) == "ab" * 6
    assert short("minilm@" + "c" * 64) == "minilm@" + "c" * 12
    assert short("quickstart") == "quickstart"
