"""The triage board: what got through, the worst first, decided on by keyboard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import ipywidgets

from workbench.core.errors import DataError
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel, check_choice
from workbench.notebook.widgets.table import PagedTable, Rows
from workbench.report.tables import cell, counted, number, percent, short, words
from workbench.store.database import Store
from workbench.store.findings import findings, resolve_finding, triage_log
from workbench.store.records import FINDING_STATES, Finding

__all__ = ["Triage", "triage"]

_WIDTHS = {
    "risk": 0.7, "severity": 1.0, "plugin": 1.2, "strategy": 1.0, "target": 1.1, "guess": 1.7,
    "alike": 0.7, "status": 1.4, "summary": 1.8,
}  # fmt: skip
_COLUMNS = tuple(_WIDTHS)
_SAID = {"c": "confirmed", "f": "false_positive", "x": "fixed"}
_ACTIONS = {
    "c": "Confirm", "f": "False positive", "x": "Fixed", "n": "Note", "u": "Undo",
    "w": "Whole cluster",
}  # fmt: skip
_NEW = "needs_review"
_MOST_MINUTES = 10.0
"""Of one decision: whoever looks longer went for coffee."""


class Triage(Panel):
    """Findings of the user's test sets, one of each cluster, and what people say of them.

    Args:
        store: What to read.
        execution: Only those of this one; its id, or the beginning of it.
        status: Only those in this state; empty for all.
        clock: Seconds that only rise; tells how long a decision took.

    Raises:
        ConfigError: If there is no such state.
    """

    title = "Triage"
    only_static = ("list",)

    def __init__(
        self, store: Store | None = None, *, execution: str = "", status: str = _NEW,
        clock: Any = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(store)
        self._status = check_choice("status", status, ("", *FINDING_STATES))
        self._execution = execution
        self._clock, self._since = clock, clock()
        self._undo: list[tuple[dict[str, str], str]] = []
        """Of each decision here: what findings were before, and are since."""
        self._known: dict[str, Finding] = {}
        """What the table shows, as it was read last; a decision reads what it changed."""
        self._rows: list[dict[str, Any]] = []

    def snapshot(self) -> dict[str, Any]:
        """Return how far the review is, and the list; texts of a finding come when it is opened."""
        found = findings(self.store.engine, user=self.store.settings.user)
        self._known = _known(found)
        known = {one.execution for one in found}
        if self._execution and not any(one.startswith(self._execution) for one in known):
            listed = ", ".join(map(short, sorted(known))) or "none"
            wanted = self._execution[:80]
            raise DataError(f"no finding is of execution {wanted!r}; those with some: {listed}")
        return self._board()

    def _board(self) -> dict[str, Any]:
        from workbench.campaign.prefill import prefill_quality

        found = [one for one in self._known.values() if one.execution.startswith(self._execution)]
        listed = self._listed(found)
        states = Counter(one.status for one in found)
        right = prefill_quality(found)
        precision = "–" if right["precision"] is None else percent(right["precision"])
        minutes = sum(one.minutes for one in found)
        left = len({_cluster(one) for one in found if one.status == _NEW})
        facts = [
            ("to review", number(states[_NEW]), f"in {counted(left, 'cluster')}"),
            *((words(one), number(states[one]), "by people") for one in FINDING_STATES[1:]),
            ("minutes", f"{minutes:,.0f}", "spent on all of them"),
            ("guesses right", precision, f"of those said to be real, {right['n']} decided"),
        ]
        done = len(found) - states[_NEW]
        heads = [name.capitalize() for name in _COLUMNS]
        rows = [[cell(one[name]) for name in _COLUMNS] for one in listed]
        return {
            "blocks": {
                "facts": look.facts(facts),
                "progress": look.progress("Reviewed", done=done, total=len(found)),
                "list": look.table("Findings, the worst first", heads, rows),
            },
            "rows": listed,
        }

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of what to review, and the table with its keys."""
        states = [("all", ""), *((words(one), one) for one in FINDING_STATES)]
        state = ipywidgets.Dropdown(options=states, value=self._status, description="Show")
        self._rows = self.snapshot()["rows"]
        known = sorted({one.execution for one in self._known.values()})
        options = [("all executions", ""), *((short(one), one) for one in known)]
        wanted = next((one for one in known if one.startswith(self._execution or "-")), "")
        execution = ipywidgets.Dropdown(options=options, value=wanted, description="Execution")
        state.observe(lambda change: self._choose(status=change["new"]), names="value")
        execution.observe(lambda change: self._choose(execution=change["new"]), names="value")
        again = self.button("Read again", lambda: None)
        return [ipywidgets.HBox([state, execution, again, self.whole_cluster]), self.table]

    def draw(self, read: dict[str, Any]) -> dict[str, Any]:
        """Show what changed of a snapshot, and return it; the table follows the list."""
        rows = read.get("rows", self._rows)
        if rows != self._rows:
            self._rows = rows
            self.table.replace(Rows(rows, columns=_COLUMNS))
        return super().draw(read)

    @cached_property
    def whole_cluster(self) -> ipywidgets.Checkbox:
        """Whether a decision is about all findings alike."""
        return ipywidgets.Checkbox(description="Decide on whole clusters (w)", indent=False)

    @cached_property
    def table(self) -> PagedTable:
        """The findings to walk through; keys say what they are."""
        return PagedTable(
            Rows(self._rows, columns=_COLUMNS), label="Findings, the worst first", widths=_WIDTHS,
            key="id", height=8, opened=self.open, actions=_ACTIONS, note_key="n",
            pressed=self.press,
        )  # fmt: skip

    def open(self, finding: str) -> None:
        """Show below what was sent, what came back, and what people said."""
        from workbench.campaign.triage import history

        one = self._one(finding)
        alike = sum(_cluster(other) == _cluster(one) for other in self._known.values())
        guess = f"{words(one.suggested_status)}, {percent(one.confidence)} sure"
        heading = f"{one.plugin} · {one.strategy} · {one.target} · {one.severity} · {guess}"
        parts = [
            ("sent", one.sent), ("came back", one.received), ("label", one.suggested_label),
            ("summary", one.summary or "–"),
            ("state", f"{words(one.status)}; {counted(alike, 'finding')} in its cluster"),
            ("owner", one.owner or "–"),
        ]  # fmt: skip
        log = [
            (row["at"][:16].replace("T", " "), row["who"], _changes(row["changed"]),
             row["note"] or "–", number(row["minutes"]))
            for row in reversed(history(self.store, one.id))
        ]  # fmt: skip
        heads = ("When", "Who", "Changed", "Note", "Minutes")
        self.reply({
            "finding": look.passages([(heading, parts)]),
            "history": look.table("What people said", heads, log),
        })  # fmt: skip

    def press(self, key: str, finding: str, note: str = "") -> None:
        """Do what a key says to a finding.

        ``c f x`` say what it is, ``n`` notes, ``u`` and ``w`` are about no single one. Personal
        data and secrets are taken out of the note.
        """
        if key == "u":
            self.undo()
        elif key == "w":
            self.whole_cluster.value = not self.whole_cluster.value
        elif not finding:
            raise DataError("there is no finding to decide on; show others")
        else:
            self.decide(finding, status=_SAID.get(key, ""), note=note)

    def decide(self, finding: str, *, status: str = "", note: str = "") -> None:
        """Say what a finding is, or all of its cluster where that is chosen; counts the minutes."""
        from workbench.campaign.triage import decide

        now = self._clock()
        minutes = round(min((now - self._since) / 60, _MOST_MINUTES), 2)
        done = decide(
            self.store, [finding], status=status, note=note, minutes=minutes if status else 0.0,
            whole_cluster=self.whole_cluster.value,
        )  # fmt: skip
        if status:
            self._since = now
            log = triage_log(self.store.engine, [one.id for one in done])
            changed = {row["finding"]: row["changed"] for row in log}  # the last thing said of each
            before = {one: says.get("status", [status])[0] for one, says in changed.items()}
            self._undo.append((before, status))
        what = f"{counted(len(done), 'finding')}: {words(status) or 'noted'}"
        self.tell(f"{what}, {minutes:g} min; u takes it back" if status else what)
        self._show_again(done, finding)

    def undo(self) -> None:
        """Say again what findings were before the last decision here; the log keeps both.

        Raises:
            DataError: If nothing was decided here, or somebody said something else since.
        """
        from workbench.campaign.triage import decide

        if not self._undo:
            raise DataError("nothing was decided here that could be undone")
        before, after = self._undo.pop()
        now = findings(self.store.engine, ids=list(before), user=self.store.settings.user)
        if others := [one for one in now if one.status != after]:
            raise DataError(
                f"finding {short(others[0].id)} is {words(others[0].status)} by now: somebody"
                " decided again; decide on it yourself"
            )
        done: list[Finding] = []
        for status in sorted(set(before.values())):
            ids = [one for one, was in before.items() if was == status]
            done += decide(self.store, ids, status=status, note="undone")
        self.tell(f"{counted(len(before), 'finding')} as before")
        self._show_again(done)

    def _show_again(self, done: Sequence[Finding], decided: str = "-") -> None:
        """Show what changed; where the decided one is still in the list, go on to the next."""
        self._known |= _known(done)
        read = self._board()
        self._rows = read["rows"]
        is_there = any(row["id"].startswith(decided) for row in self._rows)
        self.table.replace(Rows(self._rows, columns=_COLUMNS), step=int(is_there))
        self.draw(read)

    def _choose(self, *, status: str | None = None, execution: str | None = None) -> None:
        self._status = self._status if status is None else status
        self._execution = self._execution if execution is None else execution
        self._since = self._clock()
        self.reply({})
        self.do(lambda: None)

    def _listed(self, found: Sequence[Finding]) -> list[dict[str, Any]]:
        """Return the first, which is the riskiest, of each cluster, as rows."""
        shown = [one for one in found if self._status in ("", one.status)]
        alike, first = Counter(map(_cluster, shown)), dict[str, Finding]()
        for one in shown:
            first.setdefault(_cluster(one), one)
        return [_row(one, alike=alike[name]) for name, one in first.items()]

    def _one(self, beginning: str) -> Finding:
        engine, user = self.store.engine, self.store.settings.user
        found = resolve_finding(engine, beginning, user=user)
        return findings(engine, ids=[found])[0]


def triage(store: Store | None = None, *, execution: str = "", status: str = _NEW) -> Triage:
    """Return the triage board."""
    return Triage(store, execution=execution, status=status)


def _cluster(one: Finding) -> str:
    return one.cluster or one.id


def _known(found: Sequence[Finding]) -> dict[str, Finding]:
    """Return findings by id, without the texts that only an opened one shows."""
    return {one.id: replace(one, sent="", received="") for one in found}


def _row(one: Finding, *, alike: int) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in _COLUMNS if hasattr(one, name)}
    guess = f"{words(one.suggested_status)} {one.confidence:.0%}"
    return {**row, "id": one.id, "status": words(one.status), "guess": guess, "alike": alike}


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    told = (f"{name} {cell(words(a))} → {cell(words(b))}" for name, (a, b) in changed.items())
    return ", ".join(told) or "–"
