"""What ``workbench serve --plan`` takes, and how far its numbers hang on chance.

    python benchmarks/bench_capacity.py [SEEDS]

Plans the roadmap's 10 million prompts a day: once whole, then without sensitivity over SEEDS seeds
(8), where the spread of what is found is the error of the simulation alone.
"""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import Any

from measure import publish
from workbench.serving.capacity import Plan, hardware, plan


def main() -> None:
    """Measure and publish."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    wall, cpu = time.perf_counter(), time.process_time()
    plan(hardware("cpu"))
    rows = [
        row("whole plan, 16 sizes", [time.perf_counter() - wall], "s"),
        row("  processor", [time.process_time() - cpu], "CPU s", "<= 30"),
    ]
    found: list[Plan] = []
    taken = []
    for seed in range(seeds):
        cpu = time.process_time()
        found.append(plan(hardware("cpu"), seed=seed, sensitivity=False))
        taken.append(time.process_time() - cpu)
    rows += [
        row("without sensitivity", taken, "CPU s"),
        row(f"over {seeds} seeds: machines", [one.machines for one in found], "", "within 1"),
        row("  with one queue", [one.fewest for one in found], ""),
        row("  p50 of the day", [one.day.p50_ms["value"] for one in found], "ms"),
        row("  p95 of the day", [one.day.p95_ms["value"] for one in found], "ms"),
        row("  p99 of the day", [one.day.p99_ms["value"] for one in found], "ms"),
        row("  p99, one machine down", [one.peaks[1].p99_ms["value"] for one in found], "ms"),
        row("  dollars a year", [one.usd_per_year for one in found], "USD"),
        row("  kilowatt-hours a year", [one.kwh_per_year["value"] for one in found], "kWh"),
    ]
    publish("capacity", rows)


def row(what: str, values: list[float], unit: str, limit: str = "") -> dict[str, Any]:
    """Return a row of the table: the median and the range."""
    spread = {"median": float(median(values)), "low": float(min(values))}
    return {"what": what, **spread, "high": float(max(values)), "unit": unit, "limit": limit}


if __name__ == "__main__":
    main()
