"""The dated price table; an unknown price is refused, never 0."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from workbench.core.errors import ConfigError
from workbench.core.money import usd

__all__ = ["Price", "price", "prices"]

_TABLE = Path(__file__).with_name("prices.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The list price of one unit of something: an assumption, not an invoice."""

    usd: Decimal
    """Dollars per unit, > 0; the unit is the last word of the name."""
    source: str
    checked: str
    """Date on which a person looked, ISO 8601."""
    version: str
    """Name and date of the table."""


@cache
def prices() -> dict[str, Price]:
    """Return all prices of the shipped table by name."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {
        name: Price(**{**rate, "usd": usd(rate["usd"])}, version=table["version"])
        for name, rate in table["rates"].items()
    }


def price(name: str) -> Price:
    """Return the price of that name.

    Raises:
        ConfigError: If the table has none; an unknown price is never taken for 0.
    """
    try:
        return prices()[name]
    except KeyError:
        known = ", ".join(sorted(prices()))
        raise ConfigError(f"no price {name!r} in cost/prices.json; known: {known}") from None
