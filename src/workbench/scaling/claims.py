"""What the roadmap claims for its phases: shown beside measurements, never compared with them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NOTE", "PHASES", "PROMISES", "Phase", "Promise", "roadmap_claims", "span"]

NOTE = (
    "claimed by the roadmap, metric incompatible: its safety is a constant per keyword hit and its "
    "semantic score the word overlap of a prompt with its own edited copy"
)


class Phase(NamedTuple):
    """A phase as the roadmap has it; pairs of numbers are from, to."""

    name: str
    pairs: int
    parameters: int
    models: int
    """Size of its ensemble."""
    gpus: int
    """0: a CPU."""
    gpu: str
    """The first one named."""
    hardware: str
    hours: tuple[float, float]
    usd: tuple[float, float]
    kwh: float
    kgco2: float | None
    safety: float
    semantic: float


PHASES = (
    Phase("Current", 17_715, 500_000, 1, 0, "", "laptop CPU", (13 / 3600, 54 / 3600), (0, 0),
          0.01, None, 0.453, 0.693),
    Phase("Phase 1", 100_000, 500_000, 1, 1, "RTX 3090", "RTX 3090 or A100", (2, 4), (50, 100),
          5, None, 0.60, 0.72),
    Phase("Phase 2", 250_000, 5_000_000, 3, 4, "A100", "4 × A100", (12, 24), (500, 1_000),
          50, None, 0.70, 0.74),
    Phase("Phase 3", 1_000_000, 50_000_000, 5, 16, "A100", "16 × A100", (168, 336),
          (10_000, 20_000), 500, 200, 0.75, 0.76),
)  # fmt: skip


class Promise(NamedTuple):
    """What more of something is to bring, in percent."""

    data: float
    """How many times the data."""
    parameters: float
    safety_pct: float
    semantic_pct: float


PROMISES = (
    Promise(10, 1, 15, 3),
    Promise(100, 1, 30, 5),
    Promise(1, 10, 12, 2),
    Promise(1, 100, 20, 3),
    Promise(100, 100, 65, 10),
)


def roadmap_claims() -> list[dict[str, object]]:
    """Return one row per phase, as claimed: size, hardware, hours, results, money, energy, CO2."""
    shown = (
        "pairs",
        "parameters",
        "hardware",
        "hours",
        "safety",
        "semantic",
        "usd",
        "kwh",
        "kgco2",
    )
    return [
        {"phase": phase.name}
        | {name: getattr(phase, name) for name in shown}
        | {
            "hours": span(phase.hours),
            "usd": span(phase.usd),
            "kgco2": phase.kgco2,
            "kind": "claimed",
        }
        for phase in PHASES
    ]


def span(ends: tuple[float, float]) -> str:
    """Return a range of numbers in words, with three digits where they are small."""
    low, high = (f"{end:,.0f}" if end >= 100 or end == int(end) else f"{end:.2g}" for end in ends)  # noqa: PLR2004
    return low if low == high else f"{low}–{high}"
