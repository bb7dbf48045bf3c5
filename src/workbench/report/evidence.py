"""Everything a report is made from, read from the store once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from workbench.core.identity import content_id
from workbench.core.money import ZERO
from workbench.report.blocks import Text
from workbench.report.tables import counted, short
from workbench.store.database import Store
from workbench.store.records import Run

__all__ = ["NOTEBOOKS", "Evidence", "read_evidence", "run_name", "unfinished"]

NOTEBOOKS: Mapping[str, str] = {
    "pairs": "01_expand_pairs",
    "training": "02_train_phase",
    "sanitizer": "02_train_phase",
    "laws": "03_scaling_laws",
    "test_set": "04_generate_tests",
    "execution": "05_execute_campaign",
    "analysis": "06_campaign_analysis",
    "assessment": "07_risk_assessment",
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
    bills: Mapping[str, tuple[Decimal, float]]
    """Run → dollars and kilowatt-hours that it took."""
    ablation: Mapping[str, Any] | None
    """The experiment's own, or else the newest of the store."""

    def results(self, kind: str) -> list[dict[str, Any]]:
        """Return the results of a kind in plan order."""
        done = (run.result for run in self.runs if run.state == "succeeded")
        return [result for result in done if result.get("kind") == kind]

    def last(self, kind: str) -> dict[str, Any] | None:
        """Return the last result of a kind, or None where no step gave one."""
        found = self.results(kind)
        return found[-1] if found else None

    def spent(self, runs: Iterable[Run]) -> tuple[Decimal, float]:
        """Return the dollars and kilowatt-hours that runs took."""
        bills = [self.bills[run.id] for run in runs if run.id in self.bills]
        return sum((usd for usd, _ in bills), start=ZERO), sum(kwh for _, kwh in bills)

    def work(self, work: str) -> str:
        """Return the name of a piece of work: that of its run where it is one's fingerprint."""
        return next((run_name(run) for run in self.runs if run.fingerprint == work), short(work))

    def axis(self) -> str:
        """Return the name of the axis that the sweep varies."""
        laws = self.last("laws")
        if laws is not None:
            return str(laws["axis"])
        results = self.results("training") or self.results("sanitizer")
        axes = [result["axes"] for result in results]
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
        named = {
            "pair set": [row.get("pair_set", row.get("version", last)) for row in rows],
            "test set": [row.get("test_set") for row in rows],
            "seeds": [
                row.get("seed", stamp.get("seed")) for row, stamp in zip(rows, stamps, strict=True)
            ],
            "judges": [judge["id"] for row in rows for judge in row.get("judges", ())],
            "commit": [stamp.get("commit") for stamp in stamps],
        }
        parts = [counted(len(rows), "run")]
        for name, values in named.items():
            told = dict.fromkeys(short(str(value)) for value in values if value not in (None, ""))
            parts += [f"{name} {', '.join(told)}"] * bool(told)
        return " · ".join(parts)

    def fingerprint(self) -> str:
        """Return the hash of all of this; times of the experiment itself do not count."""
        bills = {run: [str(usd), kwh] for run, (usd, kwh) in self.bills.items()}
        runs = [asdict(run) for run in self.runs]
        waiting = dict(self.waiting)
        return content_id([self.file, self.state, runs, waiting, bills, self.ablation])


def unfinished(words: str, kind: str) -> Text:
    """Return a note that something is not there yet, and which notebook brings it."""
    return Text(f"{words}: notebook {NOTEBOOKS[kind]} has not finished.", is_note=True)


def run_name(run: Run) -> str:
    """Return what a run is called: its step, and which member of it."""
    return f"{run.step} · {run.member}" if run.member else run.step


def read_evidence(store: Store, experiment: str) -> Evidence:
    """Return an experiment as the store knows it now.

    Raises:
        ConfigError: If it never ran.
    """
    row = store.runs.experiment(experiment)
    done = {run.id: run for run in store.runs.current(experiment)}
    open_runs = [run for run in store.runs.find(experiment=experiment) if run.state != "succeeded"]
    runs: list[Run] = []
    waiting: dict[str, int] = {}
    for step, ids in row["members"].items():
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
    bills: dict[str, tuple[Decimal, float]] = {}
    for one in store.ledger.rows(jobs=[run.id for run in runs]):
        usd, kwh = bills.get(one.job, (ZERO, 0.0))
        bills[one.job] = (usd + one.usd, kwh + one.quantity * (one.unit == "kwh"))
    ablations = [*store.runs.find(experiment="ablation", state="succeeded"), *done.values()]
    # those of an older version know nothing of tokens
    results = [run.result for run in ablations]
    found = [one for one in results if "claimed_tokens" in (one.get("combined") or ())]
    return Evidence(
        experiment=experiment,
        file=Path(row["file"]).name,
        state=row["state"],
        runs=tuple(runs),
        waiting=waiting,
        bills=bills,
        ablation=found[-1] if found else None,
    )
