"""Everything a report is made from, read from the store once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from workbench.core.identity import content_id
from workbench.core.money import ZERO
from workbench.report.tables import short
from workbench.store.database import Store
from workbench.store.records import LedgerRow, Run

__all__ = ["NOTEBOOKS", "Evidence", "read_evidence"]

NOTEBOOKS: Mapping[str, str] = {
    "pairs": "01_expand_pairs",
    "training": "02_train_phase",
    "laws": "03_scaling_laws",
    "test_set": "04_generate_tests",
    "execution": "05_execute_campaign",
    "analysis": "06_campaign_analysis",
    "cost": "08_cost_and_roi",
}
"""Kind of result → the notebook that leaves it."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """An experiment as it stands now."""

    experiment: str
    file: str
    """Name of the experiment file."""
    state: str
    runs: tuple[Run, ...]
    """Succeeded runs in plan order, then per step what runs or failed."""
    waiting: Mapping[str, int]
    """Step → members that never started."""
    ledger: tuple[LedgerRow, ...]
    """What the runs shown cost."""

    def results(self, kind: str) -> list[dict[str, Any]]:
        """Return the results of a kind in plan order."""
        done = (run.result for run in self.runs if run.state == "succeeded")
        return [result for result in done if result.get("kind") == kind]

    def last(self, kind: str) -> dict[str, Any] | None:
        """Return the last result of a kind, or None where no step gave one."""
        found = self.results(kind)
        return found[-1] if found else None

    def usd(self, run_id: str) -> Decimal:
        """Return what a run cost."""
        return sum((row.usd for row in self.ledger if row.job == run_id), start=ZERO)

    def kwh(self, run_id: str) -> float:
        """Return the energy a run took."""
        return sum(row.quantity for row in self.ledger if row.job == run_id and row.unit == "kwh")

    def axis(self) -> str:
        """Return the name of the axis that the sweep varies."""
        laws = self.last("laws")
        if laws is not None:
            return str(laws["axis"])
        axes = [result["axes"] for result in self.results("training")]
        names = sorted({name for one in axes for name in one})
        return max(names, key=lambda name: len({one.get(name) for one in axes}), default="")

    def largest(self) -> list[dict[str, Any]]:
        """Return the training results at the largest value of the axis, one per seed."""
        axis, runs = self.axis(), self.results("training")
        top = max((run["axes"].get(axis, 0) for run in runs), default=0)
        return [run for run in runs if run["axes"].get(axis, 0) == top]

    def footer(self, results: Iterable[Mapping[str, Any]]) -> str:
        """Return where numbers come from: data version, seeds, judges, commit."""
        rows = list(results)
        last = (self.last("pairs") or {}).get("version")
        stamps = [row.get("stamp", {}) for row in rows]
        judges = _distinct(judge["id"] for row in rows for judge in row.get("judges", ()))
        named = {
            "pair set": _distinct(row.get("pair_set", row.get("version", last)) for row in rows),
            "test set": _distinct(row.get("test_set") for row in rows),
            "seeds": _distinct(row.get("seed", row.get("stamp", {}).get("seed")) for row in rows),
            "judges": judges,
            "commit": _distinct(stamp.get("commit") for stamp in stamps),
        }
        parts = [f"{name} {', '.join(map(short, of))}" for name, of in named.items() if of]
        return " · ".join([f"{len(rows)} run{'s' * (len(rows) > 1)}", *parts])

    def fingerprint(self) -> str:
        """Return the hash of all of this; times of the experiment itself do not count."""
        ledger = [{**asdict(row), "usd": str(row.usd)} for row in self.ledger]
        return content_id(
            [self.file, self.state, [asdict(run) for run in self.runs], dict(self.waiting), ledger]
        )


def read_evidence(store: Store, experiment: str) -> Evidence:
    """Return an experiment as the store knows it now.

    Raises:
        ConfigError: If it never ran.
    """
    row = store.runs.experiment(experiment)
    members: Mapping[str, list[str | None]] = row["members"]
    done = {run.id: run for run in store.runs.current(experiment)}
    open_runs = [run for run in store.runs.find(experiment=experiment) if run.state != "succeeded"]
    runs: list[Run] = []
    waiting: dict[str, int] = {}
    for step, ids in members.items():
        succeeded = [done[one] for one in ids if one in done]
        finished = {run.member for run in succeeded}
        newest = {
            run.member: run for run in open_runs if run.step == step and run.member not in finished
        }
        missing = len(ids) - len(succeeded)
        unfinished = list(newest.values())[-missing:] if missing else []
        runs += [*succeeded, *unfinished]
        if missing > len(unfinished):
            waiting[step] = missing - len(unfinished)
    return Evidence(
        experiment=experiment,
        file=Path(row["file"]).name,
        state=row["state"],
        runs=tuple(runs),
        waiting=waiting,
        ledger=tuple(store.ledger.rows(jobs=[run.id for run in runs])),
    )


def _distinct(values: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
