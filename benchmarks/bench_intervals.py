"""How often the intervals of campaigns hold the true rate, where attempts come in goals.

Goals' own rates are drawn from a beta distribution, attempts from those: beta-binomial counts with
the intraclass correlation that is said. 95 % is meant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from measure import publish
from workbench.campaign.statistics import count_interval
from workbench.judge.measure import wilson

_TIMES = 2000
_SETTINGS = (
    (100, 30, 0.01, 0.1), (100, 30, 0.01, 0.3), (50, 30, 0.01, 0.3), (50, 30, 0.02, 0.5),
    (20, 30, 0.05, 0.3), (20, 30, 0.2, 0.3), (100, 4, 0.02, 0.3), (10, 20, 0.3, 0.3),
    (100, 1, 0.05, 0.01), (200, 30, 0.005, 0.3), (50, 30, 0.1, 0.5), (5, 10, 0.3, 0.3),
    (100, 30, 0.3, 0.001),
)  # fmt: skip


def main() -> None:
    """Simulate and publish."""
    publish("intervals", [_covered(*setting) for setting in _SETTINGS])


def _covered(goals: int, tries: int, rate: float, icc: float) -> dict[str, Any]:
    generator = np.random.default_rng(1)
    shape = 1 / icc - 1
    sizes = np.full(goals, tries)
    chances = generator.beta(rate * shape, (1 - rate) * shape, (_TIMES, goals))
    hits = generator.binomial(tries, chances)
    found = [count_interval(one, sizes) for one in hits]
    once = [wilson(float(one.sum()) / tries, goals) for one in hits]
    return {
        "goals": goals,
        "tries": tries,
        "rate": rate,
        "icc": icc,
        "covered": float(np.mean([one["low"] <= rate <= one["high"] for one in found])),
        "too low": float(np.mean([one["high"] < rate for one in found])),
        "too high": float(np.mean([one["low"] > rate for one in found])),
        "width": float(np.mean([one["high"] - one["low"] for one in found])),
        "each goal once": float(np.mean([one["high"] - one["low"] for one in once])),
    }


if __name__ == "__main__":
    main()
