"""The campaign monitor: an execution as it runs, by target, with what was said last."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.core.errors import DataError
from workbench.core.money import show_usd
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel
from workbench.notebook.widgets.table import Arrow, PagedTable, Rows
from workbench.report.tables import number, short
from workbench.store.database import Store
from workbench.store.events import events
from workbench.store.live import newest_events, watched_execution
from workbench.store.turns import latest_turns, spent_by, turn, turn_count, turn_page

__all__ = ["Monitor", "Turns", "monitor"]

_COLUMNS = ("target", "case_id", "trial", "decision", "success", "error", "sent", "received")
_LABELS = {"case_id": "Case", "success": "Flagged"}
_WIDTHS = {"target": 1.5, "trial": 0.7, "decision": 1.1, "error": 0.8, "sent": 1.8, "received": 1.8}
_LATEST = 5
_WHOLE = 64
"""Digits of an id."""
_LISTED = 200
_SOON_S = 0.5
"""After which whoever aborted sees that it stopped."""


class Turns:
    """Attempts of an execution that still runs, as rows of a table."""

    columns: Sequence[str] = _COLUMNS

    def __init__(self, store: Store, execution: str) -> None:
        self._engine, self._execution = store.engine, execution

    def count(self, filter: str) -> int:  # noqa: A002
        """Return how many attempts pass the filter."""
        return turn_count(self._engine, self._execution, words=filter)

    def page(
        self, offset: int, size: int, sort: str, descending: bool, filter: str,  # noqa: A002
    ) -> list[Mapping[str, Any]]:  # fmt: skip
        """Return some of them, their texts cut short."""
        return list(
            turn_page(
                self._engine, self._execution, offset=offset, limit=size, sort=sort,
                descending=descending, words=filter,
            )
        )  # fmt: skip


class Monitor(Panel):
    """Attempts, spend, success by target and the latest turns of an execution.

    Args:
        store: What to read.
        execution: Its id, or the beginning of it; the newest that the user started if empty.
    """

    title = "Campaign monitor"

    def __init__(self, store: Store | None = None, *, execution: str = "") -> None:
        super().__init__(store)
        self._wanted = execution
        self._stood: tuple[Any, ...] = ()

    def snapshot(self) -> dict[str, Any]:
        """Return where the execution stands; no text of an attempt is in it."""
        execution = self._execution()
        owner, engine = self.store.settings.user, self.store.engine
        found = watched_execution(engine, execution, owner=owner) if execution else None
        if found is None:
            words = "No execution was started here. The test sets panel starts one, or workbench"
            none = look.text(f"{words} campaign execute.")
            return {"blocks": {"none": none}, "stands": (), "source": Rows([], columns=_COLUMNS)}
        path = self._path(execution)
        state = "finished" if path and not found["targets"] else found["state"]
        told, targets = found["figures"], found["targets"]
        done = sum(made for made, _, _ in targets.values()) or int(told.get("done", 0))
        errors = sum(failed for _, _, failed in targets.values()) or int(told.get("errors", 0))
        spent = told.get("usd") if state == "finished" else None
        usd = Decimal(spent) if spent is not None else spent_by(engine, found["job"])
        facts = [
            ("state", state, f"execution {short(execution)}"),
            ("attempts", number(done), f"of {number(found['total'])}"),
            ("errors", number(errors), "count neither way"),
            ("spent", show_usd(usd), "models and targets"),
        ]
        blocks = {
            "facts": look.facts(facts),
            "progress": look.progress("Attempts", done=done, total=int(found["total"])),
            "rates": self._rates(targets, path),
        }
        if latest := latest_turns(engine, execution, limit=_LATEST):
            blocks["latest"] = _latest(latest)
        source = Arrow(path, columns=_COLUMNS) if path else Turns(self.store, execution)
        return {"blocks": blocks, "stands": (execution, state, path), "source": source}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of an execution, abort, and the table of attempts."""
        mine = [
            one.subject
            for one in events(self.store.engine, kind="attack_run_started", limit=_LISTED)
            if one.who == self.store.settings.user
        ]
        known = list(dict.fromkeys(reversed(mine)))
        choices = [("the newest", ""), *((short(one), one) for one in known)]
        wanted = self._wanted if self._wanted in known else ""
        choice = ipywidgets.Dropdown(options=choices, value=wanted, description="Execution")
        choice.observe(lambda change: self._choose(change["new"]), names="value")
        abort = self.button("Abort", self.abort, style="danger")
        abort.tooltip = "What is stored is kept; the same command goes on later"
        fresh = self.button("Read attempts again", self.refresh)
        return [ipywidgets.HBox([choice, abort, fresh]), self.attempts]

    def draw(self, read: dict[str, Any]) -> dict[str, Any]:
        """Show what changed of a snapshot, and return it; when an execution ends, its attempts."""
        before, self._stood = self._stood, read.get("stands", self._stood)
        if before != self._stood:
            self.attempts.replace(read["source"])
        return super().draw(read)

    @cached_property
    def attempts(self) -> PagedTable:
        """The attempts; Enter shows the whole of one."""
        return PagedTable(
            self.snapshot()["source"], label="Attempts", labels=_LABELS, widths=_WIDTHS,
            key=_key_of, opened=self.open, height=10,
        )  # fmt: skip

    def refresh(self) -> None:
        """Read the attempts again: others came."""
        self.attempts.replace(self.snapshot()["source"])

    def abort(self) -> None:
        """Ask whoever runs the execution to stop, and follow what becomes of it."""
        from workbench.campaign.execute import abort

        execution, state, _ = self.snapshot()["stands"] or ("", "", None)
        if state != "running":
            raise DataError("nothing runs that could be aborted")
        abort(self.store, execution)
        self.tell(f"execution {short(execution)} was asked to stop")
        if self._thread is None:
            self.follow(_SOON_S)

    def open(self, key: str) -> None:
        """Show the whole of an attempt below."""
        target, case_id, trial = json.loads(key)
        execution = self._execution()
        if path := self._path(execution):
            rows = Arrow(path, columns=(*_COLUMNS, "goal", "plugin", "strategy"))
            same = rows.page(0, _LISTED, "", False, case_id)
            row = next((one for one in same if _key_of(one) == key), None)
            if row is None:
                raise DataError(f"no attempt at case {short(case_id)}; read the list again")
        else:
            row = turn(self.store.engine, execution, target=target, case_id=case_id, trial=trial)
        names = ("goal", "plugin", "strategy", "sent", "received", "decision", "error")
        parts = [(name, str(row[name])) for name in names if row.get(name)]
        heading = f"{target} · case {short(case_id)} · try {trial + 1}"
        self.reply({"turn": look.passages([(heading, parts)])})

    def _choose(self, execution: str) -> None:
        self._wanted = execution
        self.do(lambda: None)

    def _execution(self) -> str:
        """Return the id of what is shown, empty for none; only of what the user started."""
        engine, owner = self.store.engine, self.store.settings.user
        if len(self._wanted) == _WHOLE:
            mine = watched_execution(engine, self._wanted, owner=owner)
            return self._wanted if mine else ""
        if not self._wanted:
            newest = newest_events(engine, owner=owner).get("attack_run_started")
            return str(newest[1]) if newest else ""
        started = events(engine, kind="attack_run_started", limit=_LISTED)
        ids = {one.subject for one in started if one.who == owner}
        found = [one for one in sorted(ids) if one.startswith(self._wanted)]
        if len(found) != 1:
            raise DataError(
                f"{len(found)} executions of yours begin with {self._wanted[:80]!r}; give more"
            )
        return found[0]

    def _path(self, execution: str) -> Path | None:
        """Return the file of the attempts, once the execution is an artifact."""
        artifacts = self.store.artifacts
        if not artifacts.exists("execution", execution):
            return None
        return artifacts.path("execution", execution) / "attempts.parquet"

    def _rates(self, targets: Mapping[str, Sequence[int]], path: Path | None) -> look.Block:
        if targets or path is None:
            from workbench.judge.measure import wilson

            flagged = [
                (name, wilson(hits, n), f"of {n:,}")
                for name, (made, hits, failed) in targets.items()
                if (n := made - failed)
            ]
            return look.bars("Flagged by target: attacks through, controls lost", flagged)
        return look.bars("Attack success by target, with 95 % intervals", _finished_rates(path))


@lru_cache(maxsize=8)
def _finished_rates(path: Path) -> tuple[tuple[str, Mapping[str, Any], str], ...]:
    """Return target, rate and attempts; the file of an execution never changes."""
    from workbench.campaign.rates import rates_by

    return tuple((row["target"], row["rate"], f"of {row['attempts']:,}") for row in rates_by(path))


def _latest(rows: list[dict[str, Any]]) -> look.Block:
    heads = ("Target", "Case", "Decision", "Outcome")
    body = [
        (
            row["target"],
            short(row["case_id"]),
            row["decision"],
            "error" if row["error"] else "flagged" if row["success"] else "held",
        )
        for row in rows
    ]
    return look.table("Latest turns", heads, body)


def _key_of(row: Mapping[str, Any]) -> str:
    return json.dumps([row["target"], row["case_id"], row["trial"]])


def monitor(store: Store | None = None, *, execution: str = "") -> Monitor:
    """Return the campaign monitor; ``monitor().follow()`` keeps it up to date."""
    return Monitor(store, execution=execution)
