"""ROI arithmetic, its assumptions and the claims beside it."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.core.errors import ConfigError
from workbench.cost.roi import (
    Figure,
    assume,
    by_hand,
    compute,
    cost_claims,
    measured_latency,
    measured_reduction,
    replaced,
)

LATENCY = {"value": 30.0, "low": 15.0, "high": 90.0}
SPENT = {"group": "total", "cpu_s": 216.0, "kwh": 0.00024, "usd": 0.00255, "share": 1.0}


def assumptions(**values):
    latency = Figure(LATENCY, "test")
    listed = assume(prompts_per_day=10_000_000, latency=latency, spent_usd=0.00255)
    return replaced(listed, values)


def test_a_year_by_hand():
    listed = assumptions(
        prompts_per_day=1_000_000, utilization=1, core_hour_usd=0.036, maintenance_hours=10,
        hourly_wage_usd=100, guard_usd_per_mtok=0.2, guard_tokens=300, build_hours=0.9999745,
        findings_per_month=0,
    )  # fmt: skip
    roi = compute(listed)
    assert roi.annual_cost_usd == pytest.approx(365e6 * 0.030 / 3600 * 0.036 + 1000)
    assert roi.annual_alternative_usd == pytest.approx(365 * 60)
    assert roi.annual_saving_usd == pytest.approx(21_900 - 1_109.5)
    assert roi.payback_days == pytest.approx(100 / roi.annual_saving_usd * 365)
    assert roi.cores == pytest.approx(1e6 * 0.030 / 86_400)


def test_where_nothing_is_saved_there_is_no_payback():
    roi = compute(assumptions(prompts_per_day=1000))
    assert roi.annual_saving_usd < 0
    assert roi.payback_days is None
    json.dumps(asdict(roi), allow_nan=False)


def test_triage_is_people_and_part_of_the_cost():
    free, busy = (
        compute(assumptions(findings_per_month=n, triage_minutes=6, hourly_wage_usd=100))
        for n in (0, 50)
    )
    assert busy.annual_triage_usd == pytest.approx(50 * 12 * 0.1 * 100)
    assert busy.annual_cost_usd - free.annual_cost_usd == pytest.approx(busy.annual_triage_usd)


def test_the_alternative_is_priced_by_tokens_by_prompts_or_both():
    prices = {"guard_usd_per_mtok": 0.2, "guard_tokens": 300, "commercial_usd_per_prompt": 0.015}
    by_tokens, by_prompts, half = (
        compute(assumptions(per_prompt_share=share, **prices)).annual_alternative_usd
        for share in (0, 1, 0.5)
    )
    assert by_prompts == pytest.approx(3.65e9 * 0.015)
    assert half == pytest.approx((by_tokens + by_prompts) / 2)


def test_incidents_count_only_as_far_as_the_alternative_stops_fewer():
    facts = {"incidents_per_year": 0.5, "incident_usd": 100_000}
    assert compute(assumptions(**facts)).annual_avoided_usd == 0
    better = compute(assumptions(attack_reduction=0.6, alternative_reduction=0.2, **facts))
    assert better.annual_avoided_usd == pytest.approx(0.5 * 100_000 * 0.4)
    same = compute(assumptions(attack_reduction=0.6, alternative_reduction=0.6, **facts))
    saved = better.annual_saving_usd - same.annual_saving_usd
    assert saved == pytest.approx(better.annual_avoided_usd)


def rate(target, value, low, high):
    return {"target": target, "rate": {"value": value, "low": low, "high": high}}


def test_the_reduction_is_measured_and_no_credit_is_taken_for_it_alone():
    bare, behind = rate("bare", 0.8, 0.7, 0.9), rate("sanitizer@1.0", 0.2, 0.1, 0.3)
    found = measured_reduction([{"totals": [bare, behind]}], experiment="sweep")
    assert found.kind == "measured"
    assert found.interval["value"] == pytest.approx(0.75)
    assert found.interval["low"] == pytest.approx(1 - 0.3 / 0.7)
    assert found.interval["high"] == pytest.approx(1 - 0.1 / 0.9)
    listed = assume(
        prompts_per_day=1, latency=Figure(LATENCY, "test"), spent_usd=0, reduction=found
    )
    assert compute(listed).annual_avoided_usd == 0
    by_name = {one.name: one for one in listed}
    assert by_name["attack_reduction"].kind == "measured"
    assert by_name["alternative_reduction"].kind == "assumed"


@pytest.mark.parametrize(
    "totals",
    [[], [rate("bare", 0, 0, 0.1), rate("sanitizer@1", 0, 0, 0.1)], [rate("bare", 1, 1, 1)]],
)
def test_without_two_targets_or_attacks_that_succeed_no_reduction_is_claimed(totals):
    found = measured_reduction([{"totals": totals}], experiment="sweep")
    assert (found.interval["high"], found.kind) == (0, "assumed")


def test_a_sanitizer_that_makes_it_worse_reduces_nothing():
    totals = [rate("bare", 0.2, 0.1, 0.3), rate("sanitizer@9", 0.8, 0.7, 0.9)]
    assert measured_reduction([{"totals": totals}], experiment="sweep").interval["value"] == 0


def test_sensitivity_is_the_outcome_with_one_assumption_replaced():
    listed = assumptions()
    for row in compute(listed).sensitivity:
        for end in ("low", "high"):
            other = compute(replaced(listed, {row["name"]: row[end]}))
            assert row[f"saving_at_{end}_usd"] == pytest.approx(other.annual_saving_usd)
    swings = [row["swing_usd"] for row in compute(listed).sensitivity]
    assert swings == sorted(swings, reverse=True)


@given(st.floats(1.0, 1e4), st.floats(1.0, 1e4))
def test_slower_never_saves_more(one, other):
    slow, fast = max(one, other), min(one, other)
    saved = [compute(assumptions(latency_ms=ms)).annual_saving_usd for ms in (slow, fast)]
    assert saved[0] <= saved[1]


def test_every_assumption_says_where_it_comes_from():
    for one in assumptions():
        row = asdict(one)
        assert row["low"] <= row["value"] <= row["high"], row
        assert row["source"]
        assert row["unit"]
        assert row["kind"] in {"measured", "assumed"}


def test_values_given_by_hand_are_no_longer_measured():
    (latency,) = [one for one in assumptions(latency_ms=5) if one.name == "latency_ms"]
    assert (latency.kind, latency.source, latency.low) == ("assumed", "given by the user", 5.0)


def test_a_latency_given_by_hand_is_assumed():
    listed = assume(prompts_per_day=1, latency=by_hand(7.0), spent_usd=0)
    (latency,) = [one for one in listed if one.name == "latency_ms"]
    assert (latency.low, latency.value, latency.high) == (7.0, 7.0, 7.0)
    assert (latency.kind, latency.source) == ("assumed", "given by the user")


def test_mistaken_assumptions_are_named():
    with pytest.raises(ConfigError, match="no ROI assumption 'wage'"):
        assumptions(wage=1)
    for bad in (-1, float("nan"), "half"):
        with pytest.raises(ConfigError, match=r"utilization=.*give a number"):
            assumptions(utilization=bad)
    with pytest.raises(ConfigError, match="utilization=0"):
        compute(assumptions(utilization=0))
    with pytest.raises(ConfigError, match="named twice"):
        compute([*assumptions(), assumptions()[0]])
    with pytest.raises(ConfigError, match="'guard_tokens'"):
        compute([replace(one) for one in assumptions() if one.name != "guard_tokens"])
    with pytest.raises(ConfigError, match="above 0"):
        assume(prompts_per_day=0, latency=Figure(LATENCY, ""), spent_usd=0)


def test_latency_of_the_newest_analysis_of_a_sanitizer():
    newer = {"latency_ms": {"bare": {"value": 0.0}, "sanitizer@1.0": LATENCY, "sanitizer@1.5": {}}}
    older = {"latency_ms": {"sanitizer@9": {"value": 1.0}}}
    found = measured_latency([older, newer], experiment="sweep")
    assert (found.interval, found.kind) == (LATENCY, "measured")
    assert found.source.startswith("campaign of sweep, sanitizer@1.0:")
    named = measured_latency([older, newer], experiment="sweep", target="sanitizer@9")
    assert named.interval == {"value": 1.0}
    with pytest.raises(ConfigError, match=r"bare, sanitizer@1\.0"):
        measured_latency([newer], experiment="sweep", target="nobody")
    with pytest.raises(ConfigError, match="run the analysis step"):
        measured_latency([], experiment="sweep")


def test_claims_stand_beside_what_was_measured():
    rows = cost_claims(compute(assumptions()), spent=SPENT, training_s=6.0)
    by_name = {row["name"]: row for row in rows}
    assert by_name["annual saving at 10M prompts a day"]["claimed"] == "$36–73M"
    assert by_name["energy reduction against commercial services"]["measured"] == "not measured"
    assert by_name["training time per run, current phase"]["measured"] == "6.0 s"
    assert {row["kind"] for row in rows} == {"claimed"}
    unmeasured = cost_claims(compute(assumptions()), spent=SPENT, training_s=0.0)
    assert unmeasured[5]["measured"] == "not measured"
