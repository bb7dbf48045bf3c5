"""Tables as data, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from workbench.core.money import show_usd, usd

__all__ = [
    "Cell", "Column", "Estimate", "Heads", "Lines", "Link", "Number", "Rows", "Table", "Toned",
    "cell", "counted", "counts",
    "dollars", "duration", "energy", "estimate", "hardware", "number", "percent",
    "percentage_points", "probability", "records", "short", "size", "table", "words",
]  # fmt: skip

_MAX_ROWS = 300
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Number(str):
    """A formatted number; a column of them is set flush right."""

    __slots__ = ()


class Estimate(NamedTuple):
    """A figure with its interval, formatted."""

    value: str
    low: str
    high: str

    def __str__(self) -> str:
        return f"{self.value} {self.interval}"

    @property
    def interval(self) -> str:
        """The interval in brackets."""
        return f"[{self.low}, {self.high}]"


class Lines(NamedTuple):
    """A text with a smaller one below it."""

    text: str
    detail: str


class Link(NamedTuple):
    """A text that leads to an address of our own making, never to one from data."""

    text: str
    href: str


class Toned(str):
    """A word that is shown in its tone: one of the theme's, never a text from data."""

    __slots__ = ("tone",)
    tone: str

    def __new__(cls, shown: str, tone: str) -> Toned:
        """Return the word with its tone."""
        made = super().__new__(cls, shown)
        made.tone = tone
        return made


Cell = str | Estimate | Lines | Link
Rows = Sequence[Mapping[str, Any]]
Heads = Mapping[str, Callable[[Any], Cell]]
"""Head of a column → what it shows of a thing."""


class Column(NamedTuple):
    """Head of a column."""

    name: str
    unit: str
    is_number: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with caption and units; rows are as wide as the columns."""

    kind = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    is_folded: bool = False
    """Shown when asked for."""

    def folded(self) -> Table:
        """Return the same table, shown when asked for."""
        return replace(self, is_folded=True)


def table(
    caption: str, heads: Sequence[str] | Heads, rows: Iterable[Any], *, note: str = ""
) -> Table:
    """Return a table; a head is written ``name`` or ``name | unit``.

    Rows are cells, or any things where the heads know what to show of them. The first 300 are
    kept, and the note below says how many are not.
    """
    shows = list(heads.values()) if isinstance(heads, Mapping) else None
    body = [tuple(show(row) for show in shows) if shows else tuple(row) for row in rows]
    made = []
    for at, head in enumerate(heads):
        name, _, unit = head.partition(" | ")
        cells = [row[at] for row in body if row[at] not in ("", "–")]
        numeric = bool(cells) and all(isinstance(one, Number | Estimate) for one in cells)
        made.append(Column(name, unit, numeric))
    if len(body) > _MAX_ROWS:
        note = f"{note} {len(body) - _MAX_ROWS:,} more rows are left out here.".strip()
    return Table(caption=caption, columns=tuple(made), rows=tuple(body[:_MAX_ROWS]), note=note)


def counts(
    caption: str,
    heads: Sequence[str],
    values: Mapping[str, int],
    *,
    meanings: Mapping[str, str] | None = None,
) -> Table:
    """Return counts with their shares, largest first, and what each name means where asked."""
    total = sum(values.values()) or 1
    shown: dict[str, Callable[[Any], Cell]] = {
        heads[0]: lambda item: words(item[0]),
        heads[1]: lambda item: number(item[1]),
        "Share": lambda item: percent(item[1] / total),
    }
    if meanings:
        shown["What it is"] = lambda item: meanings.get(item[0], "–")
    return table(caption, shown, sorted(values.items(), key=lambda item: (-item[1], item[0])))


def records(caption: str, rows: Sequence[Mapping[str, Any]], *, note: str = "") -> Table:
    """Return a table of records as they are: one column per key, in order of first sight."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    body = [[cell(row.get(name)) for name in names] for row in rows]
    return table(caption, [words(name) for name in names], body, note=note)


def words(name: str) -> str:
    """Return a name from code or data as words."""
    return name.replace("_", " ")


