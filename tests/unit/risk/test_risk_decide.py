import csv
import itertools
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_data import shared
from workbench.core.errors import ConfigError, DataError
from workbench.core.settings import seeds_folder
from workbench.risk import decide as module
from workbench.risk.decide import (
    MODEL_POLICY,
    NEXT_UPGRADE,
    POLICIES,
    assumptions,
    decide,
    decision_names,
    due_date,
    due_dates,
    model_decisions,
)

_RANGES = {
    "kev": range(-1, 2),
    "exploitation": range(-1, 3),
    "automatable": range(-1, 2),
    "technical_impact": range(-1, 2),
    "exposure": range(-1, 3),
    "criticality": range(6),
}
"""Missing comes first, the rest rises."""
_FILES = {
    "bod-26-04": ("bod_26_04", "cisa_bod_26_04_1_0_0", 16),
    "ssvc-deployer": ("ssvc_deployer", "deployer_patch_application_priority_1_0_0", 72),
    "ssvc-coordinator": ("ssvc_coordinator", "cisa_coordinator_2_0_3", 36),
}
_RENAMED = {"public poc": "poc"}
_CODES = {
    "kev": {"no": 0, "yes": 1},
    "exposed": {"no": 0, "yes": 2},
    "exploitation": {"none": 0, "poc": 1, "active": 2},
    "automatable": {"no": 0, "yes": 1},
    "technical_impact": {"partial": 0, "total": 1},
    "exposure": {"small": 0, "controlled": 1, "open": 2},
    "human_impact": {"low": 1, "medium": 3, "high": 4, "very high": 5},
    "mission": {"low": 1, "medium": 3, "high": 4},
}
_ARGUMENT = {"exposed": "exposure", "human_impact": "criticality", "mission": "criticality"}
_DAYS = {
    "fix on system upgrade": -1, "60 days": 60, "14 days": 14, "3 days": 3,
    "3 days & forensic investigation": 3,
    "defer": -1, "scheduled": 60, "out-of-cycle": 14, "immediate": 3,
    "track": -1, "track*": 30, "attend": 14, "act": 3,
}  # fmt: skip


def _rows(name: str) -> list[dict[str, str]]:
    path = seeds_folder() / "risk" / "decisions" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _decided(policy: str, **points: int):
    usual = dict.fromkeys(_RANGES, 0) | {"criticality": 1} | points
    return decide(policy, **{name: np.array([value], np.int8) for name, value in usual.items()})


@pytest.mark.parametrize("policy", POLICIES)
def test_every_row_of_a_table_is_decided_as_published(policy) -> None:
    name, _, count = _FILES[policy]
    rows = _rows(name)
    assert len(rows) == count
    for row in rows:
        decision = row.pop("decision")
        points = {_ARGUMENT.get(point, point): _CODES[point][row[point]] for point in row}
        found = _decided(policy, **points)
        assert decision_names(policy)[found.codes[0]] == decision
        assert found.days[0] == _DAYS[decision]
        assert (found.codes, found.days) == (found.codes_known, found.days_known)


