"""Settings, read once from the environment at the edge, then passed on frozen.

No other module reads the environment. Kernels started by the runner get theirs the same way,
through the variables that :meth:`Settings.to_environment` returns.
"""

from __future__ import annotations

import getpass
import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode, urlsplit

from workbench.core.errors import ConfigError

__all__ = [
    "Secret", "Settings", "cores", "is_loopback", "project_root", "read_keys", "read_settings",
    "read_variable", "seeds_folder",
]  # fmt: skip

_PACKAGE = Path(__file__).resolve().parents[1]
_KEY_VARIABLES = {
    "anthropic": ("WORKBENCH_ANTHROPIC_KEYS", "ANTHROPIC_API_KEY"),
    "openai": ("WORKBENCH_OPENAI_KEYS", "OPENAI_API_KEY"),
}
"""Provider → variables of its keys, the first that is set counts."""
_TEXTS = {
    "run_id": "WORKBENCH_RUN_ID",
    "experiment": "WORKBENCH_EXPERIMENT",
    "fingerprint": "WORKBENCH_FINGERPRINT",
    "llm": "WORKBENCH_LLM",
    "cache_url": "WORKBENCH_CACHE_URL",
    "artifacts_url": "WORKBENCH_ARTIFACTS_URL",
    "otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}
"""Field of the settings → variable, where both are plain text and empty means none."""


class Secret:
    """A key that shows itself to nobody who does not ask for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself, to be sent and never to be kept."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that differs between machines and people."""

    home: Path
    """Folder of the store: database, artifacts, vectors, runs (``WORKBENCH_HOME``)."""
    database_url: str = field(repr=False)
    """SQLAlchemy URL of the metadata; may hold a password (``WORKBENCH_DATABASE_URL``; default
    SQLite in home)."""
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
    fingerprint: str = ""
    """Fingerprint of that run: the piece of work it resumes (``WORKBENCH_FINGERPRINT``)."""
    llm: str = ""
    """JSON of how model calls are made, see ``llm.config`` (``WORKBENCH_LLM``)."""
    cache_url: str = field(default="", repr=False)
    """Redis of shared answers, ``redis://…``; may hold a password (``WORKBENCH_CACHE_URL``)."""
    artifacts_url: str = field(default="", repr=False)
    """Where artifacts are, ``s3://bucket/prefix`` or another fsspec address; empty for the home.
    An S3 endpoint follows as ``?endpoint_url=…``, else ``AWS_ENDPOINT_URL`` counts
    (``WORKBENCH_ARTIFACTS_URL``)."""
    artifacts_cache_gb: float = 20.0
    """Room for artifacts fetched from there, or unpacked (``WORKBENCH_ARTIFACTS_CACHE_GB``)."""
    otlp_endpoint: str = field(default="", repr=False)
    """Collector of spans; none without one (``OTEL_EXPORTER_OTLP_ENDPOINT``)."""
    profile: bool = False
    """Profile the run and its kernels (``WORKBENCH_PROFILE``; ``1`` does)."""

    def may_connect(self, url: str) -> bool:
        """Return whether a connection is allowed: every one online, else those to this machine."""
        return not self.offline or is_loopback(url)

    @property
    def is_batch(self) -> bool:
        """Whether the runner started this process."""
        return self.run_folder is not None

    def to_environment(self) -> dict[str, str]:
        """Return the variables that make :func:`read_settings` give equal settings."""
        return {
            "WORKBENCH_HOME": str(self.home),
            "WORKBENCH_DATABASE_URL": self.database_url,
            "WORKBENCH_USER": self.user,
            "WORKBENCH_RUN_FOLDER": str(self.run_folder or ""),
            "WORKBENCH_OFFLINE": str(int(self.offline)),
            "WORKBENCH_PROFILE": str(int(self.profile)),
            "WORKBENCH_ARTIFACTS_CACHE_GB": str(self.artifacts_cache_gb),
            **{name: getattr(self, field) for field, name in _TEXTS.items()},
        }


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
    run_folder = env.get("WORKBENCH_RUN_FOLDER")
    return Settings(
        home=home,
        database_url=env.get("WORKBENCH_DATABASE_URL") or f"sqlite:///{home / 'workbench.db'}",
        user=env.get("WORKBENCH_USER") or _os_user(),
        run_folder=Path(run_folder) if run_folder else None,
        offline=_switch(env, "WORKBENCH_OFFLINE", "1"),
        profile=_switch(env, "WORKBENCH_PROFILE", "0"),
        artifacts_cache_gb=_gigabytes(env, "WORKBENCH_ARTIFACTS_CACHE_GB", "20"),
        **{field: env.get(name, "") for field, name in _TEXTS.items()}
        | {"artifacts_url": _artifacts_url(env)},
    )


def read_keys(provider: str, environment: Mapping[str, str] | None = None) -> tuple[Secret, ...]:
    """Return the keys of a provider, each once; never part of :class:`Settings`.

    Bedrock and Vertex find credentials by themselves and local servers need none: one empty key.

    Args:
        provider: ``anthropic``, ``openai``, ``bedrock``, ``vertex`` or ``scripted``.
        environment: Variables to read instead of the process's own.

    Raises:
        ConfigError: If there is no key, or one that cannot be a key. No message shows a key.
    """
    env = os.environ if environment is None else environment
    pool, single = _KEY_VARIABLES.get(provider, ("", ""))
    name = pool if env.get(pool) else single
    keys = dict.fromkeys(filter(None, env.get(name, "").split(",")))  # a doubled one adds no room
    if any(not 33 <= ord(character) <= 126 for key in keys for character in key):  # noqa: PLR2004
        raise ConfigError(
            f"{name} holds white space or a character that is no part of a key; set it again,"
            " several keys with a comma and nothing else between them"
        )
    if keys:
        return tuple(map(Secret, keys))
    if provider != "anthropic":
        return (Secret(""),)
    step = f"step {Path(env.get('WORKBENCH_RUN_FOLDER', '')).parent.name!r}"
    in_run = f"{step} of experiment {env.get('WORKBENCH_EXPERIMENT', '')!r}"
    asker = in_run if env.get("WORKBENCH_RUN_FOLDER") else "this notebook or command"
    raise ConfigError(
        f"no API key: {asker} calls models of {provider}; set {single}, or {pool} for several."
        " Without one everything in experiments/quickstart.yaml works, and a local server for"
        " rehearsals: python -m workbench.llm.loopback"
    )


def read_variable(name: str, environment: Mapping[str, str] | None = None) -> Secret:
    """Return the value of a variable that a target's file names, e.g. the key of its service.

    Raises:
        ConfigError: If it is not set, or holds what no HTTP header may. No message shows it.
    """
    value = (os.environ if environment is None else environment).get(name, "")
    if not value:
        raise ConfigError(f"the environment variable {name} is not set; set it to the secret")
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(
            f"the environment variable {name} holds a line end or a character beyond ASCII; set it"
            " to the secret alone"
        )
    return Secret(value)


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


def cores() -> int:
    """Return how many processor cores this process may use, at least 1; not always all."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def is_loopback(url: str) -> bool:
    """Return whether an address is one of this machine."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" or parts.hostname == "localhost":
            return True
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:  # a name, or no address at all
        return False


def _switch(env: Mapping[str, str], name: str, default: str) -> bool:
    value = env.get(name, default)
    if value not in {"0", "1"}:
        raise ConfigError(f"{name} is {value!r}; set it to 0 or 1")
    return value == "1"


def _gigabytes(env: Mapping[str, str], name: str, default: str) -> float:
    given = env.get(name) or default
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {given!r}; set it to a number of GB, e.g. 20")
    return value


def _artifacts_url(env: Mapping[str, str]) -> str:
    """Return where artifacts are, with the S3 endpoint that the AWS tools would take."""
    url = env.get("WORKBENCH_ARTIFACTS_URL", "")
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    if url.startswith(("s3:", "s3a:")) and endpoint and "endpoint_url=" not in url:
        return f"{url}{'&' if '?' in url else '?'}{urlencode({'endpoint_url': endpoint})}"
    return url


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a user database
        return "unknown"
