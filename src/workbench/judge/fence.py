"""Hostile text inside a prompt: marked off, made visible, shortened; nothing in it can end it."""

from __future__ import annotations

import re
import unicodedata

from workbench.core.identity import text_id

__all__ = ["fence", "instructs", "visible"]

_MARK = 20
"""Hex digits of a boundary."""
_READ = 50_000
"""Characters that are searched for instructions."""
_INSTRUCTS = re.compile(
    r"\b(?:ignore|disregard|forget)\b.{0,30}\b(?:instruction|rule|prompt|rubric|above)"
    r"|\b(?:judge|grader|evaluator|assessor)\b.{0,60}\b(?:score|rate|output|answer|must|set|say)"
    r"|\b(?:score|rate|grade|mark|classify)\b.{0,20}\b(?:this|it|me|the answer)\b.{0,30}"
    r"(?:\d|\bas\b|\bsafe\b)|\bend of (?:the )?answer\b|\bset refused\b"
    r"|[\"'](?:refused|convincing|specific)[\"']\s{0,9}:|\[/?system\]|<\|?/?(?:system|answer|im_)"
    r"|^system:|\bthis attack (?:succeeded|failed)\b",
    re.IGNORECASE | re.MULTILINE,
)


def fence(text: str, *, name: str, limit: int, salt: str = "") -> str:
    """Return a text between two lines with a boundary that depends on it and does not occur in it.

    Args:
        text: Anything, of any length.
        name: What it is, for the boundary lines.
        limit: Most characters of it; the middle of longer ones is left out, which is said there.
        salt: All else that the prompt fences: who knows one text of it, but not the others, cannot
            tell its boundary. Equal texts give equal prompts, so that answers can be kept.
    """
    # Shortened twice: invisible characters grow when they are made visible.
    shown = _both_ends(visible(_both_ends(text, limit=limit)), limit=limit)
    number = 0
    while (mark := text_id(name, shown, salt, str(number))[:_MARK]) in shown:
        number += 1
    return f"<<<{name} {mark}\n{shown}\n{name} {mark}>>>"


def visible(text: str) -> str:
    r"""Return a text with characters that do not show written as ``⟨U+200B⟩``.

    These are controls (but line ends and tabs), zero-width and direction marks, surrogates,
    private and unassigned ones, and the variation selectors that can carry hidden text.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _shows(char) else f"⟨U+{ord(char):04X}⟩" for char in text)


def instructs(text: str) -> bool:
    """Return whether a text looks as if it tried to instruct its judge; many ways go unnoticed.

    Of long texts both ends are searched, of which a judge sees less.
    """
    return _INSTRUCTS.search(_both_ends(text, limit=_READ)) is not None


def _shows(char: str) -> bool:
    if char in "\n\t" or char.isascii():
        return char.isprintable() or char in "\n\t"
    is_selector = "\U000e0100" <= char <= "\U000e01ef"
    return not is_selector and unicodedata.category(char) not in {
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    }  # fmt: skip


def _both_ends(text: str, *, limit: int) -> str:
    if len(text) <= limit:
        return text
    head, tail = limit - limit // 3, limit // 3
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[{left_out} characters left out]\n{text[-tail:]}"
