"""The risks themselves: the worst at length, all in one register, what changed, what closed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from workbench.report.blocks import Block, Card, Cards, Sortable, Text
from workbench.report.tables import (
    Cell,
    Heads,
    Lines,
    Number,
    Rows,
    Toned,
    counted,
    dollars,
    number,
    percent,
    short,
    table,
    words,
)

__all__ = [
    "LEVELS",
    "changes",
    "closed",
    "day",
    "due",
    "is_open",
    "register",
    "split",
    "tone",
    "worst",
]

LEVELS = ("critical", "high", "medium", "low")
_SHOWN_CARDS = 6
_MOST_REASONS = 12
_LONG, _SHOWN = 12, 8
_LEAST_CHANCE = 0.001
_NEVER = "9999"
_BASIS = {"rules": "by rules, no model"}
_REGISTER: Heads = {
    "Risk": lambda row: Lines(row["subject"], _named(row)),
    "Level": lambda row: tone(row["level"]),
    "Score": lambda row: number(row["score"]),
    "Where": lambda row: Lines(row["asset"], row["component"]),
    "Due": lambda row: Lines(row["due"] or "next upgrade", words(row["decision"])),
    "Chance | in 30 days": lambda row: _chance(row["p_exploit"]),
    "Loss | US$ a year": lambda row: dollars(row["annual_loss_usd"]),
    "Owner": lambda row: Lines(row["owner"] or "nobody", row["status"]),
    "Not checked, stale": lambda row: _gaps(row) or "–",
}
_CHANGES: Heads = {
    "Change": lambda row: words(row["change"]),
    "Risk": lambda row: row["subject"],
    "Asset": lambda row: row["asset"],
    "Before": lambda row: row["before"] or "–",
    "Now": lambda row: row["after"] or "–",
}


def day(text: str) -> date | None:
    """Return an ISO date, or None where it is none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def is_open(row: Mapping[str, Any]) -> bool:
    """Return whether a risk still wants something done."""
    return bool(row["status"] != "closed" and row["status"] != "accepted")


def tone(level: str) -> Cell:
    """Return a level in its color."""
    return Toned(level, level) if level in LEVELS else level


