"""The table of runs, the backtest, the forecast and the sentence that sums them up."""

import json

import numpy as np
import pytest

from workbench.core.errors import ConfigError, DataError
from workbench.cost.prices import prices
from workbench.scaling.claims import NOTE, roadmap_claims
from workbench.scaling.compare import Comparison
from workbench.scaling.energy import METHOD, estimate, gpu_energy
from workbench.scaling.forecast import (
    compare_axes,
    compare_axis,
    describe,
    forecast,
    promised,
    verdict,
)
from workbench.scaling.runs import best_run, mean_baselines, training_frame
from workbench.store.records import Run

AXIS = "wrapper_families"


def fill(store, *, loss, ridge=0.26, validation=None):
    """Add a sweep of 4 sizes × 3 seeds and make it the experiment ``sweep``."""
    ids = []
    for size in (3, 6, 12, 20):
        for seed in range(3):
            value = loss(size, seed)
            result = {
                "kind": "training",
                "model": f"model-{size}-{seed}",
                "pair_set": "pairs-1",
                "encoder": "words",
                "seed": seed,
                "axes": {AXIS: size, "pairs": 50 * size, "parameters": 500_000},
                "loss": value,
                "validation_loss": validation(size, seed) if validation else value,
                "baselines": {"identity": 0.33, "ridge": ridge + 0.0002 * seed},
                "train_s": 5.0,
                "samples_per_s": 1000.0,
                "steps": 50,
                "flops": 3e9,
            }
            ids.append(f"run-{size}-{seed}")
            store.runs.add(
                Run(
                    id=ids[-1],
                    experiment="sweep",
                    step="train",
                    notebook="02",
                    phase="training",
                    fingerprint="f",
                    parameters={},
                    state="succeeded",
                    owner="tester",
                    folder="",
                    started_at=f"2026-01-01T00:00:{len(ids):02d}Z",
                    cpu_s=18.0,
                    result=result,
                )
            )
    store.runs.set_experiment(
        "sweep", file="x.yaml", members={"train": ids}, state="succeeded", owner="tester"
    )
    return ids


def falling(size, seed):
    return float(0.2 + 0.2 * size**-0.6 + 0.0005 * (seed - 1))


def flat(size, seed):
    return float(0.3 * np.exp(np.random.default_rng(size * 10 + seed).normal(0, 0.02)))


def logarithmic(size, seed):
    return float(0.55 - 0.01 * np.log(size) + 0.001 * np.sin(7 * size + 3 * seed))


def test_frame_has_one_row_per_training_run_in_plan_order(store):
    ids = fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    assert list(frame["run_id"]) == ids
    assert frame["samples"].eq(5000).all()
    assert list(training_frame(store, ids[:2])["run_id"]) == ids[:2]


def test_frame_without_training_runs_says_what_to_run(store):
    with pytest.raises(ConfigError, match="run the training step"):
        training_frame(store, ["nobody"])


def test_a_run_that_is_missing_is_named_never_left_out(store):
    ids = fill(store, loss=falling)
    store.runs.update(ids[4], state="failed")
    with pytest.raises(ConfigError, match=f"'{ids[4]}' is no finished training run"):
        training_frame(store, ids)


def test_losses_on_different_pairs_are_not_compared(store):
    ids = fill(store, loss=falling)
    other = store.runs.get(ids[0]).result | {"pair_set": "pairs-2"}
    store.runs.update(ids[0], result=other)
    with pytest.raises(ConfigError, match="2 different pair_sets"):
        training_frame(store, ids)


def test_best_run_ignores_test_losses(store):
    fill(store, loss=falling, validation=lambda size, seed: size + seed)
    frame = training_frame(store, experiment="sweep")
    assert best_run(frame)["run_id"] == "run-3-0"
    assert frame.loc[frame["loss"].idxmin(), "run_id"] != "run-3-0"


