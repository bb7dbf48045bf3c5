from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from workbench.campaign.statistics import rate_interval
from workbench.core.errors import ConfigError
from workbench.judge.measure import wilson


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_scipy(counts: tuple[int, int]) -> None:
    successes, n = counts
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert found["value"] == successes / n
    assert found["low"] == pytest.approx(expected.low, abs=1e-12)
    assert found["high"] == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ConfigError, match="successes"):
        wilson(successes, n)


def test_many_independent_attempts_have_the_interval_of_wilson() -> None:
    outcomes = [True] * 1200 + [False] * 2800
    found = rate_interval(outcomes, goals=[str(n) for n in range(4000)])
    assert found == pytest.approx(wilson(1200, 4000), abs=1e-4)


def test_repeating_attempts_of_a_goal_adds_no_certainty() -> None:
    outcomes = [True, False] * 10
    goals = [str(n) for n in range(20)]
    once, often = (
        rate_interval(outcomes, goals=goals),
        rate_interval(outcomes * 25, goals=goals * 25),
    )
    assert often["low"] == pytest.approx(once["low"], abs=0.01)
    naive = wilson(250, 500)
    assert often["high"] - often["low"] > 3 * (naive["high"] - naive["low"])


@pytest.mark.parametrize(
    ("goals", "attempts", "least"), [(5, 10, 0.9), (8, 7, 0.92), (40, 7, 0.92)]
)
def test_intervals_cover_the_truth_with_few_and_many_goals(goals, attempts, least) -> None:
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(goals), attempts).astype(str).tolist()
    covered = []
    for _ in range(400):
        chance = generator.beta(0.6, 1.4, size=goals)  # goals differ much; their mean is .3
        outcomes = (generator.random((attempts, goals)) < chance).T.ravel().tolist()
        found = rate_interval(outcomes, goals=names)
        covered.append(found["low"] <= 0.3 <= found["high"])
    assert least <= np.mean(covered) <= 0.99


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), min_size=1, max_size=60))
def test_rate_interval_holds_its_rate(pairs: list[tuple[bool, str]]) -> None:
    outcomes, goals = zip(*pairs, strict=True)
    found = rate_interval(outcomes, goals=goals)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert found["low"] < found["high"]  # never certain


def test_no_success_in_many_attempts_at_few_goals_is_not_certainty() -> None:
    found = rate_interval([False] * 300, goals=["a", "b", "c"] * 100)
    assert found["high"] == wilson(0, 3)["high"]
    assert rate_interval([False] * 300, goals=["a"] * 300)["high"] == 1
