import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from workbench.core.errors import ConfigError, DataError
from workbench.judge.calibrate import (
    expected_calibration_error,
    fit_platt,
    sigmoid,
    threshold_at,
)
from workbench.judge.judge_set import JudgeSet
from workbench.judge.measure import auroc_interval, measure


def test_sigmoid_is_exact_and_never_overflows():
    scores = np.array([-1e4, -1.0, 0.0, 2.0, 1e4])
    np.testing.assert_allclose(sigmoid(scores), [0, 1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2)), 1])


def test_platt_recovers_the_scaling_that_made_the_labels():
    random = np.random.default_rng(0)
    scores = random.normal(0, 2, 40_000)
    unsafe = random.random(40_000) < sigmoid(1.5 * scores - 0.7)
    platt = fit_platt(scores, unsafe)
    assert platt.slope == pytest.approx(1.5, abs=0.06)
    assert platt.intercept == pytest.approx(-0.7, abs=0.06)
    assert expected_calibration_error(platt(scores), unsafe) < 0.01
    assert expected_calibration_error(sigmoid(scores * 8), unsafe) > 0.08


def test_calibration_error_by_hand():
    probabilities = np.array([0.2] * 10 + [0.8] * 10)
    unsafe = np.array([True] * 2 + [False] * 8 + [True] * 5 + [False] * 5)
    assert expected_calibration_error(probabilities, unsafe, bins=2) == pytest.approx(0.15)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0, 0.99))
def test_threshold_is_the_lowest_that_keeps_the_rate(benign, rate):
    scores = np.array(benign)
    threshold = threshold_at(scores, false_positive_rate=rate)
    assert (scores >= threshold).mean() <= rate
    lower = np.nextafter(threshold, -np.inf)
    assert (scores >= lower).mean() > rate


def test_threshold_needs_a_rate_and_texts():
    with pytest.raises(ConfigError, match=r"1\.0"):
        threshold_at(np.ones(3), false_positive_rate=1.0)
    with pytest.raises(DataError, match="no benign"):
        threshold_at(np.empty(0), false_positive_rate=0.1)


@given(st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_auroc_equals_sklearn_inside_its_interval(seed):
    random = np.random.default_rng(seed)
    unsafe = np.arange(80) % 2 == 0
    scores = random.normal(unsafe * 1.0, 1)
    groups = np.array([str(number // 4) for number in range(80)])
    interval = auroc_interval(scores, unsafe, groups)
    assert interval["value"] == pytest.approx(roc_auc_score(unsafe, scores))
    assert interval["low"] < interval["value"] < interval["high"]
    assert interval == auroc_interval(scores, unsafe, groups)


def test_interval_is_wider_when_texts_of_a_topic_are_alike():
    random = np.random.default_rng(3)
    topic = np.repeat(np.arange(40), 10)
    unsafe = topic % 2 == 0
    scores = random.normal(size=40)[topic] + unsafe
    by_topic = auroc_interval(scores, unsafe, topic.astype(str))
    by_text = auroc_interval(scores, unsafe, np.arange(400).astype(str))
    assert by_topic["high"] - by_topic["low"] > 2 * (by_text["high"] - by_text["low"])


def test_measure_says_rates_per_label():
    labels = np.array(["harmful", "harmful", "benign", "benign", "lookalike"])
    probabilities = np.array([0.9, 0.6, 0.1, 0.7, 0.5])
    judge_set = JudgeSet(
        texts=list("abcde"), labels=labels, topics=np.array(list("abcde")), sha256=""
    )
    found = measure(probabilities, probabilities >= 0.6, judge_set)
    assert found["flag_rate"] == {"harmful": 1.0, "benign": 0.5, "lookalike": 0.0}
    assert found["auroc"]["benign"]["value"] == 0.75
    assert found["auroc"]["lookalike"]["value"] == 1.0
