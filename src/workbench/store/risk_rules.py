"""What an assessment, or a person, makes of a risk in the register: rules alone, no database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.core.plain import storable
from workbench.store import schema

__all__ = [
    "CLOSING", "COLUMNS", "LEVELS", "NOT_SEEN", "RISK_STATUSES", "Entry", "badness", "clean",
    "decided", "fit", "is_later", "settled",
]  # fmt: skip

RISK_STATUSES = ("open", "accepted", "closed")

NOT_SEEN = "not seen any more"
"""Reason of a risk that an assessment of its asset no longer found."""

LEVELS = {"low": 0, "medium": 1, "high": 2, "critical": 3}
CLOSING = ("fixed", "not_affected")
"""States of VEX that close."""
COLUMNS = {column.name: getattr(column.type, "length", None) for column in schema.risks.c}
"""Column of the register → most characters."""
_LOGGED = (
    "title", "component", "level", "score", "likelihood", "impact", "decision", "due", "owner",
    "state", "reason", "status",
)  # fmt: skip
_DAILY = ("p_exploit", "annual_loss_usd")
"""Change with every EPSS: told beside other changes only; each assessment keeps its own."""
_DECIDABLE = ("status", "owner", "due")


class Entry(NamedTuple):
    """A risk after an assessment, and what it was before."""

    row: dict[str, Any]
    before: dict[str, Any] | None
    note: str = ""
    """Why it was closed or opened again."""

    def changed(self) -> dict[str, list[Any]]:
        """Return field → before and after, where people would notice."""
        before = self.before
        if before is None:
            return {name: [None, self.row[name]] for name in ("status", "level", "score", "due")}
        names = [name for name in _LOGGED if before[name] != self.row[name]]
        if names:
            names += [name for name in _DAILY if before[name] != self.row[name]]
        return {name: [before[name], self.row[name]] for name in names}


def badness(row: Mapping[str, Any]) -> tuple[bool, int, float]:
    """Return what sorts rows of one risk: the one that counts is the largest."""
    return row["state"] not in CLOSING, row["score"], row["p_exploit"]


def clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the register, as every database takes them."""
    return {name: fit(name, row.get(name, "")) for name in COLUMNS}


def fit(name: str, value: Any) -> Any:
    """Return a value as its column takes it: text without what no database stores, cut."""
    if not isinstance(value, str):
        return value
    kept = value if value.isascii() and "\0" not in value else storable(value)
    return kept[: COLUMNS[name]]


def settled(
    row: dict[str, Any], before: dict[str, Any] | None, *, today: str, said: set[str]
) -> Entry:
    """Return the row as it is after what was before and what people said."""
    status, reason, note = _status(row, before, today=today)
    row |= {"status": status, "reason": reason, "last_seen": today, "first_seen": today}
    if before:
        row["first_seen"] = before["first_seen"]
        row["owner"] = before["owner"] if "owner" in said else row["owner"] or before["owner"]
        row["due"] = _due(row, before, is_said="due" in said)
    return Entry(row, before, note)


def _status(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, *, today: str
) -> tuple[str, str, str]:
    """Return status, reason, and why a decision was undone, if one was."""
    if row["state"] in CLOSING:
        reason = row["reason"] or row["state"].replace("_", " ")
        return "closed", reason, reason
    if before is None or before["status"] == "open":
        return "open", row["reason"], ""
    if before["status"] == "closed" and before["state"] in CLOSING:
        why = f"no longer {before['state'].replace('_', ' ')}"
    elif before["reason"] == NOT_SEEN:
        why = "seen again"
    elif before["status"] == "accepted" and "" < before["due"] < today:
        why = f"acceptance ended on {before['due']}"
    elif LEVELS[row["level"]] > LEVELS[before["level"]]:
        why = f"level rose from {before['level']} to {row['level']}"
    else:
        return before["status"], before["reason"], ""
    return "open", row["reason"], why


def _due(row: Mapping[str, Any], before: Mapping[str, Any], *, is_said: bool) -> str:
    is_same = all(row[name] == before[name] for name in ("status", "level", "decision"))
    if row["status"] == "accepted" or (is_said and is_same):
        return str(before["due"])
    return min(filter(None, (row["due"], before["due"])), default="")


def decided(changes: Mapping[str, str], *, note: str) -> dict[str, str]:
    """Return the columns that a decision sets; raises as ``store.risks.decide``."""
    refuse_unknown(changes, known=_DECIDABLE, where="decision")
    values = {name: fit(name, value) for name, value in changes.items()}
    if values.get("due"):
        _check_day(values["due"])
    if changes.get("owner", "") != values.get("owner", ""):
        raise ConfigError(f"owner {values['owner'][:20]!r}…: over {COLUMNS['owner']} characters")
    if "status" not in values:
        return values
    status = values["status"]
    if status not in RISK_STATUSES:
        raise ConfigError(f"status {status!r}; {suggest(status, RISK_STATUSES)}")
    if status == "open":
        return {**values, "reason": ""}
    if not note:
        raise ConfigError(f"status {status!r} needs a note; say why")
    return (
        {"due": "", **values, "reason": note}
        if status == "accepted"
        else {**values, "reason": note}
    )


def _check_day(due: str) -> None:
    try:
        is_day = date.fromisoformat(due).isoformat() == due
    except ValueError:
        is_day = False
    if not is_day:
        raise ConfigError(f"due {due!r}: not a day; write YYYY-MM-DD")


def is_later(due: str | None, before: Mapping[str, Any]) -> bool:
    """Return whether a due date is after the one that was; none is after all."""
    return due is not None and bool(before["due"]) and (not due or due > before["due"])