def due(row: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return by when a risk is to be fixed, in words."""
    if not row["due"]:
        return "with the next upgrade"
    on, today = day(row["due"]), day(found["today"])
    if on is None or today is None:
        return str(row["due"])
    days = (on - today).days
    told = f"{counted(abs(days), 'day')} overdue" if days < 0 else f"in {counted(days, 'day')}"
    return f"{row['due']}, {told if days else 'today'}"


def split(caption: str, heads: Heads, rows: Rows, *, note: str = "") -> list[Block]:
    """Return the first rows as a table, and the others as one that is shown when asked for."""
    if len(rows) <= _LONG:
        return [table(caption, heads, rows, note=note)]
    more = table(f"{caption}: {len(rows) - _SHOWN} more", heads, rows[_SHOWN:], note=note)
    return [table(caption, heads, rows[:_SHOWN]), more.folded()]


def worst(found: Mapping[str, Any]) -> list[Block]:
    """Return the worst risks at length, and who explained them."""
    cards = [_card(row, found) for row in found["top"]]
    if not cards:
        return []
    by = {name: many for name, many in found["explained_by"].items() if many}
    told = ", ".join(f"{number(many)} by {name}" for name, many in by.items())
    note = "Levels, scores and dates come from rules alone. A score takes what is missing at its "
    note += "worst; the score as known takes it as usual."
    note = f"Explained: {told}. {note}" if told else note
    return [
        Text(note),
        Cards(cards=tuple(cards[:_SHOWN_CARDS]), folded=tuple(cards[_SHOWN_CARDS:])),
    ]


def register(found: Mapping[str, Any]) -> list[Block]:
    """Return the register, and how many of it are risks of models."""
    rows = found["register"]
    if not rows:
        return [Text("The register is empty.")]
    some = found["counts"]
    known = [row for row in rows if row["kind"] == "model"]
    told = (
        f"Vulnerabilities and {counted(some['model_risks'], 'model risk')} found by red teaming, "
    )
    told += "side by side: one scale, one clock. Model risks carry ids of OWASP's list for LLM "
    told += "applications, and of MITRE ATLAS."
    if not some["model_risks"]:
        told = "Vulnerabilities only: no campaign was read, so no model risk stands beside them."
    whole = f"The {number(len(rows))} worst of {number(some['risks'])}; all of them are in the "
    whole += f"store, assessment {short(found['assessment'])}."
    shown = table("Register of risks", _REGISTER, rows, note=whole)
    keys = tuple(_keys(row) for row in rows[: len(shown.rows)])
    hint = "model risk, critical" if known else "critical, an asset, a CVE"
    return [Text(told), Sortable(table=shown, keys=keys, hint=hint)]


def changes(found: Mapping[str, Any]) -> list[Block]:
    """Return what is different from the assessment before."""
    if not found["since"]:
        return [Text("This is the first assessment: there is none to compare it with.")]
    some = {name: many for name, many in found["change_counts"].items() if many}
    since = f"since assessment {short(found['since'])}"
    if not some:
        return [Text(f"Nothing changed {since}.")]
    told = ", ".join(f"{number(many)} {words(name)}" for name, many in some.items())
    return [Text(f"{told} {since}."), *split("Changes", _CHANGES, found["changes"])]


def closed(found: Mapping[str, Any]) -> list[Block]:
    """Return what was closed, by whom and why."""
    many, rows = found["counts"]["closed"], found["closed"]
    if not many:
        return [Text("Nothing was closed.")]
    heads: Heads = {
        "Risk": lambda row: row["subject"],
        "Where": lambda row: Lines(row["asset"], row["component"]),
        "State": lambda row: words(row["state"]),
        "Why": lambda row: words(row["reason"]) or "no reason given",
        "Said by": lambda row: row["source"] or "–",
    }
    more = f"{number(len(rows))} of {number(many)}." if many > len(rows) else ""
    return split("Closed risks and their reasons", heads, rows, note=more)


def _named(row: Mapping[str, Any]) -> str:
    """Return the title of a risk; of a model's also that it is one, and its techniques."""
    if row["kind"] != "model":
        return str(row["title"])
    return " · ".join(["model risk", row["title"], *row.get("techniques", ())])


def _keys(row: Mapping[str, Any]) -> tuple[str | float, ...]:
    rank = len(LEVELS) - LEVELS.index(row["level"]) if row["level"] in LEVELS else 0
    return (
        row["subject"],
        float(rank),
        float(row["score"]),
        f"{row['asset']} {row['component']}",
        row["due"] or _NEVER,
        float(row["p_exploit"]),
        float(row["annual_loss_usd"]),
        f"{row['owner']} {row['status']}",
        float(len(row["missing"]) + len(row["stale"])),
    )


def _chance(p: float) -> Number:
    return percent(p) if p >= _LEAST_CHANCE or p == 0 else Number("< 0.1\u00a0%")


def _gaps(row: Mapping[str, Any]) -> str:
    parts = [", ".join(map(words, row["missing"]))] if row["missing"] else []
    return "; ".join(parts + [f"{words(one)} stale" for one in row["stale"]])


def _card(row: Mapping[str, Any], found: Mapping[str, Any]) -> Card:
    facts = {
        "Score": f"{row['likelihood']} × {row['impact']} = {row['score']}",
        "Score as known": number(row["score_known"]) if row["score_known"] != row["score"] else "",
        "Due": due(row, found),
        "Decision": words(row["decision"]),
        "Chance in 30 days": _chance(row["p_exploit"]),
        "Loss per year": dollars(row["annual_loss_usd"]),
        "Owner": row["owner"] or "nobody",
        "Fixed in": row.get("fixed_in", ""),
        "Techniques": ", ".join(row.get("techniques", ())) or "unmapped",
        "Not checked": ", ".join(map(words, row["missing"])),
        "Stale": ", ".join(map(words, row["stale"])),
    }
    what = "model risk on " if row["kind"] == "model" else "on "
    by = row.get("explained_by", "")
    return Card(
        mark=tone(row["level"]),
        heading=f"{row['subject']} · {row['title']}",
        detail=f"{what}{row['asset']}{' · ' * bool(row['component'])}{row['component']}",
        facts=tuple((name, value) for name, value in facts.items() if value),
        points=tuple(row.get("reasons", ())[:_MOST_REASONS]),
        text=row.get("explanation", ""),
        by=_BASIS.get(by, f"by model {by}") if by else "",
    )
