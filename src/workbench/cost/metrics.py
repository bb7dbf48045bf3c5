"""Prometheus metrics, computed from the ledger and the run table: the truth of all processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import ConfigError
from workbench.cost.alerts import stored_bytes
from workbench.cost.calls import BILLED, count_calls, is_rehearsal
from workbench.store.database import Store
from workbench.store.ledger import TOKEN

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["StoreCollector", "exposition", "write_textfile"]

_LATENCY_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_COUNTERS = {
    "calls": ("Requests, by how they were answered.", ("model", "task", "phase", "outcome")),
    "tokens": ("Tokens as the services counted them.", ("model", "kind")),
    "dollars": ("US dollars billed; lost calls at their worst case.", ("model", "phase")),
    "bytes": ("Bytes of HTTP bodies.", ("direction",)),
    "cache_hits": ("Answers that were at hand.", ()),
    "cache_misses": ("Calls that were not at hand, and why.", ("reason",)),
    "rehearsed_calls": ("Calls of rehearsals, which no other metric counts.", ()),
    "rehearsed_dollars": ("What they would have cost; nobody was billed.", ()),
}


class StoreCollector:
    """Reads the store anew at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        from prometheus_client.core import HistogramMetricFamily as Histogram

        counts, latencies = self._count()
        for name, (help_text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(f"workbench_llm_{name}", help_text, labels=labels)
            for (_, *values), amount in sorted(one for one in counts.items() if one[0][0] == name):
                family.add_metric(values, amount)
            yield family
        told = "Seconds from request to answer."
        histogram = Histogram("workbench_llm_latency_seconds", told, labels=["model"])
        for model, seconds in sorted(latencies.items()):
            buckets = [(str(b), sum(s <= b for s in seconds)) for b in _LATENCY_BOUNDS_S]
            histogram.add_metric([model], [*buckets, ("+Inf", len(seconds))], sum(seconds))
        yield histogram
        runs = GaugeMetricFamily("workbench_runs", "Runs in the run table.", labels=["state"])
        for state, number in sorted(Counter(run.state for run in self._store.runs.find()).items()):
            runs.add_metric([state], number)
        yield runs
        size = stored_bytes(self._store.home)
        yield GaugeMetricFamily("workbench_storage_bytes", "Bytes in the store's folder.", size)

    def _count(self) -> tuple[dict[tuple[str, ...], float], dict[str, list[float]]]:
        """Return amounts by metric and labels, and latencies by model."""
        counts: dict[tuple[str, ...], float] = defaultdict(float)
        latencies: dict[str, list[float]] = defaultdict(list)
        for row in self._store.ledger.rows():
            if row.unit != TOKEN:
                continue
            told, model = row.details, _label(row.resource)
            outcome, calls = count_calls(row)
            if is_rehearsal(row):
                counts["rehearsed_calls",] += calls if outcome in BILLED else 0
                counts["rehearsed_dollars",] += float(row.usd)
                continue
            counts["calls", model, _label(told.get("task", "")), row.phase, outcome] += calls
            counts["dollars", model, row.phase] += float(row.usd)
            for kind in _KINDS:
                counts["tokens", model, kind] += told.get(kind, 0)
            for direction in ("sent", "received"):
                counts["bytes", direction] += told.get(f"bytes_{direction}", 0)
            if outcome in {"hit", "joined"}:
                counts["cache_hits",] += calls
            elif outcome in {"sent", "batch"}:
                counts["cache_misses", _label(told.get("miss", ""))] += calls
            if outcome == "sent" and "latency_s" in told:
                latencies[model].append(float(told["latency_s"]))
        return counts, latencies


def exposition(store: Store) -> bytes:
    """Return all metrics in Prometheus' text format, for a ``/metrics`` page."""
    from prometheus_client import generate_latest

    return generate_latest(_registry(store))


def write_textfile(store: Store, path: Path) -> None:
    """Write all metrics to a file for node_exporter's textfile collector, whole or not at all.

    Raises:
        ConfigError: If the file cannot be written.
    """
    from prometheus_client import write_to_textfile

    try:
        write_to_textfile(str(path), _registry(store))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a file that can be written") from None


def _registry(store: Store) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(StoreCollector(store))
    return registry


def _label(value: object) -> str:
    """Return text that UTF-8 can say; the library escapes the rest."""
    return str(value)[:200].encode("utf-8", "replace").decode()
