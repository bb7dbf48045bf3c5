"""Commands in processes of their own: they outlive the notebook, and any panel finds them again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from workbench.core.errors import ConfigError
from workbench.core.identity import text_id
from workbench.core.plain import one_line
from workbench.store.artifacts import clear_disk_errors, write_json_atomic
from workbench.store.database import Store
from workbench.store.owners import Owners, process_named, this_process
from workbench.store.records import now

__all__ = ["complaint", "is_running", "start", "stop"]

_CODE = (
    "import json, os, sys; told = json.load(sys.stdin); os.environ.update(told['environment']);"
    " from workbench.cli import main; main(told['arguments'], prog_name='workbench')"
)
"""The command line; what it is told may hold a password, which a list of processes would show."""
_TAIL = 2_000


def start(store: Store, name: str, arguments: Sequence[str], *, folder: Path) -> None:
    """Start ``workbench`` with arguments, on the same store.

    Args:
        store: Whose settings it gets.
        name: Under which it is found again, e.g. ``experiment quickstart``.
        arguments: As on the command line.
        folder: Where it runs.

    Raises:
        ConfigError: If one of that name runs.
        StoreError: If the disk is full or read-only.
    """
    place = _place(store, name)
    with clear_disk_errors(place), _alone(place):
        if is_running(store, name):
            raise ConfigError(f"{name} is running already; wait for it, or cancel it")
        with place.with_suffix(".log").open("wb") as log:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
                [sys.executable, "-c", _CODE],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
                start_new_session=True,
            )  # fmt: skip
        owner = process_named(child.pid)
        write_json_atomic(place, {"name": name, "process": owner, "at": now()})
    if child.stdin:
        with child.stdin as told:
            # what this notebook belongs to is not what the command belongs to
            settings = replace(
                store.settings, run_folder=None, run_id="", experiment="", fingerprint="", llm=""
            )
            said = {"environment": settings.to_environment(), "arguments": list(arguments)}
            told.write(json.dumps(said).encode())
    threading.Thread(target=child.wait, daemon=True).start()  # leaves no zombie


def stop(store: Store, name: str) -> bool:
    """Ask a command to stop, as Ctrl-C does; return whether there was one."""
    said = _said(store, name)
    if not is_running(store, name):
        return False
    host, pid, _ = said["process"].rsplit(":", 2)
    if host != this_process().rsplit(":", 2)[0]:
        raise ConfigError(f"{name} runs on {host.partition('/')[0]}; stop it there")
    os.kill(int(pid), signal.SIGTERM)
    return True


def is_running(store: Store, name: str) -> bool:
    """Return whether a command of that name still runs."""
    said = _said(store, name)
    return bool(said) and Owners(time.time).is_alive(said["process"], at=said["at"])


def complaint(store: Store, name: str) -> str:
    """Return the error that a command ended with; empty if there is none."""
    try:
        with _place(store, name).with_suffix(".log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((one_line(line) for line in reversed(lines) if line.startswith("error:")), "")


def _said(store: Store, name: str) -> dict[str, str]:
    try:
        said = json.loads(_place(store, name).read_text(encoding="utf-8"))
        return {"process": str(said["process"]), "at": str(datetime.fromisoformat(said["at"]))}
    except (OSError, ValueError, TypeError, KeyError):  # none, or a damaged one
        return {}


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let one panel at a time look whether a command runs, and start it: it may spend money."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock"), thread_local=False):
        yield


def _place(store: Store, name: str) -> Path:
    """Return where a command is noted; its name may hold anything."""
    return store.home / "panels" / f"{text_id(name)[:16]}.json"
