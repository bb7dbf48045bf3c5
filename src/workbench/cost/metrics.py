"""Prometheus metrics, computed from the ledger and the run table: the truth of all processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.core.errors import ConfigError
from workbench.cost.alerts import stored_bytes
from workbench.cost.calls import count_calls
from workbench.store.database import Store
from workbench.store.ledger import TOKEN

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric

__all__ = ["StoreCollector", "exposition", "write_textfile"]

_LATENCY_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_KINDS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_COUNTERS = {
    "workbench_llm_calls": (
        "Requests, by how they were answered.",
        ("model", "task", "phase", "outcome"),
    ),
    "workbench_llm_tokens": ("Tokens as the services counted them.", ("model", "kind")),
    "workbench_llm_dollars": (
        "US dollars billed; lost calls at their worst case.",
        ("model", "phase"),
    ),
    "workbench_llm_bytes": ("Bytes of HTTP bodies.", ("direction",)),
    "workbench_llm_cache_hits": ("Answers that were at hand.", ()),
    "workbench_llm_cache_misses": ("Calls that were not at hand, and why.", ("reason",)),
}


_Amounts = dict[tuple[str, ...], float]
"""By labels."""


class StoreCollector:
    """Reads the store anew at each scrape."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        counts, latencies = self._count()
        for name, (help_text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(name, help_text, labels=labels)
            for values, amount in sorted(counts[name].items()):
                family.add_metric(values, amount)
            yield family
        histogram = HistogramMetricFamily(
            "workbench_llm_latency_seconds", "Seconds from request to answer.", labels=["model"]
        )
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

    def _count(self) -> tuple[dict[str, _Amounts], dict[str, list[float]]]:
        """Return amounts by metric, and latencies by model."""
        counts: dict[str, _Amounts] = defaultdict(lambda: defaultdict(float))
        latencies: dict[str, list[float]] = defaultdict(list)
        for row in self._store.ledger.rows():
            if row.unit != TOKEN:
                continue
            told, model = row.details, _label(row.resource)
            outcome, calls = count_calls(row)
            who = (model, _label(told.get("task", "")), row.phase, _label(outcome))
            counts["workbench_llm_calls"][who] += calls
            counts["workbench_llm_dollars"][model, row.phase] += float(row.usd)
            for kind in _KINDS:
                counts["workbench_llm_tokens"][model, kind] += told.get(kind, 0)
            for direction in ("sent", "received"):
                counts["workbench_llm_bytes"][(direction,)] += told.get(f"bytes_{direction}", 0)
            if outcome in {"hit", "joined"}:
                counts["workbench_llm_cache_hits"][()] += calls
            elif outcome in {"sent", "batch"}:
                reason = _label(told.get("miss", ""))
                counts["workbench_llm_cache_misses"][(reason,)] += calls
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
