"""What other tools tried is an execution like any other: once per file, all of it or nothing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from sqlalchemy import select

from campaign_fakes import make_case, make_set
from finding_fakes import make_attempt
from workbench.campaign import imported, testsets
from workbench.campaign.analysis import analyze
from workbench.campaign.imported import keep_attempts
from workbench.core.errors import DataError
from workbench.store import schema
from workbench.store.campaigns import outcomes
from workbench.store.records import TestSet

ODD = "\x00 half \ud800 \x1b[2J \u202e 😀"
TESTS = make_set(5, 2)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "report.jsonl"
    file.write_text("content")
    return file


def attempts_of(tests=TESTS, **changes):
    return [make_attempt(case, **{"success": not case.is_control, **changes}) for case in tests]


def keep(store, path, attempts, *, tests=TESTS, source="tool"):
    return keep_attempts(store, tests, iter(attempts), source=source, path=path)


def rows_in(store) -> int:
    with store.engine.connect() as connection:
        return len(connection.execute(select(schema.attempts.c.case_id)).all())


def test_verdicts_stay_those_of_the_tool(store, path):
    made = [*attempts_of(), *attempts_of(target="b", success=False, trial=0)]
    done = keep(store, path, [*made, *attempts_of(trial=2, usd=Decimal("0.5"))])
    assert (done.count, done.targets, done.trials) == (21, ("b", "guard"), 3)
    assert done.usd == Decimal("3.5")
    assert done.thresholds == {"a": 0.5, "b": 0.5}
    kept = {(one.target, one.case_id, one.trial): one.success for one in done.attempts()}
    assert kept == {(one.target, one.case_id, one.trial): one.success for one in made} | {
        ("guard", case.id, 2): not case.is_control for case in TESTS
    }
    assert [one.id for one in testsets.list_test_sets(store)] == [TESTS.id]
    assert rows_in(store) == 0
    told = analyze(store, done.id)
    assert {row["target"]: row["successes"] for row in told["totals"]} == {"b": 0, "guard": 10}
    assert outcomes(store.engine) == {("harm-violence", "plain"): (10, 15)}


def test_the_same_file_is_the_same_execution(store, path):
    first = keep(store, path, attempts_of())
    again = keep(store, path, [])  # not even read
    assert again.id == first.id
    assert keep(store, path, attempts_of(), source="other").id != first.id
    path.write_text("changed")
    assert keep(store, path, attempts_of()).id not in {first.id, again.id}


@pytest.mark.parametrize("count", [0, 1_500])
def test_an_attempt_of_no_case_is_told_and_a_better_file_works(store, path, count, monkeypatch):
    monkeypatch.setattr(imported, "_TOGETHER", 2)
    stranger = make_attempt(make_case(99))
    with pytest.raises(DataError, match=r"report\.jsonl: attempt on case .* --test-set"):
        keep(store, path, [*attempts_of(), *[stranger] * (count + 1)])
    done = keep(store, path, attempts_of())  # what the first left behind is gone
    assert done.count == 7


def test_a_killed_import_begins_again(store, path, monkeypatch):
    monkeypatch.setattr(imported, "_TOGETHER", 2)

    def dying():
        yield from attempts_of()[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(store, path, dying())
    assert rows_in(store) == 4
    assert keep(store, path, attempts_of()).count == 7
    assert rows_in(store) == 0


def test_a_file_without_attempts_is_told(store, path):
    with pytest.raises(DataError, match="has no attempts"):
        keep(store, path, [])


def test_whatever_stands_in_it_is_kept_as_a_database_takes_it(store, path):
    tests = TestSet(
        cases=(make_case(1, goal=ODD, category=ODD, plugin=ODD, prompt=ODD, strategies=()),)
    )
    made = attempts_of(tests, sent=ODD, received=ODD, target=ODD + "m" * 500, scores={ODD: 0.9},
                       reasons={ODD: ODD})  # fmt: skip
    done = keep(store, path, made, tests=tests)
    (one,) = done.attempts()
    for text in (one.sent, one.received, one.target, *one.scores, *one.reasons.values()):
        text.encode()
        assert "\x00" not in text
        assert "half ? " in text
    assert (len(one.target), done.targets) == (200, (one.target,))
    assert analyze(store, done.id)["findings"] == 1
