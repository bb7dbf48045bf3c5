"""The best split of compute, against brute force."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.scaling.allocate import allocation, optimum
from workbench.scaling.fit import fit_law
from workbench.scaling.law import JOINT, POWER, TIED


def grid(loss):
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e5, 1e8, 4), [1e3, 4e3, 2e4, 1e5]))
    return np.column_stack([n, d]), loss(n, d)


@settings(max_examples=12, deadline=None)
@given(
    alpha=st.floats(0.2, 0.8),
    beta=st.floats(0.2, 0.8),
    compute=st.floats(1e10, 1e14),
    tied=st.booleans(),
)
def test_the_closed_form_is_the_least_loss_of_its_compute(alpha, beta, compute, tied):
    beta = alpha if tied else beta

    def loss(n, d):
        return 0.2 + 30 * n**-alpha + 9 * d**-beta

    x, losses = grid(loss)
    law = fit_law(x, losses, form=TIED if tied else JOINT, bootstrap=20)
    found = optimum(law, compute=compute, flops=6.0)
    n = np.geomspace(1e-2, 1e14, 40_000)
    by_hand = n[np.argmin(loss(n, compute / 6 / n))]
    assert found["parameters"]["value"] == pytest.approx(by_hand, rel=0.02)
    both = found["parameters"]["value"] * found["data"]["value"]
    assert 6 * both == pytest.approx(compute, rel=1e-9)
    assert found["loss"]["value"] == pytest.approx(loss(by_hand, compute / 6 / by_hand), rel=1e-3)
    for interval in found.values():
        assert interval["low"] <= interval["value"] <= interval["high"]


def test_more_noise_makes_wider_splits():
    x, losses = grid(lambda n, d: 0.2 + 30 * n**-0.4 + 9 * d**-0.4)
    rng = np.random.default_rng(0)
    spans = []
    for noise in (0.001, 0.02):
        law = fit_law(x, losses * np.exp(rng.normal(0, noise, len(x))), form=JOINT, bootstrap=60)
        found = optimum(law, compute=1e12, flops=6.0)["parameters"]
        spans.append(found["high"] / found["low"])
    assert 1 < spans[0] < spans[1]


def test_the_published_law_gives_twenty_tokens_per_parameter():
    """Besiroglu et al. 2024, arXiv:2404.10102: about 20 at Chinchilla's 5.76e23 FLOPs."""
    n = 10 ** np.random.default_rng(0).uniform(7.5, 10.3, 60)
    d = n * 10 ** np.random.default_rng(1).uniform(0, 2, 60)
    law = fit_law(
        np.column_stack([n, d]), 1.82 + 482.01 * n**-0.3478 + 2085.43 * d**-0.3658,
        form=JOINT, bootstrap=20,
    )  # fmt: skip
    best = optimum(law, compute=5.76e23, flops=6.0)
    assert 15 < best["data"]["value"] / best["parameters"]["value"] < 30


def runs(parameters, pairs):
    sizes = [(n, d, seed) for n in parameters for d in pairs for seed in (0, 1)]
    frame = pd.DataFrame(sizes, columns=["parameters", "pairs", "seed"])
    frame["flops"] = 12.0 * frame["parameters"] * frame["pairs"]
    frame["loss"] = 0.2 + 30 * frame["parameters"] ** -0.4 + 9 * frame["pairs"] ** -0.4
    return frame


def test_runs_that_vary_both_are_split():
    told = allocation(runs([1e5, 1e6, 1e7], [1e3, 1e4, 1e5]), axis="pairs")
    assert [row["compute"] for row in told["rows"]] == pytest.approx([1.2e13, 1.2e14, 1.2e15])
    assert [row["is_within_runs"] for row in told["rows"]] == [True, False, False]
    assert "compute = 12 FLOP" in told["note"]
    first = told["rows"][0]
    product = first["parameters"]["value"] * first["data"]["value"]
    assert 12 * product == pytest.approx(1.2e13)


def test_few_runs_get_one_exponent_for_both():
    frame = runs([1e5, 1e6, 1e7], [1e3, 1e4, 1e5])
    few = frame[(frame["seed"] == 0) & ((frame["pairs"] == 1e3) | (frame["parameters"] == 1e5))]
    assert "B · D^(−α)" in allocation(few, axis="parameters")["note"]


def test_runs_of_one_size_of_model_are_not_split():
    told = allocation(runs([1e5], [1e3, 1e4, 1e5]), axis="pairs")
    assert told["rows"] == []
    assert "1 of parameters and 3 of pairs" in told["note"]


def test_other_laws_and_no_compute_are_refused():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    with pytest.raises(ConfigError, match="power law has no optimum"):
        optimum(fit_law(x, 1 + 1 / x, form=POWER, bootstrap=20), compute=1.0, flops=6.0)
    columns, losses = grid(lambda n, d: 0.2 + 30 * n**-0.4 + 9 * d**-0.4)
    law = fit_law(columns, losses, form=JOINT, bootstrap=20)
    with pytest.raises(ConfigError, match="compute=0"):
        optimum(law, compute=0.0, flops=6.0)
