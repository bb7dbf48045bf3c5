"""A test case as a test of promptfoo, and back.

A test that we wrote keeps in ``metadata.workbench``, as one JSON text, what promptfoo has no place
for; it comes back as the same case. What another's test has and a case has no place for stays in
the case under ``metadata["promptfoo"]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from workbench.campaign.interop.documents import check_depth
from workbench.campaign.interop.javascript import stringify
from workbench.campaign.interop.promptfoo_assertions import assertions_of, visible_assertions
from workbench.campaign.interop.promptfoo_plugins import facts_of
from workbench.core.errors import DataError
from workbench.core.identity import canonical_json
from workbench.store.records import TestCase

__all__ = [
    "MAX_TEXT_CHARS",
    "RECORD",
    "case_id_of",
    "case_of",
    "check_case",
    "sealed",
    "test_of",
    "unsealed",
]

MAX_TEXT_CHARS: Final = 1_000_000
"""Longest prompt, turn or goal that is read."""
_MOST_TURNS: Final = 200
RECORD: Final = "workbench"
"""Name of our record in a test's metadata."""
_FORMAT: Final = "1 "
"""Before the JSON of a record: promptfoo opens texts that are JSON and changes numbers in them."""
_ID: Final = re.compile(r"[0-9a-f]{64}")
_THEIRS: Final = "promptfoo"
_SEVERITIES: Final = ("low", "medium", "high", "critical")
_PLUGIN: Final = re.compile(r"[\w:./-]{1,120}")
_KNOWN: Final = ("goal", "pluginId", "severity", "strategyId", "originalText")
_PLAIN: Final = ("", "basic")
"""Strategies of promptfoo that change nothing."""
_TEXTS: Final = ("prompt", "goal", "plugin", "category", "severity")
_LISTS: Final = ("strategies", "taxonomy", "turns")


def test_of(case: TestCase) -> dict[str, Any]:
    """Return a case as promptfoo's test, keys in its order."""
    theirs = case.metadata.get(_THEIRS)
    theirs = theirs if isinstance(theirs, dict) else {}
    metadata: dict[str, Any] = {
        "goal": case.goal,
        "pluginId": case.plugin,
        "severity": case.severity,
        "modifiers": {},
    }
    if case.strategies:
        metadata |= {"strategyId": "+".join(case.strategies), "originalText": case.goal}
    test = {
        "vars": {"prompt": _prompt_text(case)},
        "assert": visible_assertions(case, theirs.get("assert", ())),
        "metadata": metadata,
    }
    # In its results promptfoo hides a prompt that could be a key, and so is base64: the id stays.
    metadata[RECORD] = sealed({"id": case.id, **_unseen(case, _seen(test))})
    return test


test_of.__test__ = False  # type: ignore[attr-defined] # pytest: not a test


def case_of(test: Mapping[str, Any], *, variable: str, place: str) -> TestCase:
    """Return promptfoo's test as a case.

    Args:
        test: Text values of its variables; lists of them are dealt out before.
        variable: Name of the variable that is attacked.
        place: File and place for messages.

    Raises:
        DataError: If it has no prompt, a text is too long, or a field is of the wrong kind.
    """
    metadata = test.get("metadata", {})
    if not isinstance(metadata, dict):
        raise DataError(f"{place}: metadata is {_kind(metadata)}; write an object or leave it out")
    record = metadata.get(RECORD)
    fields = _other(test, variable=variable) if record is None else _own(test, record, place)
    case = TestCase.from_json(check_case(fields, place=place))
    if record is not None and test.get("assert") != test_of(case)["assert"]:
        # Somebody edited what decides.
        edited = _decided(test, _plugin_of(metadata)[0])
        case = TestCase.from_json({**case.to_json(), "assertions": edited["assertions"]})
    return case


