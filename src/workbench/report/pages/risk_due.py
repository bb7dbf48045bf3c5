"""What is due when: the calendar, the decisions behind it, and what is late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from workbench.report.blocks import Block, Grid, GridCell, Text
from workbench.report.pages.risk_register import LEVELS, day, is_open, split, tone
from workbench.report.tables import Heads, counted, counts, number, words

__all__ = ["due_dates"]

_POLICIES = {
    "bod-26-04": "CISA BOD 26-04",
    "ssvc-deployer": "SSVC, deployer's tree",
    "ssvc-coordinator": "SSVC, coordinator's tree",
}
_WEEKS, _WEEK = 13, 7
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LATE: Heads = {
    "Risk": lambda row: row["subject"],
    "Asset": lambda row: row["asset"],
    "Level": lambda row: tone(row["level"]),
    "Due": lambda row: row["due"],
    "Owner": lambda row: row["owner"] or "nobody",
}


def due_dates(found: Mapping[str, Any], footer: str) -> list[Block]:
    """Return when open risks are due, by what decision, and which are late."""
    policy = _POLICIES.get(found["policy"], words(found["policy"]))
    rule = f"Decided by {policy}. The clock starts when a risk is first seen and never restarts."
    blocks: list[Block] = [Text(rule), _calendar(found, footer)]
    if found["decisions"]:
        heads = ["Decision", "Count | open risks"]
        blocks.append(counts("What was decided", heads, found["decisions"]))
    today = day(found["today"])
    rows = [(day(row["due"]), row) for row in found["register"] if is_open(row)]
    late = [(on, row) for on, row in rows if today and on and on < today]
    late.sort(key=lambda one: one[0])
    if (many := found["counts"]["overdue"]) > len(late):
        told = f"Listed here: {number(len(late))} of {number(many)} overdue, those among the worst."
        blocks.append(Text(told))
    if late:
        blocks += split("Overdue, longest first", _LATE, [row for _, row in late])
    return blocks


def _calendar(found: Mapping[str, Any], footer: str) -> Block:
    """Return 13 weeks: a column per week, a row per day of the week, sums below."""
    today = day(found["today"])
    known = {on: row for row in found["calendar"] if (on := day(row["due"]))}
    if today is None or not known:
        return Text("No open risk has a date by which it is due.")
    monday = today - timedelta(days=today.weekday())
    days = [monday + timedelta(days=at) for at in range(_WEEKS * _WEEK)]
    weeks = [days[at : at + _WEEK] for at in range(0, len(days), _WEEK)]
    rows = [
        (name, "", tuple(_cell(known, [week[at]], today) for week in weeks))
        for at, name in enumerate(_WEEKDAYS)
    ]
    sums = tuple(_cell(known, week, today)._replace(tone="", is_marked=False) for week in weeks)
    fullest = max(weeks, key=lambda week: _many(known, week))
    title = f"The week of {fullest[0].day} {fullest[0]:%B} is the fullest: "
    title += f"{counted(_many(known, fullest), 'risk')} due"
    before = _many(known, [on for on in known if on < days[0]])
    later = _many(known, [on for on in known if on > days[-1]])
    return Grid(
        name="calendar",
        title=title if _many(known, fullest) else f"Nothing is due in these {_WEEKS} weeks",
        summary="Open risks by the day on which they are due, colored by the worst of that day; "
        "today is framed, what stands before it is overdue. Not shown: "
        f"{number(before)} overdue from earlier weeks, {number(later)} due later.",
        corner="week of",
        columns=tuple(_head(week[0], is_first=at == 0) for at, week in enumerate(weeks)),
        rows=(*rows, ("week", "", sums)),
        keys=tuple((level, level) for level in LEVELS),
        footer=footer,
    )


def _head(monday: date, *, is_first: bool) -> tuple[str, str]:
    """Return the month where a new one begins, and the day."""
    is_new = is_first or monday.day <= _WEEK
    return (f"{monday:%b}" if is_new else "\u00a0", str(monday.day))


def _many(known: Mapping[date, Mapping[str, Any]], dates: Sequence[date]) -> int:
    return sum(known[on][level] for on in dates if on in known for level in LEVELS)


def _cell(known: Mapping[date, Mapping[str, Any]], dates: Sequence[date], today: date) -> GridCell:
    levels = {level: sum(known[on][level] for on in dates if on in known) for level in LEVELS}
    told = ", ".join(f"{number(many)} {level}" for level, many in levels.items() if many)
    many = _many(known, dates)
    first = dates[0]
    when = f"{first:%A} {first.day} {first:%B %Y}"
    return GridCell(
        shown=number(many) if many else "",
        told=f"{'week of ' * (len(dates) > 1)}{when}: {told or 'nothing'} due",
        tone=next((level for level, many in levels.items() if many), ""),
        is_marked=first == today,
    )
