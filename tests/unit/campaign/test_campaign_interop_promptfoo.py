from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign_fakes import make_case, make_control, make_set
from workbench.campaign.interop import documents
from workbench.campaign.interop.incoming import MAX_TEXT_CHARS
from workbench.campaign.interop.promptfoo import (
    promptfoo_id,
    promptfoo_tests,
    read_promptfoo,
    write_promptfoo,
)
from workbench.core.errors import ConfigError, DataError, StoreError
from workbench.judge.assertions import check_assertions
from workbench.store.records import TestCase, TestSet

GRADED = """
description: a shop
targets: [{id: http, config: {headers: {authorization: not-kept}}}]
redteam: {injectVar: query, plugins: [harmful:hate]}
defaultTest: &default
  metadata: {purpose: Sells shoes, entities: [Ann]}
shared: &grader
  - {type: 'promptfoo:redteam:harmful:violent-crime', metric: Violence}
common: &common {pluginId: 'harmful:violent-crime', severity: critical}
tests:
  - vars: &vars {query: plain request, page: 7}
    assert: *grader
    metadata: {<<: *common, goal: what it wants, modifiers: {}}
  - vars: {<<: *vars, query: cGxhaW4gcmVxdWVzdA==}
    assert: *grader
    metadata: {<<: *common, goal: what it wants, strategyId: base64, originalText: plain request,
               encodingType: base64, modifiers: {tone: calm}}
    options: {transform: output.trim()}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_red_team_file_with_anchors_and_merged_keys_becomes_cases(tmp_path: Path) -> None:
    found = read_promptfoo(write(tmp_path / "redteam.yaml", GRADED))
    plain, mutated = found
    assert (plain.prompt, plain.goal, plain.strategies) == ("plain request", "what it wants", ())
    assert (plain.plugin, plain.category, plain.severity) == (
        "harm-violence", "violence", "critical",
    )  # fmt: skip
    assert "LLM01:2025" in plain.taxonomy
    assert mutated.strategies == ("base64",)
    kept = mutated.metadata["promptfoo"]
    assert kept == {"vars": {"page": 7}, "pluginId": "harmful:violent-crime"}
    assert found.recipe["purpose"] == "Sells shoes"
    assert found.recipe["promptfoo_id"] == promptfoo_id(yaml.safe_load(GRADED)["tests"])
    assert "not-kept" not in str(found)


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    value = yaml.safe_load(GRADED)
    as_json = read_promptfoo(write(tmp_path / "redteam.json", json.dumps(value)))
    assert as_json.id == read_promptfoo(write(tmp_path / "redteam.yaml", GRADED)).id


@pytest.mark.parametrize("prompt", ["yes", "12:30:45", "2026-01-02", "on", "null", "=", "1_000"])
def test_words_are_texts_as_in_javascript(tmp_path: Path, prompt: str) -> None:
    path = write(tmp_path / "a.yaml", f"tests: [{{vars: {{prompt: {prompt}}}}}]\n")
    assert next(iter(read_promptfoo(path))).prompt == prompt


def test_a_conversation_is_asked_turn_by_turn(tmp_path: Path) -> None:
    said = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "and?"},
        {"role": "user", "content": "second"},
    ]
    config = {"tests": [{"vars": {"prompt": json.dumps(said)}}]}
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps(config)))
    assert (case.turns, case.prompt) == (("first",), "second")


def test_a_list_of_prompts_is_dealt_out_and_doubles_are_dropped(tmp_path: Path) -> None:
    config = {"tests": [{"vars": {"q": ["a", "b", "a"]}}, {"vars": {"q": 1.0}}]}
    found = read_promptfoo(write(tmp_path / "a.json", json.dumps(config)))
    assert [case.prompt for case in found] == ["a", "b", "1"]


def test_assertions_become_ours_where_they_say_the_same(tmp_path: Path) -> None:
    asserted = [
        {"type": "not-icontains", "value": "plum"},
        {"type": "contains", "value": "sorry"},
        {"type": "not-contains-any", "value": ["a1", "b2"]},
        {"type": "icontains-any", "value": ["c3", "d4"]},
        {"type": "not-regex", "value": "x+"},
        {"type": "not-regex", "value": "(?=x)"},
        {"type": "javascript", "value": "process.exit()"},
    ]
    config = {"tests": [{"vars": {"prompt": "p"}, "assert": asserted}]}
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps(config)))
    assert case.assertions == (
        {"type": "contains", "value": "plum"},
        {"type": "contains", "value": "sorry", "not": True},
        {"type": "contains", "value": "a1"},
        {"type": "contains", "value": "b2"},
        {"type": "matches", "value": "x+"},
    )
    # never written where promptfoo would run it; its grader decides what we cannot
    (test,) = promptfoo_tests([case])
    assert [one["type"] for one in test["assert"]] == [
        "not-icontains", "icontains", "not-icontains", "not-icontains", "not-regex",
    ]  # fmt: skip
    (hostile,) = promptfoo_tests(
        [make_case(1, assertions=({"type": "contains", "value": "{{ env.HOME }}"},))]
    )
    assert [one["type"] for one in hostile["assert"]] == ["promptfoo:redteam:harmful:violent-crime"]


def test_foreign_cases_survive_being_written(tmp_path: Path) -> None:
    found = read_promptfoo(write(tmp_path / "a.yaml", GRADED))
    write_promptfoo(found, tmp_path / "b.yaml")
    assert read_promptfoo(tmp_path / "b.yaml").id == found.id


def test_an_edited_assertion_counts(tmp_path: Path) -> None:
    write_promptfoo(make_set(1), tmp_path / "a.yaml")
    config = yaml.safe_load((tmp_path / "a.yaml").read_text())
    config["tests"][0]["assert"] = [{"type": "not-contains", "value": "plum"}]
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps(config)))
    assert case.assertions == ({"type": "contains", "value": "plum"},)
    assert (case.goal, case.plugin, case.category) == (
        make_case(0).goal, "harm-violence", "violence",
    )  # fmt: skip


@pytest.mark.parametrize("record", ["1 {}x", '1 {"x":1}', [1], "1 {}", "1 [1]", "1 NaN", "2 {}"])
def test_a_record_that_is_none_of_ours_is_overlooked(tmp_path: Path, record: object) -> None:
    test = {"vars": {"prompt": "p"}, "metadata": {"workbench": record, "goal": "g"}}
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps({"tests": [test]})))
    assert (case.prompt, case.goal, case.plugin) == ("p", "g", "custom")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"x": [float("nan")]}}, {"severity": "dire"}, {"turns": [7]}, {"odd": 1},
        {"assertions": [{"type": "matches", "value": "("}]}, {"is_control": 1},
        {"metadata": json.loads("[" * 100 + "]" * 100)},
    ],
)  # fmt: skip
def test_a_record_that_no_case_has_is_overlooked(tmp_path: Path, change: dict[str, object]) -> None:
    (test,) = promptfoo_tests([make_case(1)])
    record = json.loads(test["metadata"]["workbench"].removeprefix("1 ")) | change
    test["metadata"]["workbench"] = "1 " + json.dumps(record)
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps({"tests": [test]})))
    assert case.metadata == {}


TEXT = st.text(max_size=30) | st.text(
    st.sampled_from("{}[]\"\\'\n\r\t\x00\x7f\x85\u2028\ufeff😀%#&*!|>@`: -"), max_size=20
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**60), 2**60) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def is_usable(value: str) -> bool:
    try:
        check_assertions([{"type": "matches", "value": value}])
    except ConfigError:
        return False
    return True


NAME = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True)
ASSERTIONS = st.builds(
    lambda kind, turned: kind | ({"not": True} if turned else {}),
    st.builds(
        lambda kind, value: {"type": kind, "value": value},
        st.sampled_from(["contains", "matches"]), st.text("ab {[%#'", min_size=1).filter(is_usable),
    )
    | st.sampled_from([{"type": "json"}, {"type": "tool_call", "name": "f"}]),
    st.booleans(),
)  # fmt: skip
PROMPT = TEXT.filter(lambda text: not text.startswith("file://")) | st.lists(
    st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}), max_size=3
).map(json.dumps)
CASES = st.builds(
    TestCase,
    prompt=PROMPT, goal=TEXT, plugin=NAME, strategies=st.lists(NAME, max_size=3).map(tuple),
    category=NAME, severity=st.sampled_from(["low", "medium", "high", "critical"]),
    taxonomy=st.lists(NAME, max_size=2).map(tuple), is_control=st.booleans(),
    turns=st.lists(TEXT, max_size=3).map(tuple),
    assertions=st.lists(ASSERTIONS, max_size=3).map(tuple),
    metadata=st.dictionaries(TEXT | st.just("promptfoo"), VALUES, max_size=3),
)  # fmt: skip


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=st.lists(CASES, min_size=1, max_size=4, unique_by=lambda case: case.id))
def test_what_is_written_reads_back_the_same(
    tmp_path: Path, name: str, cases: list[TestCase]
) -> None:
    path = tmp_path / name
    written = write_promptfoo(cases, path)
    found = read_promptfoo(path)
    assert found.id == TestSet(cases=tuple(cases)).id
    assert found.recipe["promptfoo_id"] == written == promptfoo_id(promptfoo_tests(cases))


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="half a character"):
        write_promptfoo([make_case(1, goal="a \ud800")], tmp_path / "a.json")


@pytest.mark.parametrize(
    "prompt",
    ["{{ env.HOME }}", "a {{x | f(env['HOME'])}} b", "file:///etc/hostname", "{{{{ env.A }}"],
)
def test_what_promptfoo_would_fill_in_is_refused(tmp_path: Path, prompt: str) -> None:
    with pytest.raises(DataError, match="leave the case out"):
        write_promptfoo([make_case(1, prompt=prompt)], tmp_path / "a.yaml")
    assert not list(tmp_path.iterdir())


def test_braces_without_an_environment_are_no_template(tmp_path: Path) -> None:
    prompt = "{{ 7 * 7 }} env.HOME {{" * 3
    write_promptfoo([make_case(1, prompt=prompt)], tmp_path / "a.yaml")
    assert next(iter(read_promptfoo(tmp_path / "a.yaml"))).prompt == prompt


def laughs(merged: bool) -> str:
    lines = ["a0: &a0 {x: " + "y" * 500 + "}"]
    for level in range(1, 30):
        aliases = ", ".join([f"*a{level - 1}"] * 10)
        inner = f"{{<<: [{aliases}]}}" if merged else f"[{aliases}]"
        lines.append(f"a{level}: &a{level} {inner}")
    return "\n".join([*lines, "tests: [{vars: {prompt: p}}]\n"])


def nested(levels: int) -> str:
    """Aliases that stand for one value inside each other per line."""
    lines = ["a0: &a0 [x]", *(f"a{at}: &a{at} [*a{at - 1}]" for at in range(1, levels))]
    return "\n".join([*lines, "tests: [{vars: {prompt: p}}]\n"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests:\n- vars: {prompt: 'open\n", "line 3"),
        ("tests:\n- vars: [}\n", "line 2"),
        ("tests:\n- vars: {prompt: p}\n- {metadata: {}}\n", "test 2 has no vars"),
        ("tests:\n- vars: {a: p, b: q}\n", "test 1: none of its variables is 'prompt'"),
        ("tests:\n- file://others.yaml\n", "test 1 is in another file"),
        ("tests: file://others.yaml\n", "has no list of tests"),
        ("tests: []\n", "has no list of tests"),
        ("just words\n", "has no list of tests"),
        ("", "0 documents"),
        ("tests: []\n---\ntests: []\n", "2 documents"),
        ("tests:\n- vars: {prompt: !!python/name:os.system }\n", "unknown tag"),
        ("tests: !!python/object/apply:os.system [x]\n", "unknown tag"),
        ("tests:\n- vars: {prompt: !!binary aGk= }\n", "unknown tag"),
        ("tests:\n- vars: {prompt: .nan}\n", "could not convert"),
        ("tests:\n- vars: {prompt: 1e999}\n", "no JSON value"),
        ("tests: &t\n- vars: {prompt: *t}\n", "inside of what it names at line 2"),
        ("defaultTest:\n  metadata: {entities: &e [*e]}\ntests:\n- {vars: {prompt: p}}\n",
         "inside of what it names"),
        ("tests: *t\n", "an alias of nothing"),
        ("tests: " + "[" * 5000, "inside each other"),
        ("tests:\n- " + "- " * 5000, "inside each other"),
        (nested(100), "inside each other"),
        (laughs(merged=False), "stands for over 2,000,000 values"),
        (laughs(merged=True), "stands for over 2,000,000 values"),
        ("a: &a " + "y" * 1_000_000 + "\ntests: [" + "*a, " * 100 + "]\n", "stands for over"),
        ("tests: [" + "a," * 2_000_001 + "]\n", "stands for over"),
        ("tests:\n- vars: {prompt: \x07}\n", "control characters"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_place_and_fix(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    started = time.perf_counter()
    with pytest.raises(DataError, match=r"bad\.yaml") as caught:
        read_promptfoo(path)
    assert time.perf_counter() - started < 30
    assert message in str(caught.value)
    assert len(str(caught.value).replace(str(path), "").splitlines()) == 1


@pytest.mark.parametrize("text", ['{"tests": [', '{"tests": NaN}', "[" * 100_000, "[1]", "\ud800"])
def test_bad_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=r"bad\.json"):
        read_promptfoo(path)


def test_a_prompt_beyond_the_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    most = {"tests": [{"vars": {"prompt": "a" * MAX_TEXT_CHARS}}]}
    path = write(tmp_path / "a.json", json.dumps(most))
    assert len(next(iter(read_promptfoo(path))).prompt) == MAX_TEXT_CHARS
    long = {"tests": [{"vars": {"prompt": "a" * 10_000_000}}]}
    with pytest.raises(DataError, match="10,000,000 items or characters; the limit is 1,000,000"):
        read_promptfoo(write(path, json.dumps(long)))


def test_missing_and_huge_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_promptfoo(tmp_path / "none.yaml")
    monkeypatch.setattr(documents, "_MOST_YAML_BYTES", 10)
    with pytest.raises(DataError, match="over 10 bytes"):
        read_promptfoo(write(tmp_path / "a.yaml", GRADED))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "old")
    with pytest.raises(DataError, match="no cases"):
        write_promptfoo([], path)
    with pytest.raises(StoreError, match="cannot be written"):
        write_promptfoo(make_set(1), tmp_path / "none" / "a.yaml")
    assert [one.read_text() for one in tmp_path.iterdir()] == ["old"]


def test_controls_only_must_not_be_refused() -> None:
    (test,) = promptfoo_tests([make_control(1)])
    assert test["assert"] == [{"type": "not-is-refusal", "metric": "over-refusal"}]


@pytest.mark.parametrize("plugin_id", ["{{ env.HOME }}", "file://mine.yaml", 7, "x" * 200, "a b"])
def test_strange_plugins_are_custom_ones(tmp_path: Path, plugin_id: object) -> None:
    config = {"tests": [{"vars": {"prompt": "p"}, "metadata": {"pluginId": plugin_id}}]}
    (case,) = read_promptfoo(write(tmp_path / "a.json", json.dumps(config)))
    assert (case.plugin, case.category) == ("custom", "other")
    assert case.metadata["promptfoo"]["pluginId"] == plugin_id
