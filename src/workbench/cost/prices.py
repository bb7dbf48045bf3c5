"""The dated price table; an unknown price is refused, never 0."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError
from workbench.core.money import usd

__all__ = ["Factor", "Price", "energy_factor", "price", "prices"]

_TABLE = Path(__file__).with_name("prices.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The price of one unit of something."""

    name: str
    usd: Decimal
    """Dollars per unit, > 0."""
    unit: str
    kind: str
    """``assumed``: a list price, not an invoice."""
    source: str
    checked: str
    """Date on which a person looked, ISO 8601."""
    version: str
    """Name and date of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Energy of a busy core at the building's meter."""

    value: float
    """Kilowatt-hours per core hour; a test holds it equal to ``scaling.energy``."""
    source: str
    checked: str
    """Date on which a person looked, ISO 8601."""


@cache
def prices() -> dict[str, Price]:
    """Return all prices of the shipped table by name.

    Raises:
        ConfigError: If a price is not a positive number.
    """
    table = _table()
    found = {
        rate["name"]: Price(**{**rate, "usd": usd(rate["usd"])}, version=table["version"])
        for rate in table["rates"]
    }
    for entry in found.values():
        if entry.usd <= 0:
            raise ConfigError(f"price {entry.name!r} is {entry.usd}; write a number above 0")
    return found


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


def energy_factor() -> Factor:
    """Return the kilowatt-hours that an hour of one busy core takes, with its source."""
    return Factor(**_table()["kwh_per_core_hour"])


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table
