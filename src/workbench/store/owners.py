"""Which process a flight belongs to, and whether that process still lives."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Owners", "process_named", "this_process"]

_ELSEWHERE_S = 15 * 60
"""Age under which what another host began counts as alive: its processes cannot be asked."""
_SEEN_S = 1.0
"""How long a process that was seen alive is taken to be."""
_SAME_S = 2.0
"""By how much the creation time of one process may seem to move."""


def this_process() -> str:
    """Return the name of this process as an owner: host, pid and seconds from boot to its start."""
    return process_named(os.getpid())


def process_named(pid: int) -> str:
    """Return the name of a process of this host as an owner."""
    import psutil

    return f"{_host()}:{pid}:{_born_s(psutil.Process(pid)):.2f}"


@cache
def _host() -> str:
    """Return what numbers processes here: other machines and containers may have the same name."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]"))
    return "/".join(parts)


def _born_s(process: Any) -> float:
    """Return when a process was created, in seconds since boot: whoever sets the clock moves both.

    Against the clock alone a living process would seem to be another one, and lose what it holds.
    """
    import psutil

    return float(process.create_time() - psutil.boot_time())


class Owners:
    """Tells which owners still live; asks the system at most once a second for each.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}

    def is_alive(self, owner: str, *, at: str) -> bool:
        """Return whether what an owner began can still be ended by it.

        Args:
            owner: As :func:`this_process` gave it.
            at: When it began, ISO 8601 with time zone.
        """
        now_s = self._clock()
        if owner in self._seen and 0 <= now_s - self._seen[owner] < _SEEN_S:
            return True
        try:
            host, pid, created_at = owner.rsplit(":", 2)
            is_here = host == _host()
            is_alive = is_here and _is_process(int(pid), float(created_at))
        except ValueError:  # not written by this_process
            is_here = is_alive = False
        if not is_here:
            return now_s - datetime.fromisoformat(at).timestamp() < _ELSEWHERE_S
        if is_alive:
            self._seen[owner] = now_s
        return is_alive


def _is_process(pid: int, created_at: float) -> bool:
    import psutil

    try:
        process = psutil.Process(pid)
        is_same = abs(_born_s(process) - created_at) < _SAME_S
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
