"""What every benchmark needs: child processes measured, a table printed, figures kept."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench.core.provenance import git_commit, library_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
PROGRAMS = Path(sys.executable).parent
WORKBENCH = str(PROGRAMS / "workbench")
_SAMPLE_EVERY_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one command used, its whole process tree included."""

    wall_s: float
    cpu_s: float
    """User and system seconds of the command and every descendant that it waited for."""
    peak_rss_mb: float
    """Largest sum of resident sizes over the tree, shared pages counted in each process; 0 where
    it was not sampled."""
    peak_pss_mb: float
    """The same with shared pages counted once, where the system tells."""
    output: str


def call(
    command: Sequence[str],
    *,
    cwd: Path,
    variables: Mapping[str, str] | None = None,
    sample_memory: bool = False,
) -> Use:
    """Run a command to its end and return what it used.

    Raises:
        SystemExit: If the command fails; a benchmark of a failure means nothing.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    peak = _Peak(process.pid, wanted=sample_memory)
    output, _ = process.communicate()
    wall_s = time.perf_counter() - started
    peak.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Use(
        wall_s=wall_s, cpu_s=cpu_s, peak_rss_mb=peak.rss_mb, peak_pss_mb=peak.pss_mb, output=output
    )


class _Peak:
    """Samples the memory of a process tree from a thread."""

    def __init__(self, pid: int, *, wanted: bool) -> None:
        self.rss_mb = self.pss_mb = 0.0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        if wanted:
            self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(_SAMPLE_EVERY_S):
            rss_mb, pss_mb = tree_mb(self._pid)
            self.rss_mb, self.pss_mb = max(self.rss_mb, rss_mb), max(self.pss_mb, pss_mb)


def tree_mb(pid: int) -> tuple[float, float]:
    """Return the resident and the proportional memory of a process and its descendants, in MiB."""
    rss = pss = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:  # it ended
        return 0.0, 0.0
    for process in family:
        try:
            memory = process.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        rss += memory.rss
        pss += getattr(memory, "pss", memory.rss)
    return rss / 2**20, pss / 2**20


def machine() -> dict[str, Any]:
    """Return what figures depend on: cores, load, Python, libraries, commit."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "load_1_min": round(os.getloadavg()[0], 2),
        "platform": platform.platform(terse=True),
        "commit": git_commit(),
        "versions": library_versions(),
    }


def publish(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as one table with a line on the machine, and write ``results/<name>.json``."""
    where = machine()
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    for position, row in enumerate(cells):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        if position == 0:
            print("  ".join("-" * width for width in widths))
    versions = where["versions"]
    print(
        f"{where['cores']} cores, load {where['load_1_min']}, {where['platform']},"
        f" Python {versions['python']}, torch {versions['torch']}, commit {where['commit']}"
    )
    RESULTS.mkdir(exist_ok=True)
    document = {"name": name, "machine": where, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
