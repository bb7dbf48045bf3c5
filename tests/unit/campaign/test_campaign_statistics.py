from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from workbench.campaign.statistics import cluster_bootstrap, rate_interval, wilson
from workbench.core.errors import ConfigError


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


def test_bootstrap_of_singletons_approaches_the_binomial_interval() -> None:
    outcomes = [True] * 120 + [False] * 280
    found = cluster_bootstrap(
        outcomes, clusters=[str(n) for n in range(400)], seed=1, resamples=20_000
    )
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)  # closed form of resampling independent trials
    assert found["low"] == pytest.approx(0.3 - half, abs=0.005)
    assert found["high"] == pytest.approx(0.3 + half, abs=0.005)


def test_repeating_attempts_of_a_goal_adds_no_certainty() -> None:
    outcomes = [True, False] * 10
    goals = [str(n) for n in range(20)]
    once = cluster_bootstrap(outcomes, clusters=goals, seed=0)
    often = cluster_bootstrap(outcomes * 25, clusters=goals * 25, seed=0)
    assert once == often
    naive = wilson(250, 500)
    assert often["high"] - often["low"] > 3 * (naive["high"] - naive["low"])


def test_bootstrap_covers_the_truth_about_95_percent_of_the_time() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        chance = generator.beta(3, 7, size=60)  # goals differ; their mean is .3
        outcomes = (generator.random((60, 5)) < chance[:, None]).ravel().tolist()
        clusters = np.repeat(np.arange(60), 5).astype(str).tolist()
        found = cluster_bootstrap(outcomes, clusters=clusters, seed=trial, resamples=400)
        covered += found["low"] <= 0.3 <= found["high"]
    assert 180 <= covered <= 199


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_rate_interval_holds_its_rate(pairs: list[tuple[bool, str]], seed: int) -> None:
    outcomes, goals = zip(*pairs, strict=True)
    found = rate_interval(list(outcomes), goals=list(goals), seed=seed)
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert found["low"] < found["high"]  # never certain
    assert found == rate_interval(list(outcomes), goals=list(goals), seed=seed)


def test_no_success_in_many_attempts_at_few_goals_is_not_certainty() -> None:
    found = rate_interval([False] * 300, goals=["a", "b", "c"] * 100, seed=0)
    assert found["high"] == wilson(0, 3)["high"]


def test_bootstrap_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="one cluster per outcome"):
        cluster_bootstrap([True], clusters=[], seed=0)
    with pytest.raises(ConfigError, match="at least 100"):
        cluster_bootstrap([True], clusters=["a"], seed=0, resamples=5)
