"""The risk register: what is open, why, and what people decide about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import ipywidgets

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel, check_choice
from workbench.notebook.widgets.table import PagedTable
from workbench.report.tables import Cell, cell, counted, dollars, number, percent, short, words
from workbench.store.database import Store
from workbench.store.risk_search import RiskChoice, risk_count, risk_page
from workbench.store.risks import RISK_STATUSES, counts, decide, resolve_risk, risk_log, risks

__all__ = ["Register", "RiskRows", "register"]

_LABELS = {
    "level": "Level", "score": "Score", "subject": "Risk", "asset": "Asset",
    "due": "Due", "decision": "Decision", "owner": "Owner",
    "status": "Status", "p_exploit": "Exploited within 30 days", "annual_loss_usd": "Loss a year",
}  # fmt: skip
_LEVELS = ("critical", "high", "medium", "low")
_OPTIONS = {"status": RISK_STATUSES, "level": _LEVELS, "kind": ("cve", "model")}
_CHOSEN = (*_OPTIONS, "asset", "subject", "owner")
_WIDTHS = {
    "level": 0.8, "score": 0.75, "subject": 1.9, "asset": 0.9, "due": 1.25, "owner": 0.85,
    "annual_loss_usd": 1.25,
}  # fmt: skip
_LISTED, _NOBODY = 300, "-"
_TEXTS = ("title", "component", "explanation", "reasons", "reason", "missing", "stale", "source")
"""Of a risk that is shown whole: these stand as texts, the others in a table."""


class RiskRows:
    """Those risks of the register that a choice is about, as rows of a table."""

    columns: Sequence[str] = tuple(_LABELS)

    def __init__(self, store: Store, choice: RiskChoice) -> None:
        self._engine, self._choice = store.engine, choice

    def count(self, filter: str) -> int:  # noqa: A002 - the word of the interface
        """Return how many pass the filter."""
        return risk_count(self._engine, replace(self._choice, words=filter))

    def page(
        self, offset: int, size: int, sort: str, descending: bool, filter: str,  # noqa: A002
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """Return some of them, worst first where no column sorts."""
        return list(
            risk_page(
                self._engine, replace(self._choice, words=filter), sort=sort or "score",
                descending=descending or not sort, limit=size, offset=offset,
            )
        )  # fmt: skip


class Register(Panel):
    """The risks of all assessments, with reasons, decisions and their history.

    Args:
        store: What to read.
        overdue: Only those past their due date, or past the end of their acceptance.
        **choice: ``status``, ``level``, ``kind``, ``asset``, ``subject`` or ``owner``, as of
            :class:`~workbench.store.risk_search.RiskChoice`; where nothing is said, the open ones.

    Raises:
        ConfigError: If a choice is unknown.
    """

    title = "Risk register"
    only_static = ("list",)

    def __init__(self, store: Store | None = None, *, overdue: bool = False, **choice: str) -> None:
        super().__init__(store)
        wanted = ({} if overdue else {"status": "open"}) | choice
        refuse_unknown(wanted, known=_CHOSEN, where="register")
        for name, allowed in _OPTIONS.items():
            check_choice(name, wanted.get(name, ""), ("", *allowed))
        self._wanted = RiskChoice(**wanted)  # type: ignore[arg-type]  # texts all
        self._overdue, self._opened = overdue, ""

    def snapshot(self) -> dict[str, Any]:
        """Return how many risks there are of what level, and the worst of those chosen."""
        engine, today = self.store.engine, _today()
        known, choice = counts(engine, today), self._choice()
        facts = [
            ("open", number(known["open"]), f"on {counted(known['assets'], 'asset')}"),
            *((level, number(known["by_level"].get(level, 0)), "open") for level in _LEVELS),
            ("overdue", number(known["overdue"]), f"{known['due_7_days']:,} due in 7 days"),
            ("accepted", number(known["accepted"]), f"{known['closed']:,} closed"),
        ]
        rows = risk_page(engine, choice, limit=_LISTED)
        left = risk_count(engine, choice) - len(rows)
        body = [[_told(name, row[name]) for name in _LABELS] for row in rows]
        note = f"{left:,} more; workbench risk list shows them." if left else ""
        heads = tuple(_LABELS.values())
        return {
            "blocks": {
                "facts": look.facts(facts),
                "list": look.table("Risks, the worst first", heads, body, note=note),
            }
        }

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the filters, the table, and what can be decided."""
        chosen = [
            ipywidgets.Dropdown(
                options=[("any", ""), *((one, one) for one in values)],
                value=getattr(self._wanted, name), description=name.capitalize(),
            )
            for name, values in _OPTIONS.items()
        ]  # fmt: skip
        asset = ipywidgets.Text(self._wanted.asset, description="Asset", continuous_update=False)
        late = ipywidgets.Checkbox(self._overdue, description="Overdue", indent=False)
        for name, widget in zip((*_OPTIONS, "asset", ""), (*chosen, asset, late), strict=True):
            widget.observe(lambda change, at=name: self._choose(at, change["new"]), names="value")
        buttons = [
            self.button("Accept", lambda: self.decide(status="accepted")),
            self.button("Close", lambda: self.decide(status="closed")),
            self.button("Open again", lambda: self.decide(status="open")),
            self.button("Set owner and due", self.decide, style="primary"),
            self.button("What changed", self.changes),
        ]
        return [
            ipywidgets.HBox([*chosen, asset, late]),
            self.table,
            ipywidgets.HBox([*self.fields.values()]),
            ipywidgets.HBox(buttons),
        ]

    @cached_property
    def table(self) -> PagedTable:
        """The risks chosen; Enter shows one, space chooses those to decide on."""
        return PagedTable(
            self._source(), label="Risks", labels=_LABELS, widths=_WIDTHS, key="id",
            opened=self.open, height=12,
        )  # fmt: skip

    @cached_property
    def fields(self) -> dict[str, ipywidgets.Text]:
        """Owner, due and note; what is empty stays. To accept, close or put off takes a note."""
        hints = {"owner": f"as it is; {_NOBODY} for nobody", "note": "why",
                 "due": f"YYYY-MM-DD; {_NOBODY} for none"}  # fmt: skip
        return {
            name: ipywidgets.Text(description=name.capitalize(), placeholder=hint)
            for name, hint in hints.items()
        }

    def open(self, risk: str) -> None:
        """Show below all that is known of a risk, and what happened to it."""
        from workbench.risk.register import row_of

        engine = self.store.engine
        known = risks(engine, ids=[resolve_risk(engine, risk)])[0]
        self._opened = known["id"]
        row = row_of(self.store, known["id"], assessment=known["assessment"]) | known
        filled = {name: value for name, value in row.items() if value not in (None, "", [])}
        parts = [(words(name), _lines(filled[name])) for name in _TEXTS if name in filled]
        rows = [(words(name), _told(name, value)) for name, value in filled.items()
                if name not in _TEXTS]  # fmt: skip
        log = [
            (one["at"][:16].replace("T", " "), one["who"], _changes(one["changed"]),
             one["note"] or "–")
            for one in reversed(risk_log(engine, [known["id"]]))
        ]  # fmt: skip
        self.reply({
            "risk": look.passages([(f"{known['subject']} on {known['asset']}", parts)]),
            "evidence": look.table("What is known", ("Field", "Value"), rows),
            "history": look.table("History", ("When", "Who", "Changed", "Note"), log),
        })  # fmt: skip

    def decide(self, *, status: str = "") -> None:
        """Say what fields and status say of the chosen risks, else of the one that is shown."""
        from workbench.core.redact import redact

        chosen = list(self.table.selected) or [self._opened] * bool(self._opened)
        given = {name: self.fields[name].value.strip() for name in ("owner", "due")}
        changes = {k: "" if value == _NOBODY else value for k, value in given.items() if value}
        changes |= {"status": status} if status else {}
        if not chosen:
            raise DataError("no risk is chosen; choose some with space, or open one with Enter")
        if not changes:
            raise ConfigError("nothing to say; fill in owner or due, or press another button")
        who, note = self.store.settings.user, redact(self.fields["note"].value)
        decide(self.store.engine, chosen, changes, who=who, note=note)
        told = ", ".join(f"{name} {value}" for name, value in changes.items())
        self.tell(f"{counted(len(chosen), 'risk')}: {told}")
        for field in self.fields.values():
            field.value = ""
        self.table.replace(self._source())
        if self._opened in chosen:
            self.open(self._opened)

    def changes(self) -> None:
        """Show below what changed from the assessment before to the newest."""
        from workbench.risk.diff import diff
        from workbench.risk.register import load_assessment

        listed = [one["id"] for one in self.store.artifacts.rows("assessment")][:2]
        if len(listed) < 2:  # noqa: PLR2004 - before and after
            raise DataError("fewer than two assessments; make another with workbench risk assess")
        after, before = (load_assessment(self.store, one) for one in listed)
        found = diff(before.table, after.table)
        facts = [(name, number(count), "risks") for name, count in found.counts.items()]
        rows = [(one["change"], one["subject"], one["asset"], one["before"] or "–",
                 one["after"] or "–") for one in found.rows]  # fmt: skip
        heads = ("Change", "Risk", "Asset", "Before", "After")
        self.reply({
            "what": look.text(f"From assessment {short(before.id)} to {short(after.id)}"),
            "counts": look.facts(facts),
            "changes": look.table("The most important changes", heads, rows),
        })  # fmt: skip

    def _choose(self, name: str, value: Any) -> None:
        if name:
            self._wanted = replace(self._wanted, **{name: value.strip()})
        else:
            self._overdue = bool(value)
        self.do(lambda: self.table.replace(self._source()))

    def _choice(self) -> RiskChoice:
        return replace(self._wanted, overdue_on=_today() if self._overdue else None)

    def _source(self) -> RiskRows:
        return RiskRows(self.store, self._choice())


def register(store: Store | None = None, *, overdue: bool = False, **choice: str) -> Register:
    """Return the risk register, e.g. of ``level="critical"``, ``asset="shop"``."""
    return Register(store, overdue=overdue, **choice)


def _today() -> date:
    return datetime.now(UTC).date()


def _told(name: str, value: Any) -> Cell:
    if name == "annual_loss_usd":
        return dollars(value)
    if name == "p_exploit":
        return percent(value)
    return _lines(value) if isinstance(value, list) else cell(value)


def _lines(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    told = (f"{words(name)} {cell(a)} → {cell(b)}" for name, (a, b) in changed.items())
    return ", ".join(told) or "–"
