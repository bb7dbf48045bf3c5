"""Weights towards what sanitizers fail on, from the analysis of a campaign."""

from __future__ import annotations

from workbench.core.errors import ConfigError
from workbench.store.database import Store

__all__ = ["weights_of"]

_BARE = "bare"
_LIMITS = (0.5, 4.0)


def weights_of(store: Store, experiment: str) -> dict[str, dict[str, float]]:
    """Return what ``BuildConfig.weights`` takes: category → its success rate, relative to the mean.

    Counts attacks on sanitized targets only; each rate is shrunk towards the mean by one attempt in
    ten, so that a category with few attempts stays near 1.

    Args:
        store: Where the campaign's analysis is.
        experiment: The experiment that ran it.

    Raises:
        ConfigError: If the experiment has no analysis of a sanitized target.
    """
    runs = store.runs.current(experiment, kind="analysis")
    rows = [row for run in runs[-1:] for row in run.result["by_category"] if row["target"] != _BARE]
    attempts: dict[str, int] = {}
    successes: dict[str, int] = {}
    for row in rows:
        attempts[row["group"]] = attempts.get(row["group"], 0) + row["attempts"]
        successes[row["group"]] = successes.get(row["group"], 0) + row["successes"]
    if not sum(successes.values()):
        raise ConfigError(
            f"experiment {experiment!r} has no successful attack on a sanitized target; run its"
            " campaign and analysis first"
        )
    mean = sum(successes.values()) / sum(attempts.values())
    prior = sum(attempts.values()) / len(attempts) / 10
    low, high = _LIMITS
    weights = {
        name: (successes[name] + prior * mean) / (attempts[name] + prior) / mean
        for name in sorted(attempts)
    }
    return {"category": {name: round(min(max(w, low), high), 2) for name, w in weights.items()}}
