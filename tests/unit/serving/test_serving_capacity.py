"""The queueing simulation against closed forms, and what a plan makes of a load."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import click
import numpy as np
import plotly.graph_objects as go
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.cli.serve_plan import WithPlan
from workbench.cli.serve_plan import plan as plan_command
from workbench.core.errors import ConfigError, InputError
from workbench.serving import capacity
from workbench.serving.capacity import assumptions, hardware, hourly_rates, plan
from workbench.serving.capacity_page import render_page
from workbench.serving.capacity_report import render_plan
from workbench.serving.claims import CLAIMED, claims
from workbench.serving.config import ServeConfig
from workbench.serving.queueing import Curve, Sample, arrivals, fit_curve, simulate

S = 0.01
NO_LIMITS = {"queue_s": 1e9, "batch_s": 1e9, "wait_s": 0.0}
ONE_BY_ONE = ServeConfig(batch_texts=1, **NO_LIMITS)
FIXED = Curve(each_s=S, text_s=0, token_s=0, square_s=0, scatter=0)
BY_TOKEN = Curve(each_s=0, text_s=0, token_s=S, square_s=0, scatter=0)
FEW = {"days": 2, "sensitivity": False, "given": {"prompts_per_day": 1e6}}
LOAD = 1e6


def waits(curve, *, rho, workers=1, tokens="one", config=ONE_BY_ONE, seconds=60):
    """Mean seconds before service of Poisson arrivals, past a warm-up."""
    rng = np.random.default_rng(1)
    times = arrivals(np.full((96, seconds), rho * workers / S), step_s=1.0, rng=rng)
    sizes = rng.exponential(1.0, times.shape) if tokens == "exponential" else np.ones(times.shape)
    made = simulate(times, sizes, curve=curve, config=config, workers=workers, rng=rng)
    assert not made.rejected.any()
    settled = np.isfinite(times) & (times > 10)
    return made.latency_s[settled].mean() - S, made


def erlang_c(workers, load):
    terms = [load**k / math.factorial(k) for k in range(workers)]
    last = load**workers / math.factorial(workers) * workers / (workers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize("rho", [0.4, 0.8])
def test_one_worker_and_equal_times_is_pollaczek_khinchine(rho):
    found, made = waits(FIXED, rho=rho)
    assert found == pytest.approx(rho * S / (2 * (1 - rho)), rel=0.05)
    assert made.busy_s.sum() == pytest.approx(np.isfinite(made.latency_s).sum() * S)


@pytest.mark.parametrize("rho", [0.4, 0.8])
def test_one_worker_and_exponential_times_is_m_m_1(rho):
    found, _ = waits(BY_TOKEN, rho=rho, tokens="exponential")
    assert found == pytest.approx(rho * S / (1 - rho), rel=0.06)


def test_one_queue_of_several_workers_is_erlang_c_and_near_half_of_it_for_equal_times():
    workers, rho = 4, 0.8
    wanted = erlang_c(workers, rho * workers) * S / (workers * (1 - rho))
    found, _ = waits(BY_TOKEN, rho=rho, workers=workers, tokens="exponential", seconds=30)
    assert found == pytest.approx(wanted, rel=0.06)
    # M/D/c waits about half as long, a little more (Cosmetatos' correction)
    gamma = (1 - rho) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * rho * workers)
    found, _ = waits(FIXED, rho=rho, workers=workers, seconds=30)
    assert found == pytest.approx(wanted * (1 + gamma) / 2, rel=0.06)


def test_batches_carry_a_load_that_is_too_much_one_by_one():
    rng = np.random.default_rng(2)
    times = arrivals(np.full((8, 60), 400.0), step_s=1.0, rng=rng)
    tokens = np.ones(times.shape)
    shares = {}
    for texts in (1, 16):
        config = ServeConfig(batch_texts=texts)
        made = simulate(times, tokens, curve=FIXED, config=config, rng=rng)
        shares[texts] = made.rejected.sum() / np.isfinite(times).sum()
    # one by one 100 of 400 a second are served; in batches of 16 up to 1,600
    assert shares[1] == pytest.approx(0.75, abs=0.02)
    assert shares[16] == 0


@settings(max_examples=25)
@given(
    rate=st.floats(1, 300), texts=st.integers(1, 20), queue_s=st.floats(0.01, 1),
    workers=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_everybody_is_answered_or_rejected_once_and_waits_within_bounds(
    rate, texts, queue_s, workers, seed
):
    rng = np.random.default_rng(seed)
    times = arrivals(np.full((3, 2), rate), step_s=1.0, rng=rng)
    tokens = rng.lognormal(3, 1, times.shape)
    curve = Curve(each_s=0.002, text_s=0.001, token_s=1e-4, square_s=0, scatter=0)
    config = ServeConfig(batch_texts=texts, queue_s=queue_s)
    made = simulate(times, tokens, curve=curve, config=config, workers=workers, rng=rng)
    answered, came = np.isfinite(made.latency_s), np.isfinite(times)
    assert ((answered ^ made.rejected) == came).all()
    least = curve.each_s + curve.text_seconds(tokens)
    assert (made.latency_s[answered] >= least[answered] - 1e-9).all()
    assert (made.busy_s <= (came.sum(axis=1)) * (0.002 + least.max())).all()


def test_the_curve_is_found_again_and_a_bad_measurement_is_refused():
    true = Curve(each_s=0.004, text_s=0.001, token_s=5e-5, square_s=1e-7, scatter=0)
    samples = [
        Sample(n, t, true.each_s + n * float(true.text_seconds(np.array(t, dtype=float))))
        for n in (1, 4, 16) for t in (16, 64, 256)
    ]  # fmt: skip
    found = fit_curve(samples)
    assert [found.each_s, found.text_s, found.token_s, found.square_s] == pytest.approx(
        [0.004, 0.001, 5e-5, 1e-7], rel=1e-6
    )
    assert found.scatter < 1e-6
    with pytest.raises(ConfigError, match="four or more"):
        fit_curve(samples[:3])


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_shipped_measurements_are_described_by_a_curve_and_dated(name):
    machine = hardware(name)
    assert fit_curve(machine.measured.samples).scatter < 0.35
    assert machine.measured.date >= "2026-01-01"
    assert machine.usd_per_hour > 0


def test_the_hours_and_their_bursts_make_the_day():
    values = {one.name: one.value for one in assumptions()}
    rates = hourly_rates(values)
    burst_share = values["bursts_per_hour"] * values["burst_s"] / 3600
    whole = rates.sum() * 3600 * (1 + burst_share * (values["burst_factor"] - 1))
    assert whole == pytest.approx(values["prompts_per_day"])
    assert rates.max() / rates.mean() == pytest.approx(values["peak_to_mean"])
    assert hourly_rates({**values, "peak_to_mean": 1}) == pytest.approx(rates.mean())


@pytest.fixture(scope="module")
def made():
    return plan(hardware("cpu"), **FEW)


def test_the_same_seed_makes_the_same_plan_and_another_one_hardly_differs(made):
    assert plan(hardware("cpu"), **FEW) == made
    other = plan(hardware("cpu"), seed=5, **FEW)
    assert other.day != made.day
    assert other.day.p50_ms["value"] == pytest.approx(made.day.p50_ms["value"], rel=0.1)


def test_ten_times_the_load_takes_more_machines_and_no_more_than_ten_times(made):
    more = plan(hardware("cpu"), given={"prompts_per_day": 10 * LOAD}, days=2, sensitivity=False)
    assert 2 <= made.fewest <= made.machines < more.machines <= 10 * made.machines
    assert made.meets
    assert more.meets


def test_a_load_shows_in_the_time_that_workers_work(made):
    # Little's law for the worker: its share of busy time is rate times time of service
    tokens = np.random.default_rng(0).lognormal(math.log(made.value("tokens_mean")) - 0.5, 1, 10**6)
    text_s = float(made.curve.text_seconds(tokens.clip(1, 8192)).mean())
    rate = made.value("prompts_per_day") / 86_400 / made.machines / made.hardware.workers
    least = rate * (text_s + made.value("front_ms") / 1000)
    most = least + rate * made.curve.each_s
    assert 0.9 * least < made.utilization["value"] < 1.1 * most


def test_energy_and_dollars_are_those_of_all_machines(made):
    watts = made.kwh_per_year["value"] * 1000 / 8760 / 1.135 / made.machines
    assert made.hardware.watts_idle < watts < made.hardware.watts_busy
    assert made.usd_per_year == pytest.approx(made.machines * 8 * 0.0425 * 8760)
    assert made.kgco2_per_year["value"] == pytest.approx(made.kwh_per_year["value"] * 0.436)


def test_a_load_that_no_number_of_machines_carries_is_said_to_be_one(made, monkeypatch):
    monkeypatch.setattr(capacity, "_MOST", 2)
    slow = replace(
        made.hardware,
        measured=replace(made.hardware.measured, samples=[
            Sample(n, t, 1.0 * n) for n in (1, 2, 4) for t in (8, 64)
        ]),
    )  # fmt: skip
    given = {"rejected_share": 0.0, "burst_factor": 100, "prompts_per_day": 1e4}
    found = plan(slow, given=given, days=2, sensitivity=False)
    assert not found.meets
    assert "No number of machines" in render_plan(found)
    assert claims(found)[0].verdict == "cannot be known"


def test_every_claim_has_a_verdict_of_three_and_those_that_arithmetic_decides_have_theirs(made):
    found = {one.claimed: one for one in claims(made)}
    assert {one.verdict for one in found.values()} == {
        "holds", "does not hold", "cannot be known",
    }  # fmt: skip
    assert all(one.found and one.rests_on for one in found.values())
    saving = next(one for name, one in found.items() if "$36–73M" in name)
    assert saving.verdict == "does not hold"
    assert "$0.0099 to $0.0200" in saving.found
    own = next(one for name, one in found.items() if "own figures" in name)
    assert "80.0% less" in own.found
    assert own.verdict == "does not hold"
    here = next(
        one for name, one in found.items() if "as planned here" in name and "energy" in name
    )
    assert here.verdict == "cannot be known"


def test_the_roadmaps_own_arithmetic_is_what_it_is_said_to_be():
    theirs = CLAIMED["their_kwh_per_day"] * 365
    assert 1 - CLAIMED["training_kwh"] / theirs == pytest.approx(CLAIMED["kwh_reduction"], abs=1e-5)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tokens": 3}, "no assumption 'tokens'"),
        ({"prompts_per_day": 0}, "prompts_per_day=0"),
        ({"peak_to_mean": 0.5}, "from 1 to 12"),
        ({"burst_s": math.inf}, "from 1 to 60"),
        ({"tokens_mean": math.nan}, "tokens_mean=nan"),
    ],
)
def test_what_makes_no_sense_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        plan(hardware("cpu"), given=given)
    with pytest.raises(ConfigError, match="known: cpu, gpu"):
        hardware("abacus")


def test_the_report_shows_every_assumption_and_every_claim(made):
    text = render_plan(made)
    assert all(f"| {one.name} |" in text for one in made.assumptions)
    assert all(one.claimed in text for one in claims(made))
    table = text.split("## Assumptions\n")[1].split("##")[0]
    assert {line.count("|") for line in table.splitlines() if line} == {6}


def test_the_hours_of_a_day_are_as_loaded_as_the_day_says(made):
    assert [one.name for one in made.hours] == [f"{hour}:00" for hour in range(24)]
    # the wave is the same before and after its top, and the day lies between its hours
    assert made.hours[14].p50_ms == made.hours[16].p50_ms
    for name in ("p50_ms", "p95_ms"):
        values = [getattr(one, name)["value"] for one in made.hours]
        assert min(values) <= getattr(made.day, name)["value"] <= max(values)


def test_hours_of_one_load_are_all_the_day():
    even = plan(hardware("cpu"), given={"peak_to_mean": 1, "prompts_per_day": LOAD}, days=2,
                sensitivity=False)  # fmt: skip
    assert [replace(one, name="the whole day") for one in even.hours] == [even.day] * 24


def test_the_page_says_what_the_report_says_and_asks_nobody(made):
    rows = [
        {"name": "tokens_mean", "value": value, "machines": many, "meets": value < 500,
         "usd_per_year": 1.0} for value, many in ((32.0, 2), (300.0, 9), (600.0, 99))
    ]  # fmt: skip
    page = render_page(replace(made, sensitivity=rows)).decode()
    assert re.findall(r"<(?:iframe|object|embed|form)|\ssrc=", page.split("<script>")[0]) == []
    assert set(re.findall(r'href="([^"]*)"', page.split("<script>")[0])) == {"data:,", "#content"}
    for one in [*made.assumptions, *claims(made)]:
        assert getattr(one, "name", getattr(one, "verdict", "")) in page
    assert page.count('class="tone') == len(claims(made))
    specs = re.findall(r'<script type="application/json" class="figure-data">(.*?)</script>', page)
    hours, lengths = (go.Figure(json.loads(one)) for one in specs)
    assert list(hours.data[5].y) == [one.p99_ms["value"] for one in made.hours]
    # what no number of machines kept is no point of the line; what is planned is one
    assert dict(zip(lengths.data[0].x, lengths.data[0].y, strict=True)) == {
        32: 2, 70: made.machines, 300: 9,
    }  # fmt: skip
    assert "No number of machines" in render_page(replace(made, meets=False)).decode()


@click.group(cls=WithPlan, invoke_without_command=True)
def served():
    click.echo("serving")


served.add_command(plan_command)


def test_the_command_takes_the_flag_prints_json_and_writes_a_page(tmp_path):
    asked = ["--plan", "--prompts-per-day", "100000", "--days", "2", "--no-sensitivity", "--json"]
    asked += ["--html", str(tmp_path / "capacity.html")]
    done = CliRunner().invoke(served, [*asked, "--assume", "tokens_mean=32"])
    assert done.exit_code == 0, done.output
    assert "100,000 prompts a day" in (tmp_path / "capacity.html").read_text(encoding="utf-8")
    told = json.loads(done.stdout.split("serving\n")[-1])
    assert told["machines"] == 2
    assert {one["verdict"] for one in told["claims"]} <= {
        "holds", "does not hold", "cannot be known",
    }  # fmt: skip
    given = {one["name"]: one for one in told["assumptions"]}
    assert given["tokens_mean"]["source"] == "given by the user"
    assert isinstance(
        CliRunner().invoke(served, ["--plan", "--assume", "tokens_mean"]).exception, InputError
    )
