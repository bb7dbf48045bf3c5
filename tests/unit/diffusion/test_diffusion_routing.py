"""Thresholds on harm, and what gain does to them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, DataError
from workbench.diffusion.routing import Routing, fit_routing

PROBABILITY = st.floats(0, 1)
GAIN = st.floats(0, 1e6)


def routing(**changes: object) -> Routing:
    given = {"weights": (0.5, 1.0, 0.2, -0.3), "bare": 0.6, "wrapped": 0.8, "texts": 40}
    rates = {"false_positive_rate": {"bare": 0.02}, "recall": {"bare": 0.9}}
    return Routing(**given | rates | changes)


def validation(seed: int, *, count: int = 400) -> dict[str, np.ndarray]:
    """Texts whose harm shows in their logits, wrapped ones looking more harmful than they are."""
    random = np.random.default_rng(seed)
    harmful, wrapped = random.random((2, count)) < 0.5
    signal = np.stack([harmful + wrapped, harmful, wrapped], axis=1)
    return {
        "logits": 3 * signal + random.normal(size=(count, 3)),
        "harmful": harmful,
        "wrapped": wrapped,
    }


@given(risk=PROBABILITY, gains=st.tuples(GAIN, GAIN), limit=PROBABILITY, is_wrapped=st.booleans())
def test_more_gain_never_lets_more_through(risk, gains, limit, is_wrapped) -> None:
    decides = routing(bare=limit, wrapped=limit)
    less, more = (decides.exceeds(risk, is_wrapped=is_wrapped, gain=one) for one in sorted(gains))
    assert less <= more


@given(risks=st.tuples(PROBABILITY, PROBABILITY), gain=GAIN)
def test_more_risk_is_never_let_through_before_less(risks, gain) -> None:
    less, more = (routing().exceeds(one, is_wrapped=False, gain=gain) for one in sorted(risks))
    assert less <= more


@given(risk=PROBABILITY, limit=PROBABILITY, is_wrapped=st.booleans())
def test_gain_zero_redirects_nothing(risk: float, limit: float, is_wrapped: bool) -> None:
    assert not routing(bare=limit, wrapped=limit).exceeds(risk, is_wrapped=is_wrapped, gain=0)


@given(risk=PROBABILITY)
def test_gain_one_compares_with_the_threshold_of_the_kind(risk: float) -> None:
    assert routing().exceeds(risk, is_wrapped=False, gain=1) == (risk >= 0.6)
    assert routing().exceeds(risk, is_wrapped=True, gain=1) == (risk >= 0.8)


def test_gain_multiplies_the_odds() -> None:
    # odds of 1 to 4, times 6, are a probability of 0.6
    assert not routing().exceeds(0.2, is_wrapped=False, gain=5.99)
    assert routing().exceeds(0.2, is_wrapped=False, gain=6.01)


def test_risk_is_a_logistic_function_of_three_logits() -> None:
    harm, core, worn = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 4.0]])
    expected = 1 / (1 + np.exp(-(0.5 * harm + core + 0.2 * worn - 0.3)))
    np.testing.assert_allclose(routing().risk(harm, core, worn), expected)
    extreme = np.array([-5_000.0, 5_000.0])
    np.testing.assert_allclose(routing().risk(extreme, extreme, extreme), [0, 1])


@pytest.mark.parametrize("seed", range(3))
def test_no_more_benign_texts_are_redirected_than_asked(seed: int) -> None:
    texts = validation(seed)
    found = fit_routing(**texts, bare_rate=0.05, wrapped_rate=0.2)
    risk = found.risk(*texts["logits"].T)
    for name, rate in (("bare", 0.05), ("wrapped", 0.2)):
        group = texts["wrapped"] == (name == "wrapped")
        flagged = np.array(
            [found.exceeds(one, is_wrapped=name == "wrapped", gain=1) for one in risk]
        )
        benign, bad = (flagged[group & (texts["harmful"] == kind)] for kind in (False, True))
        one = 1.01 / len(benign)  # a text at the threshold may fall to either side of it
        assert found.false_positive_rate[name] <= rate
        assert benign.mean() <= rate + one
        assert found.false_positive_rate[name] == pytest.approx(benign.mean(), abs=one)
        assert found.recall[name] == pytest.approx(bad.mean(), abs=one)
        assert bad.mean() > 0.5
    assert found.texts == 400


def test_a_lower_rate_is_a_higher_threshold() -> None:
    strict, loose = (fit_routing(**validation(0), bare_rate=rate) for rate in (0.01, 0.2))
    assert strict.bare > loose.bare
    assert strict.wrapped == loose.wrapped


def test_a_kind_too_rare_to_choose_by_takes_what_all_texts_say() -> None:
    texts = validation(0) | {"wrapped": np.zeros(400, bool)}
    found = fit_routing(**texts, bare_rate=0.1, wrapped_rate=0.1)
    assert found.wrapped == found.bare
    assert found.recall["wrapped"] == 0


def test_where_nothing_is_harmful_nothing_is_redirected() -> None:
    texts = validation(0)
    found = fit_routing(**texts | {"harmful": np.zeros(len(texts["harmful"]), bool)})
    risks = found.risk(*texts["logits"].T)
    assert not any(
        found.exceeds(risk, is_wrapped=wrapped, gain=1000.0)
        for risk in risks
        for wrapped in (False, True)
    )


@pytest.mark.parametrize("kind", ["harmful", "benign"])
def test_too_few_texts_are_refused(kind: str) -> None:
    harmful = np.arange(100) < 19
    texts = validation(0, count=100) | {"harmful": harmful if kind == "harmful" else ~harmful}
    with pytest.raises(DataError, match=f"19 {kind} texts.*it takes 20: grow"):
        fit_routing(**texts)


def test_a_routing_survives_json_and_refuses_what_it_does_not_know() -> None:
    for one in (routing(), fit_routing(**validation(1))):
        assert Routing.from_json(json.loads(json.dumps(one.to_json()))) == one
    with pytest.raises(ConfigError, match="did you mean 'wrapped'"):
        Routing.from_json(routing().to_json() | {"wraped": 0.5})
