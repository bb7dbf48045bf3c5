"""Every experiment that ships can be planned; the main job and the campaign run, only smaller."""

from __future__ import annotations

import math
import re
import shutil
import types
import typing
from pathlib import Path

import pytest

from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings
from workbench.diffusion.phases import phase
from workbench.notebook.experiment import load_experiment
from workbench.notebook.runner import Runner, plan
from workbench.report.html import render
from workbench.store import campaign_results, results, risk_results
from workbench.store.database import open_store
from workbench.store.records import PHASES

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
QUICKSTART = ROOT / "experiments" / "quickstart.yaml"
CAMPAIGN = ROOT / "experiments" / "campaign.yaml"
RISK = ROOT / "experiments" / "risk.yaml"

# three sizes: fewer give no law
SMALL = (
    "pairs.target_pairs=600",
    "train.wrapper_families=[3,6,12]",
    "train.seed=[0]",
    "train.training_steps=20",
    "train.gains=[0.0,1.0]",
    "sanitizer.training_steps=10",
    "sanitizer.gains=[1.0]",
    "sanitizer.methods=[identity,ridge]",
    "tests.max_tests=40",
    "tests.mutations_per_prompt=2",
    "attack.targets=[bare,sanitizer@1]",
)
MEMBERS = 10
SMALL_CAMPAIGN = (
    "pairs.target_pairs=600",
    "sanitizer.training_steps=10",
    "sanitizer.gains=[1.0]",
    "tests.max_tests=60",
)
NEEDS_FILES = {"local_files"}
"""Experiments on files that a user brings; without them the plan names the first one missing."""
RESULTS = {
    "pairs": results.PairsResult,
    "training": results.TrainingResult,
    "sanitizer": results.TrainingResult,
    "laws": results.LawsResult,
    "test_set": campaign_results.TestSetResult,
    "execution": campaign_results.ExecutionResult,
    "analysis": campaign_results.AnalysisResult,
    "cost": results.CostResult,
}
ASSESSMENT = risk_results.AssessmentResult
ADDED_BY_FINISH = {"run_id", "usage", "stamp"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_it_can_be_planned_in_a_store_of_its_own(file, store):
    experiment = load_experiment(file)
    assert experiment.name == file.stem
    assert experiment.description
    if file.stem in NEEDS_FILES and not (ROOT / "data" / "local").exists():
        with pytest.raises(ConfigError, match=r"input 'data/local/.*' does not exist.*correct"):
            plan(experiment, store)
        return
    events = plan(experiment, store)
    sizes = [
        math.prod(len(values) for values in step.matrix.values())
        for step in experiment.steps.values()
    ]
    assert len(events) == sum(sizes)
    due = {event.member.step for event in events if event.kind == "due"}
    assert due == {name for name, step in experiment.steps.items() if not step.needs}
    assert {event.kind for event in events} <= {"due", "waiting"}
    assert store.runs.find() == []


PHASE_FILES = [file for file in EXPERIMENTS if re.fullmatch(r"phase\d", file.stem)]


@pytest.mark.parametrize("file", PHASE_FILES, ids=lambda file: file.stem)
def test_a_phase_has_a_rehearsal_with_fewer_runs_and_the_encoder_that_is_here(file, store):
    whole, small = (load_experiment(file, rehearsal=flag) for flag in (False, True))
    assert small.name == f"{whole.name}-rehearsal"
    assert small.steps.keys() == whole.steps.keys()
    assert len(plan(small, store)) < len(plan(whole, store))
    told = small.steps["train"].parameters
    shipped = phase(told["preset"]).encoder == "minilm"
    assert shipped or told["encoder"] == "minilm"
    assert small.steps["pairs"].parameters["target_pairs"] <= 5_000


def run(store, file=QUICKSTART, overrides=SMALL):
    events = []
    experiment = load_experiment(file, overrides=overrides)
    runner = Runner(experiment, store=store, jobs=2, cores=2, tell=events.append)
    succeeded = runner.run()
    assert succeeded, [event.text for event in events if event.text]
    return events


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The main job at its smallest, run once for all tests of this file."""
    home = tmp_path_factory.mktemp("quickstart")
    opened = open_store(read_settings({"WORKBENCH_HOME": str(home), "WORKBENCH_USER": "tester"}))
    events = run(opened)
    yield opened, events
    opened.engine.dispose()


def test_every_member_succeeds_and_an_unchanged_second_run_skips_them_all(done):
    store, events = done
    assert [event.kind for event in events].count("succeeded") == MEMBERS
    before = [one.id for one in store.runs.current("quickstart")]
    again = run(store)
    assert [event.kind for event in again] == ["skipped"] * MEMBERS
    assert [one.id for one in store.runs.current("quickstart")] == before
    assert store.runs.experiment("quickstart")["state"] == "succeeded"


def misfits(value, declared, where):
    """Return where a JSON value is not of the shape that was declared for it."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    kind = dict if typing.is_typeddict(declared) else (origin or declared)
    if kind is object:
        return []
    if kind is types.UnionType:
        tried = [misfits(value, one, where) for one in arguments]
        return [] if [] in tried else tried[0]
    if kind is typing.Literal:
        return [] if value in arguments else [f"{where}: {value!r} is none of {arguments}"]
    # a float may be written as 1, but a bool is no number
    if type(value) is not kind and not (kind is float and type(value) is int):
        return [f"{where}: {value!r} is no {kind.__name__}"]
    if typing.is_typeddict(declared):
        return misfits_of_fields(value, declared, where)
    inner = {list: enumerate, dict: dict.items}.get(kind, lambda _: ())(value)
    return [
        misfit for key, item in inner for misfit in misfits(item, arguments[-1], f"{where}.{key}")
    ]


def misfits_of_fields(value, declared, where):
    """Return what is missing, unknown or of another shape among the fields of a mapping."""
    hints = typing.get_type_hints(declared)
    kinds = typing.get_type_hints(declared, include_extras=True).items()
    required = {name for name, kind in kinds if typing.get_origin(kind) is not typing.NotRequired}
    found = [f"{where}: missing {name!r}" for name in sorted(required - set(value))]
    found += [f"{where}: unknown {name!r}" for name in sorted(set(value) - set(hints))]
    for name in sorted(set(hints) & set(value)):
        found += misfits(value[name], hints[name], f"{where}.{name}")
    return found


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_has_the_shape_that_the_report_is_promised(done, kind):
    store, _ = done
    runs = store.runs.current("quickstart", kind=kind)
    assert len(runs) == (3 if kind == "training" else 1)
    for one in runs:
        assert set(one.result) >= ADDED_BY_FINISH
        own = {key: value for key, value in one.result.items() if key not in ADDED_BY_FINISH}
        assert misfits(own, RESULTS[kind], kind) == []


def test_steps_hand_on_what_the_others_made(done):
    store, _ = done
    (pairs,), (laws,), (tests,), (attack,), (analysis,) = (
        store.runs.current("quickstart", kind=kind)
        for kind in ("pairs", "laws", "test_set", "execution", "analysis")
    )
    training = store.runs.current("quickstart", kind="training")
    assert {one.result["pair_set"] for one in training} == {pairs.result["version"]}
    assert [one["run_id"] for one in laws.result["points"]] == [one.id for one in training]
    assert laws.result["best_model"] in {one.result["model"] for one in training}
    assert attack.result["test_set"] == tests.result["test_set"]
    assert analysis.result["execution"] == attack.result["execution"]
    assert attack.result["attempts"] == tests.result["tests"] * len(attack.result["targets"])
    assert attack.result["errors"] == 0


def test_the_model_is_chosen_by_validation_alone(done):
    store, _ = done
    training = store.runs.current("quickstart", kind="training")
    best = min(training, key=lambda one: one.result["validation_loss"])
    assert store.runs.current("quickstart", kind="laws")[0].result["best_run"] == best.id


def test_every_family_brings_its_pairs(done):
    store, _ = done
    axes = [one.result["axes"] for one in store.runs.current("quickstart", kind="training")]
    assert [axis["wrapper_families"] for axis in axes] == [3, 6, 12]
    pairs = [axis["pairs"] for axis in axes]
    assert pairs == sorted(set(pairs))


def test_the_ledger_covers_every_run(done):
    store, _ = done
    runs = store.runs.find(experiment="quickstart")
    rows = store.ledger.rows(experiment="quickstart")
    for one in runs:
        units = {row.unit: row for row in rows if row.job == one.id}
        assert set(units) == {"core_s", "kwh"}
        assert units["core_s"].quantity == pytest.approx(one.cpu_s)
        assert one.cpu_s > 0
    assert {row.phase for row in rows} <= set(PHASES)
    assert all(row.estimated for row in rows)


def test_the_report_is_rendered_of_it(done, tmp_path):
    store, _ = done
    index = render(store, "quickstart", tmp_path / "report")
    pages = {page.stem: page.read_text(encoding="utf-8") for page in index.parent.glob("*.html")}
    assert set(pages) == {"index", "data", "scaling", "frontier", "campaign", "cost"}
    single = render(store, "quickstart", tmp_path / "single", single_file=True)
    sizes = {page.name: page.stat().st_size for page in [*index.parent.glob("*.html"), single]}
    assert all(size < 6e6 for name, size in sizes.items()), sizes
    for name in ("data", "scaling", "frontier", "campaign", "cost"):
        figures = re.search(r'<html[^>]* data-figures="(\d+)"', pages[name])
        assert figures, name
        assert int(figures[1]) > 0, name


@pytest.mark.slow
def test_the_campaign_runs_whole_on_this_machine_alone(done, tmp_path):
    store, _ = done  # its vectors are at hand
    events = run(store, CAMPAIGN, SMALL_CAMPAIGN)
    results = {one.result["kind"]: one.result for one in store.runs.current("campaign")}
    assert {event.kind for event in events} == {"started", "succeeded"}
    assert set(results) == {"pairs", "sanitizer", "test_set", "execution", "analysis", "cost"}
    for kind, result in results.items():
        own = {key: value for key, value in result.items() if key not in ADDED_BY_FINISH}
        assert misfits(own, RESULTS[kind], kind) == []
    tests, attack, analysis = (results[kind] for kind in ("test_set", "execution", "analysis"))
    targets = ["bookshop", "guarded@1.0(bookshop)"]
    assert attack["kinds"] == dict.fromkeys(targets, "model")
    assert attack["targets"] == targets
    assert attack["attempts"] == tests["tests"] * len(targets) * attack["trials"]
    assert (attack["errors"], attack["usd"], attack["trials"]) == (0, 0, 2)
    # a shop with holes: the tests of its own profile must find some, or they test nothing
    bare, guarded = analysis["totals"]
    assert bare["successes"] >= guarded["successes"] > 0
    assert analysis["findings"] > 0
    assert render(store, "campaign", tmp_path / "report").is_file()
    assert {one.kind for one in run(store, CAMPAIGN, SMALL_CAMPAIGN)} == {"skipped"}


def test_risks_of_software_and_models_stand_in_one_report(done, tmp_path):
    store, _ = done
    overrides = ("tests.max_tests=40", "assess.folder=absent")
    run(store, RISK, overrides)
    (assessed,) = store.runs.current("risk", kind="assessment")
    own = {key: value for key, value in assessed.result.items() if key not in ADDED_BY_FINISH}
    assert misfits(own, ASSESSMENT, "assessment") == []
    kinds = {row["kind"] for row in own["register"]}
    assert kinds == {"cve", "model"}
    assert {row["asset"] for row in own["register"] if row["kind"] == "model"} == {"bookshop"}
    assert own["snapshot"] == "sample"
    assert own["closed"]
    page = render(store, "risk", tmp_path / "report").with_name("risk.html").read_text()
    assert "LLM01:2025" in page
    assert "CVE-2021-44228" in page
    assert {
        one.kind for one in run(store, RISK, ("tests.max_tests=40", "assess.folder=absent"))
    } == {"skipped"}


def test_a_folder_of_ones_own_is_assessed_in_place_of_the_sample(done, tmp_path):
    store, _ = done
    for name in ("kev.csv", "epss.csv", "cves.csv", "assets.csv", "sbom.cdx.json", "vex.json"):
        shutil.copy(ROOT / "data" / "seeds" / "risk" / name, tmp_path / name)
    for name in ("epss", "cves"):
        (tmp_path / f"{name}.csv").rename(tmp_path / f"{name}_2024-10-27.csv")
    overrides = ("tests.max_tests=40", f"assess.folder={tmp_path}", "assess.draw_cves=20",
                 "assess.draw_assets=5", "assess.draw_share=1.0")  # fmt: skip
    run(store, RISK, overrides)
    (assessed,) = store.runs.current("risk", kind="assessment")
    assert assessed.result["snapshot"] != "sample"
    assert assessed.result["counts"]["risks"] >= 100
    assert {one["name"] for one in assessed.result["sources"]} >= {"cve", "epss", "kev", "osv"}
