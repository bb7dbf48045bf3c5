"""Cleaning of pairs: what is repaired, what is set aside, what is dropped, and why."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from workbench.core.redact import redact
from workbench.store.records import Pair

__all__ = ["MAX_CHARS", "MIN_CHARS", "QUARANTINED", "clean_pair", "redact_pair", "repair"]

MIN_CHARS: Final = 3
MAX_CHARS: Final = 8000
"""Longest side of a pair; the longest jailbreaks in the wild have about 6,000 characters."""
QUARANTINED: Final = "personal data or secret (quarantined)"

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
    sides: dict[str, Any] = {
        name: repair(getattr(pair, name)) for name in ("adversarial", "clean", "core")
    }
    sides["core"] = sides["core"] or sides["adversarial"]
    if any(getattr(pair, name) != text for name, text in sides.items()):
        pair = dataclasses.replace(pair, **sides)
    return pair, _reason_to_drop(pair)


def redact_pair(pair: Pair) -> Pair:
    """Return a quarantined pair as it may be stored for review."""
    return dataclasses.replace(
        pair, adversarial=redact(pair.adversarial), clean=redact(pair.clean), core=redact(pair.core)
    )


def _reason_to_drop(pair: Pair) -> str:
    sides = (pair.adversarial, pair.clean)
    if not all(sides):
        return "empty side"
    if any(len(side) < MIN_CHARS for side in sides):
        return f"shorter than {MIN_CHARS} characters"
    if any(len(side) > MAX_CHARS for side in sides):
        return f"longer than {MAX_CHARS} characters"
    is_same = pair.adversarial == pair.clean
    if is_same != (pair.relation == "identity"):
        return "sides equal" if is_same else "identity with unequal sides"
    # One field at a time: a match must not span two of them.
    if any(_is_private(text) for text in {*sides, pair.core}):
        return QUARANTINED
    return ""


@lru_cache(maxsize=4096)  # requests and clean sides recur in many pairs
def _is_private(text: str) -> bool:
    return redact(text) != text
