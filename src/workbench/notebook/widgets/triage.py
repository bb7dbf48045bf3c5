"""The triage board: what got through, the worst first, decided on by keyboard."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import ipywidgets

from workbench.core.errors import DataError
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel
from workbench.notebook.widgets.table import PagedTable, Rows
from workbench.report.tables import cell, counted, number, percent, short, words
from workbench.store.database import Store
from workbench.store.findings import findings, resolve_finding
from workbench.store.records import FINDING_STATES, Finding

__all__ = ["Triage", "triage"]

_LABELS = {
    name: name.capitalize()
    for name in ("risk", "severity", "plugin", "strategy", "target", "guess", "alike", "status",
                 "owner", "minutes", "summary")
}  # fmt: skip
_COLUMNS = tuple(_LABELS)
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
    """

    title = "Triage"
    only_static = ("list",)

    def __init__(
        self, store: Store | None = None, *, execution: str = "", status: str = _NEW,
        clock: Any = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__(store)
        self._execution, self._status = execution, status
        self._clock, self._since = clock, clock()
        self._undo: list[tuple[dict[str, str], str]] = []
        """Of each decision here: what findings were before, and are since."""

    def snapshot(self) -> dict[str, Any]:
        """Return how far the review is, and the list; texts of a finding come when it is opened."""
        from workbench.campaign.prefill import prefill_quality

        found = self._found()
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
        rows = [[cell(one[name]) for name in _COLUMNS] for one in listed]
        return {
            "blocks": {
                "facts": look.facts(facts),
                "progress": look.progress("Reviewed", done=done, total=len(found)),
                "list": look.table("Findings, the worst first", tuple(_LABELS.values()), rows),
            }
        }

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of what to review, and the table with its keys."""
        states = [("all", ""), *((words(one), one) for one in FINDING_STATES)]
        state = ipywidgets.Dropdown(options=states, value=self._status, description="Show")
        own = findings(self.store.engine, user=self.store.settings.user)
        known = sorted({one.execution for one in own})
        options = [("all executions", ""), *((short(one), one) for one in known)]
        wanted = next((one for one in known if one.startswith(self._execution or "-")), "")
        execution = ipywidgets.Dropdown(options=options, value=wanted, description="Execution")
        state.observe(lambda change: self._choose(status=change["new"]), names="value")
        execution.observe(lambda change: self._choose(execution=change["new"]), names="value")
        return [ipywidgets.HBox([state, execution, self.whole_cluster]), self.table]

    @cached_property
    def whole_cluster(self) -> ipywidgets.Checkbox:
        """Whether a decision is about all findings alike."""
        return ipywidgets.Checkbox(description="Decide on whole clusters (w)", indent=False)

    @cached_property
    def table(self) -> PagedTable:
        """The findings to walk through; keys say what they are."""
        return PagedTable(
            self._source(), label="Findings, the worst first", labels=_LABELS, key="id", height=8,
            opened=self.open, actions=_ACTIONS, note_key="n", pressed=self.press,
        )  # fmt: skip

    def open(self, finding: str) -> None:
        """Show below what was sent, what came back, and what people said."""
        from workbench.campaign.triage import history

        one = self._one(finding)
        alike = [f for f in self._found() if _cluster(f) == _cluster(one)]
        guess = f"{words(one.suggested_status)}, {percent(one.confidence)} sure"
        heading = f"{one.plugin} · {one.strategy} · {one.target} · {one.severity} · {guess}"
        parts = [
            ("sent", one.sent), ("came back", one.received), ("label", one.suggested_label),
            ("summary", one.summary or "–"),
            ("state", f"{words(one.status)}; {counted(len(alike), 'finding')} in its cluster"),
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

        one = self._one(finding)
        before = {f.id: f.status for f in findings(self.store.engine, one.execution)}
        now = self._clock()
        minutes = round(min((now - self._since) / 60, _MOST_MINUTES), 2)
        done = decide(
            self.store, [one.id], status=status, note=note, minutes=minutes if status else 0.0,
            whole_cluster=self.whole_cluster.value,
        )  # fmt: skip
        if status:
            self._since = now
            self._undo.append(({other.id: before[other.id] for other in done}, status))
        what = f"{counted(len(done), 'finding')}: {words(status) or 'noted'}"
        self.tell(f"{what}, {minutes:g} min; u takes it back" if status else what)
        self._show_again(one.id)

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
        for status in sorted(set(before.values())):
            ids = [one for one, was in before.items() if was == status]
            decide(self.store, ids, status=status, note="undone")
        self.tell(f"{counted(len(before), 'finding')} as before")
        self._show_again("")

    def _show_again(self, decided: str) -> None:
        """Read the list again; where the decided one is still in it, go on to the next."""
        rows = self._listed(self._found())
        is_there = any(row["id"] == decided for row in rows)
        self.table.replace(Rows(rows, columns=_COLUMNS), step=int(is_there))
        self.update()

    def _choose(self, *, status: str | None = None, execution: str | None = None) -> None:
        self._status = self._status if status is None else status
        self._execution = self._execution if execution is None else execution
        self._since = self._clock()
        self.reply({})
        self.do(lambda: self.table.replace(self._source()))

    def _found(self) -> list[Finding]:
        all_ = findings(self.store.engine, user=self.store.settings.user)
        return [one for one in all_ if one.execution.startswith(self._execution)]

    def _source(self) -> Rows:
        return Rows(self._listed(self._found()), columns=_COLUMNS)

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


def _row(one: Finding, *, alike: int) -> dict[str, Any]:
    row = {name: getattr(one, name) for name in _COLUMNS if hasattr(one, name)}
    guess = f"{words(one.suggested_status)} {one.confidence:.0%}"
    return {**row, "id": one.id, "status": words(one.status), "guess": guess, "alike": alike}


def _changes(changed: Mapping[str, Sequence[Any]]) -> str:
    told = (f"{name} {cell(words(a))} → {cell(words(b))}" for name, (a, b) in changed.items())
    return ", ".join(told) or "–"
