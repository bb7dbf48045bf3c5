from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import stdtrit
from scipy.stats import binomtest, false_discovery_control

from workbench.campaign.statistics import (
    Paired,
    benjamini_hochberg,
    bootstrap,
    count_interval,
    holm,
    paired_difference,
    paired_interval,
    paired_test,
    rate_interval,
    t_quantile,
)
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


@given(st.lists(st.booleans(), min_size=2, max_size=300))
def test_one_attempt_per_goal_has_the_interval_of_wilson(outcomes: list[bool]) -> None:
    found = rate_interval(outcomes, goals=[str(n) for n in range(len(outcomes))])
    assert found == pytest.approx(wilson(sum(outcomes), len(outcomes)), abs=1e-12)


def test_many_goals_of_independent_attempts_are_nearly_that_many_attempts() -> None:
    hits = np.random.default_rng(0).binomial(5, 0.3, size=5000)
    found = count_interval(hits, np.full(5000, 5))
    naive = wilson(int(hits.sum()), 25_000)
    assert found["low"] == pytest.approx(naive["low"], abs=2e-4)
    assert found["high"] == pytest.approx(naive["high"], abs=2e-4)


counts_per_goal = st.lists(
    st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    min_size=1, max_size=40,
)  # fmt: skip


@given(counts_per_goal, st.data())
@example([(0, 50)] * 20, None)
@example([(30, 30)] * 14 + [(0, 30)], None)
@example([(1, 2)] * 12, None)
def test_another_success_lowers_neither_end(goals: list[tuple[int, int]], data) -> None:
    hits, sizes = (np.array(column) for column in zip(*goals, strict=True))
    room = np.flatnonzero(hits < sizes).tolist()
    assume(room)
    before = count_interval(hits, sizes)
    for at in [data.draw(st.sampled_from(room))] if data else room:
        more = hits.copy()
        more[at] += 1
        after = count_interval(more, sizes)
        assert after["low"] >= before["low"] - 1e-9
        assert after["high"] >= before["high"] - 1e-9
        assert after["value"] > before["value"]


@given(counts_per_goal)
def test_failures_have_the_mirrored_interval_of_successes(goals) -> None:
    hits, sizes = (np.array(column) for column in zip(*goals, strict=True))
    found, mirrored = count_interval(hits, sizes), count_interval(sizes - hits, sizes)
    assert found["low"] == pytest.approx(1 - mirrored["high"], abs=1e-9)
    assert found["high"] == pytest.approx(1 - mirrored["low"], abs=1e-9)


def test_within_its_bounds_the_interval_is_that_of_empirical_likelihood() -> None:
    generator = np.random.default_rng(4)
    hits = generator.binomial(20, generator.beta(2, 3, size=30))
    found = count_interval(hits, np.full(30, 20))

    def statistic(rate: float) -> float:
        """Owen's, by its dual: the highest value over the Lagrange multiplier."""
        gaps = hits / 20 - rate
        ends = (1e-9 - 1) / gaps.max(), (1e-9 - 1) / gaps.min()
        best = minimize_scalar(
            lambda s: -2 * np.log1p(s * gaps).sum(), bounds=ends, method="bounded",
            options={"xatol": 1e-12},
        )  # fmt: skip
        return -best.fun

    expected = stdtrit(29, 0.975) ** 2
    assert statistic(found["low"]) == pytest.approx(expected, rel=1e-4)
    assert statistic(found["high"]) == pytest.approx(expected, rel=1e-4)


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
    ("goals", "tries", "rate", "icc"),
    [
        (100, 30, 0.01, 0.1), (100, 30, 0.01, 0.3), (50, 30, 0.02, 0.5), (20, 30, 0.05, 0.3),
        (20, 30, 0.2, 0.3), (100, 4, 0.02, 0.3), (10, 20, 0.3, 0.3), (200, 30, 0.005, 0.3),
        (5, 10, 0.3, 0.33), (40, 7, 0.3, 0.33), (100, 30, 0.3, 0.001),
    ],
)  # fmt: skip
def test_intervals_cover_the_truth_where_goals_differ(goals, tries, rate, icc) -> None:
    generator = np.random.default_rng(0)
    shape = 1 / icc - 1
    covered = []
    for _ in range(300):
        chance = generator.beta(rate * shape, (1 - rate) * shape, size=goals)
        found = count_interval(generator.binomial(tries, chance), np.full(goals, tries))
        covered.append(found["low"] <= rate <= found["high"])
    assert np.mean(covered) >= 0.93 - 0.02  # a standard error and a half of 300 draws


def test_clustered_attempts_cost_certainty_no_more_than_they_must() -> None:
    generator = np.random.default_rng(1)
    widths = []
    for _ in range(100):
        hits = generator.binomial(30, generator.beta(3, 7, size=50))  # ICC 1 / 11
        found = count_interval(hits, np.full(50, 30))
        widths.append(found["high"] - found["low"])
    error = (0.3 * 0.7 * (1 + 29 / 11) / 1500) ** 0.5
    assert np.mean(widths) == pytest.approx(2 * 1.96 * error, rel=0.1)


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


