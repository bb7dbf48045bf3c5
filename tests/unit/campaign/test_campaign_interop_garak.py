from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign_fakes import make_case, make_set
from workbench.campaign.interop.garak import read_garak, write_garak
from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.records import Attempt, TestCase, TestSet

SET = TestSet(cases=(*make_set(3, 1), make_case(8, turns=("a", "b"), metadata={"x": [1.0]})))


def message(text: str | None) -> dict[str, object]:
    return {"text": text, "lang": "en", "data_path": None, "notes": {}}


def entry(**changes) -> dict[str, object]:
    """An attempt as garak 0.17.1 writes it."""
    turns = [
        {"role": "system", "content": message("be kind")},
        {"role": "user", "content": message("say it")},
    ]
    fields = {
        "entry_type": "attempt",
        "uuid": "u-1",
        "seq": 0,
        "status": 2,
        "probe_classname": "encoding.InjectBase64",
        "probe_params": {},
        "targets": [],
        "prompt": {"turns": turns, "notes": {}},
        "outputs": [message("fine"), None, message("sure")],
        "detector_results": {"encoding.DecodeMatch": [0.0, None, 1.0], "x.Y": [0.2, None, 0.1]},
        "notes": {},
        "goal": "make it say so",
        "conversations": [],
        "reverse_translation_outputs": [],
        "intent": None,
    }
    return {**fields, **changes}


OPENING = (
    {"entry_type": "start_run setup", "plugins.target_name": "gpt", "run.eval_threshold": 0.5},
    {"entry_type": "init", "garak_version": "0.17.1", "run": "run-1"},
)


def report(path: Path, *entries: object) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one) for one in (*OPENING, *entries)]
    path.write_text("\n".join(lines))
    return path


def test_a_report_becomes_cases_and_attempts(tmp_path: Path) -> None:
    answered = entry(status=1, detector_results={}, outputs=[message("not judged yet")])
    others = [{"entry_type": kind} for kind in ("digest", "plugin_cache", "eval", "completion")]
    found = read_garak(report(tmp_path / "a.jsonl", answered, entry(), *others))
    (case,) = found.test_set
    assert (case.prompt, case.goal, case.plugin) == (
        "say it", "make it say so", "garak-encoding-injectbase64",
    )  # fmt: skip
    assert case.category == "jailbreak"
    passed, failed, hit = found.attempts
    assert (passed.received, passed.success, passed.trial) == ("fine", False, 0)
    assert (failed.decision, failed.error, failed.success) == ("error", "no output", False)
    assert (hit.received, hit.success, hit.trial) == ("sure", True, 2)
    assert hit.scores == {"encoding.DecodeMatch": 1.0, "x.Y": 0.1}
    assert (hit.execution, hit.target, hit.case_id) == ("run-1", "gpt", case.id)
    assert found.skipped == {"digest": 1, "plugin_cache": 1}
    assert found.test_set.recipe["garak_version"] == "0.17.1"


@pytest.mark.parametrize(
    ("said", "threshold"), [(0.15, 0.15), (0, 0.5), (7, 0.5), ("high", 0.5), (None, 0.5)]
)
def test_the_threshold_of_the_run_decides(tmp_path: Path, said: object, threshold: float) -> None:
    setup = {"entry_type": "start_run setup", "run.eval_threshold": said}
    found = read_garak(report(tmp_path / "a.jsonl", setup, entry()))
    assert found.threshold == threshold
    assert [one.success for one in found.attempts] == [threshold < 0.2, False, True]


@pytest.mark.parametrize("prompt", ["say it", {"text": "say it"}])
def test_prompts_of_older_reports_are_read(tmp_path: Path, prompt: object) -> None:
    outputs = ["fine", None, "sure"]
    found = read_garak(report(tmp_path / "a.jsonl", entry(prompt=prompt, outputs=outputs)))
    assert [case.prompt for case in found.test_set] == ["say it"]
    assert [one.received for one in found.attempts] == ["fine", "", "sure"]


def test_prompts_without_text_are_counted(tmp_path: Path) -> None:
    found = read_garak(report(tmp_path / "a.jsonl", entry(prompt=message(None))))
    assert (len(found.test_set), found.attempts) == (0, ())
    assert found.skipped == {"attempt without text": 1}


ATTEMPTS = st.builds(
    Attempt,
    execution=st.just("execution-1"),
    case_id=st.just(""),
    target=st.just("shop"),
    sent=st.just(""),
    received=st.text(max_size=30) | st.just("ann@example.org \ud800"),
    decision=st.sampled_from(["pass", "dewrap", "block"]),
    scores=st.dictionaries(st.text("abc/1", min_size=1, max_size=4), st.floats(0, 1), max_size=2),
    success=st.booleans(),
    latency_ms=st.floats(0, 1e7),
    error=st.sampled_from(["", "closed"]),
)


