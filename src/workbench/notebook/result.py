"""The two calls of every notebook: ``begin()`` at the top, ``finish(...)`` in the last cell."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError
from workbench.core.identity import new_id
from workbench.core.provenance import stamp
from workbench.core.settings import Settings, read_settings
from workbench.notebook.profiling import Profile
from workbench.store.artifacts import write_json_atomic
from workbench.store.database import Store, open_store
from workbench.store.records import Run, now

__all__ = ["RESULT_FILE", "Session", "begin", "read_usage"]

RESULT_FILE = "result.json"
_BY_HAND = "by-hand"


@dataclass(kw_only=True)
class Session:
    """One notebook at work: its store, its run, and the end it has yet to report."""

    settings: Settings
    store: Store
    run_id: str
    folder: Path
    experiment: str = _BY_HAND
    """Under which experiment a run by hand is filed."""
    _started: float = field(default_factory=time.monotonic)
    _started_at: str = field(default_factory=now)
    _profile: Profile | None = None

    def finish(self, result: Mapping[str, Any], *, seed: int | None = None) -> dict[str, Any]:
        """Write ``result.json`` and return what it says; the last call of a notebook.

        By hand it also adds a run to the run table.

        Args:
            result: JSON values with a ``kind`` (see ``store.results``).
            seed: Seed of the numbers, for the stamp.

        Raises:
            ConfigError: If the result has no kind or holds what JSON cannot say, NaN included.
            StoreError: If it cannot be written.
        """
        if self._profile:
            self._profile.write(self.folder)
        if "kind" not in result:
            raise ConfigError("finish(): the result has no 'kind'; see workbench.store.results")
        usage = read_usage() | {"wall_s": round(time.monotonic() - self._started, 3)}
        whole = {**result, "run_id": self.run_id, "usage": usage, "stamp": stamp(seed=seed)}
        try:
            write_json_atomic(self.folder / RESULT_FILE, whole)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"finish(): the result is not plain JSON: {error}") from error
        if not self.settings.is_batch:
            self._add_run_by_hand(whole)
        return whole

    def _add_run_by_hand(self, result: dict[str, Any]) -> None:
        usage = result["usage"]
        run = Run(
            id=self.run_id,
            experiment=self.experiment,
            step=result["kind"],
            notebook="",
            phase="",
            fingerprint="",
            parameters={},
            state="succeeded",
            owner=self.settings.user,
            folder=str(self.folder),
            started_at=self._started_at,
            finished_at=now(),
            wall_s=usage["wall_s"],
            cpu_s=usage["cpu_s"],
            peak_rss_mb=usage["peak_rss_mb"],
            result=result,
        )
        self.store.runs.add(run)
        if self.experiment != _BY_HAND:  # it is all that the experiment is
            members = {run.step: [run.id]}
            self.store.runs.set_experiment(
                self.experiment, file="", members=members, state=run.state, owner=run.owner
            )


def begin(*, experiment: str = _BY_HAND, root: Path | None = None) -> Session:
    """Return the session of this notebook: of its run in a batch, else one by hand.

    Args:
        experiment: Under which experiment a run by hand is filed.
        root: Folder of the project; the one around the working folder if not given.
    """
    settings = read_settings(root=root)
    run_id = settings.run_id or new_id("run")
    folder = settings.run_folder or settings.home / "by-hand" / run_id
    # only in a batch: by hand this cell may run twice, and a process has one profiler
    profile = Profile() if settings.profile and settings.is_batch else None
    return Session(
        settings=settings,
        store=open_store(settings),
        run_id=run_id,
        folder=folder,
        experiment=experiment,
        _profile=profile,
    )


def read_usage() -> dict[str, float]:
    """Return what this process and its finished children used: cpu_s, peak_rss_mb."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    peak_kb = max(own.ru_maxrss, children.ru_maxrss)
    return {"cpu_s": round(cpu_s, 3), "peak_rss_mb": round(peak_kb / 1024, 1)}
