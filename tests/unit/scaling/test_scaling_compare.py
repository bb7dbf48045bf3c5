"""Rollouts see nothing of what they foretell, and choose the law that foretells."""

import numpy as np
import pytest

from workbench.core.errors import DataError
from workbench.scaling.compare import Miss, backtest, choose, compare, laws_below, rollout
from workbench.scaling.law import BROKEN, CONSTANT, LOG_LINEAR, POWER

SIZES = np.repeat([3.0, 6.0, 12.0, 20.0], 3)
SEEDS = np.tile([0, 1, 2], 4)


def falling(x):
    return 0.2 + 0.2 * np.asarray(x) ** -0.6


def broken(x):
    return 0.3 + 2 * x**-0.1 * (1 + (x / 300) ** 4) ** -0.3


def told(x, loss, **options):
    misses = {form.name: rollout(x, loss, form=form) for form in (CONSTANT, LOG_LINEAR, POWER)}
    return backtest(x, loss, laws_below(x, loss, misses=misses, bootstrap=100, **options))


def test_backtest_sees_nothing_of_the_size_it_foretells():
    loss = falling(SIZES) + np.tile([-0.0005, 0, 0.0005], 4)
    (row,) = told(SIZES, loss, clusters=SEEDS)
    assert (row["x_fit_max"], row["x_predicted"]) == (12, 20)
    assert abs(row["error_pct"]) < 0.5 < row["constant_error_pct"]
    assert row["low"] <= row["actual"] <= row["high"]
    (spoilt,) = told(SIZES, np.where(SIZES == 20, 9.0, loss), clusters=SEEDS)
    assert spoilt["predicted"] == row["predicted"]
    assert (spoilt["low"], spoilt["high"]) == (row["low"], row["high"])


def test_an_interval_learns_from_what_the_law_missed():
    """The sizes fitted last are the same; only what was missed on the way there differs."""
    x = np.geomspace(1, 2000, 8)
    missed = {"power law": [Miss(float(size), 0.3, 0.3) for size in x[4:]]}
    calm, shaken = (
        list(laws_below(x, falling(x), misses=misses, bootstrap=200))
        for misses in ({"power law": []}, missed)
    )
    for (size, before), (_, after) in zip(calm, shaken, strict=True):
        widened = after.misses.std() / before.misses.std()
        assert widened == pytest.approx(1) if size <= x[4] else widened > 2


def test_misses_are_counted_in_steps_of_the_fitted_sizes():
    x = np.array([1.0, 2.0, 4.0, 64.0])  # the last is four steps beyond
    (miss,) = rollout(x, np.array([1.0, 1.0, 1.0, 0.5]), form=CONSTANT)
    assert miss.size == 64
    assert miss.error == pytest.approx(np.log(2), rel=1e-6)
    assert miss.per_step == pytest.approx(np.log(2) / 2, rel=1e-6)


def test_the_curve_with_a_break_is_chosen_where_there_is_one():
    x = np.geomspace(20, 4000, 14)
    laws = compare(x, broken(x), bootstrap=40)
    assert laws.chosen.form is BROKEN
    assert laws.chosen.at([9000.0]) == pytest.approx(broken(9000.0), rel=0.01)
    rows = {row["form"]: row for row in laws.rows(9000.0)}
    assert rows["one break"]["delta_aicc"] == 0
    assert rows["one break"]["rollout_error_pct"] < rows["power law"]["rollout_error_pct"]
    assert [name for name, row in rows.items() if row["is_chosen"]] == ["one break"]


def test_a_straight_line_is_chosen_where_it_is_one():
    x = np.geomspace(1, 1000, 7)
    assert compare(x, 0.9 - 0.1 * np.log10(x), bootstrap=20).chosen.form is LOG_LINEAR


def test_the_power_law_stays_where_nothing_could_be_tried():
    laws = compare([1.0, 2.0, 4.0], [3.0, 2.0, 1.5], bootstrap=20)
    assert laws.chosen.form is POWER
    assert "one break" not in laws.laws  # six parameters take seven sizes
    assert {row["rollouts"] for row in laws.rows(8.0)} == {0}
    assert {row["delta_aicc"] for row in laws.rows(8.0)} == {None}


def test_recent_misses_count_most_and_later_ones_not_at_all():
    def misses(*errors):
        return [Miss(float(size), error, error) for size, error in enumerate(errors, 1)]

    tried = {"power law": misses(0.01, 0.01, 0.5), "constant": misses(0.3, 0.02, 0.0)}
    assert choose(tried) is CONSTANT
    assert choose(tried, before=3.0) is POWER
    assert choose({"power law": misses(0.1), "constant": misses(0.1)}) is POWER


def test_forms_are_compared_on_the_sizes_that_both_were_asked_for():
    tried = {
        "power law": [Miss(1.0, 0.9, 0.9), Miss(2.0, 0.1, 0.1)],
        "one break": [Miss(2.0, 0.2, 0.2)],
    }
    assert choose(tried) is POWER


def test_intervals_cover_the_rollouts_of_laws_that_are_not_in_the_list():
    """Sums of two power laws, which no form of one axis is."""
    inside = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        first, second = rng.uniform(0.1, 0.4), rng.uniform(0.5, 1.2)
        x = np.geomspace(1, 300, 7)
        loss = (0.3 + x**-first + 3 * x**-second) * np.exp(rng.normal(0, 0.01, 7))
        inside += [row["low"] <= row["actual"] <= row["high"] for row in told(x, loss)]
    assert np.mean(inside) >= 0.9


def test_two_sizes_are_refused():
    with pytest.raises(DataError, match="needs at least 3"):
        compare([1.0, 2.0, 2.0], [1.0, 1.0, 1.0])
