from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attempt_files import attempt, write_attempts
from workbench.campaign.columns import Columns, read_columns
from workbench.campaign.comparisons import (
    compare_mutations,
    compare_targets,
    flaky_cases,
    flaky_rates,
)
from workbench.campaign.statistics import holm

NEEDED = (
    "case_id", "target", "trial", "plugin", "strategy", "category", "goal", "is_control",
    "success", "error",
)  # fmt: skip


def columns_of(path: Path, rows: list[dict]) -> Columns:
    read = read_columns(write_attempts(path / "attempts.parquet", rows), NEEDED)
    return read.where(read.answered())


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    generator = np.random.default_rng(0)
    made = [
        attempt(
            f"goal {goal}", target=target, strategy=strategy, trial=trial,
            plugin="over-refusal" if goal % 4 == 3 else "harm-hate", is_control=goal % 4 == 3,
            category=f"category {goal % 3}", success=bool(generator.random() < 0.5),
            error="late" if generator.random() < 0.15 else "",
        )
        for target in ("x", "y", "z") for goal in range(16)
        for strategy in ("plain", "hex", "morse") for trial in range(2)
        if strategy != "hex" or goal % 2
    ]  # fmt: skip
    generator.shuffle(made)
    return made


def test_targets_are_compared_on_what_both_answered(tmp_path: Path, rows: list[dict]) -> None:
    found = compare_targets(columns_of(tmp_path, rows), targets=("z", "x", "y"))
    at = {(r["target"], r["case_id"], r["trial"]): r for r in rows if not r["error"]}
    assert {(r["first"], r["second"]) for r in found} == {("z", "x"), ("z", "y"), ("x", "y")}
    for row in found:
        pairs = [
            (one["success"], at[row["second"], case, trial]["success"], one["goal"])
            for (target, case, trial), one in at.items()
            if target == row["first"]
            and (row["second"], case, trial) in at
            and one["is_control"] == (row["by"] == "controls")
            and row["group"] in {"all", one.get(row["by"])}
        ]
        assert row["pairs"] == len(pairs)
        assert row["goals"] == len({goal for *_, goal in pairs})
        assert row["only_first"] == sum(a and not b for a, b, _ in pairs)
        assert row["only_second"] == sum(b and not a for a, b, _ in pairs)
        difference = np.mean([b for _, b, _ in pairs]) - np.mean([a for a, *_ in pairs])
        assert row["difference"]["value"] == pytest.approx(difference)
        assert row["difference"]["low"] <= difference <= row["difference"]["high"]
    assert [row["p_adjusted"] for row in found] == holm([row["p"] for row in found])


def test_disguises_are_compared_with_the_plain_form(tmp_path: Path, rows: list[dict]) -> None:
    attacks = [row for row in rows if not row["is_control"]]
    found = compare_mutations(columns_of(tmp_path, attacks))
    at = {
        (r["target"], r["goal"], r["trial"], r["strategy"]): r["success"]
        for r in attacks
        if not r["error"]
    }
    assert [(r["group"], r["second"]) for r in found] == [
        (target, strategy) for target in "xyz" for strategy in ("hex", "morse")
    ]
    for row in found:
        pairs = [
            (at[target, goal, trial, "plain"], won)
            for (target, goal, trial, strategy), won in at.items()
            if (target, strategy) == (row["group"], row["second"])
            and (target, goal, trial, "plain") in at
        ]
        assert row["pairs"] == len(pairs)
        assert row["only_second"] == sum(b and not a for a, b in pairs)


def test_a_disguise_that_helps_every_goal_is_found(tmp_path: Path) -> None:
    rows = [
        attempt(f"goal {goal}", strategy=strategy, success=strategy == "hex" or goal < 5)
        for goal in range(30)
        for strategy in ("plain", "hex", "morse")
    ]
    hexed, morse = compare_mutations(columns_of(tmp_path, rows))
    assert hexed["difference"]["value"] == pytest.approx(25 / 30)
    assert hexed["p_adjusted"] < 1e-6
    assert morse["p_adjusted"] == 1
    assert morse["difference"]["low"] < 0 < morse["difference"]["high"]


def test_without_plain_forms_nothing_is_compared(tmp_path: Path) -> None:
    assert compare_mutations(columns_of(tmp_path, [attempt(strategy="hex")])) == []
    assert compare_mutations(columns_of(tmp_path, [])) == []
    rows = [attempt("a"), attempt("b", strategy="hex")]
    assert compare_mutations(columns_of(tmp_path, rows)) == []


def test_targets_without_common_cases_are_not_compared(tmp_path: Path) -> None:
    rows = [attempt("a", target="x"), attempt("b", target="y")]
    assert compare_targets(columns_of(tmp_path, rows), targets=("x", "y")) == []
    assert compare_targets(columns_of(tmp_path, rows), targets=("x",)) == []


def test_guards_and_models_are_not_compared(tmp_path: Path) -> None:
    names = ("bare", "guard", "model", "other model")
    columns = columns_of(tmp_path, [attempt("a", target=name) for name in names])
    kinds = {name: "model" if "model" in name else "guard" for name in names}
    found = compare_targets(columns, targets=names, kinds=kinds)
    pairs = {(row["first"], row["second"]) for row in found}
    assert pairs == {("bare", "guard"), ("model", "other model")}


def test_flaky_are_cases_whose_tries_differ(tmp_path: Path) -> None:
    ends = {
        "always": "111",
        "never": "000",
        "once": "0001",
        "half": "01",
        "alone": "1",
        "late": "0e1",
    }
    rows = [
        attempt(goal, trial=trial, success=end == "1", error="late" if end == "e" else "")
        for goal, tries in ends.items()
        for trial, end in enumerate(tries)
    ]
    columns = columns_of(tmp_path, rows)
    (rate,) = flaky_rates(columns)
    assert (rate["successes"], rate["attempts"]) == (3, 5)  # "alone" was tried once
    found = flaky_cases(columns)
    assert [row["case_id"].split(":")[1] for row in found][-1] == "once"
    assert found[-1]["successes"] == 1
    assert found[-1]["attempts"] == 4
    assert len(flaky_cases(columns, most=1)) == 1