def test_forecast_scales_work_with_pairs_but_not_with_diversity(store):
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    frame["parameters"] = frame["pairs"]
    frame["flops"] = frame["pairs"] * 1e9
    diverse, more, larger, longer = (
        forecast(law_of(frame, axis), frame, axis=axis, x=x, usd_per_core_hour=0.036)
        for axis, x in ((AXIS, 60.0), ("pairs", 3e3), ("parameters", 3e3), ("flops", 3e12))
    )
    assert (more["samples"], larger["samples"], longer["samples"]) == (15_000, 5_000, 15_000)
    assert larger["train_s"] == more["train_s"] == longer["train_s"]
    assert diverse["train_s"] == pytest.approx(5.0)
    assert diverse["usd"] == pytest.approx(18 * 1e-5)
    assert diverse["kwh"] == pytest.approx(estimate(18).kwh)
    assert more["train_s"] == pytest.approx(15.0)
    assert diverse["loss"]["low"] <= 0.2 + 0.2 * 60**-0.6 <= diverse["loss"]["high"]
    json.dumps([diverse, more], allow_nan=False)


def law_of(frame, axis=AXIS):
    return compare_axis(frame, axis=axis, bootstrap=60).chosen


def test_forecast_of_a_size_below_zero_is_refused(store):
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    with pytest.raises(ConfigError, match="above 0"):
        forecast(law_of(frame), frame, axis=AXIS, x=0, usd_per_core_hour=1)


def test_unknown_axis_is_named(store):
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    with pytest.raises(ConfigError, match="no axis 'wrappers'"):
        compare_axes(frame, axis="wrappers")


def test_a_sweep_of_two_sizes_is_refused(store):
    ids = fill(store, loss=falling)
    with pytest.raises(DataError, match="at least 3"):
        compare_axes(training_frame(store, ids[:6]), axis=AXIS)


def test_axes_that_hardly_vary_have_no_law(store):
    """Pairs follow the families twentyfold, parameters stay, requests vary by a twelfth."""
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    frame["requests"] = 390 + frame[AXIS]
    assert list(compare_axes(frame, axis=AXIS)) == [AXIS, "pairs"]
    frame["flops"] = frame["pairs"] * 1e9
    assert list(compare_axes(frame, axis="pairs")) == ["pairs", AXIS, "flops"]


@pytest.mark.parametrize(
    ("loss", "ridge", "words"),
    [
        (falling, 0.30, ("tagger (0.2331) beats the best baseline, ridge", "families helps")),
        (falling, 0.20, ("ridge (0.2002) beats the sanitizer's tagger", "families helps")),
        (falling, 0.2331, ("cannot be told apart",)),
        (flat, 0.10, ("ridge (0.1002) beats the sanitizer's tagger", "do not show")),
        (logarithmic, 0.10, ("helps up to 20", "log-linear foretold the larger sizes best")),
    ],
)
def test_verdict_follows_the_numbers(store, loss, ridge, words):
    fill(store, loss=loss, ridge=ridge)
    frame = training_frame(store, experiment="sweep")
    baselines = mean_baselines(frame, axis=AXIS)
    laws = compare_axis(frame, axis=AXIS)
    said = verdict(frame, laws, axis=AXIS, baselines=baselines)
    assert all(word in said for word in words), said


def test_a_bound_is_not_quoted_as_an_estimate(store):
    fill(store, loss=logarithmic)
    frame = training_frame(store, experiment="sweep")
    laws = compare_axis(frame, axis=AXIS)
    power = laws.laws["power law"]
    assert power.words.endswith("(E, A, alpha not identified by these runs)")
    only = Comparison(laws={"power law": power}, misses={})
    said = verdict(frame, only, axis=AXIS, baselines=mean_baselines(frame, axis=AXIS))
    assert "α" not in said
    assert "no saturating law" in said
    for law in (power, laws.chosen):
        interval = law.interval(60.0)
        assert interval["low"] <= 0.55 - 0.01 * np.log(60) <= interval["high"]