@given(st.integers(1, 100_000))
def test_quantiles_of_t_equal_scipy(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(float(stdtrit(degrees, 0.975)), abs=2e-5)


def pairs(both: int, only_first: int, only_second: int, neither: int) -> Paired:
    """Return one pair per goal."""
    table = [(1, 1)] * both + [(1, 0)] * only_first + [(0, 1)] * only_second + [(0, 0)] * neither
    first, second = np.array(table).T
    return Paired(first, second, np.ones(len(table), np.int64))


def test_mcnemar_gives_the_published_figures() -> None:
    # Fagerland, Lydersen & Laake 2013, table 1 (Bentur et al. 2009): exact .0703, mid-p .0391.
    first, second, _ = pairs(1, 1, 7, 12)
    found = paired_test(second - first)
    assert found.p == pytest.approx(0.0703, abs=5e-5)
    assert found.mid_p == pytest.approx(0.0391, abs=5e-5)


@given(st.integers(0, 300), st.integers(0, 300))
def test_one_pair_per_goal_is_mcnemar(only_first: int, only_second: int) -> None:
    signs = np.array([-1] * only_first + [1] * only_second + [0] * 5)
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1.0
    found = paired_test(signs)
    assert found.p == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert 0 < found.mid_p <= found.p <= 1


@given(st.lists(st.integers(-6, 6), max_size=10))
def test_unequal_goals_are_exchanged_in_every_way(differences: list[int]) -> None:
    signed = itertools.product(*(((one, -one) if one else (0,)) for one in differences))
    sums = [abs(sum(one)) for one in signed]
    observed = abs(sum(differences))
    found = paired_test(np.array(differences, np.int64))
    assert found.p == pytest.approx(np.mean([one >= observed for one in sums]))
    weights = [1.0 if one > observed else 0.5 if one == observed else 0.0 for one in sums]
    assert found.mid_p == pytest.approx(np.mean(weights) if any(differences) else 1.0)


def test_ways_that_never_differed_are_not_told_apart() -> None:
    assert paired_test(np.zeros(12, np.int64)) == (1.0, 1.0)
    assert paired_test(np.array([], np.int64)) == (1.0, 1.0)


def test_many_unequal_goals_are_nearly_exact() -> None:
    differences = np.array([2] * 60 + [-2] * 40)  # as ones: McNemar of 60 against 40
    ones = paired_test(differences // 2)
    assert paired_test(differences).p == pytest.approx(ones.mid_p, abs=2e-3)


def test_attempts_of_one_goal_are_not_many_proofs() -> None:
    assert paired_test(np.array([40])).p == 1.0  # one goal, forty attempts
    assert paired_test(np.ones(40, np.int64)).p < 1e-9


def test_the_test_keeps_its_level_where_goals_differ() -> None:
    generator = np.random.default_rng(1)
    rejected = []
    for _ in range(1500):
        chance = generator.beta(0.5, 0.5, size=(30, 1))  # a goal is easy or hard for both
        wins = generator.random((2, 30, 6)) < chance
        rejected.append(paired_test(np.subtract(*wins.sum(axis=2).astype(np.int64))).p < 0.05)
    assert 0.02 < np.mean(rejected) < 0.065


def test_difference_gives_newcombes_published_interval() -> None:
    # Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33:2850, of the same table.
    found = paired_interval(wilson(2, 21), wilson(8, 21), correlation=0.0)  # phi is corrected to 0
    assert found["value"] == pytest.approx(6 / 21)
    assert (found["low"], found["high"]) == pytest.approx((0.026, 0.507), abs=5e-4)


@given(st.tuples(*[st.integers(0, 200)] * 4).filter(lambda table: sum(table) > 100))
def test_difference_of_single_pairs_is_newcombes_method_10(table) -> None:
    both, only_first, only_second, neither = table
    n = sum(table)
    cross = both * neither - only_first * only_second
    cross = max(0, cross - n / 2) if cross > 0 else cross
    a, b = both + only_first, both + only_second
    spread = (a * b * (n - a) * (n - b)) ** 0.5
    expected = paired_interval(
        wilson(a, n), wilson(b, n), correlation=cross / spread if spread else 0.0
    )
    assert paired_difference(pairs(*table)) == pytest.approx(expected, abs=1e-9)


def test_no_difference_seen_is_not_certainty() -> None:
    found = paired_difference(pairs(10, 0, 0, 10))
    assert found["value"] == 0
    assert found["low"] < -0.05
    assert found["high"] > 0.05


@pytest.mark.parametrize("attempts", [1, 6])
def test_intervals_of_differences_cover_the_truth(attempts: int) -> None:
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(800):
        hard = generator.beta(1, 1, size=(40, 1))
        first = (generator.random((40, attempts)) < hard).sum(axis=1)
        second = (generator.random((40, attempts)) < hard / 2).sum(axis=1)
        found = paired_difference(Paired(first, second, np.full(40, attempts)))
        covered.append(found["low"] <= -0.25 <= found["high"])
    assert 0.93 <= np.mean(covered) <= 0.99


def test_holm_as_computed_by_hand() -> None:
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_corrections_bound_each_other(p_values: list[float]) -> None:
    q = benjamini_hochberg(p_values)
    assert q == pytest.approx(false_discovery_control(p_values).tolist())
    for raw, found, strict in zip(p_values, q, holm(p_values), strict=True):
        assert raw <= found + 1e-12
        assert found <= strict + 1e-12
    assert min(holm(p_values)) == pytest.approx(min(1, min(p_values) * len(p_values)))


def test_bootstrap_of_a_mean_is_that_of_its_formula() -> None:
    values = np.random.default_rng(3).normal(5, 2, size=5000)
    sums = np.stack([values, np.ones(5000)], axis=1)
    found = bootstrap(sums, lambda total: total[:, 0] / total[:, 1])
    error = values.std() / 5000**0.5
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found == bootstrap(sums, lambda total: total[:, 0] / total[:, 1])
    assert found != bootstrap(sums, lambda total: total[:, 0] / total[:, 1], seed=1)


def test_bootstrap_leaves_out_what_is_undefined() -> None:
    def ratio(total: np.ndarray) -> np.ndarray:
        return total[:, 0] / np.where(total[:, 1] > 0, total[:, 1], np.nan)

    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])  # without the first it is undefined
    assert bootstrap(sums, ratio) == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert bootstrap(sums[1:], ratio) is None
