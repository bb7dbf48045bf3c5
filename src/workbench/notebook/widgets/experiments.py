"""Experiments: what would run, what runs, how far it is; start, cancel, resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.core.errors import ConfigError, WorkbenchError
from workbench.core.settings import project_root
from workbench.notebook.experiment import Experiment, load_experiment
from workbench.notebook.widgets import children, look
from workbench.notebook.widgets.panel import Panel
from workbench.report.tables import duration
from workbench.store.database import Store
from workbench.store.records import Run

__all__ = ["Experiments", "experiments"]

_REHEARSAL = "-rehearsal"
_LISTED = 20
_ORDER = ("failed", "lost", "running", "due", "waiting", "succeeded")
"""Which state of its members a step is shown in: the first that occurs."""


class Experiments(Panel):
    """An experiment as a graph of steps with the state of every member.

    Args:
        store: What to read.
        file: The experiment file; the one that ``name`` last ran from if not given.
        name: What ran; the newest if neither is given.
    """

    title = "Experiments"

    def __init__(
        self, store: Store | None = None, *, file: str | Path = "", name: str = ""
    ) -> None:
        super().__init__(store)
        self._file = Path(file) if file else None
        self._name = name

    def snapshot(self) -> dict[str, Any]:
        """Return the experiments there are, and the one that is shown, member by member."""
        names = self.store.runs.experiments()
        known = [self.store.runs.experiment(one) for one in names[:_LISTED]]
        experiment, name = self._shown()
        blocks: dict[str, look.Block] = {}
        if name:
            row = self.store.runs.experiment(name) if name in names else None
            blocks = self._blocks(name, experiment, row)
        blocks["all"] = _table_of(known, left=len(names) - len(known))
        return {"blocks": blocks, "name": name}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of a file, and what can be done with it."""
        folder = project_root() / "experiments"
        files = sorted(str(path) for path in folder.glob("*.yaml"))
        if self._file and str(self._file) not in files:
            files.insert(0, str(self._file))
        choices = [("what ran last", ""), *((Path(one).stem, one) for one in files)]
        wanted = str(self._file) if self._file else ""
        choice = ipywidgets.Dropdown(options=choices, value=wanted, description="Experiment")
        choice.observe(lambda change: self._choose(change["new"]), names="value")
        buttons = [
            self.button("Plan", self.plan),
            self.button("Start or resume", self.start, style="primary"),
            self.button("Cancel", self.cancel, style="danger"),
        ]
        return [ipywidgets.HBox([choice, *buttons])]

    def plan(self) -> None:
        """Show below what a run would do; starts nothing."""
        from workbench.notebook.runner import plan

        events = plan(self._experiment(), self.store)
        words = {"skipped": "unchanged, kept", "due": "runs", "waiting": "runs after what it needs"}
        rows = [(one.member.step, one.member.label or "–", words[one.kind]) for one in events]
        due = sum(one.kind != "skipped" for one in events)
        caption = f"Plan: {due} of {len(events)} run"
        self.reply({"plan": look.table(caption, ("Step", "Member", "What happens"), rows)})

    def start(self) -> None:
        """Start ``workbench run`` in a process of its own; what is finished is skipped."""
        experiment = self._experiment()
        arguments = ["run", str(experiment.file.resolve())]
        arguments += ["--rehearsal"] * experiment.name.endswith(_REHEARSAL)
        children.start(self.store, _child(experiment.name), arguments, folder=experiment.root)
        self.tell(f"{experiment.name} is started; it goes on when this notebook is closed")

    def cancel(self) -> None:
        """Stop the run as Ctrl-C does; finished steps are kept.

        Raises:
            ConfigError: If it was not started from a panel.
        """
        _, name = self._shown()
        if not children.stop(self.store, _child(name)):
            raise ConfigError(f"no run of {name!r} was started from a panel; stop its command")
        self.tell(f"{name} was asked to stop; Start or resume goes on with it")

    def _choose(self, file: str) -> None:
        self._file, self._name = (Path(file) if file else None), ""
        self.reply({})
        self.update()

    def _shown(self) -> tuple[Experiment | None, str]:
        """Return what the file says, where it can be read, and the name."""
        if self._file:
            experiment = _load(self._file, is_rehearsed=self._name.endswith(_REHEARSAL))
            return experiment, experiment.name
        name = self._name or next(iter(self.store.runs.experiments()), "")
        if not name:
            return None, ""
        file = Path(self.store.runs.experiment(name)["file"])
        try:
            found = _load(file, is_rehearsed=name.endswith(_REHEARSAL))
        except WorkbenchError:  # moved or changed since: what ran is shown all the same
            return None, name
        return (found if found.name == name else None), name

    def _experiment(self) -> Experiment:
        experiment, name = self._shown()
        if experiment is None:
            raise ConfigError(f"the file of experiment {name!r} is not there any more; give file=")
        return experiment

    def _blocks(
        self, name: str, experiment: Experiment | None, row: Mapping[str, Any] | None
    ) -> dict[str, look.Block]:
        runs = self.store.runs.find(experiment=name)
        members = _members(experiment, row, runs)
        is_here = children.is_running(self.store, _child(name))
        done = sum(one["state"] == "succeeded" for one in members)
        blocks = {
            "progress": look.progress(
                f"{name}: {row['state'] if row else 'never ran'}", done=done, total=len(members),
                note=self._note(experiment, members, is_running=is_here),
            ),
            "steps": look.graph("Steps and what they need", _nodes(experiment, members)),
            "members": look.table(
                "Members",
                ("Step", "Member", "State", "Time", "CPU", "Why"),
                [
                    (
                        one["step"], one["label"] or "–", one["state"],
                        duration(one["wall_s"]) if one["wall_s"] else "–",
                        duration(one["cpu_s"]) if one["cpu_s"] else "–", one["error"] or "–",
                    )
                    for one in members
                ],
            ),
        }  # fmt: skip
        words = "" if is_here else children.complaint(self.store, _child(name))
        if words:
            blocks["said"] = look.text(f"The run that was started here ended: {words}")
        return blocks

    def _note(
        self, experiment: Experiment | None, members: Sequence[Mapping[str, Any]], *,
        is_running: bool,
    ) -> str:  # fmt: skip
        left = [one["step"] for one in members if one["state"] != "succeeded"]
        if experiment is None or not left:
            return ""
        from workbench.notebook.plan import Eta

        eta = Eta(self.store, experiment, jobs=1).seconds(left)
        if eta is None:
            return "how long it takes is not known yet"
        return f"about {duration(eta)} left{'' if is_running else ' once it runs'}"


