"""promptfoo's files of tests: read, written, and named as it names them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from workbench.campaign.interop.documents import read_document, written
from workbench.campaign.interop.javascript import stringify
from workbench.campaign.interop.promptfoo_tests import MAX_TEXT_CHARS, case_of, test_of
from workbench.core.errors import DataError
from workbench.store.records import TestCase, TestSet

__all__ = ["MAX_TEXT_CHARS", "promptfoo_id", "promptfoo_tests", "read_promptfoo", "write_promptfoo"]

_VARIABLE: Final = "prompt"
_MOST_VALUES: Final = 1_000
"""Prompts that one test may deal out as a list."""
_TEMPLATE: Final = re.compile(r"\benv\.|env\[")
_NOT_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON allows inside of quotes and YAML does not, or folds."""
_ECHO: Final = ("echo",)
"""promptfoo's own provider that sends nothing and answers with the prompt."""


def promptfoo_tests(cases: Iterable[TestCase]) -> list[dict[str, Any]]:
    """Return cases as promptfoo's ``tests``, keys in its order."""
    return [test_of(case) for case in cases]


def promptfoo_id(tests: Iterable[Mapping[str, Any]]) -> str:
    """Return the id that promptfoo gives a data set of these tests.

    Source:
        promptfoo 0.121.20: hex sha256 of ``JSON.stringify(config.tests || [])``.
    """
    digest = hashlib.sha256(b"[")
    for number, test in enumerate(tests):
        digest.update(f"{',' * (number > 0)}{stringify(test)}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def read_promptfoo(path: Path) -> TestSet:
    """Return the test set of a red-team file of promptfoo, YAML or JSON; each case once.

    Nothing that the file refers to is read, run or fetched. The recipe says what the file says of
    the application under ``purpose`` and ``entities``, and promptfoo's id of the tests.

    Raises:
        DataError: If the file cannot be read or a test has no prompt; names file, line and fix.
    """
    document = read_document(path)
    config = document.value if isinstance(document.value, dict) else {"tests": document.value}
    tests = config.get("tests")
    if not isinstance(tests, list) or not tests:
        raise DataError(f"{path}: has no list of tests; run 'promptfoo redteam generate' into it")
    default = _section(_section(config, "defaultTest"), "metadata")
    variable = _section(config, "redteam").get("injectVar")
    cases: dict[str, TestCase] = {}
    for number, test in enumerate(tests):
        line = f"line {document.lines[number]}: " if number < len(document.lines) else ""
        place = f"{path}: {line}test {number + 1}"
        for single in _dealt(test, variable, place):
            case = case_of(single, variable=_attacked(single["vars"], variable), place=place)
            cases.setdefault(case.id, case)
    about = {name: default[name] for name in ("purpose", "entities") if name in default}
    recipe = {"source": "promptfoo", "promptfoo_id": promptfoo_id(tests), **about}
    return TestSet(cases=tuple(cases.values()), recipe=recipe)


def write_promptfoo(
    cases: Iterable[TestCase],
    path: Path,
    *,
    targets: Sequence[str | Mapping[str, Any]] = _ECHO,
    purpose: str = "",
    entities: Sequence[str] = (),
) -> str:
    """Write a red-team file that promptfoo evaluates; return the id that promptfoo gives its tests.

    :func:`read_promptfoo` gives the same cases. They are written as they come, one in memory.

    Args:
        cases: What to write, a test set for one.
        path: Where to; replaced once all is written.
        targets: promptfoo's providers: ids, or objects as its documentation describes them.
        purpose: What the application is for; its graders read it.
        entities: Names that an answer may say without leaking them.

    Raises:
        DataError: If promptfoo would put environment variables or files into a prompt.
        StoreError: If the file cannot be written.
    """
    about = {"purpose": purpose, "entities": list(entities)}
    head = {
        "description": "Written by prompt-safety-workbench",
        "targets": list(targets),
        "prompts": [f"{{{{{_VARIABLE}}}}}"],
        # promptfoo fills no templates in the variable that its red-team settings name
        "redteam": {"purpose": purpose or "Not said", "injectVar": _VARIABLE},
        "defaultTest": {"metadata": {name: value for name, value in about.items() if value}},
    }
    tests = (_checked(case) for case in cases)
    digest = hashlib.sha256(b"[")
    between = b""
    with written(path) as file:
        file.write(yaml.safe_dump(head, sort_keys=False) + "tests:\n")
        for test in tests:
            line = stringify(test)
            digest.update(between + line.encode())
            between = b","
            file.write(f"- {_NOT_YAML.sub(_escaped, line)}\n")
        if not between:
            raise DataError("there are no cases to write; choose another test set")
    digest.update(b"]")
    return digest.hexdigest()


def _escaped(char: re.Match[str]) -> str:
    return f"\\u{ord(char[0]):04x}"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _dealt(test: Any, variable: Any, place: str) -> Iterator[dict[str, Any]]:
    """Yield a test, or one per prompt where it lists several."""
    if isinstance(test, str):
        raise DataError(f"{place} is in another file, {test[:80]!r}; give that file itself")
    if not isinstance(test, dict) or not isinstance(test.get("vars"), dict) or not test["vars"]:
        raise DataError(f"{place} has no vars; write the prompt under vars.{_VARIABLE}")
    name = _attacked(test["vars"], variable, place)
    value = test["vars"][name]
    values = value if isinstance(value, list) else [value]
    if not values or len(values) > _MOST_VALUES:
        raise DataError(f"{place}: {len(values)} prompts; write 1 to {_MOST_VALUES:,}")
    for one in values:
        text = one if isinstance(one, str) else stringify(one)
        yield {**test, "vars": {**test["vars"], name: text}}


def _attacked(variables: Mapping[str, Any], named: Any, place: str = "") -> str:
    """Return the variable that carries the attack: the one named, ``prompt``, or the only one."""
    for name in (named, _VARIABLE, *(variables if len(variables) == 1 else ())):
        if isinstance(name, str) and name in variables:
            return name
    raise DataError(
        f"{place}: none of its variables is {_VARIABLE!r}; name the attacked one in "
        "redteam.injectVar"
    )


def _checked(case: TestCase) -> dict[str, Any]:
    """Return the test of a case; refuse one that promptfoo would fill before it is sent."""
    test = test_of(case)
    prompt = test["vars"][_VARIABLE]
    if prompt.startswith("file://"):
        raise DataError(
            f"case {case.id[:12]}: promptfoo would look for files of the name that the prompt "
            "begins with; leave the case out"
        )
    for text in (prompt, *filter(_is_text, test["metadata"].values())):
        # Linear, unlike a pattern over both pairs of braces.
        for part in text.split("}}")[:-1]:
            start = part.find("{{")
            if start >= 0 and _TEMPLATE.search(part, start):
                raise DataError(
                    f"case {case.id[:12]}: promptfoo would fill the template {part[start:][:40]!r} "
                    "from the environment of whoever runs it; leave the case out"
                )
    return test


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
