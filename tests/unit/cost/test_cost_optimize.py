"""The table of what each saving saves, on trials whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.cost import optimize
from workbench.cost.optimize import Trial, faults, table

TOLD = json.loads(Path(optimize.__file__).with_name("savings.json").read_text("utf-8"))["savings"]
SAVINGS = [name for name in TOLD if name != "all"]
SHARES = st.floats(0.01, 0.99)
FULL = Trial(
    usd=Decimal(100), server_usd=Decimal(100), seconds=50.0, calls=1000, hits=0, rules=0,
    prompt_tokens=1_000_000, cached_tokens=0, output_tokens=100_000, in_flight=1, call_ms=40.0,
)  # fmt: skip


def left_over(left):
    usd = FULL.usd * Decimal(str(left))
    return replace(FULL, usd=usd, server_usd=usd, seconds=FULL.seconds * left)


def reduced(share):
    return left_over(1 - share)


def independent(shares):
    """Trials in which every saving takes its share whatever else is on."""
    trials = {"baseline": FULL} | {f"+{name}": reduced(share) for name, share in shares.items()}
    left = {name: 1 - share for name, share in shares.items()}
    live = [name for name in left if name not in {"batches", "streaming"}]
    every = 1.0
    for name in live:
        every *= left[name]
    # what is left, not what is gone: next to nothing cannot be told from 1 - (1 - nothing)
    trials |= {"all": left_over(every)}
    trials |= {f"-{name}": left_over(every / left[name]) for name in live}
    return trials | {"all+batches": left_over(every * left["batches"])}


@given(shares=st.fixed_dictionaries(dict.fromkeys(SAVINGS, SHARES)))
def test_independent_savings_save_the_same_alone_and_on_top_of_all_others(shares):
    *rows, combined = table(independent(shares))
    for name, row in zip(SAVINGS, rows, strict=True):
        assert row["usd_alone_reduction"] == pytest.approx(shares[name])
        assert row["latency_reduction"] == pytest.approx(shares[name])
        if name != "streaming":  # tried alone only
            grown = 1 / (1 - shares[name]) - 1
            assert row["usd_without_increase"] == pytest.approx(grown)
            assert row["latency_without_increase"] == pytest.approx(grown)
    assert combined["usd_without_increase"] == 0
    assert combined["usd_alone_reduction"] >= max(
        row["usd_alone_reduction"]
        for row in rows
        if row["saving"] not in {"message batches", "streaming"}
    )


@given(share=SHARES)
def test_a_claim_is_reached_at_its_least_in_whole_percent(share):
    rows = table(independent(dict.fromkeys(SAVINGS, share)))
    verdicts = {name: row["verdict"] for name, row in zip(TOLD, rows, strict=True)}
    assert verdicts["routing"] == ("reached" if round(share, 2) >= 0.8 else "missed")
    assert verdicts["parallel"] == "not comparable"
    assert {verdicts["batches"], verdicts["streaming"]} == {"no claim"}


@pytest.mark.parametrize(("hit_ms", "verdict"), [(1.0, "reached"), (20.0, "missed")])
def test_the_time_claimed_for_the_response_cache_is_that_of_a_hit(hit_ms, verdict):
    trials = independent(dict.fromkeys(SAVINGS, 0.7))
    trials["+response_cache"] = replace(trials["+response_cache"], hit_ms=hit_ms, hits=300)
    row = table(trials)[SAVINGS.index("response_cache")]
    assert row["verdict"] == verdict


def test_shorter_prompts_are_judged_by_tokens():
    trials = independent(dict.fromkeys(SAVINGS, 0.5))
    trials["+context_tokens"] = replace(FULL, prompt_tokens=790_000)
    rows = dict(zip(TOLD, table(trials), strict=True))
    assert rows["context_tokens"]["verdict"] == "reached"
    assert "measured 19%" in rows["context_tokens"]["note"]
    assert rows["context_tokens"]["claimed_tokens"] == [0.15, 0.25]
    assert rows["context_tokens"]["tokens_reduction"] == pytest.approx(0.191, abs=1e-3)
    assert rows["concise"]["verdict"] == "missed"


@given(share=SHARES)
def test_nothing_is_said_of_an_interplay_of_independent_savings(share):
    for row in table(independent(dict.fromkeys(SAVINGS, share))):
        assert "beside the others" not in row["note"]
        assert "instead of rising" not in row["note"]


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.95, "the combined bill falls by 20.0% instead of rising: the few calls"),
        (0.9, "weighs less beside the others"),
        (0.1, "weighs more beside the others"),
    ],
)
def test_a_saving_that_weighs_otherwise_beside_the_others_says_so(share, said):
    trials = independent(dict.fromkeys(SAVINGS, 0.5) | {"prompt_cache": share})
    without = {0.95: 0.8, 0.9: 1.5, 0.1: 2}[share] * float(trials["all"].usd)
    trials["-prompt_cache"] = replace(trials["all"], usd=Decimal(str(without)))
    assert said in table(trials)[0]["note"]


def working():
    shares = dict.fromkeys(SAVINGS, 0.5) | {"streaming": 0.0}
    trials = independent(shares)
    trials["+streaming"] = replace(FULL, first_text_ms=20.0)
    trials["+parallel"] = replace(FULL, in_flight=32)
    return trials


def test_trials_whose_bills_agree_and_whose_switches_work_have_no_faults():
    assert faults(working()) == []


@given(name=st.sampled_from(sorted(working())), cents=st.integers(1, 1000))
def test_any_bill_that_is_not_the_servers_is_named(name, cents):
    trials = working()
    wrong = replace(trials[name], server_usd=trials[name].usd + Decimal(cents) / 1_000_000)
    [fault] = faults(trials | {name: wrong})
    assert fault.startswith(f"{name}: our ledger says")


@pytest.mark.parametrize("saving", SAVINGS)
def test_a_switch_without_effect_is_named(saving):
    [fault] = faults(working() | {f"+{saving}": FULL})
    assert fault.startswith(f"{saving}: switched on alone")


def test_a_baseline_that_already_runs_in_parallel_is_no_baseline():
    trials = working() | {"baseline": replace(FULL, in_flight=32)}
    assert faults(trials) == ["parallel: switched on alone, it changed nothing"]
