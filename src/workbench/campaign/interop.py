"""promptfoo's shape of a test set: its tests, its dataset id, its red-team file."""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from typing import Any

from workbench.core.errors import DataError
from workbench.store.records import TestCase, TestSet

__all__ = ["javascript_json", "promptfoo_id", "promptfoo_tests", "promptfoo_yaml"]

_LARGEST_INDEX = 2**32 - 2
_EXACT_INTEGER = 2**53
_MOST_FIXED_DIGITS = 21
_MOST_LEADING_ZEROS = -6


def promptfoo_tests(test_set: TestSet) -> list[dict[str, Any]]:
    """Return the cases as promptfoo's ``tests``, keys in its order."""
    return [_test(case) for case in test_set.cases]


def promptfoo_id(tests: list[dict[str, Any]]) -> str:
    """Return the id that promptfoo gives a data set of these tests.

    Raises:
        DataError: If a value has no JSON.

    Source:
        promptfoo 0.121.20: hex sha256 of ``JSON.stringify(config.tests || [])``.
    """
    return hashlib.sha256(javascript_json(tests).encode("utf-8")).hexdigest()


def promptfoo_yaml(test_set: TestSet, *, purpose: str) -> str:
    """Return a ``redteam.yaml`` that promptfoo evaluates; targets are left to its reader.

    Args:
        test_set: Cases to write.
        purpose: What the system under test is for, in words.
    """
    import yaml

    document = {
        "defaultTest": {"metadata": {"purpose": purpose, "entities": []}},
        "prompts": ["{{prompt}}"],
        "tests": promptfoo_tests(test_set),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000)


def javascript_json(value: Any) -> str:
    """Return what ``JSON.stringify`` of JavaScript returns for plain JSON values.

    Raises:
        DataError: If the value is not plain JSON.

    Source:
        ECMA-262, 25.5.2 (JSON.stringify), 6.1.6.1.20 (Number::toString), 10.1.11.1 (key order).
    """
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(javascript_json(one) for one in value) + "]"
    if isinstance(value, dict):
        keys = sorted(value, key=_key_rank)
        return "{" + ",".join(f"{_string(key)}:{javascript_json(value[key])}" for key in keys) + "}"
    raise DataError(
        f"not plain JSON: a {type(value).__name__}; use strings, numbers, lists, objects"
    )


def _test(case: TestCase) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "goal": case.goal,
        "pluginId": case.plugin,
        "severity": case.severity,
        "modifiers": {},
    }
    if case.strategies:
        metadata |= {"strategyId": "+".join(case.strategies), "originalText": case.goal}
    return {
        "vars": {"prompt": case.prompt},
        "assert": [{"type": f"promptfoo:redteam:{case.plugin}", "metric": case.plugin}],
        "metadata": metadata,
    }


def _key_rank(key: str) -> tuple[int, int]:
    # JavaScript lists keys that are array indices first, ascending; Python's sort is stable.
    if key.isascii() and key.isdigit() and str(int(key)) == key and int(key) <= _LARGEST_INDEX:
        return 0, int(key)
    return 1, 0


def _string(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in quoted)


def _number(value: float) -> str:
    if isinstance(value, int) and abs(value) <= _EXACT_INTEGER:
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return "null"
    # repr gives the shortest digits that read back, as JavaScript does; only the layout differs.
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + int(exponent)
    if number == 0:
        return "0"
    if len(text) <= point <= _MOST_FIXED_DIGITS:
        shown = text + "0" * (point - len(text))
    elif 0 < point <= _MOST_FIXED_DIGITS:
        shown = f"{text[:point]}.{text[point:]}"
    elif _MOST_LEADING_ZEROS < point <= 0:
        shown = f"0.{'0' * -point}{text}"
    else:
        rest = f".{text[1:]}" if len(text) > 1 else ""
        shown = f"{text[0]}{rest}e{point - 1:+d}"
    return "-" * sign + shown
