"""promptfoo's files of tests: read, written, and named as it names them.

A test that we wrote has the whole case in ``metadata.workbench``, as one JSON text. It comes back
as that case unless its prompt, goal or assertions were edited: then it is read like another's. What
another's test has and a case has no place for stays in the case under ``metadata["promptfoo"]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from workbench.campaign.interop.documents import HALF, not_deep, read_document, stringify, written
from workbench.campaign.interop.incoming import SEVERITIES, checked_case, objects, section
from workbench.campaign.interop.promptfoo_words import assertions_of, facts_of, visible_assertions
from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import storable
from workbench.judge.assertions import check_assertions
from workbench.store.records import TestCase, TestSet

__all__ = [
    "as_test",
    "attacked",
    "case_of",
    "promptfoo_id",
    "promptfoo_tests",
    "read_promptfoo",
    "write_promptfoo",
]  # fmt: skip

_VARIABLE: Final = "prompt"
_RECORD: Final = "workbench"
"""Name of our record in a test's metadata."""
_FORMAT: Final = "1 "
"""Before the JSON of a record: promptfoo opens texts that are JSON and changes numbers in them."""
_HIDDEN: Final = "[REDACTED]"
"""What promptfoo's results show for what could be a key, such as base64 of 64 characters."""
_GRADER: Final = "promptfoo:redteam:"
_MOST_VALUES: Final = 1_000
"""Prompts that one test may deal out as a list."""
_MOST_PURPOSE: Final = 10_000
_FILLED: Final = re.compile(r"\benv\.|env\[")
_NOT_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON allows inside of quotes and YAML does not, or folds."""
_ECHO: Final = ("echo",)
"""promptfoo's own provider that sends nothing and answers with the prompt."""


def promptfoo_tests(cases: Iterable[TestCase]) -> Iterator[dict[str, Any]]:
    """Iterate over cases as promptfoo's ``tests``, keys in its order."""
    return map(as_test, cases)


def promptfoo_id(tests: Iterable[Mapping[str, Any]]) -> str:
    """Return the id that promptfoo gives a data set of these tests; hashed as they come.

    Source:
        promptfoo 0.121.20: hex sha256 of ``JSON.stringify(config.tests || [])``.
    """
    return _hashed(stringify(test) for test in tests)


def _hashed(items: Iterable[str]) -> str:
    """Return the hash of a JSON list of these items; one in memory."""
    digest, before = hashlib.sha256(b"["), b""
    for item in items:
        digest.update(before + item.encode())
        before = b","
    digest.update(b"]")
    return digest.hexdigest()


def read_promptfoo(path: Path) -> TestSet:
    """Return the test set of a red-team file of promptfoo, YAML or JSON; each case once.

    Nothing that the file refers to is read, run or fetched. The recipe says what the file says of
    the application under ``purpose``, and promptfoo's id of the tests.

    Raises:
        DataError: If the file cannot be read or a test has no prompt; names file, test and fix.
    """
    found = read_document(path)
    config = found if isinstance(found, dict) else {"tests": found}
    tests = config.get("tests")
    if not isinstance(tests, list) or not tests:
        raise DataError(f"{path}: has no list of tests; run 'promptfoo redteam generate' into it")
    default = section(section(config, "defaultTest"), "metadata")
    named = section(config, "redteam").get("injectVar")
    cases: dict[str, TestCase] = {}
    for number, test in enumerate(tests, 1):
        place = f"{path}: test {number}"
        for single, variable in _dealt(test, named, place):
            case = case_of(single, variable=variable, place=place)
            cases.setdefault(case.id, case)
    recipe = {"source": "promptfoo", "promptfoo_id": promptfoo_id(tests)}
    if isinstance(purpose := default.get("purpose"), str):
        recipe["purpose"] = storable(purpose)[:_MOST_PURPOSE]
    return TestSet(cases=tuple(cases.values()), recipe=recipe)