def experiments(
    store: Store | None = None, *, file: str | Path = "", name: str = ""
) -> Experiments:
    """Return the panel of experiments."""
    return Experiments(store, file=file, name=name)


def _child(name: str) -> str:
    return f"experiment {name}"


def _load(file: Path, *, is_rehearsed: bool) -> Experiment:
    try:
        changed = file.stat().st_mtime_ns
    except OSError:
        changed = 0
    return _loaded(file, changed, is_rehearsed)


@lru_cache(maxsize=16)
def _loaded(file: Path, _changed: int, is_rehearsed: bool) -> Experiment:
    return load_experiment(file, rehearsal=is_rehearsed)


def _members(
    experiment: Experiment | None, row: Mapping[str, Any] | None, runs: Sequence[Run]
) -> list[dict[str, Any]]:
    """Return step, label, state and figures of every member, in plan order."""
    newest = {(run.step, run.member): run for run in runs}
    by_id = {run.id: run for run in runs}
    current: Mapping[str, Sequence[str | None]] = row["members"] if row else {}
    wanted: list[tuple[str, str, str | None]] = []
    if experiment:
        for step in experiment.steps.values():
            ids = [*current.get(step.name, ())]
            for at, member in enumerate(step.members()):
                wanted.append((step.name, member.label, ids[at] if at < len(ids) else None))
    else:
        for name, listed in current.items():
            for at, run_id in enumerate(listed):
                label = by_id[run_id].member if run_id in by_id else f"{at + 1}"
                wanted.append((name, label, run_id))
    began = row["started_at"] if row else ""
    return [
        _member(step, label, by_id.get(run_id or "") or newest.get((step, label)), run_id, began)
        for step, label, run_id in wanted
    ]


def _member(
    step: str, label: str, run: Run | None, run_id: str | None, began: str
) -> dict[str, Any]:
    made: dict[str, Any] = {"step": step, "label": label, "state": "waiting", "error": ""}
    made |= {"wall_s": 0.0, "cpu_s": 0.0}
    is_current = run is not None and (run.id == run_id or run.started_at >= began)
    if run is None or not is_current or not began:
        return made
    figures = {"wall_s": run.wall_s, "cpu_s": run.cpu_s, "error": run.error}
    # a run that no experiment counts any more was of other parameters or code
    state = run.state if run.id == run_id or run.state != "succeeded" else "waiting"
    return made | figures | {"state": state}


def _nodes(
    experiment: Experiment | None, members: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    states: dict[str, list[str]] = {}
    for one in members:
        states.setdefault(one["step"], []).append(one["state"])
    steps = experiment.steps if experiment else {}
    return [
        {
            "name": name,
            "needs": steps[name].needs if name in steps else (),
            "state": next(state for state in _ORDER if state in found),
            "note": f"{found.count('succeeded')}/{len(found)}",
        }
        for name, found in states.items()
    ]


def _table_of(known: Sequence[Mapping[str, Any]], *, left: int) -> look.Block:
    rows = []
    for one in known:
        ids = [run_id for step in one["members"].values() for run_id in step]
        done = sum(run_id is not None for run_id in ids)
        began, ended = (one[at][:16].replace("T", " ") for at in ("started_at", "finished_at"))
        rows.append((one["name"], one["state"], f"{done}/{len(ids)}", began, ended, one["owner"]))
    heads = ("Experiment", "State", "Done", "Started", "Finished", "Owner")
    note = f"{left:,} older ones: workbench status lists them" if left else ""
    return look.table("Experiments that ran", heads, rows, note=note)
