"""Is the store whole: its database, the content of its artifacts, what refers to what.

Damage is what was promised and is not there. A rest is what a killed process leaves: nothing is
made of it, and it can be removed.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args

from sqlalchemy import Engine, Select, func, select, text

from workbench.core.errors import StoreError
from workbench.core.identity import file_sha256
from workbench.store import schema
from workbench.store.artifacts import ArtifactKind
from workbench.store.campaigns import remove_attempts
from workbench.store.database import Store
from workbench.store.isolation import everybody
from workbench.store.jobs import settle_lost_jobs
from workbench.store.marks import Marked, marked
from workbench.store.owners import Owners
from workbench.store.transaction import transaction

__all__ = ["Problem", "Report", "verify"]

_MOST_MANIFEST = 64_000_000


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is not as it should be."""

    check: str
    """``database``, ``artifacts``, ``folders``, ``runs``, ``ledger``, ``attempts``, ``jobs`` or
    ``references``."""
    subject: str
    detail: str
    is_damage: bool
    """If not, it is a rest."""
    is_repaired: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check of the store found."""

    checked: dict[str, int]
    """Check → how many things it looked at."""
    problems: list[Problem]

    @property
    def is_whole(self) -> bool:
        """Whether there is no damage."""
        return not any(one.is_damage for one in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rests = [one for one in self.problems if not one.is_damage]
        return {
            "ok": self.is_whole,
            "damaged": len(self.problems) - len(rests),
            "rests": len(rests),
            "repaired": sum(one.is_repaired for one in self.problems),
            "checked": self.checked,
            "problems": [asdict(one) for one in self.problems],
        }


def verify(store: Store, *, repair: bool = False, deep: bool = False) -> Report:
    """Return what is wrong with the store of all users.

    Args:
        store: To look at; others may write to it meanwhile.
        repair: Remove the rests of killed processes; damage is never touched.
        deep: Read every byte at remote locations too.

    Raises:
        StoreError: If the database cannot be read at all.
    """
    engine = everybody(store.engine)
    look = _Look(store, engine, repair=repair, deep=deep)
    checks: dict[str, Callable[[], Iterator[Problem | None]]] = {
        "database": look.database,
        "artifacts": look.artifacts,
        "folders": look.folders,
        "runs": look.runs,
        "ledger": look.ledger,
        "attempts": look.attempts,
        "jobs": look.jobs,
        "references": look.references,
    }
    problems, checked = [], {}
    for name, check in checks.items():
        found = list(check())
        checked[name] = len(found)
        problems += [one for one in found if one is not None]
    return Report(checked=checked, problems=problems)


class _Look:
    """The checks; each gives None for what is well."""

    def __init__(self, store: Store, engine: Engine, *, repair: bool, deep: bool) -> None:
        self._store = store
        self._engine = engine
        self._content = store.artifacts.seeing(engine)
        self._repair = repair
        self._deep = deep
        self._root = store.home / "artifacts"

    def database(self) -> Iterator[Problem | None]:
        is_sqlite = self._engine.dialect.name == "sqlite"
        broken = "PRAGMA integrity_check" if is_sqlite else _BROKEN_INDEXES
        with transaction(self._engine) as connection:
            found = connection.execute(text(broken)).scalars().all()
        yield from (_damage("database", "", one) for one in found if one != "ok")
        for table in schema.metadata.sorted_tables:
            try:
                with transaction(self._engine) as connection:  # reads every row
                    for _ in connection.execution_options(yield_per=1_000).execute(select(table)):
                        pass
                yield None
            except (StoreError, ValueError) as error:  # a page, or JSON that is none
                yield _damage("database", table.name, f"cannot be read: {error}")

    def artifacts(self) -> Iterator[Problem | None]:
        for one in marked(self._engine):
            kind: ArtifactKind = one.kind  # type: ignore[assignment]  # what another version made
            known = one.kind in get_args(ArtifactKind)
            wrong = self._content.problems(kind, one.id, deep=self._deep)
            wrong = wrong or list(_misfits(self._root / one.kind / one.id[:32], one))
            wrong += [] if known else [f"{one.kind!r} is no kind of artifact"]
            yield from (_damage("artifacts", f"{one.kind} {one.id}", words) for words in wrong)
            if not wrong:
                yield None

    def folders(self) -> Iterator[Problem | None]:
        """Folders that no artifact is made of."""
        swept = self._content.sweep() if self._repair else 0
        yield from (
            _rest("folders", "", "a rest older than a day", is_repaired=True) for _ in range(swept)
        )
        rows = {f"{one.kind}/{one.id[:32]}" for one in marked(self._engine)}
        for path in sorted(self._root.glob("*/*")):
            place = path.relative_to(self._root).as_posix().removesuffix(".tar.zst")
            if path.name.startswith("."):
                if ".tmp-" in path.name:
                    yield _rest("folders", place, "half written; removed once it is a day old")
            elif place in rows:
                yield None
            else:
                done = self._repair and self._remove(path, place)
                yield _rest("folders", place, "no row names it", is_repaired=done)

    def _remove(self, path: Path, place: str) -> bool:
        from filelock import FileLock

        stem = place.rpartition("/")[2]
        with FileLock(path.with_name(f".{stem}.lock")):  # whoever makes it holds this
            if place in {f"{one.kind}/{one.id[:32]}" for one in marked(self._engine)}:
                return False
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return True

    def runs(self) -> Iterator[Problem | None]:
        table = schema.runs
        query = select(table.c.id, table.c.state, table.c.result, table.c.folder)
        for row in self._rows(query):
            folder = Path(row.folder)
            if row.state != "succeeded":
                yield None
            elif not row.result:
                yield _damage("runs", row.id, "succeeded without a result")
            elif folder.is_dir() and not any(folder.glob("result.json*")):
                yield _damage("runs", row.id, "succeeded, and its folder has no result.json")
            else:
                yield None

    def ledger(self) -> Iterator[Problem | None]:
        """Amounts are numbers; what was charged for a lost call is taken back at most once."""
        table = schema.ledger
        lost: dict[str, Decimal] = {}
        query = select(
            table.c.id, table.c.usd, table.c.quantity, table.c.estimated, table.c.details
        )
        for row in self._rows(query):
            try:
                amount = Decimal(row.usd)
            except InvalidOperation:
                amount = Decimal("NaN")
            is_number = amount.is_finite() and math.isfinite(row.quantity)
            yield None if is_number else _damage("ledger", str(row.id), f"{row.usd!r} is no amount")
            flight = row.details.get("flight") if row.estimated else None
            if is_number and flight:
                lost[flight] = lost.get(flight, Decimal(0)) + amount
        for flight, left in lost.items():
            words = f"more was taken back than charged for a lost call: {left}"
            yield _damage("ledger", flight, words) if left < 0 else None
        owners = Owners(time.time)
        flights = schema.flights
        for row in self._rows(select(flights.c.id, flights.c.owner, flights.c.at)):
            if not row.owner.startswith("batch:") and not owners.is_alive(row.owner, at=row.at):
                done = self._repair and row.id in {one.id for one in self._store.calls.recover()}
                words = "in flight when its process died; charged at its worst case by the next one"
                yield _rest("ledger", row.id, words, is_repaired=done)

    def attempts(self) -> Iterator[Problem | None]:
        table, told = schema.attempts, schema.events
        started = {
            row.subject
            for row in self._rows(
                select(told.c.subject).where(told.c.kind == "attack_run_started").distinct()
            )
        }
        made = {one.id: one for one in marked(self._engine) if one.kind == "execution"}
        query = select(table.c.execution, func.count().label("rows")).group_by(table.c.execution)
        for row in self._rows(query):
            if row.execution in made:
                is_safe = not self._content.problems("execution", row.execution)
                if done := self._repair and is_safe and not made[row.execution].mark.removed_at:
                    remove_attempts(self._engine, row.execution)
                words = f"{row.rows} attempts that stand in its artifact too"
                yield _rest("attempts", row.execution, words, is_repaired=done)
            elif row.execution not in started:
                words = f"{row.rows} attempts of an execution that nobody started"
                yield _damage("attempts", row.execution, words)
            else:
                yield None

    def jobs(self) -> Iterator[Problem | None]:
        owners, table = Owners(time.time), schema.jobs
        query = select(table.c.id, table.c.process, table.c.started_at)
        rows = list(self._rows(query.where(table.c.state == "running")))
        lost = {one.id for one in settle_lost_jobs(self._engine)} if self._repair else set()
        for row in rows:
            is_dead = row.id in lost or not owners.is_alive(row.process, at=row.started_at)
            words = "running when its process died"
            yield _rest("jobs", row.id, words, is_repaired=row.id in lost) if is_dead else None

    def references(self) -> Iterator[Problem | None]:
        """What rows refer to is there."""
        owned, log, found = schema.test_set_owners, schema.triage_log, schema.findings
        sets = {one.id for one in marked(self._engine) if one.kind == "test_set"}
        for row in self._rows(select(owned.c.test_set, owned.c.owner)):
            is_there = row.test_set in sets
            words = f"owned by {row.owner!r} and not there"
            yield None if is_there else _damage("references", f"test_set {row.test_set}", words)
        gone = select(log.c.finding).where(log.c.finding.not_in(select(found.c.id))).distinct()
        for row in self._rows(gone):
            yield _damage("references", f"finding {row.finding}", "triaged and not there")

    def _rows(self, query: Select[Any]) -> Iterator[Any]:
        with transaction(self._engine) as connection:
            yield from connection.execution_options(yield_per=1_000).execute(query)


_BROKEN_INDEXES = """
SELECT 'index ' || indexrelid::regclass || ' is not valid' FROM pg_index WHERE NOT indisvalid
"""


def _misfits(folder: Path, one: Marked) -> Iterator[str]:
    """Give which files of a folder do not fit the hashes that its manifest says."""
    manifest = folder / "manifest.json"
    if one.mark.at != "folder" or not manifest.is_file():
        return
    try:
        if manifest.stat().st_size > _MOST_MANIFEST:
            raise ValueError("too large")  # noqa: TRY301 - as damaged as no JSON
        told = list(_hashes(json.loads(manifest.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        yield f"{manifest} cannot be read: {error}"
        return
    for name, sha256 in told:
        file = folder / name
        if Path(name).name != name or not file.is_file():
            yield f"{file} is missing"
        elif file_sha256(file) != sha256:
            yield f"{file} no longer matches its sha256"


def _hashes(value: Any) -> Iterator[tuple[str, str]]:
    """Give the names and hashes of the files that a manifest lists anywhere."""
    if isinstance(value, dict):
        name, sha256 = value.get("file"), value.get("sha256")
        if isinstance(name, str) and isinstance(sha256, str):
            yield name, sha256
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _hashes(one)


def _damage(check: str, subject: str, detail: str) -> Problem:
    return Problem(check=check, subject=subject, detail=detail, is_damage=True)


def _rest(check: str, subject: str, detail: str, *, is_repaired: bool = False) -> Problem:
    return Problem(
        check=check, subject=subject, detail=detail, is_damage=False, is_repaired=is_repaired
    )