def number(value: float) -> Number:
    """Return a number: integers whole, others with three significant digits."""
    size = abs(value)
    if isinstance(value, int) or 1000 <= size < 1e9:  # noqa: PLR2004
        shown = f"{value:,.0f}"
    elif size == 0:
        shown = "0"
    elif 1e-3 <= size < 1000:  # noqa: PLR2004
        shown = f"{value:#.3g}".rstrip(".")
    else:
        mantissa, exponent = f"{value:.2e}".split("e")
        shown = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return Number(shown.replace("-", "−"))


def counted(count: int, noun: str) -> str:
    """Return how many there are of a thing, in words."""
    return f"{number(count)} {noun}{'s' * (count != 1)}"


def percent(value: float) -> Number:
    """Return a fraction as a percentage with one decimal."""
    return Number(f"{round(100 * value, 1) + 0.0:.1f}\u00a0%".replace("-", "−"))


def percentage_points(difference: float) -> Number:
    """Return a difference of fractions in percentage points, with its sign."""
    shown = f"{round(100 * difference, 1) + 0.0:+.1f}"
    return Number("0.0" if shown == "+0.0" else shown.replace("-", "−"))


def probability(p: float) -> Number:
    """Return a p-value; below a thousandth its size says nothing more."""
    return Number("< 0.001" if p < 0.001 else f"{p:.3f}")  # noqa: PLR2004


def dollars(value: Any) -> Number:
    """Return an amount of US dollars; without cents from 100 on, in millions from one on."""
    amount = abs(usd(value))
    if amount < 100:  # noqa: PLR2004
        shown = show_usd(amount)
    elif amount < 999_500:  # noqa: PLR2004 - what rounds to a million is one
        shown = f"${amount:,.0f}"
    else:
        shown = f"${amount / 1_000_000:,.1f}M"
    return Number(f"{'−' * (usd(value) < 0)}{shown}")


def energy(kwh: float) -> Number:
    """Return an energy in the unit that suits it."""
    return _scaled(kwh, ((1.0, "kWh"), (1e-3, "Wh"), (1e-6, "mWh")))


def size(count: int) -> Number:
    """Return a number of bytes in the unit that suits it."""
    return _scaled(count, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")))


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> Number:
    one, name = next((unit for unit in units if value >= unit[0]), units[-1])
    amount = value if one == 1 else value / one
    return Number(f"{number(amount)}\u00a0{name}")


def duration(seconds: float) -> Number:
    """Return a time span in the unit that suits it."""
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 59.95:  # noqa: PLR2004 - what rounds to a minute is one
        return Number(f"{seconds:.1f}\u00a0s")
    if minutes < 60:  # noqa: PLR2004
        return Number(f"{minutes}\u00a0min {rest:02d}\u00a0s")
    return Number(f"{minutes // 60}\u00a0h {minutes % 60:02d}\u00a0min")


def estimate(interval: Mapping[str, Any], show: Callable[[float], str] = number) -> Estimate:
    """Return an ``Interval`` formatted."""
    return Estimate(*(show(interval[key]) for key in ("value", "low", "high")))


def short(identity: str) -> str:
    """Return the first twelve characters of an id made of hex digits, others whole."""
    head, at, rest = identity.partition("@")
    if at:
        return f"{head}@{rest[:12]}"
    return identity[:12] if len(identity) >= 32 else identity  # noqa: PLR2004 - a hash


def hardware(run: Mapping[str, Any]) -> Cell:
    """Return what a training run ran on, and what it used of GPUs; no share is claimed of CPUs."""
    if "hardware" not in run:  # an older result
        return "–"
    share = run["utilization"]
    used = "" if share is None else f", {percent(share)}"
    return f"{run['processes']} × {run['hardware']}{used}"


def cell(value: Any) -> Cell:  # noqa: PLR0911 - one per JSON type
    """Return any value of a result as people read it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(int(value) if float(value).is_integer() and abs(value) < 1e9 else value)  # noqa: PLR2004
    if isinstance(value, Mapping):
        if {"value", "low", "high"} <= value.keys():
            return estimate(value)
        return ", ".join(f"{key} {cell(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(cell(one)) for one in value)
    return str(value)
