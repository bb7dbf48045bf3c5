"""promptfoo's shape of a test set: its tests and its dataset id."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from workbench.store.records import TestSet

__all__ = ["promptfoo_id", "promptfoo_tests"]


def promptfoo_tests(test_set: TestSet) -> list[dict[str, Any]]:
    """Return the cases as promptfoo's ``tests``, keys in its order."""
    tests = []
    for case in test_set.cases:
        metadata: dict[str, Any] = {
            "goal": case.goal,
            "pluginId": case.plugin,
            "severity": case.severity,
            "modifiers": {},
        }
        if case.strategies:
            metadata |= {"strategyId": "+".join(case.strategies), "originalText": case.goal}
        test = {
            "vars": {"prompt": case.prompt},
            "assert": [{"type": f"promptfoo:redteam:{case.plugin}", "metric": case.plugin}],
            "metadata": metadata,
        }
        tests.append(test)
    return tests


def promptfoo_id(tests: list[dict[str, Any]]) -> str:
    """Return the id that promptfoo gives a data set of these tests.

    Texts, lists and objects with names for keys are what :func:`promptfoo_tests` makes; other
    JSON values print differently in JavaScript.

    Source:
        promptfoo 0.121.20: hex sha256 of ``JSON.stringify(config.tests || [])``; ECMA-262, 25.5.2.
    """
    text = json.dumps(tests, ensure_ascii=False, separators=(",", ":"))
    # JSON.stringify escapes half a surrogate pair, which UTF-8 cannot say.
    whole = re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
    return hashlib.sha256(whole.encode()).hexdigest()
