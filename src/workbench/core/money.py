"""Decimal dollars: parsed, added and shown in one way."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from workbench.core.errors import ConfigError

__all__ = ["ZERO", "show_usd", "usd"]

ZERO = Decimal(0)
_SMALLEST_SHOWN = Decimal("0.01")


def usd(value: str | int | float | Decimal) -> Decimal:
    """Return an amount of US dollars, exact for what was written.

    Raises:
        ConfigError: If the value is not a finite number.
    """
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ConfigError(f"not an amount of dollars: {value!r}; write a number like 12.50")
    return amount


def show_usd(amount: Decimal) -> str:
    """Return an amount for people: cents from one cent up, else three significant digits."""
    if amount == 0 or abs(amount) >= _SMALLEST_SHOWN:
        return f"${amount:,.2f}"
    return f"${amount:.3g}"