def write_promptfoo(
    cases: Iterable[TestCase],
    path: Path,
    *,
    targets: Sequence[str | Mapping[str, Any]] = _ECHO,
    purpose: str = "",
) -> str:
    """Write a red-team file that promptfoo evaluates; return the id that promptfoo gives its tests.

    :func:`read_promptfoo` gives the same cases. They are written as they come, one in memory.

    Args:
        cases: What to write, a test set for one.
        path: Where to, replaced once all is written; ``.json`` for sets over some 10,000 cases.
        targets: promptfoo's providers: ids, or objects as its documentation describes them.
        purpose: What the application is for; its graders read it.

    Raises:
        DataError: If there are none, or promptfoo would put environment variables or files into a
            prompt.
        StoreError: If the file cannot be written.
    """
    head = {
        "description": "Written by prompt-safety-workbench",
        "targets": list(targets),
        "prompts": [f"{{{{{_VARIABLE}}}}}"],
        # promptfoo fills no templates in the variable that its red-team settings name
        "redteam": {"purpose": purpose or "Not said", "injectVar": _VARIABLE},
        "defaultTest": {"metadata": {"purpose": purpose} if purpose else {}},
    }
    if path.suffix.lower() == ".json":
        opening, item, between, ending = f'{stringify(head)[:-1]},"tests":[\n', "", ",", "]}\n"
    else:
        opening, item, between, ending = f"{yaml.safe_dump(head)}tests:\n", "- ", "", ""

    def lines(file: TextIO) -> Iterator[str]:
        file.write(opening)
        before = ""
        for case in cases:
            yield (line := stringify(_checked(case)))
            escaped = _NOT_YAML.sub(lambda char: f"\\u{ord(char[0]):04x}", line)
            file.write(f"{before}{item}{escaped}\n")
            before = between
        if file.tell() == len(opening):
            raise DataError("there are no cases to write; choose another test set")
        file.write(ending)

    with written(path) as file:
        return _hashed(lines(file))


def attacked(variables: Mapping[str, Any], named: Any, *, place: str) -> str:
    """Return the variable that carries the attack: the one named, ``prompt``, or the only one.

    Raises:
        DataError: If there is none.
    """
    for name in (named, _VARIABLE, *(variables if len(variables) == 1 else ())):
        if isinstance(name, str) and name in variables:
            return name
    raise DataError(f"{place}: none of its variables is {_VARIABLE!r}; name the attacked one in "
                    "redteam.injectVar")  # fmt: skip


