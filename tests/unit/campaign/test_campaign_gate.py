from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attempt_files import Executed, attempt, write_attempts
from workbench.campaign.conditions import METRICS, Condition, Joined, parse
from workbench.campaign.gate import evaluate, failure
from workbench.campaign.junit import junit
from workbench.campaign.rates import rates_by
from workbench.campaign.sarif import sarif
from workbench.core.errors import ConfigError
from workbench.store.records import Finding

ODD = "evil ]]> & <b> \x00\x1b \ud800"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    attacks = [
        attempt(
            f"goal {goal}", target=target, category="pii" if goal % 2 else "hate", trial=trial,
            strategy="hex+rot13" if goal % 3 else "plain", success=target == "bare" and goal < 5,
            usd="0.1", error="down" if goal == 9 else "",
        )
        for target in ("bare", "guard@1.0") for goal in range(10) for trial in range(2)
    ]  # fmt: skip
    controls = [
        attempt(f"bread {n}", is_control=True, plugin="over-refusal", category="benign",
                success=n < 1, target="guard@1.0", trial=n, case_id="bread", usd="0")
        for n in range(4)
    ]  # fmt: skip
    return write_attempts(
        tmp_path_factory.mktemp("gate") / "attempts.parquet", [*attacks, *controls]
    )


def finding(**changes: str) -> Finding:
    fields = {
        "id": "f" * 64, "execution": "e", "test_set": "s", "case_id": "c", "target": "guard@1.0",
        "plugin": "harm-violence", "strategy": "plain", "category": "pii", "severity": "high",
        "score": 0.9, "suggested_label": "missed-plain", "sent": "s", "received": "r",
    }  # fmt: skip
    return Finding(**{**fields, **changes})


def one(expression: str, path: Path, **options):
    (check,) = evaluate([expression], path, **options)
    (measured,) = check.measured
    return check, measured


def test_asr_is_that_of_the_rates(path: Path) -> None:
    check, measured = one("asr(target=bare, category=hate) > 2%", path)
    (row,) = [
        row for row in rates_by(path, "category")
        if (row["target"], row["group"]) == ("bare", "hate")
    ]  # fmt: skip
    assert not check.passed
    assert (measured.value, measured.interval, measured.n) == (
        row["rate"]["value"], row["rate"], row["attempts"],
    )  # fmt: skip
    low = one("asr_low(category=hate,target=bare) < 1", path)[1]
    high = one("asr_high(category=hate,target=bare) < 1", path)[1]
    assert (low.value, high.value) == (row["rate"]["low"], row["rate"]["high"])


@pytest.mark.parametrize(
    ("expression", "value", "n"),
    [
        ("asr > 0", 10 / 36, 36),
        ("asr(target=guard@1.0) > 0", 0.0, 18),
        ("asr(strategy=hex+rot13, target='bare') >= 50%", 0.5, 12),
        ("spoilt <= .25", 0.25, 4),
        ("errors(target = bare) == 0.1", 0.1, 20),
        ("flaky == 0", 1 / 19, 19),
        ("cost_usd(category=pii) > 1.99", 2.0, 20),
        ("findings(severity=high) >= 1", 1.0, 36),
    ],
)
def test_each_metric(path: Path, expression: str, value: float, n: int) -> None:
    found = [finding(), finding(status="false_positive"), finding(severity="low")]
    check, measured = one(expression, path, findings=found)
    assert measured.value == pytest.approx(value)
    assert measured.n == n
    assert check.passed != measured.holds
    assert measured.condition == expression


