"""What decides about an answer, in promptfoo's words and in ours.

An assertion of promptfoo says what a good answer is; one of ours what a successful attack is. So
each becomes the negation of the other. They agree in what they look for, not in each detail: ours
overlook case, width and white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from workbench.campaign.interop.promptfoo_plugins import grader_of
from workbench.core.errors import ConfigError
from workbench.judge.assertions import check_assertions
from workbench.store.records import TestCase

__all__ = ["assertions_of", "visible_assertions"]

_MOST: Final = 20
_SAFE: Final = re.compile(
    r"(?:not-)?(?:i?contains(?:-any|-all)?|i?equals|starts-with|regex|is-json|contains-json"
    r"|is-refusal|word-count)|promptfoo:redteam:[\w:-]{1,120}"
)
"""Types that run no code and ask nobody but promptfoo's own graders."""
_TEMPLATE: Final = re.compile(r"\{[{%#]")
_KEPT: Final = ("type", "value", "metric", "threshold", "weight")
_TO_THEIRS: Final = {"contains": "icontains", "canary": "icontains", "matches": "regex",
                     "json": "is-json"}  # fmt: skip
_TO_OURS: Final = {"contains": "contains", "icontains": "contains", "regex": "matches",
                   "is-json": "json"}  # fmt: skip


def visible_assertions(case: TestCase, theirs: Any) -> list[dict[str, Any]]:
    """Return what promptfoo decides by: another's own assertions, else ours in its words.

    What would make promptfoo run code, read a file or fill a template is left out. Where nothing
    decides everything, its grader of the plugin does; a control only must not be refused.
    """
    own: list[Any] = theirs if isinstance(theirs, list) else []
    if kept := [one for one in own if _is_harmless(one)]:
        return [{name: one[name] for name in _KEPT if name in one} for one in kept]
    visible = [said for one in case.assertions if (said := _theirs(one, case.plugin))]
    if not visible or len(visible) < len(case.assertions):
        kind = "not-is-refusal" if case.is_control else grader_of(case.plugin)
        visible.append({"type": kind, "metric": case.plugin})
    return visible


def assertions_of(asserted: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those assertions of promptfoo that say the same in our words."""
    found: list[dict[str, Any]] = []
    for ours in (ours for one in asserted for ours in _ours(one)):
        try:
            check_assertions([ours])
        except ConfigError:
            continue  # nothing that we could decide
        if ours not in found:
            found.append(ours)
        if len(found) == _MOST:
            break
    return found


def _theirs(one: dict[str, Any], plugin: str) -> dict[str, Any]:
    kind, value = _TO_THEIRS.get(one["type"], ""), one.get("value", "")
    if not kind or not _is_inert(value) or (kind == "regex" and "(?" in value):
        return {}  # RE2's groups are others than JavaScript's
    said = {"type": kind if one.get("not") else f"not-{kind}"}
    return {**said, **({"value": value} if value else {}), "metric": plugin}


def _ours(one: dict[str, Any]) -> list[dict[str, Any]]:
    kind, value = str(one.get("type")), one.get("value")
    is_turned = {} if kind.startswith("not-") else {"not": True}
    name = kind.removeprefix("not-")
    values = [value]
    if name.endswith(("-any", "-all")):
        # Ours are alternatives: any of many is bad, or any of many is missing.
        fits = name.endswith("-any") != bool(is_turned)
        values = value if fits and isinstance(value, list) else []
        name = name[:-4]
    ours = _TO_OURS.get(name)
    if ours == "json":
        return [] if value else [{"type": ours, **is_turned}]
    return [{"type": ours, "value": text, **is_turned} for text in values[:_MOST] if ours]


def _is_harmless(one: Any) -> bool:
    """Return whether promptfoo would do nothing with an assertion but compare."""
    if not isinstance(one, dict) or not _SAFE.fullmatch(str(one.get("type"))):
        return False
    values = (one.get(name, 0) for name in _KEPT)
    return all(map(_is_inert, (inner for value in values for inner in (
        value if isinstance(value, list) else [value]))))  # fmt: skip


def _is_inert(value: Any) -> bool:
    """Return whether promptfoo takes a value as it is: reads no file, fills no template."""
    if not isinstance(value, str):
        return isinstance(value, int | float)
    is_reference = value.startswith(("file://", "package:"))
    return not is_reference and ("{" not in value or not _TEMPLATE.search(value))
