"""Recovery of known laws, honest intervals, and the courage to say "no improvement"."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, DataError
from workbench.scaling.fit import MISS_SD, aicc, draw_misses, fit_law
from workbench.scaling.law import BROKEN, CONSTANT, FORMS, JOINT, LOG_LINEAR, POWER, TIED, loss_at
from workbench.scaling.optimizer import minimize, project, spread

SIZES = np.repeat([3.0, 6.0, 12.0, 20.0], 3)
SEEDS = np.tile([0, 1, 2], 4)
REPLICATION = {"E": 1.82, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
GADRE = {"E": 1.836648, "A": 166.211, "B": 366.687 * 6 ** (0.272851 / 2), "alpha": 0.272851}
"""Gadre et al. 2024, arXiv:2403.08540; its beta holds a factor of 6 FLOPs."""
KNOWN = {
    CONSTANT.name: [0.4],
    LOG_LINEAR.name: [0.9, 0.12],
    POWER.name: [0.3, 2.0, 0.4],
    BROKEN.name: [0.3, 2.0, 0.2, 0.9, 40.0, 0.3],
}


def by_hand(name, values, x):
    """Return the form as papers write it."""
    if name == CONSTANT.name:
        return np.full_like(x, values[0])
    if name == LOG_LINEAR.name:
        return values[0] - values[1] * np.log10(x)
    if name == POWER.name:
        return values[0] + values[1] * x ** -values[2]
    floor, scale, before, more, at, width = values
    return floor + scale * x**-before * (1 + (x / at) ** (1 / width)) ** (-more * width)


def chinchilla_points(count=60, seed=0):
    """Points of L(N, D) with the constants of the published replication, arXiv:2404.10102."""
    rng = np.random.default_rng(seed)
    n = 10 ** rng.uniform(7.5, 10.3, count)
    d = n * 10 ** rng.uniform(0, 2, count)
    return np.column_stack([n, d]), 1.82 + 482.01 * n**-0.3478 + 2085.43 * d**-0.3658


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_is_found_again_by_both_methods(form):
    x = np.geomspace(2, 900, 14)
    values = KNOWN[form.name]
    law = fit_law(x, by_hand(form.name, values, x), form=form, bootstrap=20)
    assert [one["value"] for one in law.parameters().values()] == pytest.approx(values, rel=1e-3)
    assert law.second_method == pytest.approx(values, rel=0.02)
    assert law.at([5000.0]) == pytest.approx(by_hand(form.name, values, np.array([5000.0])), 0.01)
    assert law.starts_agreeing >= law.starts / 4


@pytest.mark.parametrize("form", [*FORMS, JOINT, TIED], ids=lambda form: form.name)
def test_slopes_are_those_of_the_form(form):
    rng = np.random.default_rng(1)
    low, high = np.clip(np.array(form.bounds).reshape(-1, 2).T, -1, 1.5)
    shapes = rng.uniform(low, high, (7, len(form.shapes)))
    theta = np.concatenate([rng.normal(0, 0.3, (7, len(form.scales))), shapes], axis=1)
    sizes = rng.uniform(-0.5, 0.5, (form.axes, 9))
    count = len(form.scales)
    terms = np.exp(form.terms(shapes, sizes) + theta[:, :count, None])
    slopes = form.slopes(shapes, sizes, terms / terms.sum(axis=1, keepdims=True))
    for at in range(len(form.shapes)):
        nudge = np.zeros_like(theta)
        nudge[:, count + at] = 1e-6
        above, below = (np.log(loss_at(form, theta + s * nudge, sizes)) for s in (1, -1))
        assert slopes[:, at] == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_the_published_chinchilla_replication_is_recovered():
    x, loss = chinchilla_points()
    law = fit_law(x, loss, form=JOINT, bootstrap=20)
    found = {name: interval["value"] for name, interval in law.parameters().items()}
    assert found == pytest.approx(REPLICATION, rel=1e-4)
    assert law.second_method == pytest.approx(list(REPLICATION.values()), rel=1e-4)
    assert law.starts_agreeing > law.starts / 2


@pytest.mark.parametrize("is_relative", [True, False])
def test_one_exponent_for_both_axes_is_fitted_to_five_runs(is_relative):
    """The design of arXiv:2403.08540: four sizes at 20 tokens per parameter, one at 320."""
    n = np.array([1.06e7, 7.89e7, 1.54e8, 4.12e8, 1.06e7])
    x = np.column_stack([n, n * [20, 20, 20, 20, 320]])
    e, a, b, alpha = GADRE.values()
    center = np.log(x).mean(axis=0)
    theta, squares = project(
        TIED, (np.log(x) - center).T, e + a * n**-alpha + b * x[:, 1] ** -alpha,
        is_relative=is_relative,
    )  # fmt: skip
    assert TIED.plain(theta[None], center)[0] == pytest.approx(list(GADRE.values()), rel=1e-5)
    assert squares < 1e-12


def test_one_wild_run_hardly_moves_the_huber_fit():
    x = np.geomspace(1e3, 1e7, 24)
    loss = 0.5 + 40 * x**-0.5
    loss[5] *= 1.3
    found = fit_law(x, loss, bootstrap=20).parameters()
    assert found["E"]["value"] == pytest.approx(0.5, rel=0.01)
    assert found["alpha"]["value"] == pytest.approx(0.5, rel=0.05)


@settings(max_examples=15, deadline=None)
@given(
    floor=st.floats(0.05, 2.0),
    scale=st.floats(0.2, 3.0),
    alpha=st.floats(0.2, 1.5),
    unit=st.sampled_from([1.0, 1e3, 1e8]),
)
def test_any_exact_law_is_recovered_in_any_unit(floor, scale, alpha, unit):
    x = np.geomspace(1, 300, 9)
    law = fit_law(x * unit, floor + scale * x**-alpha, bootstrap=20)
    found = [one["value"] for one in law.parameters().values()]
    assert found == pytest.approx([floor, scale * unit**alpha, alpha], rel=1e-2)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_projection_is_the_least_squares_optimum(seed):
    rng = np.random.default_rng(seed)
    loss = (0.2 + 0.3 * SIZES**-0.6) * np.exp(rng.normal(0, 0.01, 12))
    at = np.log(SIZES)[None]
    theta, squares = project(POWER, at, loss)
    relative = np.sum((loss_at(POWER, theta[None], at)[0] - loss) ** 2 / loss**2)
    for nudge in rng.normal(0, 1e-3, (20, 3)):
        other = loss_at(POWER, theta[None] + nudge, at)[0]
        assert np.sum((other - loss) ** 2 / loss**2) >= relative * (1 - 1e-6)
    assert squares == pytest.approx(relative, rel=0.05)


def test_rows_are_fitted_apart_whatever_stands_beside_them():
    """Chunks and rows that are done must not move the others."""
    rng = np.random.default_rng(0)
    sizes = np.log(np.geomspace(0.2, 5, 9))[None]
    logs = np.log(0.3 + np.exp(-0.5 * sizes)) + rng.normal(0, 0.01, (300, 9))
    starts = np.repeat(spread(POWER, sizes, logs[0])[:1], 300, axis=0)
    together, costs = minimize(POWER, starts, sizes, logs)
    alone, cost = minimize(POWER, starts[:1], sizes, logs[280:281])
    assert costs[280] == pytest.approx(cost[0], rel=1e-9)
    assert together[280] == pytest.approx(alone[0], rel=1e-6)


def test_runs_without_improvement_are_not_called_a_law():
    rng = np.random.default_rng(3)
    law = fit_law(SIZES, 0.3 * np.exp(rng.normal(0, 0.02, 12)), clusters=SEEDS)
    assert not law.beats_constant
    assert not law.is_identified
    alpha = law.parameters()["alpha"]
    assert alpha["high"] - alpha["low"] > 1
    assert law.constant == pytest.approx(0.3, rel=0.02)


def test_runs_that_improve_are():
    rng = np.random.default_rng(3)
    law = fit_law(
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
        law = fit_law(x, loss, clusters=seeds, bootstrap=20)
        assert 4 <= law.effective_runs <= 20
        wrong += law.beats_constant
    assert wrong <= 1


def test_too_few_runs_for_the_parameters_never_beat_the_constant():
    x = np.array([1.0, 2.0, 4.0])
    law = fit_law(x, 1 + x**-0.5, bootstrap=20)
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
        law = fit_law(SIZES, loss, clusters=SEEDS, seed=seed, bootstrap=80)
        for x, told in ((12.0, inside), (60.0, beyond)):
            interval = law.interval(x)
            told.append(interval["low"] <= true(x, shifts[3]) <= interval["high"])
    assert np.mean(inside) >= 0.85
    assert np.mean(beyond) >= 0.85


def test_intervals_widen_beyond_the_fitted_range():
    """By the root of the steps; no misses of one's own, so a Student t of four degrees."""
    x = np.geomspace(1, 100, 5)
    law = fit_law(x, 1 + x**-0.5, bootstrap=2000)
    step = 100**0.25
    widths = [
        np.log(point["high"] / point["low"]) for point in law.curve(100 * step ** np.arange(5.0))
    ]
    assert widths[0] < 1e-6
    assert widths[1] == pytest.approx(2 * 2.776 * MISS_SD, rel=0.15)
    assert widths[4] == pytest.approx(2 * widths[1], rel=0.01)


