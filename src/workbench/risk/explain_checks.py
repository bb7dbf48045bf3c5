"""What a model wrote about a risk, held against the facts that it was given."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from workbench.core.plain import one_line, storable
from workbench.llm.packing import objects_in

__all__ = ["Item", "Written", "objection", "read_answer"]

_MOST_SUMMARY, _MOST_ACTION = 400, 200
_FEWEST_CHARS = 12
_CVE = re.compile(r"\bCVE-\d{4}-\d{4,19}\b")
_URL = re.compile(
    r"\b(?:data|javascript|mailto|[a-z]{2,9}(?=://)):(?=\S)[^\s\"'<>]*|\bwww\.[^\s\"'<>]*"
    r"|@[\w-]+\.[a-z]+|\b[\w-]+\.(?:com|net|org|io|info|biz|dev|app|co|ru|cn|xyz|top|example)\b",
    re.IGNORECASE,
)
_DISMISSES = re.compile(
    r"\b(?:no action|nothing) (?:is |needs |has )?(?:needed|required|necessary|to be done|to do)\b"
    r"|\b(?:can|may|should) (?:safely )?be (?:safely )?(?:ignored|dismissed|closed)\b"
    r"|(?:^|[.!?] )ignore\b|\bsafe to ignore\b|\bfalse (?:positive|alarm)\b"
    r"|\b(?:is|are) harmless\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"</?[a-z!]|\]\(|```|\*\*|&#?\w{2,8};", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = frozenset(
    {"all", "and", "are", "can", "for", "from", "has", "not", "that", "the", "with"}
)
_LEVEL = r"(low|medium|high|critical)"
_LEVELS = re.compile(
    rf"\b{_LEVEL}[ -](?:risk|severity|priority|level|urgency|rating)\b"
    rf"|\b(?:risk|severity|priority|level|urgency|rated|ranked|ranks)(?: is| as|:)? {_LEVEL}\b",
    re.IGNORECASE,
)
_COUNTED = frozenset("0123456789") | {"10", "30"}
"""Numbers that need no fact: one step, two systems, EPSS's 30 days."""


class Item(NamedTuple):
    """What a model is asked about."""

    subject: str
    """What the risk is of, e.g. a CVE id."""
    level: str
    """How it ranks, which no model decides."""
    about: str
    """Names and descriptions: a summary that shares no word with them is of something else."""
    facts: str
    """All that the model is given, as JSON."""


class Written(NamedTuple):
    """One usable answer."""

    summary: str
    action: str
    is_unsure: bool = False

    def in_words(self) -> str:
        """Return it as sentences."""
        unsure = "The model that wrote this calls itself unsure." if self.is_unsure else ""
        sentences = (self.summary, self.action, unsure)
        return " ".join(one if one[-1] in ".!?" else f"{one}." for one in sentences if one)


def read_answer(text: str, item: Item) -> Written | str:
    """Return what a model wrote about an item, or why it cannot be used.

    It is as little to be trusted as what the model read.
    """
    for found in objects_in(text):
        if "summary" in found or "action" in found:
            return _checked(found, item)
    return "no JSON with summary and action"


def objection(text: str, *, facts: str, level: str = "") -> str:
    """Return why a text does not keep to the facts; empty if nothing is found.

    It may name no CVE, number or address that the facts do not name, no other level, dismiss no
    risk, and hold no markup. That finds what is made up of these kinds, and nothing else.
    """
    given = facts.lower()
    if strays := set(_CVE.findall(text.upper())) - set(_CVE.findall(given.upper())):
        return f"it names {min(strays)}, which it was not asked about"
    if any(one.lower() not in given for one in _URL.findall(text)):
        return "it names an address that is not among the facts"
    if _MARKUP.search(text):
        return "it holds markup"
    if level and _DISMISSES.search(text):
        return "it says that nothing needs to be done"
    told = {one for found in _LEVELS.findall(text) for one in found if one}
    if level and {one.lower() for one in told} - {level}:
        return f"it ranks the risk otherwise than {level}"
    numbers = _numbers(text) - _numbers(facts) - _COUNTED
    return f"it names {min(numbers)}, which is not among the facts" if numbers else ""


def _checked(found: dict[str, Any], item: Item) -> Written | str:
    values = (found.get("summary"), found.get("action"))
    if not all(isinstance(value, str) for value in values):
        return "summary or action is missing"
    summary, action = (one_line(storable(str(value))) for value in values)
    if min(len(summary), len(action)) < _FEWEST_CHARS:
        return "summary or action is empty"
    if len(summary) > _MOST_SUMMARY or len(action) > _MOST_ACTION:
        return "it is too long"
    words = _words(item.about)
    if words and item.subject not in summary and not words & _words(summary):
        return "it is about something else"
    if why := objection(f"{summary} {action}", facts=item.facts, level=item.level):
        return why
    return Written(summary, action, found.get("confidence") == "low")


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _COMMON


def _numbers(text: str) -> set[str]:
    return {one.replace(",", "") for one in _NUMBER.findall(text)}
