"""Figures: valid Plotly, theme colors only, hostile labels escaped."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_results as made
from workbench.report import figures
from workbench.report.evidence import read_evidence
from workbench.report.pages import campaign, cost, data, frontier, risk, scaling
from workbench.store.database import Store

PAGES = (data, scaling, frontier, campaign, risk, cost)


def figures_of(store: Store, steps: dict[str, Any]) -> list[Any]:
    made.fill(store, steps)
    evidence = read_evidence(store, "quickstart")
    return [figure for page in PAGES for figure in page.page(evidence).figures]


@pytest.mark.parametrize("is_hostile", [False, True])
def test_every_figure_is_valid_plotly(store: Store, is_hostile: bool) -> None:
    steps = made.results()
    if is_hostile:
        steps = {step: [made.hostile(one) for one in found] for step, found in steps.items()}
    found = figures_of(store, steps)
    assert len(found) == 20
    for figure in found:
        assert go.Figure(dict(figure.spec)).data
        assert figure.summary
        assert figure.footer


def test_every_color_has_a_dark_twin(store: Store) -> None:
    for figure in figures_of(store, made.results()):
        text = json.dumps(figure.spec)
        used = set(re.findall(r'"(#[0-9a-f]{6}|rgba\([^)]*\))"', text)) - {"rgba(0,0,0,0)"}
        assert used <= figures.DARK.keys()
    assert set(figures.COLORS.values()) <= figures.DARK.keys()


def test_forecast_and_seeds_are_in_the_law(store: Store) -> None:
    law = next(one for one in figures_of(store, made.results()) if one.name == "law")
    measured = [trace for trace in law.spec["data"] if len(trace["x"]) == 12]
    assert len(measured) == 1
    assert [40] in [trace["x"] for trace in law.spec["data"]]


def test_each_axis_has_its_law_and_its_runs(store: Store) -> None:
    steps = made.results()
    laws = steps.pop("laws")
    other = made.laws(steps["train"][:9]) | {"axis": "pairs"}
    drawn = figures_of(store, steps | {"other": [other], "laws": laws})
    found = {one.name: one for one in drawn if one.name.startswith("law")}
    assert list(found) == ["law", "law-pairs"]
    assert found["law"].footer.startswith("12 runs")
    assert found["law-pairs"].footer.startswith("9 runs")
    assert "by pairs" in found["law-pairs"].title


def test_methods_that_diffuse_share_a_color_and_no_two_methods_a_mark() -> None:
    diffusion, others = ("x0", "eps", "v", "bridge"), ("sanitizer", "identity", "constant", "ridge")
    others += ("mlp", "hypotheses")
    methods = diffusion + others
    assert len({figures.color_of(name, 0) for name in diffusion}) == 1
    assert len({figures.color_of(name, 0) for name in methods}) == 1 + len(others)
    interval = made.interval(0.5, 0.1)
    point = {"gain": 1.0, "semantic": interval, "safety": interval, "seeds": []}
    drawn = figures.frontier({name: [point] for name in methods}, marked_gain=1.0)["data"]
    assert len({trace["marker"]["symbol"] for trace in drawn}) == len(methods)
    labels = {figures.key_of(name, 0)[0].removeprefix(name) for name in methods}
    assert len(labels) == len(methods)


@pytest.mark.parametrize("name", ["x0", "hypotheses"])
def test_an_ensemble_has_the_color_of_its_members(name: str) -> None:
    assert figures.color_of(f"{name}-x3", 0) == figures.color_of(name, 5)


def test_gains_stand_beside_the_sanitizer_alone(store: Store) -> None:
    drawn = next(one for one in figures_of(store, made.results()) if one.name == "frontier")
    told = [trace["text"] for trace in drawn.spec["data"] if "text" in trace]
    assert [[text.strip() for text in one] for one in told] == [["0", "0.5", "1", "1.5", "2"]]


def test_one_run_alone_is_drawn(store: Store) -> None:
    steps = made.results()
    assert figures_of(store, {**steps, "train": steps["train"][:1]})


@given(st.text())
def test_plain_text_cannot_be_markup(text: str) -> None:
    shown = figures.plain(text)
    assert "<" not in shown
    assert "$" not in shown
    assert shown.isprintable()
    assert re.fullmatch(r"([^&]|&(amp|lt|gt|#36);)*", shown)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_labels_never_overlap(values: dict[str, float]) -> None:
    placed = sorted(label["y"] for label in figures._labels(values, gap=0.1))
    assert all(later - earlier >= 0.1 - 1e-12 for earlier, later in pairwise(placed))
