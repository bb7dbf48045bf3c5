"""promptfoo's plugins and assertions in our words, and ours in theirs.

An assertion of promptfoo says what a good answer is; one of ours what a successful attack is. So
each becomes the negation of the other. They agree in what they look for, not in each detail: ours
overlook case, width and white space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from workbench.campaign.plugins.catalog import PLUGINS
from workbench.core.errors import ConfigError
from workbench.judge.assertions import check_assertions
from workbench.store.records import TestCase

__all__ = ["assertions_of", "facts_of", "visible_assertions"]

_PEERS: Final[dict[str, tuple[str, ...]]] = {
    "harm-violence": (
        "harmful:violent-crime", "harmful:harassment-bullying", "harmful:graphic-content"),
    "harm-hate-speech": ("harmful:hate", "harmful:insults", "bias"),
    "harm-illegal-activities": (
        "harmful:illegal-activities", "harmful:illegal-drugs", "harmful:non-violent-crime",
        "harmful:cybercrime", "harmful:child-exploitation", "harmful:sex-crime"),
    "harm-self-harm": ("harmful:self-harm", "harmful:unsafe-practices"),
    "harm-terrorism": (
        "harmful:radicalization", "harmful:chemical-biological-weapons", "harmful:weapons"),
    "prompt-injection-direct": ("hijacking", "system-prompt-override"),
    "prompt-injection-indirect": ("indirect-prompt-injection", "rag-poisoning"),
    "system-prompt-leak": ("prompt-extraction",),
    "pii": ("pii", "harmful:privacy", "cross-session-leak"),
    "excessive-agency": ("excessive-agency", "contracts"),
    "misinformation": ("harmful:misinformation-disinformation", "hallucination"),
    "hallucinated-policy": ("overreliance",),
    "over-refusal-lookalike": ("xstest",),
}  # fmt: skip
"""Our plugin → promptfoo's, its peer first. An id covers those that follow it after a colon.
Source: promptfoo 0.121.20, what its plugins attack."""
_GRADERS: Final = {"secret-leak": ("prompt-extraction",), "tool-misuse": ("excessive-agency",)}
"""Plugins of ours without a peer → the grader of theirs that comes nearest."""
_MOST: Final = 20
_PLUGIN: Final = re.compile(r"(?!file:)[\w:./-]{1,120}")
_TEMPLATE: Final = re.compile(r"\{[{%#]")
_TO_THEIRS: Final = {"contains": "icontains", "canary": "icontains", "matches": "regex",
                     "json": "is-json"}  # fmt: skip
_TO_OURS: Final = {"contains": "contains", "icontains": "contains", "regex": "matches",
                   "is-json": "json"}  # fmt: skip


def facts_of(plugin_id: Any) -> dict[str, Any]:
    """Return what the fields of a case say that promptfoo's plugin, or ours, made."""
    known = PLUGINS.names()
    if not isinstance(plugin_id, str) or not _PLUGIN.fullmatch(plugin_id):
        plugin_id = "custom"
    parts = plugin_id.split(":")
    names = [":".join(parts[:size]) for size in range(len(parts), 0, -1)]
    peers = (ours for name in names for ours, theirs in _PEERS.items() if name in theirs)
    name = plugin_id if plugin_id in known else next(peers, "")
    if name not in known:
        return {"plugin": plugin_id, "category": "other", "severity": "medium"}
    plugin = PLUGINS.get(name)
    return {
        "plugin": name, "category": plugin.category, "severity": plugin.severity,
        "taxonomy": [] if plugin.is_control else sorted(plugin.taxonomy),
        "is_control": plugin.is_control,
    }  # fmt: skip


def visible_assertions(case: TestCase) -> list[dict[str, Any]]:
    """Return what promptfoo decides by: our assertions in its words.

    What would make promptfoo read a file or fill a template is left out. Where nothing decides
    everything, its grader of the plugin does; a control only must not be refused.
    """
    visible = [said for one in case.assertions if (said := _theirs(one, case.plugin))]
    if not visible or len(visible) < len(case.assertions):
        kind = "not-is-refusal" if case.is_control else _grader_of(case.plugin)
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
        if ours not in found and len(found) < _MOST:
            found.append(ours)
    return found


@cache
def _grader_of(plugin: str) -> str:
    return f"promptfoo:redteam:{(_PEERS | _GRADERS).get(plugin, (plugin,))[0]}"


def _theirs(one: dict[str, Any], plugin: str) -> dict[str, Any]:
    kind, value = _TO_THEIRS.get(one["type"], ""), one.get("value", "")
    acts = value.startswith(("file://", "package:")) or ("{" in value and _TEMPLATE.search(value))
    if not kind or acts or (kind == "regex" and "(?" in value):
        return {}  # RE2's groups are others than JavaScript's
    said = {"type": kind if one.get("not") else f"not-{kind}"}
    return {**said, **({"value": value} if value else {}), "metric": plugin}


def _ours(one: dict[str, Any]) -> list[dict[str, Any]]:
    kind, value = str(one.get("type")), one.get("value", "")
    is_turned = {} if kind.startswith("not-") else {"not": True}
    name = kind.removeprefix("not-")
    # Ours are alternatives: any of many is bad, or any of many is missing.
    is_many = isinstance(value, list) and name.endswith("-all" if is_turned else "-any")
    ours = _TO_OURS.get(name[:-4] if is_many else name)
    if ours == "json":
        return [] if value else [{"type": ours, **is_turned}]
    values = value[:_MOST] if is_many else [value]
    return [{"type": ours, "value": text, **is_turned} for text in values if ours]
