"""Tables as data, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from workbench.core.money import show_usd, usd

__all__ = [
    "Cell",
    "Column",
    "Estimate",
    "Table",
    "counts",
    "dollars",
    "duration",
    "estimate",
    "number",
    "percent",
    "records",
    "short",
    "table",
]

_MAX_ROWS = 300
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Estimate(NamedTuple):
    """A figure with its interval, formatted."""

    value: str
    low: str
    high: str

    def __str__(self) -> str:
        return f"{self.value} [{self.low}, {self.high}]"


Cell = str | Estimate


@dataclass(frozen=True)
class Column:
    """Head of a column."""

    name: str
    unit: str = ""
    is_number: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with caption and units; rows are as wide as the columns."""

    kind = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def table(
    caption: str, columns: Sequence[Column | str], rows: Iterable[Sequence[Cell]], *, note: str = ""
) -> Table:
    """Return a table; a plain string is the head of a column of words.

    Rows beyond 300 are left out, and the note says how many.
    """
    heads = tuple(
        one if isinstance(one, Column) else Column(one, is_number=False) for one in columns
    )
    body = tuple(tuple(row) for row in rows)
    if len(body) > _MAX_ROWS:
        note = f"{note} {len(body) - _MAX_ROWS:,} more rows are left out here.".strip()
    return Table(caption=caption, columns=heads, rows=body[:_MAX_ROWS], note=note)


def counts(caption: str, head: str, values: Mapping[str, int], *, unit: str = "pairs") -> Table:
    """Return a table of counts with their shares, largest first."""
    total = sum(values.values()) or 1
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, number(count), percent(count / total)) for name, count in ordered]
    return table(caption, [head, Column("Count", unit), Column("Share")], rows)


def records(caption: str, rows: Sequence[Mapping[str, Any]], *, note: str = "") -> Table:
    """Return a table of records as they are: one column per key, in order of first sight."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    columns = [
        Column(name.replace("_", " "), is_number=all(_is_number(row.get(name)) for row in rows))
        for name in names
    ]
    return table(
        caption, columns, [[_any(row.get(name)) for name in names] for row in rows], note=note
    )


def number(value: float) -> str:
    """Return a number: integers whole, others with three significant digits."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    size = abs(value)
    if 1000 <= size < 1e7:  # noqa: PLR2004
        shown = f"{value:,.0f}"
    elif size == 0:
        shown = "0"
    elif 1e-3 <= size < 1000:  # noqa: PLR2004
        shown = f"{value:#.3g}".rstrip(".")
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        shown = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return shown.replace("-", "−")


def percent(value: float) -> str:
    """Return a fraction as a percentage with one decimal."""
    return f"{round(100 * value, 1) + 0.0:.1f}\u00a0%".replace("-", "−")


def dollars(value: Any) -> str:
    """Return an amount of US dollars."""
    return show_usd(usd(value))


def duration(seconds: float) -> str:
    """Return a time span in the unit that suits it."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min"


def estimate(interval: Mapping[str, Any], show: Callable[[float], str] = number) -> Estimate:
    """Return an ``Interval`` formatted."""
    return Estimate(*(show(interval[key]) for key in ("value", "low", "high")))


def short(identity: str) -> str:
    """Return the first twelve characters of an id made of hex digits, others whole."""
    head, at, rest = identity.partition("@")
    if at:
        return f"{head}@{rest[:12]}"
    return identity[:12] if len(identity) >= 32 else identity  # noqa: PLR2004 - a hash


def _is_number(value: Any) -> bool:
    return (
        (isinstance(value, int | float) and not isinstance(value, bool))
        or value is None
        or _is_interval(value)
    )


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and {"value", "low", "high"} <= value.keys()


def _any(value: Any) -> Cell:  # noqa: PLR0911 - one per JSON type
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if _is_interval(value):
        return estimate(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_any(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(_any(one)) for one in value)
    return str(value)
