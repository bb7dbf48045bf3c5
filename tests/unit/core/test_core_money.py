"""Dollars are exact for what was written, and never silently not a number."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.core.money import show_usd, usd

amounts = st.decimals(min_value=-(10**9), max_value=10**9, places=8)


@given(amounts)
def test_what_is_written_is_what_is_counted(amount):
    assert usd(str(amount)) == usd(amount) == amount


def test_dimes_add_up():
    assert sum([usd(0.1)] * 3) == usd("0.3")  # which floats do not


@pytest.mark.parametrize(
    "value", ["", "12,50", "$1", "nan", "inf", float("nan"), "-Infinity", "sNaN"]
)
def test_what_is_no_amount_is_named(value):
    with pytest.raises(ConfigError, match="not an amount of dollars: ") as caught:
        usd(value)
    assert repr(value) in str(caught.value)


@given(amounts)
def test_what_is_shown_is_close_and_keeps_its_sign(amount):
    shown = show_usd(amount).replace("$", "").replace(",", "")
    if abs(amount) >= Decimal("0.01"):
        assert abs(Fraction(shown) - Fraction(amount)) <= Fraction("0.005")
    else:
        assert float(shown) == pytest.approx(float(amount), rel=0.006)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"),
        ("0.01", "$0.01"),
        ("1234567.891", "$1,234,567.89"),
        ("0.00012345", "$0.000123"),
    ],
)
def test_how_amounts_look(amount, shown):
    assert show_usd(usd(amount)) == shown