def told(case: TestCase, one: Attempt) -> str:
    """What a report of garak has a place for."""
    scores = {} if one.error else one.scores
    return repr((case.goal, case.turns, case.prompt, one.execution, one.target, one.sent,
                 "" if one.error else storable(redact(one.received)), bool(one.error),
                 sorted(scores.items()), one.success and not one.error))  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ATTEMPTS, min_size=1, max_size=6), st.data())
def test_what_is_written_reads_back_the_same(
    tmp_path: Path, attempts: list[Attempt], data: st.DataObject
) -> None:
    cases = data.draw(st.lists(st.sampled_from(SET.cases), min_size=len(attempts),
                               max_size=len(attempts)))  # fmt: skip
    attempts = [
        replace(one, case_id=case.id, sent=case.prompt)
        for one, case in zip(attempts, cases, strict=True)
    ]
    path = tmp_path / "a.jsonl"
    write_garak(attempts, path, cases=SET)
    found = read_garak(path)
    known = {case.id: case for case in found.test_set}
    assert found.skipped == {}
    assert sorted(told(known[one.case_id], one) for one in found.attempts) == sorted(
        told(case, one) for case, one in zip(cases, attempts, strict=True)
    )
    tries = [(one.case_id, one.trial) for one in found.attempts]
    assert len(set(tries)) == len(tries)


def test_a_written_report_counts_what_garak_counts(tmp_path: Path) -> None:
    attempts = [
        Attempt(
            execution="e", case_id=case.id, target="shop", sent=case.prompt, received="r",
            decision="pass", scores={"judge": score}, success=score >= 0.5, latency_ms=1.0,
        )
        for case, score in zip(SET, (0.1, 0.5, 0.9, 0.2, 0.3), strict=True)
    ]  # fmt: skip
    failed = replace(attempts[0], error="closed", scores={}, success=False)
    write_garak([*attempts, failed], tmp_path / "a.jsonl", cases=SET)
    entries = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    counted = {one["probe"]: (one["passed"], one["fails"], one["nones"]) for one in entries
               if one["entry_type"] == "eval" and one["detector"] == "judge"}  # fmt: skip
    assert counted == {"workbench.harm-violence": (2, 2, 1), "workbench.over-refusal": (1, 0, 0)}
    assert entries[-1]["entry_type"] == "completion"


def test_what_no_report_can_say_is_refused(tmp_path: Path) -> None:
    one = Attempt(
        execution="e", case_id=SET.cases[0].id, target="a", sent="", received="", decision="pass",
        scores={}, success=False, latency_ms=1.0, usd=Decimal(0),
    )  # fmt: skip
    for attempts, message_ in (
        ([one, replace(one, target="b")], "2 targets"),
        ([], "0 targets"),
        ([replace(one, case_id="f" * 64)], "none of the cases"),
    ):
        with pytest.raises(DataError, match=message_):
            write_garak(attempts, tmp_path / "a.jsonl", cases=SET)


@pytest.mark.parametrize(
    ("line", "message_"),
    [
        ("{", "line 3: not usable"),
        ("[1]", "line 3: is no JSON object"),
        ("[" * 5000, "line 3: not usable"),
        ('{"a":' * 100 + "1" + "}" * 100, "inside each other"),
        (entry(status=7), "status is '7'"),
        (entry(uuid=None), "uuid is 'None'"),
        (entry(outputs="x"), "outputs is 'x'"),
        (entry(probe_classname=[]), r"probe_classname is '\[\]'"),
        (entry(detector_results={"d": ["high"]}), "score of d is 'high'"),
        (entry(detector_results={"d": [float("nan")]}), "NaN is no JSON value"),
        (entry(detector_results={"d": [7]}), "score of d is '7'"),
        (entry(detector_results={f"d{at}": [0.1] for at in range(201)}), "over 200 judges"),
        (entry(outputs=["a"] * 1001), "over 1,000 outputs"),
        (entry(prompt="a" * 1_000_001), "the limit is 1,000,000"),
    ],
)
def test_bad_lines_are_refused_with_their_number(
    tmp_path: Path, line: object, message_: str
) -> None:
    with pytest.raises(DataError, match=message_) as caught:
        read_garak(report(tmp_path / "a.jsonl", line))
    assert "a.jsonl: line 3" in str(caught.value)
