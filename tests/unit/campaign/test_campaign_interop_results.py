from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign_fakes import make_case, make_set
from workbench.campaign.interop import documents
from workbench.campaign.interop.promptfoo import read_promptfoo
from workbench.campaign.interop.promptfoo_results import read_results, write_results
from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.records import Attempt, TestSet

SET = make_set(3, 2)
TEST = {
    "vars": {"prompt": "p"},
    "assert": [{"type": "not-icontains", "value": "plum"}],
    "metadata": {"pluginId": "harmful:hate", "goal": "g", "threshold": 1.0},
}


def row(**changes) -> dict[str, object]:
    """A row as promptfoo 0.121.20 writes it, shortened."""
    merged = {"purpose": "x", "entities": ["A"], **TEST["metadata"]}
    fields = {
        "cost": 0.25,
        "gradingResult": {"pass": False, "score": 0, "reason": "has plum"},
        "latencyMs": 13,
        "prompt": {"raw": "p", "label": "{{prompt}}", "config": {}},
        "promptIdx": 0,
        "provider": {"id": "http://127.0.0.1:1/", "label": "shop"},
        "response": {"output": "a plum", "cached": False},
        "score": 0,
        "success": False,
        "testCase": {**TEST, "metadata": merged, "options": {}},
        "testIdx": 0,
        "vars": {"prompt": "p"},
        "failureReason": 1,
        "error": "has plum",
    }
    return {**fields, **changes}


def results(path: Path, *rows: object, version: object = 3, **changes: object) -> Path:
    default = {"metadata": {"purpose": "x", "entities": ["A"]}}
    value = {
        "evalId": "eval-1",
        "results": {"version": version, "results": list(rows)},
        "config": {"defaultTest": default},
        **changes,
    }
    path.write_text(json.dumps(value))
    return path


def test_a_failed_assertion_is_a_success_of_the_attack(tmp_path: Path) -> None:
    path = results(
        tmp_path / "a.json",
        row(),
        row(failureReason=0, success=True, score=1, error=None, response={"output": {"b": 1.0}}),
        row(failureReason=2, error="Error: no answer", response=None, gradingResult=None),
        row(failureReason=0, success=True, score=1, response={"output": "", "isRefusal": True}),
    )
    hit, missed, failed, declined = read_results(path)
    assert (hit.execution, hit.target, hit.sent, hit.received) == ("eval-1", "shop", "p", "a plum")
    assert (hit.success, hit.error, hit.decision) == (True, "", "pass")
    assert (hit.latency_ms, hit.usd) == (13.0, Decimal("0.25"))
    assert (hit.scores, hit.reasons) == ({"promptfoo": 1.0}, {"promptfoo": "has plum"})
    assert (missed.success, missed.scores, missed.received) == (
        False, {"promptfoo": 0.0}, '{"b":1}',
    )  # fmt: skip
    assert (failed.success, failed.decision, failed.error) == (False, "error", "Error: no answer")
    assert declined.decision == "block"
    assert [one.trial for one in (hit, missed, failed, declined)] == [0, 1, 2, 3]


def test_rows_name_the_cases_of_the_file_that_was_run(tmp_path: Path) -> None:
    tests = tmp_path / "tests.json"
    tests.write_text(json.dumps({"tests": [TEST]}))
    (case,) = read_promptfoo(tests)
    (attempt,) = read_results(results(tmp_path / "a.json", row()))
    assert attempt.case_id == case.id


def test_lines_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + json.dumps(row()) + "\n{not read yet")
    rows = read_results(path)
    assert [next(rows).trial, next(rows).trial] == [0, 1]
    with pytest.raises(DataError, match=r"a\.jsonl: line 4: not usable"):
        next(rows)


def test_what_comes_in_is_redacted(tmp_path: Path) -> None:
    secret = "sk-" + "a" * 30
    told = {"pass": False, "score": 0, "reason": secret}
    path = results(
        tmp_path / "a.json",
        row(response={"output": secret}, gradingResult=told, prompt={"raw": secret}),
        row(failureReason=2, error=secret),
    )
    assert "aaaa" not in str(list(read_results(path)))


TEXT = st.text(max_size=30)
JUDGE = st.text("abc/1", min_size=1, max_size=5)
ATTEMPTS = st.builds(
    Attempt,
    execution=st.just("execution-1"),
    case_id=st.sampled_from([case.id for case in SET]),
    target=st.sampled_from(["one", "two"]),
    sent=TEXT,
    received=TEXT | st.just("ann@example.org \ud800"),
    decision=st.sampled_from(["pass", "block"]),
    scores=st.dictionaries(JUDGE, st.integers(0, 1000).map(lambda p: p / 1000), min_size=1,
                           max_size=2),
    success=st.booleans(),
    latency_ms=st.floats(0, 1e7),
    usd=st.decimals(0, 10, places=8),
    error=TEXT,
)  # fmt: skip


