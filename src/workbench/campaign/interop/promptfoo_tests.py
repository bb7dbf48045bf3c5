"""A test case as a test of promptfoo, and back.

A test that we wrote has the whole case in ``metadata.workbench``, as one JSON text. It comes back
as that case unless its prompt, goal or assertions were edited: then it is read like another's. What
another's test has and a case has no place for stays in the case under ``metadata["promptfoo"]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from workbench.campaign.interop.documents import json_value, stringify
from workbench.campaign.interop.incoming import SEVERITIES, checked_case
from workbench.campaign.interop.promptfoo_words import (
    assertions_of,
    facts_of,
    visible_assertions,
)
from workbench.core.errors import ConfigError, DataError
from workbench.judge.assertions import check_assertions
from workbench.store.records import TestCase

__all__ = ["RECORD", "case_of", "test_of"]

RECORD: Final = "workbench"
"""Name of our record in a test's metadata."""
_FORMAT: Final = "1 "
"""Before the JSON of a record: promptfoo opens texts that are JSON and changes numbers in them."""
_HIDDEN: Final = "[REDACTED]"
"""What promptfoo's results show for what could be a key, such as base64 of 64 characters."""
_THEIRS: Final = "promptfoo"
_PLUGIN: Final = re.compile(r"(?!file:)[\w:./-]{1,120}")
_GRADER: Final = "promptfoo:redteam:"


def test_of(case: TestCase) -> dict[str, Any]:
    """Return a case as promptfoo's test, keys in its order."""
    theirs = case.metadata.get(_THEIRS)
    metadata: dict[str, Any] = {
        "goal": case.goal,
        "pluginId": case.plugin,
        "severity": case.severity,
        "modifiers": {},
    }
    if case.strategies:
        metadata |= {"strategyId": "+".join(case.strategies), "originalText": case.goal}
    # Braces in pairs are a template to promptfoo; in JSON they stand inside of texts only.
    metadata[RECORD] = _FORMAT + case.line.replace("{{", "{\\u007b")
    prompt = case.prompt
    if case.turns:
        said = [{"role": "user", "content": text} for text in (*case.turns, prompt)]
        prompt = stringify(said)
    asserted = theirs.get("assert") if isinstance(theirs, dict) else None
    return {
        "vars": {"prompt": prompt},
        "assert": visible_assertions(case, asserted),
        "metadata": metadata,
    }


test_of.__test__ = False  # type: ignore[attr-defined] # pytest: not a test


def case_of(test: Mapping[str, Any], *, variable: str, place: str) -> TestCase:
    """Return promptfoo's test as a case.

    Args:
        test: Text values of its variables; lists of them are dealt out before.
        variable: Name of the variable that is attacked.
        place: File and place for messages.

    Raises:
        DataError: If a text is too long, or a field is of the wrong kind.
    """
    metadata = test.get("metadata", {})
    if not isinstance(metadata, dict):
        raise DataError(f"{place}: metadata is {str(metadata)[:40]!r}; write an object")
    return _own(test, metadata, place) or checked_case(
        _other(test, metadata, variable=variable), place=place
    )


def _own(test: Mapping[str, Any], metadata: Mapping[str, Any], place: str) -> TestCase | None:
    """Return the case that a test was written from; None where there is none, or it was edited."""
    record = metadata.get(RECORD)
    if not isinstance(record, str) or not record.startswith(_FORMAT):
        return None
    try:
        case = checked_case(json_value(record.removeprefix(_FORMAT)), place=place)
        check_assertions(case.assertions)
    except (AttributeError, ConfigError, DataError, KeyError, RecursionError, ValueError):
        return None
    ours = test_of(case)
    shown = ((test["vars"].get("prompt"), ours["vars"]["prompt"]),
             (metadata.get("goal"), case.goal), (test.get("assert"), ours["assert"]))  # fmt: skip
    return case if all(seen in (_HIDDEN, wrote) for seen, wrote in shown) else None


def _other(
    test: Mapping[str, Any], metadata: Mapping[str, Any], *, variable: str
) -> dict[str, Any]:
    """Return what a test that we did not write says of its case."""
    text = test["vars"][variable]
    messages = _messages(text)
    said = [one["content"] for one in messages if one["role"] == "user"] or [text]
    asserted = [one for one in test.get("assert") or () if isinstance(one, dict)]
    graded = next((str(one["type"]).removeprefix(_GRADER) for one in asserted
                   if str(one.get("type")).startswith(_GRADER)), "custom")  # fmt: skip
    named = metadata.get("pluginId", graded)
    is_usable = isinstance(named, str) and _PLUGIN.fullmatch(named)
    facts = facts_of(named if is_usable else "custom")
    strategy = metadata.get("strategyId")
    wishes = (metadata.get("goal"), metadata.get("originalText"), said[-1])
    severity = str(metadata.get("severity")).lower()
    left = {
        "vars": {name: one for name, one in test["vars"].items() if name != variable},
        "assert": asserted if [one.get("type") for one in asserted] != [f"{_GRADER}{named}"] else 0,
        "pluginId": named if named != facts["plugin"] else 0,
        "messages": messages if len(messages) > len(said) else 0,
    }
    left = {name: part for name, part in left.items() if part}
    chain = strategy.split("+") if isinstance(strategy, str) and strategy != "basic" else []
    return {
        **facts,
        "prompt": said[-1],
        "turns": said[:-1],
        "goal": next((one for one in wishes if isinstance(one, str) and one), ""),
        "severity": severity if severity in SEVERITIES else facts["severity"],
        "strategies": [part for part in chain if part],
        "assertions": assertions_of(asserted),
        "metadata": {_THEIRS: left} if left else {},
    }


def _messages(text: str) -> list[dict[str, str]]:
    """Return the messages of a conversation that a prompt holds as JSON; none where it does not."""
    if not text.lstrip().startswith("["):
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    fits = isinstance(found, list) and found and all(map(_is_message, found))
    return found if fits and found[-1]["role"] == "user" else []


def _is_message(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.keys() == {"role", "content"}
        and one["role"] in ("system", "user", "assistant")
        and isinstance(one["content"], str)
    )
