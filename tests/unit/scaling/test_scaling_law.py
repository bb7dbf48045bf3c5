"""Recovery of known laws, honest intervals, and the courage to say "no improvement"."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, DataError
from workbench.scaling.law import fit_power_law, project

SIZES = np.repeat([3.0, 6.0, 12.0, 20.0], 3)
SEEDS = np.tile([0, 1, 2], 4)
REPLICATION = {"E": 1.82, "A_1": 482.01, "A_2": 2085.43, "alpha_1": 0.3478, "alpha_2": 0.3658}


def chinchilla_points(count=60, seed=0):
    """Points of L(N, D) with the constants of the published replication, arXiv:2404.10102."""
    rng = np.random.default_rng(seed)
    n = 10 ** rng.uniform(7.5, 10.3, count)
    d = n * 10 ** rng.uniform(0, 2, count)
    return np.column_stack([n, d]), 1.82 + 482.01 * n**-0.3478 + 2085.43 * d**-0.3658


def test_the_published_chinchilla_replication_is_recovered():
    x, loss = chinchilla_points()
    law = fit_power_law(x, loss, bootstrap=20)
    found = {name: interval["value"] for name, interval in law.parameters().items()}
    assert found == pytest.approx(REPLICATION, rel=1e-4)
    assert law.second_method == pytest.approx(list(REPLICATION.values()), rel=1e-4)
    assert law.starts_agreeing > law.starts / 2


def test_one_wild_run_hardly_moves_the_huber_fit():
    x = np.geomspace(1e3, 1e7, 24)
    loss = 0.5 + 40 * x**-0.5
    loss[5] *= 1.3
    law = fit_power_law(x, loss, bootstrap=20)
    assert law.floor == pytest.approx(0.5, rel=0.01)
    assert law.exponents[0] == pytest.approx(0.5, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(
    floor=st.floats(0.05, 2.0),
    scale=st.floats(0.2, 3.0),
    alpha=st.floats(0.2, 1.5),
    unit=st.sampled_from([1.0, 1e3, 1e8]),
)
def test_any_exact_law_is_recovered_in_any_unit(floor, scale, alpha, unit):
    x = np.geomspace(1, 300, 9)
    law = fit_power_law(x * unit, floor + scale * x**-alpha, bootstrap=20)
    assert law.floor == pytest.approx(floor, rel=1e-3)
    assert law.exponents[0] == pytest.approx(alpha, rel=1e-3)
    assert law.scales[0] == pytest.approx(scale * unit**alpha, rel=1e-2)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_projection_is_the_least_squares_optimum(seed):
    rng = np.random.default_rng(seed)
    loss = (0.2 + 0.3 * SIZES**-0.6) * np.exp(rng.normal(0, 0.01, 12))
    theta, squares = project(SIZES, loss)
    relative = np.sum((theta[0] + theta[1] * SIZES ** -theta[2] - loss) ** 2 / loss**2)
    for nudge in rng.normal(0, 1e-3, (20, 3)):
        floor, scale, alpha = theta * (1 + nudge)
        other = np.sum((floor + scale * SIZES**-alpha - loss) ** 2 / loss**2)
        assert other >= relative * (1 - 1e-6)
    assert squares == pytest.approx(relative, rel=0.05)


def test_runs_without_improvement_are_not_called_a_law():
    rng = np.random.default_rng(3)
    law = fit_power_law(SIZES, 0.3 * np.exp(rng.normal(0, 0.02, 12)), clusters=SEEDS)
    assert not law.beats_constant
    assert not law.is_identified
    alpha = law.parameters()["alpha"]
    assert alpha["high"] - alpha["low"] > 1
    assert law.constant == pytest.approx(0.3, rel=0.02)


def test_runs_that_improve_are():
    rng = np.random.default_rng(3)
    law = fit_power_law(
        SIZES, (0.2 + 0.2 * SIZES**-0.6) * np.exp(rng.normal(0, 0.005, 12)), clusters=SEEDS
    )
    assert law.beats_constant
    assert law.is_identified


def test_seeds_that_share_what_their_size_does_are_counted_once():
    """Sizes that scatter as a whole are no evidence, however many seeds repeat each of them."""
    wrong = 0
    for trial in range(12):
        rng = np.random.default_rng(trial)
        of_size = np.repeat(rng.normal(0, 0.02, 4), 5)
        loss = 0.5 * np.exp(of_size + rng.normal(0, 0.002, 20))
        x, seeds = np.repeat([3.0, 6.0, 12.0, 20.0], 5), np.tile(range(5), 4)
        law = fit_power_law(x, loss, clusters=seeds, bootstrap=20)
        assert 4 <= law.effective_runs <= 20
        wrong += law.beats_constant
    assert wrong <= 1


def test_too_few_runs_for_the_parameters_never_beat_the_constant():
    x = np.array([1.0, 2.0, 4.0])
    law = fit_power_law(x, 1 + x**-0.5, bootstrap=20)
    assert law.aicc_gain == float("-inf")
    assert not law.beats_constant


def test_intervals_cover_new_runs_inside_and_beyond_the_range():
    inside, beyond = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)

        def true(x, shift, rng=rng):
            return (0.15 + 0.2 * x**-0.5) * np.exp(shift + rng.normal(0, 0.01))

        shifts = rng.normal(0, 0.01, 4)  # what the runs of one seed share
        loss = np.array([true(x, shifts[s]) for x, s in zip(SIZES, SEEDS, strict=True)])
        law = fit_power_law(SIZES, loss, clusters=SEEDS, seed=seed, bootstrap=80)
        for x, told in ((12.0, inside), (60.0, beyond)):
            interval = law.interval(x)
            told.append(interval["low"] <= true(x, shifts[3]) <= interval["high"])
    assert np.mean(inside) >= 0.85
    assert np.mean(beyond) >= 0.85


def test_intervals_widen_beyond_the_fitted_range():
    x = np.geomspace(1, 100, 12)
    law = fit_power_law(x, 1 + x**-0.5, bootstrap=100)
    widths = [point["high"] - point["low"] for point in law.curve([100.0, 1e3, 1e4])]
    assert widths[0] < 1e-6
    assert widths[0] < widths[1] < widths[2]
    assert widths[2] == pytest.approx(2 * 1.96 * 0.03, rel=0.35)  # one range beyond


def test_same_seed_same_law_in_another_process():
    code = (
        "import numpy as np; from workbench.scaling.law import fit_power_law;"
        "x = np.arange(1., 9); loss = 1 + x ** -.5 + .01 * (x % 3);"
        "law = fit_power_law(x, loss, bootstrap=30, seed=4); print(repr(law.interval(20.)))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(told) == 1


@pytest.mark.parametrize(
    ("x", "loss", "words"),
    [
        ([1, 2, 3], [1, 1], "one loss per run"),
        ([1, 2, 0], [1, 1, 1], "above 0"),
        ([1, 2, 3], [1, float("nan"), 1], "finite"),
        ([1, 1, 2, 2], [1, 1, 1, 1], "at least 3"),
    ],
)
def test_unfit_runs_are_refused(x, loss, words):
    with pytest.raises(DataError, match=words):
        fit_power_law(x, loss)


def test_too_few_resamples_are_refused():
    with pytest.raises(ConfigError, match="at least 20"):
        fit_power_law([1, 2, 3], [3, 2, 1], bootstrap=5)


def test_import_is_light():
    code = (
        "import sys, workbench.scaling.law, workbench.scaling.forecast, workbench.scaling.runs,"
        " workbench.cost.usage, workbench.cost.roi, workbench.store.tracking;"
        "print([m for m in ('scipy', 'pandas', 'wandb', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
