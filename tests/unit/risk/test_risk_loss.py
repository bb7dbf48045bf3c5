import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import DataError
from workbench.risk import loss as module
from workbench.risk.loss import annual_losses, events_per_year

_SIGMA_TOLD = math.log(10) / (2 * 1.6448536269514722)


def _losses(p, *, impact=3, exposure=2, assets=None, **more):
    count = len(p)
    return annual_losses(
        np.asarray(p, dtype=float),
        impact=np.full(count, impact, dtype=np.int8),
        exposure=np.full(count, exposure, dtype=np.int8),
        assets=assets or ["a"] * count,
        **more,
    )


@given(st.floats(0, 1))
def test_a_rate_gives_the_chance_that_it_came_from(p) -> None:
    rate = events_per_year(np.array([p]))[0]
    back = -math.expm1(-rate * 30 / 365)
    assert back == pytest.approx(p, abs=1e-12) if rate < 12 else back <= p
    assert 0 <= rate <= 12


def test_the_expected_loss_is_rate_times_reach_times_mean() -> None:
    p, cost = 0.2, 80_000.0
    rate = -math.log(0.8) * 365 / 30
    for exposure, reach in ((0, 0.001), (1, 0.01), (2, 0.05), (-1, 0.01)):
        found = _losses([p], exposure=exposure, incident_usd=np.array([cost]), years=10)
        assert found.expected_usd[0] == pytest.approx(rate * reach * cost)
    model = _losses([p], incident_usd=np.array([cost]), model=np.array([True]), years=10)
    assert model.expected_usd[0] == pytest.approx(rate * 0.01 * cost)


def test_ninety_percent_of_incidents_lie_in_the_range_of_their_impact() -> None:
    assumed = module._assumptions()
    impacts = np.arange(1, 6, dtype=np.int8)
    mu, sigma = module._magnitude(impacts, np.full(5, np.nan), assumed)
    for at, (low, high) in enumerate(assumed.ranges):
        drawn = np.random.default_rng(0).lognormal(mu[at], sigma[at], 200_000)
        assert np.mean(drawn < low) == pytest.approx(0.05, abs=0.002)
        assert np.mean(drawn > high) == pytest.approx(0.05, abs=0.002)
    assert (np.diff(mu + sigma**2 / 2) > 0).all()


def _drawn(rates, mu, sigma, *, group=None, years=200_000, seed=1):
    groups = np.zeros(len(rates), dtype=np.intp) if group is None else np.asarray(group)
    return module._totals(
        np.asarray(rates, float), np.asarray(mu, float), np.asarray(sigma, float),
        group=groups, groups=int(groups.max()) + 1, years=years, seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.02, 0.7, 6.0])
def test_mean_and_variance_are_those_of_the_compound_poisson(rate) -> None:
    rates, mu, sigma = [rate, rate / 2], [1.0, 2.0], [0.5, 0.3]
    total = _drawn(rates, mu, sigma)[0]
    first = sum(r * math.exp(m + s * s / 2) for r, m, s in zip(rates, mu, sigma, strict=True))
    second = sum(r * math.exp(2 * m + 2 * s * s) for r, m, s in zip(rates, mu, sigma, strict=True))
    assert total.mean() == pytest.approx(first, abs=4 * math.sqrt(second / total.size))
    assert total.var() == pytest.approx(second, rel=0.05)
    assert np.mean(total == 0) == pytest.approx(math.exp(-1.5 * rate), abs=0.005)


def test_quantiles_are_those_of_the_fourier_transform() -> None:
    from scipy.stats import lognorm

    rates, mu, sigma = (0.8, 0.3), (2.0, 3.0), (0.6, 0.4)
    step, size = 0.05, 2**14
    edges = (np.arange(size + 1) - 0.5) * step
    at_zero = np.eye(1, size)[0]
    exponent = sum(
        rate
        * (np.fft.fft(np.diff(lognorm.cdf(edges, s=s, scale=math.exp(m)))) - np.fft.fft(at_zero))
        for rate, m, s in zip(rates, mu, sigma, strict=True)
    )
    law = np.cumsum(np.fft.ifft(np.exp(exponent)).real)
    total = _drawn(rates, mu, sigma)[0]
    for quantile in (0.5, 0.95, 0.99):
        exact = np.searchsorted(law, quantile) * step
        assert np.quantile(total, quantile) == pytest.approx(exact, rel=0.02)


