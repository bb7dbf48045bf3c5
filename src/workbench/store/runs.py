"""The run table: the one truth about what ran, how it ended and what it gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, RowMapping, delete, insert, select, update

from workbench.core.errors import ConfigError
from workbench.store import schema
from workbench.store.ledger import insert_rows
from workbench.store.records import LedgerRow, Run, now
from workbench.store.transaction import once, retried, transaction

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunTable"]

_FIELDS = tuple(field.name for field in fields(Run))


class RunTable:
    """Runs, and which of them make up an experiment as it stands now."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, run: Run) -> None:
        """Add a run, usually in state ``running``."""
        row = asdict(run)
        once(self._engine, lambda connection: connection.execute(insert(schema.runs), row))

    @retried
    def update(self, run_id: str, **values: Any) -> None:
        """Set columns of a run in one transaction."""
        table = schema.runs
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(table.c.id == run_id).values(**values))

    @retried
    def beat(self, run_id: str, **values: Any) -> bool:
        """Set columns of a run if it is still ``running``; return whether it is."""
        table = schema.runs
        change = update(table).where(table.c.id == run_id, table.c.state == "running")
        with transaction(self._engine) as connection:
            return connection.execute(change.values(**values)).rowcount > 0

    @retried
    def settle(
        self, run_id: str, costs: Sequence[LedgerRow], *, again: Run | None = None, **values: Any
    ) -> None:
        """Close a running run, write what it cost, and add the run that takes its place, if any.

        All or nothing. A run that is no longer ``running`` is left alone and costs nothing more.
        """
        table = schema.runs
        change = update(table).where(table.c.id == run_id, table.c.state == "running")
        with transaction(self._engine) as connection:
            if connection.execute(change.values(**values)).rowcount:
                insert_rows(connection, costs)
                if again:
                    connection.execute(insert(schema.runs), asdict(again))

    @retried
    def get(self, run_id: str) -> Run:
        """Return one run.

        Raises:
            ConfigError: If there is none of that id.
        """
        table = schema.runs
        with transaction(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.id == run_id)).mappings().first()
        if row is None:
            raise ConfigError(f"no run {run_id!r}; `workbench status` lists them")
        return _run(row)

    @retried
    def find(
        self,
        *,
        experiment: str | None = None,
        step: str | None = None,
        state: str | None = None,
        fingerprint: str | None = None,
    ) -> list[Run]:
        """Return the runs that match all that is given, oldest first."""
        table = schema.runs
        query = select(table).order_by(table.c.started_at, table.c.id)
        given = {"experiment": experiment, "step": step, "state": state, "fingerprint": fingerprint}
        for column, value in given.items():
            if value is not None:
                query = query.where(table.c[column] == value)
        with transaction(self._engine) as connection:
            return [_run(row) for row in connection.execute(query).mappings()]

    @retried
    def set_experiment(
        self,
        name: str,
        *,
        file: str,
        members: Mapping[str, Sequence[str | None]],
        state: str,
        owner: str,
    ) -> None:
        """Say which runs make up a user's experiment: ``members``, in matrix order, None where due.

        Its state is ``running``, ``succeeded`` or ``failed``.
        """
        table = schema.experiments
        own = (table.c.name == name) & (table.c.owner == owner)
        with transaction(self._engine) as connection:
            old = connection.execute(select(table).where(own)).mappings().first()
            connection.execute(delete(table).where(own))
            row = {
                "name": name,
                "file": file,
                "members": {step: list(ids) for step, ids in members.items()},
                "state": state,
                "owner": owner,
                "started_at": old["started_at"] if old and old["state"] == "running" else now(),
                "finished_at": "" if state == "running" else now(),
            }
            connection.execute(insert(table), row)

    @retried
    def experiment(self, name: str) -> dict[str, Any]:
        """Return the row of an experiment: name, file, members, state, owner, times.

        Of several users' the one that started last.

        Raises:
            ConfigError: If it never ran.
        """
        table = schema.experiments
        query = select(table).where(table.c.name == name).order_by(table.c.started_at.desc())
        with transaction(self._engine) as connection:
            row = connection.execute(query.limit(1)).mappings().first()
        if row is None:
            known = ", ".join(self.experiments()) or "none"
            raise ConfigError(f"experiment {name!r} never ran here; known: {known}")
        return dict(row)

    @retried
    def experiments(self) -> list[str]:
        """Return the names of all experiments that ran, newest first."""
        table = schema.experiments
        query = select(table.c.name).order_by(table.c.started_at.desc())
        with transaction(self._engine) as connection:
            return list(dict.fromkeys(connection.execute(query).scalars()))

    def current(self, experiment: str, *, kind: str | None = None) -> list[Run]:
        """Return the succeeded runs that make up an experiment now, in plan order.

        With ``kind`` only those whose result has it, e.g. ``training``. Raises as
        :meth:`experiment`.
        """
        members: Mapping[str, Sequence[str | None]] = self.experiment(experiment)["members"]
        ids = [run_id for step in members.values() for run_id in step if run_id]
        runs = self.by_ids(ids)
        return [run for run in runs if kind is None or run.result.get("kind") == kind]

    @retried
    def by_ids(self, ids: Iterable[str]) -> list[Run]:
        """Return succeeded runs in the order of their ids; unknown ids are left out."""
        wanted = list(ids)
        table = schema.runs
        query = select(table).where(table.c.id.in_(wanted), table.c.state == "succeeded")
        with transaction(self._engine) as connection:
            found = {row["id"]: _run(row) for row in connection.execute(query).mappings()}
        return [found[run_id] for run_id in wanted if run_id in found]

    def frame(self, experiment: str | None = None) -> pd.DataFrame:
        """Return the run table as a data frame, newest last, for notebooks."""
        import pandas as pd

        rows = [asdict(run) for run in self.find(experiment=experiment)]
        return pd.DataFrame(rows, columns=list(_FIELDS)).drop(columns=["folder", "kernel_pid"])


def _run(row: RowMapping) -> Run:
    return Run(**{name: row[name] for name in _FIELDS})