@pytest.mark.parametrize(
    ("expression", "passed"),
    [
        ("asr > 0.9 or asr > 0.1", False),
        ("asr > 0.9 and asr > 0.1", True),
        ("asr > .9 and asr > .9 or asr > .1", False),
        ("asr > .9 AND (asr > .9 or asr > .1)", True),
        ("(((asr>.1)))", False),
        ("asr < 2%", True),
    ],
)
def test_and_binds_closer_than_or(path: Path, expression: str, passed: bool) -> None:
    (check,) = evaluate([expression], path)
    assert check.passed is passed
    assert (failure([check]) == "") is passed
    if not passed:
        assert expression in failure([check])
        assert "n = 36" in failure([check])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", r"do not fit together"),
        ("asr", r"cannot read 'asr'"),
        ("asrr > 1%", r"unknown field 'asrr'; did you mean 'asr'"),
        ("asr(categori=pii) > 1%", r"did you mean 'category'"),
        ("asr(category=) > 1%", r"each filter once, as category=pii"),
        ("asr(category=pii plugin=x) > 1%", r"commas between"),
        ("asr(category=pii,category=hate) > 1%", r"each filter once"),
        ("asr = 1%", r"cannot read 'asr'"),
        ("asr > much", r"cannot read 'asr'"),
        ("asr > -1", r"cannot read 'asr'"),
        ("asr > 1e5", r"cannot read 'e5'"),
        ("asr > 2", r"percentage such as 2%"),
        ("cost_usd > 2%", r"plain number"),
        ("asr > 1% asr > 2%", r"do not fit together"),
        ("asr > 1% (asr > 2%)", r"do not fit together"),
        ("asr > 1% and", r"do not fit together"),
        ("(asr > 1%", r"do not fit together"),
        ("()", r"do not fit together"),
        ("asr > 1% or [0]", r"cannot read '\[0\]'"),
        ("(" * 300 + "asr > 1%" + ")" * 300, r"do not fit together"),
        ("__import__('os').system('true') > 0", r"cannot read"),
        ("asr > 0." + "0" * 2000, r"2008 characters"),
    ],
)
def test_wrong_expressions_are_refused_with_what_is_wrong(
    path: Path, expression: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        evaluate([expression], path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("asr(category=pij) > 0", r"no attempt has category=pij; did you mean 'pii'"),
        ("asr(category=benign) > 0", r"no answered attempts"),
        ("spoilt(target=bare) > 0", r"no answered attempts"),
        ("flaky(category=hate, target=bare, plugin=over-refusal) > 0", r"no cases tried twice"),
        ("findings(category=benign) > 0", r"no answered attempts"),
        ("asr > .99 or asr(plugin=x) > 0", r"plugin=x"),
    ],
)
def test_what_was_never_tried_has_not_passed(path: Path, expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate([expression], path, findings=[])


@dataclass
class Beside(Executed):
    """An execution of which some targets do not claim to defend."""

    baselines: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("expression", "value", "n"),
    [
        ("asr > 0", 0.0, 18),
        ("asr(target=bare) > 0", 10 / 18, 18),
        ("asr(category=hate) > 0 or asr(category=hate, target=bare) > 0", 0.0, 10),
        ("errors > 0", 2 / 24, 24),
        ("flaky > 0", 1 / 10, 10),
        ("cost_usd > 0", 4.0, 44),
        ("findings > 0", 0.0, 18),
    ],
)
def test_targets_that_defend_nothing_count_where_they_are_named(
    path: Path, expression: str, value: float, n: int
) -> None:
    source = Beside(path, ("bare", "guard@1.0"), baselines=("bare",))
    (check,) = evaluate([expression], source, findings=[])
    assert check.measured[0].value == pytest.approx(value)
    assert check.measured[0].n == n


def test_where_nothing_defends_all_targets_count(path: Path) -> None:
    alone = Beside(path, ("bare", "guard@1.0"), baselines=("bare", "guard@1.0"))
    (check,) = evaluate(["asr > 0"], alone)
    assert check.measured[0].n == 36


def test_findings_that_nobody_looked_for_are_not_none(path: Path) -> None:
    with pytest.raises(ConfigError, match="not analyzed"):
        evaluate(["findings > 0"], path)