def test_groups_are_independent_and_add_up() -> None:
    both = _drawn([2.0, 3.0], [1.0, 1.0], [0.4, 0.4], group=[0, 1], years=50_000)
    assert np.corrcoef(both)[0, 1] == pytest.approx(0, abs=0.02)
    joint = _drawn([2.0, 3.0], [1.0, 1.0], [0.4, 0.4], years=50_000)
    assert both.sum(axis=0).mean() == pytest.approx(joint.mean(), rel=0.02)
    assert both.sum(axis=0).std() == pytest.approx(joint.std(), rel=0.03)


def test_rows_are_everything_and_the_ten_costliest_assets() -> None:
    p = np.linspace(0.01, 0.5, 30)
    names = [f"asset-{at % 15}" for at in range(30)]
    found = _losses(p, assets=names)
    assert [row["group"] for row in found.rows[:2]] == ["all", "asset-14"]
    assert len(found.rows) == 11
    assert found.rows[0]["expected"] == pytest.approx(found.expected_usd.sum())
    of_assets = [row["expected"] for row in found.rows[1:]]
    assert of_assets == sorted(of_assets, reverse=True)
    for row in found.rows:
        assert 0 <= row["p05"] <= row["p50"] <= row["p95"] <= row["p99"]


def test_drawn_means_agree_with_exact_ones() -> None:
    found = _losses([0.9] * 200, incident_usd=np.full(200, 1e5))
    totals = module._totals(
        events_per_year(np.full(200, 0.9)) * 0.05,
        np.full(200, math.log(1e5) - _SIGMA_TOLD**2 / 2),
        np.full(200, _SIGMA_TOLD),
        group=np.zeros(200, dtype=np.intp), groups=1, years=10_000, seed=0,
    )  # fmt: skip
    assert totals.mean() == pytest.approx(found.rows[0]["expected"], rel=0.005)


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    p = [0.3] * 40
    assert _losses(p).rows == _losses(p).rows
    assert _losses(p, seed=1).rows != _losses(p).rows


def test_chunks_do_not_change_the_law(monkeypatch) -> None:
    whole = _drawn([3.0, 1.0], [1.0, 2.0], [0.5, 0.5], group=[0, 1], years=20_000)
    monkeypatch.setattr(module, "_CHUNK_EVENTS", 997)
    parts = _drawn([3.0, 1.0], [1.0, 2.0], [0.5, 0.5], group=[0, 1], years=20_000)
    assert whole.mean(axis=1) == pytest.approx(parts.mean(axis=1), rel=0.03)
    assert np.quantile(whole, 0.95, axis=1) == pytest.approx(
        np.quantile(parts, 0.95, axis=1), rel=0.03
    )


def test_very_many_incidents_take_fewer_years_and_bounded_memory() -> None:
    count = 25_000
    tracemalloc.start()
    found = _losses([1.0] * count, assets=[f"a{at % 50}" for at in range(count)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "1,000 years" in found.assumptions["drawing"]
    assert peak < 100 * 2**20


def test_no_risks_cost_nothing() -> None:
    found = _losses([])
    assert found.rows == [
        {"group": "all", "expected": 0.0, "p05": 0.0, "p50": 0.0, "p95": 0.0, "p99": 0.0}
    ]


def test_assets_that_cost_nothing_have_no_row() -> None:
    found = _losses([0.0, 0.3, 0.0], assets=["a", "b", "c"])
    assert [row["group"] for row in found.rows] == ["all", "b"]
    assert found.expected_usd[[0, 2]].tolist() == [0.0, 0.0]


def test_assumptions_are_said_in_words() -> None:
    said = _losses([0.1, 0.2], incident_usd=np.array([np.nan, 5.0]), seed=7).assumptions
    assert "assumption" in said["source"]
    assert "1 risks use" in said["cost of an incident"]
    assert said["drawing"] == "10,000 years, seed 7; expected values are exact"


def test_damaged_assumptions_are_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "risk").mkdir()
    (tmp_path / "risk" / "loss.json").write_text('{"source": "x"}', "utf-8")
    monkeypatch.setattr(module, "seeds_folder", lambda: tmp_path)
    module._assumptions.cache_clear()
    with pytest.raises(DataError, match=r"loss\.json"):
        _losses([0.1])
    module._assumptions.cache_clear()
