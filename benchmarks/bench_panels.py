"""What panels cost: a table of 100,000 rows opened and paged, a monitor at 100 events a second.

Measures the Python side: building the widget, pages, and the sizes of messages (median). The
monitor is measured on an execution that begins and on one that has as many attempts as the table.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from measure import publish
from workbench.core.settings import read_settings
from workbench.notebook.widgets.monitor import Monitor
from workbench.notebook.widgets.panel import SHARE
from workbench.notebook.widgets.table import Arrow, PagedTable
from workbench.store.campaigns import add_attempts
from workbench.store.database import open_store
from workbench.store.events import tell
from workbench.store.records import Attempt

_EXECUTION = "e" * 64
_COLUMNS = ("target", "case_id", "trial", "decision", "success", "error", "sent", "received")
_WORDS = "one of many words in a text that says nothing at all "
_TARGETS = ("bare", "guard", "guard@4", "model")
_PAGES = 20
BOUNDS = {
    "table opens, s": 1.5,
    "monitor with 0 attempts, share of a core at one update a second": 0.05,
    "monitor with 0 attempts, bytes of a difference": 200,
    "monitor with 100,000 attempts, s between updates that keep 5%": 10.0,
    "monitor with 100,000 attempts, bytes of a difference": 200,
}


def main() -> int:
    """Measure and publish; the status is 1 where a bound is broken."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--ticks", type=int, default=30)
    given = parser.parse_args()
    with TemporaryDirectory(prefix="panels-") as folder:
        found = {
            **_table(Path(folder), rows=given.rows),
            **_monitor(Path(folder) / "new", stored=0, ticks=given.ticks),
            **_monitor(Path(folder) / "late", stored=given.rows, ticks=given.ticks),
        }
    rows = [{"what": what, "value": float(value), "bound": BOUNDS.get(what, "")}
            for what, value in found.items()]  # fmt: skip
    publish("panels", rows)
    return int(any(found.get(what, 0.0) > bound for what, bound in BOUNDS.items()))


def _table(folder: Path, *, rows: int) -> dict[str, float]:
    path = folder / "attempts.parquet"
    columns: dict[str, Any] = {
        "target": [_TARGETS[n % 4] for n in range(rows)],
        "case_id": [f"{n * 7919 % rows:064x}" for n in range(rows)],
        "trial": [n % 3 for n in range(rows)],
        "decision": ["pass"] * rows,
        "success": [n % 5 == 0 for n in range(rows)],
        "error": [""] * rows,
        "sent": [f"{n} {_WORDS * 8}" for n in range(rows)],
        "received": [f"{n} {_WORDS * 8}" for n in range(rows)],
    }
    pq.write_table(pa.table(columns), path, row_group_size=10_000, compression="zstd")
    del columns
    began = time.perf_counter()
    table = PagedTable(Arrow(path, columns=_COLUMNS), label="Attempts", key="case_id")
    first = table.answer({"page": 0})
    open_s = time.perf_counter() - began
    last = rows // table.page_size - 1
    places = [n * last // _PAGES for n in range(1, _PAGES + 1)]
    pages = [_timed(table, {"page": place}) for place in places]
    ordered = {"sort": 1, "descending": True}
    sort_s, _ = _timed(table, {"page": 0, **ordered})
    found_s, _ = _timed(table, {"page": 0, "filter": "4242"})
    by_order = [_timed(table, {"page": place, **ordered})[0] for place in places[:5]]
    table.close()
    return {
        "table opens, s": open_s,
        "first page, bytes": float(len(json.dumps(first))),
        "page, median ms": 1_000 * statistics.median(s for s, _ in pages),
        "page, worst ms": 1_000 * max(s for s, _ in pages),
        "page, median bytes": statistics.median(size for _, size in pages),
        "first sorted page, s": sort_s,
        "sorted page, median ms": 1_000 * statistics.median(by_order),
        "first filtered page, s": found_s,
    }


def _timed(table: PagedTable, asked: dict[str, Any]) -> tuple[float, int]:
    began = time.perf_counter()
    answer = table.answer(asked)
    return time.perf_counter() - began, len(json.dumps(answer))


def _monitor(folder: Path, *, stored: int, ticks: int) -> dict[str, float]:
    """Write 100 attempts a tick, then update; ``follow`` waits so that the share is kept."""
    store = open_store(read_settings({"WORKBENCH_HOME": str(folder), "WORKBENCH_USER": "bench"}))
    told = {"test_set": "t" * 64, "targets": list(_TARGETS), "total": stored + 100 * ticks}
    tell(store, "attack_run_started", _EXECUTION, told)
    for at in range(0, stored, 5_000):
        add_attempts(store.engine, map(_attempt, range(at, min(at + 5_000, stored))))
    panel = Monitor(store)
    panel.build()
    sizes: list[int] = []
    panel.view.send = lambda content: sizes.append(len(json.dumps(content)))
    cpu_s, waits_s = [], []
    for tick in range(ticks):
        add_attempts(
            store.engine, map(_attempt, range(stored + 100 * tick, stored + 100 * tick + 100))
        )
        began = time.thread_time()
        panel.update()
        cpu_s.append(time.thread_time() - began)
        waits_s.append(max(1.0, cpu_s[-1] / SHARE))
    panel.close()
    store.engine.dispose()
    name = f"monitor with {stored:,} attempts,"
    return {
        f"{name} update, CPU ms": 1_000 * statistics.median(cpu_s),
        f"{name} share of a core at one update a second": sum(cpu_s) / ticks,
        f"{name} s between updates that keep {SHARE:.0%}": statistics.median(waits_s),
        f"{name} bytes of a difference": statistics.median(sizes),
        f"{name} bytes of an update": sum(sizes) / ticks,
    }


def _attempt(number: int) -> Attempt:
    return Attempt(
        execution=_EXECUTION, case_id=f"{number:064x}", target=_TARGETS[number % 4],
        sent=f"{number} {_WORDS * 8}", received=f"{number} {_WORDS * 8}", decision="pass",
        scores={"judge": 0.5}, success=number % 5 == 0, latency_ms=1.0,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
