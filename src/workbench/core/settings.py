"""Settings, read once from the environment at the edge, then passed on frozen.

No other module reads the environment. Kernels started by the runner get theirs the same way,
through the variables that :meth:`Settings.to_environment` returns.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.core.errors import ConfigError

__all__ = ["Settings", "project_root", "read_settings", "seeds_folder"]

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that differs between machines and people."""

    home: Path
    """Folder of the store: database, artifacts, vectors, runs (``WORKBENCH_HOME``)."""
    database_url: str
    """SQLAlchemy URL of the metadata (``WORKBENCH_DATABASE_URL``; default SQLite in home)."""
    user: str
    """Name that ledger rows carry (``WORKBENCH_USER``; default the OS user)."""
    run_folder: Path | None = None
    """Folder of the run this process belongs to; set by the runner (``WORKBENCH_RUN_FOLDER``)."""
    run_id: str = ""
    """Id of that run; empty in a notebook opened by hand (``WORKBENCH_RUN_ID``)."""
    experiment: str = ""
    """Experiment of that run; empty in a notebook opened by hand (``WORKBENCH_EXPERIMENT``)."""
    offline: bool = True
    """Open no connection beyond loopback (``WORKBENCH_OFFLINE``; ``0`` allows it)."""

    @property
    def is_batch(self) -> bool:
        """Whether the runner started this process."""
        return self.run_folder is not None

    def to_environment(self) -> dict[str, str]:
        """Return the variables that make :func:`read_settings` give equal settings."""
        variables = {
            "WORKBENCH_HOME": str(self.home),
            "WORKBENCH_DATABASE_URL": self.database_url,
            "WORKBENCH_USER": self.user,
            "WORKBENCH_OFFLINE": "1" if self.offline else "0",
        }
        if self.run_folder is not None:
            variables["WORKBENCH_RUN_FOLDER"] = str(self.run_folder)
            variables["WORKBENCH_RUN_ID"] = self.run_id
            variables["WORKBENCH_EXPERIMENT"] = self.experiment
        return variables


def read_settings(
    environment: Mapping[str, str] | None = None, *, root: Path | None = None
) -> Settings:
    """Return the settings that the environment says.

    Args:
        environment: Variables to read instead of the process's own.
        root: Folder of the project; the one around the working folder if not given.

    Raises:
        ConfigError: If a variable has a value that makes no sense.
    """
    env = os.environ if environment is None else environment
    home = Path(env.get("WORKBENCH_HOME") or (root or project_root()) / "experiments" / "runs")
    home = home.resolve()
    offline = env.get("WORKBENCH_OFFLINE", "1")
    if offline not in {"0", "1"}:
        raise ConfigError(f"WORKBENCH_OFFLINE is {offline!r}; set it to 0 or 1")
    run_folder = env.get("WORKBENCH_RUN_FOLDER")
    return Settings(
        home=home,
        database_url=env.get("WORKBENCH_DATABASE_URL") or f"sqlite:///{home / 'workbench.db'}",
        user=env.get("WORKBENCH_USER") or _os_user(),
        run_folder=Path(run_folder) if run_folder else None,
        run_id=env.get("WORKBENCH_RUN_ID", ""),
        experiment=env.get("WORKBENCH_EXPERIMENT", ""),
        offline=offline == "1",
    )


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder, from here upwards, that has ``experiments/`` and ``notebooks/``.

    Falls back to the start folder, so that the package also works outside a checkout.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "experiments").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return start


@cache
def seeds_folder() -> Path:
    """Return the folder of the seeds that the product ships.

    Raises:
        ConfigError: If the installation lacks it.
    """
    for folder in (_PACKAGE / "seeds", _PACKAGE.parents[1] / "data" / "seeds"):
        if folder.is_dir():
            return folder
    raise ConfigError("the shipped seeds are missing; reinstall prompt-safety-workbench")


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"