def case_id_of(test: Mapping[str, Any]) -> str:
    """Return the id of the case that a test of ours was written from; empty for another's."""
    metadata = test.get("metadata")
    record = metadata.get(RECORD) if isinstance(metadata, dict) else None
    known = unsealed(record)
    found = known.get("id") if isinstance(known, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def sealed(record: Mapping[str, Any]) -> str:
    """Return a record as one text that promptfoo carries along and leaves as it is."""
    # Braces in pairs are a template to promptfoo; in JSON they stand inside of texts only.
    return _FORMAT + canonical_json(record).replace("{{", "{\\u007b")


def unsealed(text: Any) -> Any:
    """Return the record of a text, None where it is none."""
    if not isinstance(text, str) or not text.startswith(_FORMAT):
        return None
    try:
        record = json.loads(text.removeprefix(_FORMAT))
        check_depth(record)
    except (RecursionError, ValueError):
        return None
    return record


def check_case(fields: dict[str, Any], *, place: str) -> dict[str, Any]:
    """Return the fields of a case; refuse kinds and sizes that no case of ours has.

    Raises:
        DataError: Naming the field and the fix.
    """
    for name in _TEXTS:
        _check_text(fields.get(name), name, place)
    for name in _LISTS:
        items = fields.get(name, [])
        if not isinstance(items, list | tuple) or len(items) > _MOST_TURNS:
            raise DataError(f"{place}: {name} is no list of at most {_MOST_TURNS}; correct it")
        for item in items:
            _check_text(item, name, place)
    if fields["severity"] not in _SEVERITIES:
        wanted = ", ".join(_SEVERITIES)
        raise DataError(f"{place}: severity {fields['severity']!r}; write one of {wanted}")
    asserted = fields.get("assertions", [])
    if not (
        isinstance(asserted, list | tuple)
        and all(isinstance(one, dict) for one in asserted)
        and isinstance(fields.get("metadata", {}), dict)
        and isinstance(fields.get("is_control", False), bool)
    ):
        raise DataError(f"{place}: metadata.{RECORD} was changed; delete it to read the test anew")
    return fields


def _check_text(value: Any, name: str, place: str) -> None:
    if not isinstance(value, str):
        raise DataError(f"{place}: {name} is {_kind(value)}; write a text")
    if len(value) > MAX_TEXT_CHARS:
        raise DataError(
            f"{place}: {name} has {len(value):,} characters; the limit is {MAX_TEXT_CHARS:,}, "
            "so shorten or drop it"
        )


def _prompt_text(case: TestCase) -> str:
    if not case.turns:
        return case.prompt
    return stringify([{"role": "user", "content": text} for text in (*case.turns, case.prompt)])


def _messages(text: str) -> list[dict[str, str]]:
    """Return the messages of a conversation that a prompt holds as JSON; none where it does not."""
    if not text.lstrip().startswith("[") or len(text) > MAX_TEXT_CHARS:
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, list) or not found or not all(map(_is_message, found)):
        return []
    return found if found[-1]["role"] == "user" and len(found) <= _MOST_TURNS else []


def _is_message(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and set(one) == {"role", "content"}
        and one["role"] in ("system", "user", "assistant")
        and isinstance(one["content"], str)
    )


def _seen(test: dict[str, Any]) -> dict[str, Any]:
    """Return what the parts of a test that promptfoo knows say about the case."""
    metadata, text = test["metadata"], test["vars"]["prompt"]
    said = [one["content"] for one in _messages(text)] or [text]
    strategy = metadata.get("strategyId", "")
    return {
        "prompt": said[-1],
        "goal": metadata.get("goal"),
        "plugin": metadata.get("pluginId"),
        "strategies": strategy.split("+") if strategy else [],
        "category": "",
        "severity": metadata.get("severity"),
        "taxonomy": [],
        "is_control": False,
        "turns": said[:-1],
        "assertions": [],
        "metadata": {},
    }


