"""Where the time of a process went, for ``workbench run --profile``."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

from workbench.store.artifacts import clear_disk_errors

__all__ = ["Profile"]

_LINES = 40


class Profile:
    """Watches the calls of this thread, from its construction until it is written."""

    def __init__(self) -> None:
        self._profiler = cProfile.Profile()
        self._profiler.enable()

    def write(self, folder: Path) -> Path:
        """Stop; write ``profile.pstats`` and a readable ``profile.txt``, and return the latter.

        Raises:
            StoreError: If the disk is full or read-only.
        """
        self._profiler.disable()
        readable = folder / "profile.txt"
        with clear_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._profiler.dump_stats(folder / "profile.pstats")
            with readable.open("w", encoding="utf-8") as file:
                stats = pstats.Stats(self._profiler, stream=file)
                stats.sort_stats("cumulative").print_stats(_LINES)
        return readable
