"""What decides about an answer, in promptfoo's words and in ours.

An assertion of promptfoo says what a good answer is; one of ours what a successful attack is. So
each becomes the negation of the other. They agree in what they look for, not in each detail: ours
overlook case, width and white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
_KEPT: Final = ("type", "value", "metric", "threshold", "weight")
_TO_THEIRS: Final = {"contains": "icontains", "canary": "icontains", "matches": "regex",
                     "json": "is-json"}  # fmt: skip
_TO_OURS: Final = {"contains": "contains", "icontains": "contains", "regex": "matches",
                   "is-json": "json", "contains-any": "contains", "icontains-any": "contains",
                   "contains-all": "contains", "icontains-all": "contains"}  # fmt: skip


def visible_assertions(case: TestCase, theirs: Any) -> list[dict[str, Any]]:
    """Return what promptfoo decides by: another's own assertions, else ours in its words.

    What would make promptfoo run code, read a file or fill a template is left out. Where nothing
    decides everything, its grader of the plugin does; a control only must not be refused.
    """
    own: list[Any] = theirs if isinstance(theirs, list) else []
    if kept := [one for one in map(_harmless, own) if one]:
        return kept
    decided = [_theirs(one, case.plugin) for one in case.assertions]
    visible = [one for one in decided if one]
    if not visible or len(visible) < len(decided):
        kind = "not-is-refusal" if case.is_control else grader_of(case.plugin)
        visible.append({"type": kind, "metric": case.plugin})
    return visible


def assertions_of(asserted: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those assertions of promptfoo that say the same in our words."""
    found = [ours for one in asserted for ours in _ours(one) if _is_usable(ours)]
    return [one for number, one in enumerate(found) if one not in found[:number]][:_MOST]


def _theirs(one: dict[str, Any], plugin: str) -> dict[str, Any] | None:
    kind = _TO_THEIRS.get(str(one.get("type")))
    value = one.get("value")
    if kind is None or (kind == "regex" and "(?" in str(value)):  # RE2's groups are others
        return None
    said = {"type": kind if one.get("not") else f"not-{kind}"}
    if isinstance(value, str):
        said["value"] = value
    return _harmless({**said, "metric": plugin})


def _ours(one: dict[str, Any]) -> list[dict[str, Any]]:
    kind, value = str(one.get("type")), one.get("value")
    name = kind.removeprefix("not-")
    is_turned = {} if kind.startswith("not-") else {"not": True}
    ours = _TO_OURS.get(name)
    if ours is None:
        return []
    if name.endswith(("-any", "-all")):
        # Ours are alternatives: any of many is bad, or any of many is missing.
        many = value if isinstance(value, list) else []
        fits = name.endswith("-any") != bool(is_turned)
        return [{"type": ours, "value": text, **is_turned} for text in many] if fits else []
    if ours == "json":
        return [] if value else [{"type": ours, **is_turned}]
    return [{"type": ours, "value": value, **is_turned}]


def _is_usable(one: dict[str, Any]) -> bool:
    try:
        check_assertions([one])
    except ConfigError:
        return False
    return True


def _harmless(one: Any) -> dict[str, Any] | None:
    """Return an assertion without what promptfoo would act on; None where that is all of it."""
    if not isinstance(one, dict) or not _SAFE.fullmatch(str(one.get("type"))):
        return None
    kept = {name: one[name] for name in _KEPT if name in one}
    return kept if all(map(_is_inert, kept.values())) else None


def _is_inert(value: Any) -> bool:
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    return all(
        isinstance(one, int | float)
        or (
            isinstance(one, str)
            and not one.startswith(("file://", "package:"))
            and not any(mark in one for mark in ("{{", "{%", "{#"))
        )
        for one in values
    )