def _unseen(case: TestCase, seen: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a case that the test does not show, or shows otherwise."""
    record = {}
    for name, shown in seen.items():
        value = getattr(case, name)
        value = list(value) if isinstance(value, tuple) else value
        if value != shown:
            record[name] = value
    return record


def _own(test: Mapping[str, Any], record: Any, place: str) -> dict[str, Any]:
    known = unsealed(record)
    try:
        seen = _seen({"vars": {"prompt": test["vars"]["prompt"]}, "metadata": test["metadata"]})
        if set(known) <= {"id", *seen}:
            return {**seen, **{name: known[name] for name in known if name != "id"}}
    except (AttributeError, KeyError, TypeError):
        pass  # told below, like unknown fields
    raise DataError(f"{place}: metadata.{RECORD} was changed; delete it to read the test anew")


def _other(test: Mapping[str, Any], *, variable: str) -> dict[str, Any]:
    """Return the case of a test that we did not write."""
    metadata = dict(test.get("metadata", {}))
    given, strategy = metadata.get("originalText"), metadata.get("strategyId")
    plugin_id, is_said = _plugin_of(metadata) if metadata.get("pluginId") else _graded(test)
    facts = facts_of(plugin_id)
    said = _messages(prompt := test["vars"][variable])
    contents = [one["content"] for one in said if one["role"] == "user"] or [prompt]
    original = given if isinstance(given, str) else ""
    goal = metadata.get("goal")
    goal = goal if isinstance(goal, str) and goal else original or contents[-1]
    severity = str(metadata.get("severity", "")).lower()
    left = _left(test, variable=variable, kept=is_said and facts.plugin == plugin_id)
    if any(one["role"] != "user" for one in said):
        left["messages"] = said
    decided = _decided(test, plugin_id)
    left |= decided.pop("left")
    layers = {"layers": [original]} if original not in ("", goal, contents[-1]) else {}
    chain = strategy.split("+") if isinstance(strategy, str) and strategy not in _PLAIN else []
    return {
        **asdict(facts),
        **decided,
        "prompt": contents[-1],
        "turns": contents[:-1],
        "goal": goal,
        "severity": severity if severity in _SEVERITIES else facts.severity,
        "strategies": [part for part in chain if part],
        "metadata": {**layers, **({_THEIRS: left} if left else {})},
    }


def _plugin_of(metadata: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the id of the plugin, and whether it is what the metadata say."""
    said = metadata.get("pluginId")
    fits = isinstance(said, str) and _PLUGIN.fullmatch(said) and not said.startswith("file:")
    return (str(said), True) if fits else ("custom", False)


def _graded(test: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the id of the plugin whose grader the test asks for."""
    for one in test.get("assert") or ():
        kind = one.get("type") if isinstance(one, dict) else None
        if isinstance(kind, str) and kind.startswith("promptfoo:redteam:"):
            return _plugin_of({"pluginId": kind.removeprefix("promptfoo:redteam:")})
    return "custom", True


def _decided(test: Mapping[str, Any], plugin_id: str) -> dict[str, Any]:
    """Return the assertions that we can decide, and all of them unless they are the usual ones."""
    asserted = test.get("assert") or []
    asserted = [one for one in asserted if isinstance(one, dict)]
    usual = [f"promptfoo:redteam:{plugin_id}"] == [one.get("type") for one in asserted]
    return {
        "assertions": assertions_of(asserted),
        "left": {"assert": asserted} if asserted and not usual else {},
    }


def _left(test: Mapping[str, Any], *, variable: str, kept: bool) -> dict[str, Any]:
    """Return what a test says beyond its case, by where it said so."""
    known = _KNOWN if kept else tuple(name for name in _KNOWN if name != "pluginId")
    parts = {
        "vars": {name: value for name, value in test["vars"].items() if name != variable},
        "metadata": {
            name: value
            for name, value in test.get("metadata", {}).items()
            if name not in known and (name, value) != ("modifiers", {})
        },
        "test": {
            name: value
            for name, value in test.items()
            if name not in ("vars", "assert", "metadata") and value not in ({}, [], None)
        },
    }
    return {name: part for name, part in parts.items() if part}


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", type(None): "nothing"}.get(
        type(value), repr(value)[:40]
    )
