"""What Prometheus reads: counts, durations and sizes, never a text and never a key."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_PREFIX = "workbench_serving"


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", told, labels, registry=self._registry)

        def histogram(name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            named = f"{_PREFIX}_{name}"
            return Histogram(named, told, labels, buckets=buckets, registry=self._registry)

        self.requests = counter("requests", "Requests answered.", "route", "status")
        self.rejections = counter("rejections", "Requests refused, and why.", "reason")
        self.decisions = counter("decisions", "What became of texts.", "decision")
        self.tokens = counter("tokens", "Tokens sanitized.")
        self.shadow = counter("shadow", "Answered decision and the shadow's.", "answered", "shadow")
        self.reloads = counter("reloads", "Models loaded, or refused.", "result")
        self.request_seconds = histogram("request_seconds", "From head to end.", _SECONDS, "route")
        self.batch_seconds = histogram("batch_seconds", "Of computing a batch.", _SECONDS)
        self.batch_texts = histogram("batch_texts", "Texts of a batch.", _SIZES)

    def gauge(self, name: str, told: str, read: Callable[[], float]) -> None:
        """Add a value that is read at each scrape."""
        Gauge(f"{_PREFIX}_{name}", told, registry=self._registry).set_function(read)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
