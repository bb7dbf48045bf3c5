"""Two experiments side by side: differences with intervals, no verdict without one."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_html import Document

import report_results as made
from hostile_texts import HOSTILE
from workbench.core.errors import ConfigError
from workbench.report.compare import compare_file, render_compare
from workbench.report.differences import by_chance, difference, is_apart, verdict
from workbench.store.database import Store

Steps = dict[str, list[dict[str, Any]]]


def wilson(successes: int, n: int) -> dict[str, float]:
    z, p = 1.959964, successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return {"value": p, "low": middle - half, "high": middle + half}


@pytest.mark.parametrize(
    ("one", "two", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table II, method 10, cases (a) to (d)
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_a_difference_of_rates_is_that_of_newcombe(
    one: tuple[int, int], two: tuple[int, int], low: float, high: float
) -> None:
    found = difference(wilson(*two), wilson(*one))
    assert found["low"] == pytest.approx(low, abs=2e-4)
    assert found["high"] == pytest.approx(high, abs=2e-4)


NUMBERS = st.floats(-1e3, 1e3)
HALVES = st.floats(0, 1e3)


@given(NUMBERS, HALVES, NUMBERS, HALVES)
def test_differences_turn_round_and_hold_their_value(
    a: float, p: float, b: float, q: float
) -> None:
    one, two = made.interval(a, p), made.interval(b, q)
    there, back = difference(one, two), difference(two, one)
    assert there["low"] <= there["value"] <= there["high"]
    assert there["low"] == pytest.approx(-back["high"])
    assert there["high"] - there["value"] == pytest.approx(math.hypot(p, q), abs=1e-6)
    assert not (is_apart(there) and is_apart(back)) or verdict(there) != verdict(back)


def test_without_an_interval_there_is_no_verdict() -> None:
    alone = {"value": 0.5, "low": 0.5, "high": 0.5}
    assert verdict(alone) == "no interval, no verdict"
    assert not is_apart(alone)
    assert by_chance([alone]) == ""
    assert "1 of 2" in by_chance([alone, made.interval(1, 0.5), made.interval(0.1, 0.5)])


def compared(store: Store, folder: Path, second: Steps, first: Steps | None = None) -> Document:
    made.fill(store, first or made.results(), experiment="first")
    made.fill(store, second, experiment="other")
    page = render_compare(store, "first", "other", folder)
    assert page == folder / "compare-other.html"
    return Document(page.read_text(encoding="utf-8"))


def changed(steps: Steps, target: str, rate: dict[str, float]) -> Steps:
    steps = deepcopy(steps)
    for row in steps["analysis"][0]["totals"]:
        if row["target"] == target:
            row["rate"] = rate
    return steps


def test_what_differs_is_claimed_with_its_interval(store: Store, tmp_path: Path) -> None:
    second = changed(made.results(), "bare", wilson(165, 330))
    page = compared(store, tmp_path, second)
    assert "Attacks succeed less on 1 of 3 shared targets in other" in page.text
    expected = difference(made.rate("bare", "all", 0.79, 330)["rate"], wilson(165, 330))
    assert f"{100 * expected['value']:.1f}".replace("-", "−") in page.text
    assert "lower in the second" in page.text
    assert "not told apart" in page.text


def test_equal_experiments_are_not_told_apart(store: Store, tmp_path: Path) -> None:
    page = compared(store, tmp_path, made.results())
    assert "does not differ between first and other by more than chance" in page.text
    for claim in ("lower in the second", "higher in the second", "Only first", "Different"):
        assert claim not in page.text
    assert "known to be exploited" in page.text
    assert " kev " not in page.text


def test_one_seed_is_no_verdict(store: Store, tmp_path: Path) -> None:
    second = made.results()
    second["train"] = [one for one in second["train"] if one["seed"] == 0]
    for one in second["train"]:
        one["loss"] -= 0.2
    text = compared(store, tmp_path, second).text
    training = text[text.index("Test loss by size") : text.index("On test_both")]
    assert training.count("no interval, no verdict") == 4
    assert "lower in the second" not in training


def test_sizes_are_written_as_people_read_them(store: Store, tmp_path: Path) -> None:
    text = compared(store, tmp_path, made.enlarged(), first=made.enlarged()).text
    training = text[text.index("Test loss by size") : text.index("On test_both")]
    assert "1,000,000 wrapper families" in training
    assert "e+0" not in training


def test_what_only_one_has_is_said(store: Store, tmp_path: Path) -> None:
    second = made.results()
    del second["assessment"]
    second["train"] = [one for one in second["train"] if one["axes"]["wrapper_families"] < 20]
    second["laws"][0]["points"] = second["laws"][0]["points"][:9]
    found = second["analysis"][0]
    for key in ("totals", "controls", "by_plugin"):
        found[key] = [row for row in found[key] if row["target"] != "bare"]
    found["errors"].pop("bare")
    found["by_plugin"] = [row for row in found["by_plugin"] if row["group"] != "harm-violence"]
    text = compared(store, tmp_path, second).text
    assert "Only first has: assessment." in text
    assert "Only first attacked: bare." in text
    assert "Plugins only in first: harm-violence." in text
    assert "only in first" in text[text.index("20 wrapper families") :][:200]


def test_what_keeps_from_comparing_is_said(store: Store, tmp_path: Path) -> None:
    second = made.results()
    second["pairs"][0]["version"] = "b" * 64
    second["execution"] = second.pop("attack")
    second["execution"][0]["test_set"] = "c" * 64
    second["analysis"][0]["judges"] = second["analysis"][0]["judges"][:1]
    text = compared(store, tmp_path, second).text
    for expected in ("Different pair sets", "Different test sets", "Different judges"):
        assert expected in text


def test_guards_and_models_are_never_compared(store: Store, tmp_path: Path) -> None:
    second = made.results()
    second["analysis"][0]["kinds"] = dict.fromkeys(made.TARGETS, "model")
    assert "have no target in common" in compared(store, tmp_path, second).text


@pytest.mark.parametrize("kind", sorted(made.results()))
def test_each_kind_may_be_missing(store: Store, tmp_path: Path, kind: str) -> None:
    second = made.results()
    del second[kind]
    assert "not as this version writes it" not in compared(store, tmp_path, second).text


def test_a_malformed_result_spoils_its_section_only(store: Store, tmp_path: Path) -> None:
    second = made.results()
    del second["assessment"][0]["counts"]
    text = compared(store, tmp_path, second).text
    assert "Risk: a result is not as this version writes it (KeyError: 'counts')" in text
    assert "Cost by step" in text


def test_hostile_names_and_texts_stay_text(store: Store, tmp_path: Path) -> None:
    steps = {step: [made.hostile(one) for one in found] for step, found in made.results().items()}
    page = compared(store, tmp_path, steps, deepcopy(steps))
    tags = [tag for tag, _ in page.elements]
    assert not {*tags} & {"img", "iframe"}
    executed = [text for one, text in page.scripts if one.get("type") != "application/json"]
    assert not any("__pwned" in text for text in executed)


@pytest.mark.parametrize("name", [*HOSTILE, "../../etc", "a/b", ".", "x" * 300])
def test_no_name_is_a_path(name: str) -> None:
    file = compare_file(name)
    assert Path(file).name == file
    assert len(file) < 130
    assert file.isascii() or file == f"compare-{name}.html"


def test_an_experiment_is_not_compared_with_itself(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="with itself"):
        render_compare(store, "first", "first", tmp_path)
    with pytest.raises(ConfigError, match="never ran"):
        render_compare(store, "first", "other", tmp_path)


@pytest.mark.parametrize(
    ("step", "field", "value"),
    [
        ("pairs", "version", None), ("train", "axes", None), ("train", "loss", "none"),
        ("attack", "test_set", None), ("analysis", "totals", None), ("analysis", "judges", 5),
    ],
)  # fmt: skip
def test_no_field_that_is_damaged_keeps_a_comparison_from_being_written(
    store: Store, tmp_path: Path, step: str, field: str, value: Any
) -> None:
    second = made.results()
    for one in second[step]:
        del one[field]
        if value is not None:
            one[field] = value
    assert "Cost by step" in compared(store, tmp_path, second).text