def _dealt(test: Any, named: Any, place: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a test and its attacked variable, or one per prompt where it lists several."""
    if isinstance(test, str):
        raise DataError(f"{place} is in another file, {test[:80]!r}; give that file itself")
    variables = section(test, "vars")
    if not variables:
        raise DataError(f"{place} has no vars; write the prompt under vars.{_VARIABLE}")
    name = attacked(variables, named, place=place)
    values = variables[name] if isinstance(variables[name], list) else [variables[name]]
    if not values or len(values) > _MOST_VALUES:
        raise DataError(f"{place}: {len(values)} prompts; write 1 to {_MOST_VALUES:,}")
    for one in values:
        text = one if isinstance(one, str) else stringify(one)
        yield {**test, "vars": {**variables, name: text}}, name


def _checked(case: TestCase) -> dict[str, Any]:
    """Return the test of a case; refuse one that no file holds, or that promptfoo would fill."""
    test = as_test(case)
    prompt, place = test["vars"][_VARIABLE], f"case {case.id[:12]}"
    if prompt.startswith("file://"):
        raise DataError(f"{place}: promptfoo would look for files of the name that the prompt "
                        "begins with; leave the case out")  # fmt: skip
    for text in (prompt, *(one for one in test["metadata"].values() if isinstance(one, str))):
        if not text.isascii() and HALF.search(text):
            raise DataError(f"{place} has half a character, which no file in UTF-8 holds; "
                            "leave the case out")  # fmt: skip
        # Linear, unlike a pattern over both pairs of braces.
        for part in text.split("}}")[:-1]:
            start = part.find("{{")
            if start >= 0 and _FILLED.search(part, start):
                raise DataError(
                    f"{place}: promptfoo would fill the template {part[start:][:40]!r} from the "
                    "environment of whoever runs it; leave the case out"
                )
    return test


def as_test(case: TestCase) -> dict[str, Any]:
    """Return a case as promptfoo's test, keys in its order."""
    metadata: dict[str, Any] = {
        "goal": case.goal, "pluginId": case.plugin, "severity": case.severity, "modifiers": {}
    }  # fmt: skip
    if case.strategies:
        metadata |= {"strategyId": "+".join(case.strategies), "originalText": case.goal}
    # Braces in pairs are a template to promptfoo; in JSON they stand inside of texts only.
    metadata[_RECORD] = _FORMAT + case.line.replace("{{", "{\\u007b")
    prompt = case.prompt
    if case.turns:
        said = [{"role": "user", "content": text} for text in (*case.turns, prompt)]
        prompt = stringify(said)
    return {
        "vars": {_VARIABLE: prompt}, "assert": visible_assertions(case), "metadata": metadata
    }  # fmt: skip


def case_of(test: Mapping[str, Any], *, variable: str, place: str) -> TestCase:
    """Return promptfoo's test, of which a variable carries the attack as a text, as a case.

    Raises:
        DataError: If a text is too long, naming the place.
    """
    return _own(test, place) or checked_case(_other(test, variable=variable), place=place)


def _own(test: Mapping[str, Any], place: str) -> TestCase | None:
    """Return the case that a test was written from; None where there is none, or it was edited."""
    metadata = section(test, "metadata")
    record = metadata.get(_RECORD)
    if not isinstance(record, str) or not record.startswith(_FORMAT):
        return None
    try:
        fields = not_deep(json.loads(record.removeprefix(_FORMAT)))
        case = checked_case(fields, place=place)
        check_assertions(case.assertions)
        ours = as_test(case)
    except (AttributeError, ConfigError, DataError, KeyError, RecursionError, ValueError):
        return None
    shown = ((test["vars"].get(_VARIABLE), ours["vars"][_VARIABLE]),
             (metadata.get("goal"), case.goal), (test.get("assert"), ours["assert"]))  # fmt: skip
    return case if all(seen in (_HIDDEN, wrote) for seen, wrote in shown) else None


def _other(test: Mapping[str, Any], *, variable: str) -> dict[str, Any]:
    """Return what a test that we did not write says of its case."""
    metadata = section(test, "metadata")
    said = _said(test["vars"][variable])
    asserted = objects(test.get("assert"))
    kinds = [str(one.get("type")) for one in asserted]
    graded = [kind.removeprefix(_GRADER) for kind in kinds if kind.startswith(_GRADER)]
    named = metadata.get("pluginId", graded[0] if graded else "custom")
    facts = facts_of(named)
    wishes = (metadata.get("goal"), metadata.get("originalText"))
    severity, strategy = str(metadata.get("severity")).lower(), metadata.get("strategyId")
    chain = strategy.split("+") if isinstance(strategy, str) and strategy != "basic" else []
    others = {name: one for name, one in test["vars"].items() if name != variable}
    left = {"vars": others} if others else {}
    left |= {"pluginId": named} if named != facts["plugin"] else {}
    return {
        **facts, "prompt": said[-1], "turns": said[:-1], "assertions": assertions_of(asserted),
        "goal": next((one for one in wishes if isinstance(one, str) and one), said[-1]),
        "severity": severity if severity in SEVERITIES else facts["severity"],
        "strategies": [part for part in chain if part],
        "metadata": {"promptfoo": left} if left else {},
    }  # fmt: skip


def _said(text: str) -> list[str]:
    """Return what the user says in a conversation that a prompt holds as JSON; else the prompt."""
    try:
        found = json.loads(text) if text.lstrip().startswith("[") else []
    except (ValueError, RecursionError):
        return [text]
    messages = objects(found)
    users = [str(one.get("content")) for one in messages if one.get("role") == "user"]
    is_one = users and messages[-1].get("role") == "user" and len(messages) == len(found)
    return users if is_one else [text]
