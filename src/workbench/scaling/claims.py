"""What the roadmap claims for its phases: shown beside measurements, never compared with them."""

from __future__ import annotations

__all__ = ["NOTE", "roadmap_claims"]

NOTE = (
    "claimed by the roadmap, metric incompatible: its safety is a constant per keyword hit and its "
    "semantic score the word overlap of a prompt with its own edited copy"
)

_COLUMNS = ("phase", "pairs", "parameters", "safety", "semantic", "usd", "kwh", "kind")
_ROWS: tuple[tuple[str | float, ...], ...] = (
    ("Current", 17_715, 500_000, 0.453, 0.693, "0", 0.01, "claimed"),
    ("Phase 1", 100_000, 500_000, 0.60, 0.72, "50–100", 5, "claimed"),
    ("Phase 2", 250_000, 5_000_000, 0.70, 0.74, "500–1,000", 50, "claimed"),
    ("Phase 3", 1_000_000, 50_000_000, 0.75, 0.76, "10,000–20,000", 500, "claimed"),
)


def roadmap_claims() -> list[dict[str, object]]:
    """Return one row per phase: phase, pairs, parameters, safety, semantic, usd (range), kwh."""
    return [dict(zip(_COLUMNS, row, strict=True)) for row in _ROWS]