def test_a_law_that_missed_before_is_trusted_less_and_one_that_hit_more():
    x = np.geomspace(1, 100, 8)
    widths = []
    for misses in ([0.0] * 6, [], [0.0] * 5 + [0.3]):
        end = fit_law(x, 1 + x**-0.5, misses=misses, bootstrap=400).interval(400.0)
        widths.append(end["high"] - end["low"])
    assert widths[0] < 0.7 * widths[1]
    assert widths[1] < widths[2]


def test_allowance_is_a_student_t_around_what_was_missed():
    drawn = draw_misses([0.1], draws=100_000, rng=np.random.default_rng(0), sd=0.03)
    scale = np.sqrt((4 * 0.03**2 + 0.1**2) / 5)
    assert np.quantile(np.abs(drawn), 0.95) == pytest.approx(2.571 * scale, rel=0.02)  # t, 5 df


def test_aicc_by_hand():
    assert aicc(0.01, runs=12, used=3) == pytest.approx(12 * np.log(0.01) + 8 + 2 * 4 * 5 / 7)
    assert aicc(0.01, runs=5, used=3) == float("inf")


def test_same_seed_same_law_in_another_process():
    code = (
        "import numpy as np; from workbench.scaling.fit import fit_law;"
        "x = np.arange(1., 9); loss = 1 + x ** -.5 + .01 * (x % 3);"
        "law = fit_law(x, loss, bootstrap=30, seed=4); print(repr(law.interval(20.)))"
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
        ([1, 1, 2, 2], [1, 1, 1, 1], "power law needs at least 3"),
        ([[1, 2], [2, 3], [3, 4]], [1, 1, 1], "has 1 axes, the sizes have 2"),
    ],
)
def test_unfit_runs_are_refused(x, loss, words):
    with pytest.raises(DataError, match=words):
        fit_law(x, loss)


def test_too_few_resamples_are_refused():
    with pytest.raises(ConfigError, match="at least 20"):
        fit_law([1, 2, 3], [3, 2, 1], bootstrap=5)


def test_import_is_light():
    code = (
        "import sys, workbench.scaling.fit, workbench.scaling.forecast, workbench.scaling.runs,"
        " workbench.cost.usage, workbench.cost.roi, workbench.store.tracking;"
        "print([m for m in ('scipy', 'pandas', 'wandb', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