def kept(one: Attempt, trial: int) -> Attempt:
    """What promptfoo's results have a place for."""
    said = {name: storable(redact(getattr(one, name))) for name in ("sent", "received", "error")}
    if one.error:
        return replace(one, **said, trial=trial, decision="error", success=False, scores={},
                       reasons={})  # fmt: skip
    return replace(one, **said, trial=trial, reasons=dict.fromkeys(one.scores, ""))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempts=st.lists(ATTEMPTS, max_size=5))
def test_what_is_written_reads_back_the_same(tmp_path: Path, attempts: list[Attempt]) -> None:
    write_results(attempts, tmp_path / "a.json", cases=SET)
    pairs = [(one.case_id, one.target) for one in attempts]
    assert list(read_results(tmp_path / "a.json")) == [
        kept(one, pairs[:at].count(pairs[at])) for at, one in enumerate(attempts)
    ]


def test_an_edited_prompt_is_another_case(tmp_path: Path) -> None:
    (case, *_) = SET.cases
    attempt = Attempt(
        execution="e", case_id=case.id, target="t", sent=case.prompt, received="", decision="pass",
        scores={}, success=True, latency_ms=1.0,
    )  # fmt: skip
    write_results([attempt], tmp_path / "a.json", cases=SET)
    value = json.loads((tmp_path / "a.json").read_text())
    (row,) = value["results"]["results"]
    row["testCase"]["vars"] = row["vars"] = {"prompt": "another"}
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert next(read_results(tmp_path / "a.json")).case_id != case.id


def test_a_prompt_that_promptfoo_hid_still_names_its_case(tmp_path: Path) -> None:
    case = make_case(1, prompt="b3Bl" * 20)
    attempt = Attempt(
        execution="e", case_id=case.id, target="t", sent=case.prompt, received="", decision="pass",
        scores={}, success=True, latency_ms=1.0,
    )  # fmt: skip
    path = tmp_path / "a.json"
    write_results([attempt], path, cases=TestSet(cases=(case,)))
    # promptfoo hides values that look like a key as a whole
    hidden = path.read_text().replace(f'"{case.prompt}"', '"[REDACTED]"')
    assert f'"{case.prompt}"' not in hidden
    path.write_text(hidden)
    assert next(read_results(path)).case_id == case.id


def test_attempts_of_other_cases_are_refused(tmp_path: Path) -> None:
    attempt = Attempt(
        execution="e", case_id="f" * 64, target="t", sent="", received="", decision="pass",
        scores={}, success=True, latency_ms=1.0,
    )  # fmt: skip
    with pytest.raises(DataError, match="none of the cases"):
        write_results([attempt], tmp_path / "a.json", cases=SET)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latencyMs": "13"}, "result 1: latency in ms is '13'"),
        ({"latencyMs": -1}, "latency in ms is '-1'"),
        ({"latencyMs": 1e300}, "latency in ms is"),
        ({"cost": -5}, "cost is '-5'"),
        ({"cost": 10**400}, "cost is '1000"),
        ({"cost": float("nan")}, "NaN is no JSON value"),
        ({"cost": float("inf")}, "Infinity is no JSON value"),
        ({"score": "nan"}, "score is 'nan'"),
        ({"score": -0.1}, "score is '-0.1'"),
        ({"failureReason": 7}, "failureReason is '7'"),
        ({"cost": True}, "cost is 'True'"),
        ({"provider": None}, "no provider"),
        ({"provider": {"label": 3}}, "no provider"),
        ({"testCase": None}, "none of its variables is 'prompt'"),
        ({"testCase": {"vars": {"a": "b", "c": "d"}}}, "none of its variables is 'prompt'"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = results(tmp_path / "a.json", row(**changes))
    with pytest.raises(DataError, match=message):
        list(read_results(path))


@pytest.mark.parametrize(
    "value", [{"version": 2}, {"results": []}, {"results": None}, {"config": 3}]
)
def test_other_files_are_refused_or_read(tmp_path: Path, value: dict[str, object]) -> None:
    path = results(tmp_path / "a.json", "no object", **value)
    with pytest.raises(DataError, match=r"a\.json"):
        list(read_results(path))


def test_a_line_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_MOST_LINE_BYTES", 50)
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":"' + "b" * 100 + '"}')
    with pytest.raises(DataError, match="line 1 is over 50 bytes"):
        list(documents.json_lines(path))