@pytest.mark.parametrize("policy", _FILES)
def test_tables_are_those_of_their_publishers(policy) -> None:
    ours, theirs, count = _FILES[policy]
    with shared(f"risk/ssvc_trees/{theirs}.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    published = {tuple(_RENAMED.get(cell, cell) for cell in row[1:]) for row in rows}
    assert {tuple(row.values()) for row in _rows(ours)} == published
    assert len(published) == count


def _grid(policy: str):
    columns = np.array(list(itertools.product(*_RANGES.values())), dtype=np.int8).T
    found = decide(policy, **dict(zip(_RANGES, columns, strict=True)))
    shape = tuple(len(values) for values in _RANGES.values())
    return found, found.codes.reshape(shape), found.codes_known.reshape(shape)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_missing_gives_the_most_urgent_row_that_could_apply(policy) -> None:
    _, codes, known = _grid(policy)
    for axis, name in enumerate(_RANGES):
        along = np.moveaxis(codes, axis, 0)
        if name == "kev" and policy.startswith("ssvc"):
            # Not known to be in KEV may be in it, whatever SSVC says of exploitation.
            assert (along[0] == along[2]).all()
        elif name != "exploitation":
            assert (along[0] == along[1:].max(axis=0)).all()
        assert (along[0] >= along[1:].max(axis=0)).all()
    assert (codes >= known).all()
    told = tuple(slice(1, None) for _ in _RANGES)
    assert (codes[told] == known[told]).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_more_of_a_point_never_makes_a_decision_less_urgent(policy) -> None:
    _, codes, known = _grid(policy)
    for grid, axis in itertools.product((codes, known), range(len(_RANGES))):
        assert (np.diff(np.moveaxis(grid, axis, 0)[1:], axis=0) >= 0).all()


@pytest.mark.parametrize("policy", [*POLICIES, MODEL_POLICY])
def test_more_urgent_decisions_leave_fewer_days(policy) -> None:
    days = (
        model_decisions(np.arange(4, dtype=np.int8), np.zeros(4, np.int8)).days.tolist()
        if policy == MODEL_POLICY
        else [_DAYS[name] for name in decision_names(policy)]
    )
    assert days[0] == NEXT_UPGRADE
    assert days[1:] == sorted(days[1:], reverse=True)
    assert "our assumption" in str(assumptions(policy)) or policy == "bod-26-04"


def test_exploited_vulnerabilities_are_active_in_the_trees() -> None:
    for policy in ("ssvc-deployer", "ssvc-coordinator"):
        listed, active = _decided(policy, kev=1), _decided(policy, exploitation=2)
        assert (listed.codes, listed.codes_known) == (active.codes, active.codes_known)


def test_model_risks_are_decided_by_level() -> None:
    levels = np.arange(4, dtype=np.int8)
    found = model_decisions(levels, levels[::-1])
    assert found.days.tolist() == [-1, 90, 30, 14]
    assert found.days_known.tolist() == [14, 30, 90, -1]
    names = decision_names(MODEL_POLICY)
    assert [names[code] for code in found.codes] == [
        "next upgrade",
        "90 days",
        "30 days",
        "14 days",
    ]


@pytest.mark.parametrize("ask", [decision_names, assumptions, _decided])
def test_an_unknown_policy_is_named_with_those_that_exist(ask) -> None:
    with pytest.raises(ConfigError, match="'bod-22-01' is unknown; choose one of bod-26-04"):
        ask("bod-22-01")


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("yes,yes,yes,total,3 days & forensic investigation\n", "", "1 rows are missing"),
        ("yes,no,no,total,14 days", "yes,no,no,partial,14 days", "repeats a row"),
        ("60 days", "61 days", "unknown decision '61 days'"),
        ("no,no,no,partial", "no,no,maybe,partial", "automatable is 'maybe'"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, monkeypatch, before, after, error) -> None:
    folder = tmp_path / "risk" / "decisions"
    folder.mkdir(parents=True)
    text = (seeds_folder() / "risk" / "decisions" / "bod_26_04.csv").read_text("utf-8")
    assert before in text
    (folder / "bod_26_04.csv").write_text(text.replace(before, after), "utf-8")
    monkeypatch.setattr(module, "seeds_folder", lambda: tmp_path)
    module._lookup.cache_clear()
    with pytest.raises((DataError, ConfigError), match=error) as caught:
        _decided("bod-26-04")
    assert "bod_26_04.csv" in str(caught.value)
    module._lookup.cache_clear()


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(-1, 400))
def test_due_dates_count_days(seen, days) -> None:
    due = due_date(seen.isoformat(), days)
    assert due == ("" if days < 0 else (seen + timedelta(days=days)).isoformat())


def test_columns_of_due_dates() -> None:
    seen = ["2026-02-27", "2026-02-27", "2024-02-27"]
    found = due_dates(seen, np.array([3, -1, 3], np.int16))
    assert found == ["2026-03-02", "", "2024-03-01"]
    with pytest.raises(DataError, match="'yesterday' is no date"):
        due_date("yesterday", 3)


def test_criticality_stands_for_the_human_and_mission_impacts_that_are_said() -> None:
    human = {1: "low", 2: "low", 3: "medium", 4: "high", 5: "very high"}
    mission = {**human, 5: "high"}
    for criticality in human:
        for policy, column, stands in (
            ("ssvc-deployer", "human_impact", human),
            ("ssvc-coordinator", "mission", mission),
        ):
            for row in _rows(_FILES[policy][0]):
                if row[column] != stands[criticality]:
                    continue
                points = {point: _CODES[point][row[point]] for point in row if point in _RANGES}
                found = _decided(policy, **points, criticality=criticality)
                assert decision_names(policy)[found.codes[0]] == row["decision"]
