"""The scaling explorer: the same numbers as the laws give, for what is chosen, fitted once."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest

from hostile_texts import HOSTILE, scripts_in
from report_results import make_run
from workbench.core.errors import ConfigError
from workbench.core.plain import storable
from workbench.cost.prices import prices
from workbench.notebook.widgets import look
from workbench.notebook.widgets.scaling import Scaling, scaling
from workbench.report.tables import estimate
from workbench.scaling import forecast as laws_of
from workbench.scaling.forecast import compare_axis, forecast
from workbench.scaling.runs import training_frame

AXIS = "wrapper_families"
SIZES, SEEDS = (3, 6, 12, 20), (0, 1)


def falling(size, seed):
    return float(0.2 + 0.2 * size**-0.6 + 0.0005 * seed)


def fill(store, *, name="sweep", loss=falling, sizes=SIZES, **changes):
    """Add a sweep of some sizes, twice each."""
    ids = []
    for size in sizes:
        for seed in SEEDS:
            result = {
                "kind": "training", "model": f"m{size}", "pair_set": "p", "encoder": "words",
                "seed": seed, "axes": {AXIS: size, "pairs": 50 * size, "parameters": 500_000},
                "loss": loss(size, seed), "validation_loss": loss(size, seed),
                "baselines": {"identity": 0.33, "ridge": 0.26 + 0.0002 * seed}, "train_s": 5.0,
                "samples_per_s": 1000.0, "steps": 50, "flops": 3e9,
            }  # fmt: skip
            ids.append(f"{name}-{size}-{seed}")
            store.runs.add(make_run(ids[-1], name, "train", result=result | changes))
    store.runs.set_experiment(
        name, file="x.yaml", members={"train": ids}, state="succeeded", owner="tester"
    )
    return ids


@pytest.fixture
def swept(store, monkeypatch):
    """A store with a sweep; fits take fewer draws than they do at work."""
    compare = laws_of.compare_axis
    count = []

    def fewer(frame, *, axis):
        count.append(axis)
        return compare(frame, axis=axis, bootstrap=40)

    monkeypatch.setattr(laws_of, "compare_axis", fewer)
    fill(store)
    return store, count


def facts(blocks):
    return {one["label"]: (one["value"], one["note"]) for one in blocks["facts"]["items"]}


def test_without_runs_it_says_how_to_train(store):
    panel = scaling(store)
    panel.build()
    assert "No experiment has trained" in panel.to_html()
    panel.close()


def test_the_forecast_is_that_of_the_chosen_law(swept):
    store, _ = swept
    panel = Scaling(store, experiment="sweep", axis=AXIS, size=60)
    blocks = panel.snapshot()["blocks"]
    frame = training_frame(store, experiment="sweep")
    law = compare_axis(frame, axis=AXIS, bootstrap=40).chosen
    usd = float(prices()["cpu_core_hour"].usd)
    ahead = forecast(law, frame, axis=AXIS, x=60, usd_per_core_hour=usd)
    assert facts(blocks)["loss"][0] == estimate(ahead["loss"]).value
    assert estimate(ahead["loss"]).interval in facts(blocks)["loss"][1]
    assert "at 60 wrapper families" in facts(blocks)["loss"][1]
    (chosen,) = [row for row in blocks["laws"]["rows"] if row[0].endswith("(chosen)")]
    assert chosen[0].startswith(law.form.name)
    assert [row[0] for row in blocks["parameters"]["rows"]] == list(law.form.names)


def test_residuals_are_what_the_law_leaves(swept):
    store, _ = swept
    panel = Scaling(store, law="power law")
    rows = panel.snapshot()["blocks"]["residuals"]["rows"]
    assert len(rows) == len(SIZES) * len(SEEDS)
    frame = training_frame(store, experiment="sweep")
    law = compare_axis(frame, axis=AXIS, bootstrap=40).laws["power law"]
    for run, x, seed, loss, told, off in rows:
        assert run == f"sweep-{float(x):.0f}-{seed}"
        expected = falling(float(x), int(seed)) / float(law.at(float(x))[0]) - 1
        assert off == f"{expected:+.1%}".replace("-", "−")
        assert float(told) == pytest.approx(float(loss) / (1 + expected), abs=2e-3)


def test_what_is_chosen_is_shown_and_fitted_once_for_the_same_runs(swept):
    store, count = swept
    panel = Scaling(store)
    panel.build()
    assert count == [AXIS]
    threads = []
    do, panel.do = panel.do, lambda action: threads.append(do(action))
    _, axis, law, size, _ = panel.widget.children[1].children
    law.value = "constant"
    threads[-1].join()
    (chosen,) = [row[0] for row in panel.view._blocks["laws"]["rows"] if "(chosen)" in row[0]]
    assert chosen == "constant (chosen)"
    size.value = 40
    threads[-1].join()
    assert "at 40 wrapper families" in facts(panel.view._blocks)["loss"][1]
    assert count == [AXIS]
    axis.value = "pairs"
    threads[-1].join()
    assert count == [AXIS, "pairs"]
    size.value = -1
    threads[-1].join()
    assert "must be above 0" in panel.to_html()
    panel.close()


def test_the_twin_has_the_figure(swept):
    store, _ = swept
    panel = Scaling(store, axis=AXIS, size=60)
    tree = ET.fromstring(panel.to_html().replace(str(look.style()), ""))
    (drawn,) = (one for one in tree.iter("svg") if one.get("role") == "img")
    assert "8 runs" in drawn.get("aria-label")
    assert "at 60; baseline identity 0.330" in drawn.get("aria-label")
    inks = [one.get("class") for one in drawn.iter("circle")]
    assert (inks.count("p-ink"), inks.count("p-vermillion")) == (len(SIZES) * len(SEEDS), 1)
    lines = {one.get("class") for one in drawn.iter("path")}
    assert lines >= {"p-blue", "p-band", "p-vermillion"}
    spoken = [one.text for one in drawn.iter("text")]
    assert {"3", "20", "60", "wrapper families (log scale)"} <= set(spoken)
    across = [float(one.get("cx")) for one in drawn.iter("circle")]
    assert across[:-1] == sorted(across[:-1])
    gaps = np.diff(across[:-1:2])  # a log scale: 6/3, 12/6, 20/12
    assert gaps / gaps[0] == pytest.approx(np.log([2, 2, 20 / 12]) / np.log(2), abs=0.01)
    down = [float(one.get("cy")) for one in drawn.iter("circle")]
    assert down[::2] == sorted(down[::2])  # losses fall


def test_the_figure_follows_what_is_chosen(swept):
    store, _ = swept
    panel = Scaling(store, axis=AXIS, size=60)
    panel.build()
    before = panel.view._blocks["figure"]
    panel.update()
    assert panel.view._blocks["figure"] == before
    panel._size = 30.0
    panel.update()
    assert panel.view._blocks["figure"] != before
    panel.close()


@pytest.mark.parametrize("choice", [{"law": "power lw"}, {"axis": "height"}])
def test_what_cannot_be_chosen_is_refused_with_what_can(store, choice):
    (value,) = choice.values()
    with pytest.raises(ConfigError, match=rf"{value}.*(power law|pairs)"):
        scaling(store, **choice)


def test_the_next_size_costs_more_where_it_is_more_work(swept):
    store, _ = swept

    def hours(**choice):
        rows = Scaling(store, **choice).snapshot()["blocks"]["gpus"]["rows"]
        assert len(rows) >= 2
        return rows[0][1].split()[0]

    assert float(hours(axis="pairs", size=4e7)) == pytest.approx(
        10 * float(hours(axis="pairs", size=4e6)), rel=0.01
    )
    assert hours(axis=AXIS, size=200) == hours(axis=AXIS, size=40)


def test_what_is_not_there_is_told_in_one_line(swept):
    store, _ = swept
    for choice, told in (
        ({"law": "one break"}, "no law"),
        ({"axis": "requests"}, "no axis"),
        ({"experiment": "none"}, "never ran here"),
    ):
        panel = Scaling(store, **choice)
        panel.build()
        assert told in panel.to_html()
        panel.close()
    fill(store, name="small", sizes=(3, 6))
    assert "fewer than 3 sizes" in Scaling(store, experiment="small").to_html()


def test_the_newest_experiment_that_trained_is_shown(swept):
    store, _ = swept
    fill(store, name="later", loss=lambda size, seed: falling(size, seed) / 2)
    store.runs.set_experiment(
        "idle", file="x.yaml", members={"a": [None]}, state="failed", owner="tester"
    )
    assert Scaling(store).snapshot()["blocks"]["what"]["text"].startswith("later: 8 runs.")


@pytest.mark.parametrize("part", range(4))
def test_hostile_texts_are_shown_as_text(swept, part):
    store, _ = swept
    texts = [storable(text)[:150] for text in HOSTILE][part::4]
    name = texts[part] or "x"
    fill(store, name=name, baselines=dict.fromkeys(texts, 0.3), model=texts[0])
    panel = Scaling(store, experiment=name)
    panel.build()
    assert scripts_in(panel.to_html()) == []
    panel.close()


def test_losses_that_wander_do_not_break_it(store, monkeypatch):
    compare = laws_of.compare_axis
    monkeypatch.setattr(
        laws_of, "compare_axis", lambda frame, *, axis: compare(frame, axis=axis, bootstrap=40)
    )
    draw = np.random.default_rng(0)
    fill(store, loss=lambda *_: float(0.3 * np.exp(draw.normal(0, 0.05))))
    blocks = Scaling(store).snapshot()["blocks"]
    assert "do not show that more wrapper families helps" in blocks["what"]["text"]