def test_methods_are_compared_run_by_run(store):
    """Seeds scatter more than the methods differ, but the tagger is better under every seed."""
    shifts = [0.0, 0.02, -0.02]
    fill(store, loss=lambda size, seed: falling(size, seed) + shifts[seed])
    frame = training_frame(store, experiment="sweep")
    laws = compare_axis(frame, axis=AXIS, bootstrap=20)
    frame["baseline_ridge"] = frame["loss"] + [0.004, 0.005, 0.006] * 4
    baselines = mean_baselines(frame, axis=AXIS)
    assert "beats the best baseline" in verdict(frame, laws, axis=AXIS, baselines=baselines)
    frame["baseline_ridge"] = frame["loss"] + [0.016, 0.001, -0.002] * 4
    baselines = mean_baselines(frame, axis=AXIS)
    assert "cannot be told apart" in verdict(frame, laws, axis=AXIS, baselines=baselines)


def test_a_law_is_described_over_its_runs_and_up_to_the_forecast(store):
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    laws = compare_axes(frame, axis=AXIS)
    for x, end in ((60, 60), (1, 20)):
        said = describe(laws, frame, axis=AXIS, x=x, prices=prices(), seed=0)
        ends = said["curve"][0]["x"], said["curve"][-1]["x"]
        assert ends == (pytest.approx(3), pytest.approx(end))
        assert said["forecast"]["x"] == x
        json.dumps(said, allow_nan=False)
    assert [point["run_id"] for point in said["points"]] == list(frame["run_id"])
    assert said["best_run"] == best_run(frame)["run_id"]
    assert said["form"] == laws[AXIS].chosen.words
    assert [row["axis"] for row in said["axes"]] == ["wrapper families", "pairs"]
    assert [row["gpu"] for row in said["gpu_costs"]] == [
        "A100",
        "H100",
        "H200",
        "RTX 3090",
        "L4",
        "T4",
    ]
    assert [row["phase"] for row in said["phases"]] == ["Phase 1", "Phase 2", "Phase 3"]
    assert "it takes 3 sizes of both, the runs have 1 of parameters" in said["allocation"]["note"]


def test_promises_stand_beside_what_the_laws_say(store):
    fill(store, loss=falling)
    frame = training_frame(store, experiment="sweep")
    rows = promised(compare_axes(frame, axis=AXIS), axis=AXIS)
    assert [row["safety_claimed_pct"] for row in rows] == [15, 30, 12, 20, 65]
    assert {row["kind"] for row in rows} == {"claimed"}
    told = [row["loss_forecast_pct"] for row in rows]
    exact = 100 * ((0.2 + 0.2 * 200**-0.6) / (0.2 + 0.2 * 20**-0.6) - 1)
    assert told[0]["value"] == pytest.approx(exact, abs=1)
    assert told[0]["low"] <= exact <= told[0]["high"]
    assert told[2:] == [None, None, None]  # parameters were not varied


def test_energy_of_one_core_hour_by_hand():
    energy = estimate(3600)
    assert energy.kwh == pytest.approx(0.0035 * 1.135)
    assert energy.gco2 == pytest.approx(0.0035 * 1.135 * 436)
    assert "estimated" in METHOD
    for bad in (-1, float("nan")):
        with pytest.raises(ConfigError, match="cpu_s"):
            estimate(bad)


def test_energy_of_one_gpu_hour_by_hand():
    energy = gpu_energy(hours=2, watts=400)
    assert energy.kwh == pytest.approx(0.8 * 1.135)
    assert energy.gco2 == pytest.approx(0.8 * 1.135 * 436)
    with pytest.raises(ConfigError, match="watts=-1"):
        gpu_energy(hours=1, watts=-1)


def test_claims_are_marked_as_claims():
    rows = roadmap_claims()
    assert [row["safety"] for row in rows] == [0.453, 0.60, 0.70, 0.75]
    assert [row["hours"] for row in rows] == ["0.0036–0.015", "2–4", "12–24", "168–336"]
    assert [row["usd"] for row in rows] == ["0", "50–100", "500–1,000", "10,000–20,000"]
    assert {row["kind"] for row in rows} == {"claimed"}
    assert "incompatible" in NOTE
