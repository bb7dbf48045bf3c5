"""What changed between two assessments, against the same rules written row by row."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk_fakes import make_risk, make_risks
from workbench.risk.diff import CHANGES, diff

LEVEL = {4: "low", 9: "medium", 15: "high", 16: "high", 25: "critical"}
TABLES = st.dictionaries(
    st.integers(0, 9),
    st.tuples(st.sampled_from(sorted(LEVEL)), st.sampled_from(["open", "accepted", "closed"])),
)


def table_of(told):
    rows = (
        make_risk(n, score=score, level=LEVEL[score], status=status)
        for n, (score, status) in told.items()
    )
    return make_risks(*rows)


def change_of(old, new):
    was, still = (one is not None and one[1] != "closed" for one in (old, new))
    if was and still:
        return {-1: "better", 0: "", 1: "worse"}[(new[0] > old[0]) - (new[0] < old[0])]
    if was:
        return "gone" if new is None else "closed"
    if still:
        return "new" if old is None else "reopened"
    return ""


@given(before=TABLES, after=TABLES)
def test_against_the_rules_row_by_row(before, after):
    expected = {n: change_of(before.get(n), after.get(n)) for n in before | after}
    found = diff(table_of(before), table_of(after))
    assert found.counts == dict.fromkeys(CHANGES, 0) | Counter(filter(None, expected.values()))
    changes = {int(row["subject"][-5:]): row for row in found.rows}
    assert {n: row["change"] for n, row in changes.items()} == {
        n: change for n, change in expected.items() if change
    }
    for n, row in changes.items():
        for told, shown in ((before, row["before"]), (after, row["after"])):
            score, status = told.get(n, (0, "none"))
            words = {"none": "", "closed": "closed"}.get(status, f"{LEVEL.get(score)} {score}")
            assert shown == words
    levels = list(LEVEL.values())
    worst = [
        max(levels.index(LEVEL[told[n][0]]) for told in (before, after) if n in told)
        for n in changes
    ]
    assert [levels[at] for at in worst] == [levels[at] for at in sorted(worst, reverse=True)]


def test_bad_news_comes_before_good_and_fifty_are_told():
    many = dict.fromkeys(range(60), (4, "open"))
    after = dict.fromkeys(range(60), (4, "closed")) | {99: (4, "open"), 98: (25, "open")}
    found = diff(table_of(many), table_of(after))
    assert (found.counts["closed"], found.counts["new"], len(found.rows)) == (60, 2, 50)
    assert [row["change"] for row in found.rows[:3]] == ["new", "new", "closed"]
    assert found.rows[0]["after"] == "critical 25"


def test_of_one_level_bad_news_comes_first_then_the_score():
    before = {1: (16, "open"), 2: (15, "closed"), 3: (9, "open")}
    after = {1: (16, "closed"), 2: (15, "open"), 3: (15, "open"), 4: (16, "open")}
    told = [(row["change"], row["after"]) for row in diff(table_of(before), table_of(after)).rows]
    assert told == [
        ("new", "high 16"), ("reopened", "high 15"), ("worse", "high 15"), ("closed", "closed"),
    ]  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 3])
def test_tables_in_pieces(pieces):
    tables = [table_of({n: (9, "open")}) for n in range(pieces)]
    whole = pa.concat_tables(tables)
    assert diff(whole, whole).rows == []
    assert diff(whole.slice(0, 0), whole).counts["new"] == pieces
