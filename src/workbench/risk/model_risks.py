"""What campaigns found, as risks: one per target and entry of OWASP's list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import DataError
from workbench.risk.records import LEVELS, ModelRisk
from workbench.store.campaigns import outcomes_of
from workbench.store.findings import findings
from workbench.store.test_sets import owners_of

if TYPE_CHECKING:
    from workbench.store.database import Store
    from workbench.store.records import Finding

__all__ = ["model_risks"]

_LLM = re.compile(r"LLM[0-9]{2}:[0-9]{4}")
_ATLAS = re.compile(r"AML\.T[0-9]{4}(?:\.[0-9]{3})?")
_LEFT_OUT: Final = ("false_positive", "fixed")
"""States of findings that are no successes."""
_ATTEMPTS_FILE: Final = "attempts.parquet"

_Cell = tuple[str, str, str]
"""Target, plugin, strategy."""


def model_risks(
    store: Store, execution: str = "", *, asset_of: Mapping[str, str] | None = None
) -> tuple[ModelRisk, ...]:
    """Return what an execution says of its targets, by target and subject.

    A cell of plugin and strategy counts for each of its ids. All attempts count that did not fail;
    of the successes not those of findings that reviewers call false positives, or fixed.

    Args:
        store: Where campaigns are; its user must be allowed to see the test set.
        execution: Its id, or the beginning of it; empty: the newest that has outcomes.
        asset_of: Target → asset that it is part of; others are assets of their own.

    Raises:
        DataError: If there is no such execution, or it is of others' test set.
    """
    known, rows = _outcomes(store, execution)
    found = findings(store.engine, known)
    wrong = _successes_of(store, [one for one in found if one.status in _LEFT_OUT], known)
    by_cell: dict[_Cell, list[Finding]] = {}
    for one in found:
        by_cell.setdefault((one.target, one.plugin, one.strategy), []).append(one)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cell = (row["target"], row["plugin"], row["strategy"])
        row["successes"] = max(0, row["successes"] - wrong[cell])
        row["findings"] = by_cell.get(cell, [])
        for subject in _subjects(row["taxonomy"]):
            groups.setdefault((row["target"], subject), []).append(row)
    assets = asset_of or {}
    return tuple(
        _risk(cells, subject, asset=assets.get(target, target), execution=known)
        for (target, subject), cells in sorted(groups.items())
    )


def _outcomes(store: Store, execution: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the id of an execution and its outcomes."""
    if execution:
        known = execution
        if not store.artifacts.exists("execution", execution):
            known = store.artifacts.resolve("execution", execution)
        _check_owner(store, store.artifacts.metadata("execution", known), execution=known)
        return known, outcomes_of(store.engine, known)
    for one in store.artifacts.rows("execution"):
        if _may_see(store, one["metadata"]) and (rows := outcomes_of(store.engine, one["id"])):
            return one["id"], rows
    raise DataError("no execution has outcomes; run a campaign first, or leave campaigns out")


def _check_owner(store: Store, metadata: Mapping[str, Any], *, execution: str) -> None:
    if not _may_see(store, metadata):
        raise DataError(
            f"execution {execution[:12]} is of a test set that {store.settings.user!r} does not"
            " own; have it shared first"
        )


def _may_see(store: Store, metadata: Mapping[str, Any]) -> bool:
    owners = owners_of(store.engine, str(metadata.get("test_set", "")))
    return not owners or store.settings.user in owners


def _subjects(taxonomy: Iterable[str]) -> list[str]:
    """Return the ids that a cell counts for: OWASP's, else ATLAS's, else ``unmapped``."""
    listed = [one for one in taxonomy if isinstance(one, str)]
    return (
        [one for one in listed if _LLM.fullmatch(one)]
        or [one for one in listed if _ATLAS.fullmatch(one)]
        or ["unmapped"]
    )


def _successes_of(store: Store, left_out: Sequence[Finding], execution: str) -> Counter[_Cell]:
    """Return by cell how many successes findings stand for: all tries of their cases.

    Where the attempts are gone it is one each, the fewest that it can be.
    """
    counts: Counter[_Cell] = Counter()
    if not left_out:
        return counts
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tries: Counter[tuple[str, str]] = Counter()
    try:
        path = store.artifacts.path("execution", execution) / _ATTEMPTS_FILE
        names = ["target", "case_id", "success", "error"]
        table = pq.read_table(path, columns=names)
        cases = pa.array([one.case_id for one in left_out], pa.string())
        counted = pc.and_(table["success"], pc.equal(table["error"], ""))
        table = table.filter(pc.and_(counted, pc.is_in(table["case_id"], value_set=cases)))
        tries.update(zip(table["target"].to_pylist(), table["case_id"].to_pylist(), strict=True))
    except (DataError, OSError, pa.ArrowException, KeyError):
        tries.clear()
    for one in left_out:
        cell = (one.target, one.plugin, one.strategy)
        counts[cell] += max(1, tries[one.target, one.case_id])
    return counts


def _risk(
    cells: Sequence[Mapping[str, Any]], subject: str, *, asset: str, execution: str
) -> ModelRisk:
    found = [one for cell in cells for one in cell["findings"]]
    states = Counter(one.status for one in found)
    told = [f"execution {execution[:12]}"]
    told += [f"{states[name]:,} {name.replace('_', ' ')}" for name in _LEFT_OUT if states[name]]
    ids = {one for cell in cells for one in cell["taxonomy"] if isinstance(one, str)}
    return ModelRisk(
        subject=subject,
        asset=asset,
        target=cells[0]["target"],
        techniques=tuple(sorted(one for one in ids if _ATLAS.fullmatch(one))),
        successes=sum(cell["successes"] for cell in cells),
        attempts=sum(cell["attempts"] for cell in cells),
        severity=_severity(cells),
        findings=len(found) - sum(states[name] for name in _LEFT_OUT),
        confirmed=states["confirmed"],
        execution=execution,
        source="; ".join(told),
    )


def _severity(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the worst that got through; of all that was tried where nothing did.

    Where only a cell is known to have been got through, its worst case counts. Outcomes older
    than severities have none: empty, unless findings say more.
    """
    passed: list[str] = []
    for cell in cells:
        live = [one.severity for one in cell["findings"] if one.status not in _LEFT_OUT]
        if cell["successes"]:
            passed += live or [cell["severity"]]
    worst: list[str] = passed or [cell["severity"] for cell in cells]
    return max(worst, key=lambda one: LEVELS.index(one) if one in LEVELS else len(LEVELS))