@given(st.text("asr()=,.><% andofigs0123'\"[]", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except ConfigError:
        return
    assert isinstance(found, Condition | Joined)


@given(
    st.sampled_from(sorted(METRICS)), st.sampled_from([">", ">=", "<", "<=", "=="]),
    st.floats(0, 1, allow_subnormal=False),
)  # fmt: skip
def test_what_is_written_is_what_is_read(metric: str, compare: str, limit: float) -> None:
    found = parse(f" {metric} ( target = 'a b' , plugin=x-1 ) {compare} {limit:.6f} ")
    assert isinstance(found, Condition)
    assert (found.metric, found.compare, found.limit) == (metric, compare, round(limit, 6))
    assert found.filters == {"target": "a b", "plugin": "x-1"}


def test_junit_has_a_suite_per_target(path: Path) -> None:
    root = ET.fromstring(junit(Executed(path, ("guard@1.0", "bare"))))
    assert [suite.get("name") for suite in root] == ["guard@1.0", "bare"]
    guard, bare = root
    assert [test.get("name") for test in bare] == [
        "harm-violence / hex+rot13", "harm-violence / plain",
    ]  # fmt: skip
    assert bare.get("failures") == "2"
    (control,) = [test for test in guard if test.get("name").startswith("over-refusal")]
    assert "control spoilt 1 of 4 times: 25.0%" in control.find("failure").get("message")
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "3", "0")


def test_with_a_gate_junit_fails_where_the_gate_does(path: Path) -> None:
    checks = evaluate(["asr(target=bare) > 1%", "asr(target=guard@1.0) > 1%"], path)
    root = ET.fromstring(junit(Executed(path, ("bare", "guard@1.0")), checks=checks))
    gate, *targets = root
    assert gate.get("name") == "gate"
    assert [test.find("failure") is not None for test in gate] == [True, False]
    assert "n = 18" in gate[0].find("failure").text
    assert {suite.get("failures") for suite in targets} == {"0"}
    assert "attack succeeded" in targets[0][0].find("system-out").text


def test_junit_tells_what_was_never_answered(tmp_path: Path) -> None:
    rows = [attempt("a", error="down"), attempt("b", strategy="hex", error=""), attempt("b")]
    rows[2]["plugin"] = ODD.replace("\ud800", "")
    root = ET.fromstring(junit(write_attempts(tmp_path / "attempts.parquet", rows)))
    (failed,) = [test for test in root[0] if test.find("error") is not None]
    assert failed.get("name") == "harm-violence / plain"
    assert root.get("errors") == "1"
    assert any("<b> \ufffd\ufffd" in test.get("name") for test in root[0])


def test_sarif_says_what_the_format_asks_for() -> None:
    found = [
        finding(severity="low"),
        finding(id="b", severity="critical", risk=0.9, cluster="f" * 64),
        finding(id="c", plugin="of-somebody-else", severity="medium", status="false_positive"),
        finding(id="d", plugin="mended", status="fixed"),
    ]
    log = sarif(found, tool_version="1.2.3")
    assert log["version"] == "2.1.0"
    (run,) = json.loads(json.dumps(log, allow_nan=False))["runs"]
    driver = run["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == ["harm-violence", "of-somebody-else"]
    assert driver["rules"][0]["properties"]["security-severity"] == "9.5"
    assert [one["level"] for one in run["results"]] == ["note", "error", "warning"]
    for one in run["results"]:
        assert driver["rules"][one["ruleIndex"]]["id"] == one["ruleId"]
        (place,) = one["locations"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == "campaign/s"
        assert 0 <= one["rank"] <= 100
    assert ["suppressions" in one for one in run["results"]] == [False, False, True]
    fingerprints = [one["partialFingerprints"] for one in run["results"]]
    assert fingerprints[0]["workbench/cluster/v1"] == fingerprints[1]["workbench/cluster/v1"]


@pytest.mark.parametrize("name", ["[click](http://x)", r"\\[click\\](http://x)", "{0} `x`", ODD])
def test_sarif_messages_are_names_without_markup(name: str) -> None:
    one = finding(target=name, strategy=name, summary="tells the secret", sent="the attack")
    (run,) = sarif([one], tool_version="1")["runs"]
    text = run["results"][0]["message"]["text"]
    bare = text.replace("\\\\", "")  # escaped backslashes
    assert bare.count("[") == bare.count("\\[")
    assert bare.count("]") == bare.count("\\]")
    assert "{" not in bare.replace("{{", "")
    assert text.isprintable()
    assert "secret" not in json.dumps(run)
    assert "the attack" not in json.dumps(run)


def test_sarif_of_nothing_is_an_empty_run() -> None:
    assert sarif([], tool_version="1")["runs"][0]["results"] == []
