"""Tricks of Unicode: what a person sees and what a program reads are not the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from random import Random
from string import ascii_letters

__all__ = [
    "bidi", "from_bidi", "from_tags", "from_variation_selectors", "full_width", "half_width",
    "homoglyph", "latin", "regional_indicators", "tags", "variation_selectors",
    "without_zero_width", "zero_width",
]  # fmt: skip

# Cyrillic letters that look like Latin ones.
_LOOKALIKES = dict(zip("aceiopsxyABCEHIKMOPTXY", "асеіорѕхуАВСЕНІКМОРТХУ", strict=True))
_LATIN = str.maketrans({fake: real for real, fake in _LOOKALIKES.items()})
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060"
_NOTHING = dict.fromkeys(map(ord, _ZERO_WIDTH))
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_HALF_WIDTH = {wide: code for code, wide in _FULL_WIDTH.items()}
_SOME = 0.5
"""Share of letters that ``homoglyph`` and ``zero_width`` touch."""

_OVERRIDE, _POP = "\u202e", "\u202c"
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")
# Characters of the bidirectional class B: they end an override.
_PARAGRAPHS = re.compile("([\n\r\x1c-\x1e\x85\u2029]+)")

_CARRIER = "\U0001f60a"
"""Smiling face that shows in place of the hidden text."""
_TAGS = {code: 0xE0000 + code for code in range(0x20, 0x7F)}
_FROM_TAGS = {tag: code for code, tag in _TAGS.items()}
_SELECTORS = tuple(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
_FROM_SELECTORS = {selector: byte for byte, selector in enumerate(_SELECTORS)}
# The space keeps two of them from joining into a flag.
_REGIONAL = str.maketrans(
    {letter: chr(0x1F1E6 + ord(letter.upper()) - ord("A")) + " " for letter in ascii_letters}
)


def homoglyph(text: str, draw: Random) -> str:
    """Return the text with half of its Latin letters in Cyrillic, where those look the same."""
    return "".join(_LOOKALIKES.get(char, char) if draw.random() < _SOME else char for char in text)


def latin(text: str) -> str:
    """Return the text with the look-alikes of :func:`homoglyph` in Latin."""
    return text.translate(_LATIN)


def zero_width(text: str, draw: Random) -> str:
    """Return the text with a character of no width after every other one, at random."""
    return "".join(
        char + draw.choice(_ZERO_WIDTH) if draw.random() < _SOME else char for char in text
    )


def without_zero_width(text: str) -> str:
    """Return the text without the characters that :func:`zero_width` puts in."""
    return text.translate(_NOTHING)


def full_width(text: str) -> str:
    """Return the text with printable ASCII in the wide forms of East Asian typesetting."""
    return text.translate(_FULL_WIDTH)


def half_width(text: str) -> str:
    """Return the text that :func:`full_width` widened."""
    return text.translate(_HALF_WIDTH)


def bidi(text: str) -> str:
    """Return left-to-right text backwards under a right-to-left override: it looks the same.

    Combining marks stay behind their letter and brackets turn, as the override mirrors them. Each
    line has its own override.

    Source:
        Unicode Standard Annex 9, sections 2.2 and 3.4; Boucher et al. 2021, arXiv:2106.09898.
    """
    return _by_paragraph(text, lambda line: _OVERRIDE + _backwards(line) + _POP)


def from_bidi(text: str) -> str:
    """Return the text that :func:`bidi` turned.

    Raises:
        ValueError: If a line has no override around it.
    """

    def turn(line: str) -> str:
        if not (line.startswith(_OVERRIDE) and line.endswith(_POP)):
            raise ValueError(f"no right-to-left override around {line[:40]!r}")
        return _backwards(line[1:-1])

    return _by_paragraph(text, turn)


def tags(text: str) -> str:
    """Return a smiling face and, invisible after it, printable ASCII as tag characters.

    Other characters stay visible.

    Source:
        The Unicode Standard, block Tags, U+E0000 to U+E007F.
    """
    return _CARRIER + text.translate(_TAGS)


def from_tags(text: str) -> str:
    """Return the text that :func:`tags` hid.

    Raises:
        ValueError: If the face is missing.
    """
    return _carried(text).translate(_FROM_TAGS)


def variation_selectors(text: str) -> str:
    """Return a smiling face and, invisible after it, a variation selector per UTF-8 byte.

    Source:
        The Unicode Standard, section 23.4: selectors 1 to 16 are U+FE00 to U+FE0F, 17 to 256
        U+E0100 to U+E01EF.
    """
    return _CARRIER + "".join([_SELECTORS[byte] for byte in text.encode()])


def from_variation_selectors(text: str) -> str:
    """Return the text that :func:`variation_selectors` hid.

    Raises:
        ValueError: If the face is missing or anything but selectors follows it.
    """
    hidden = _carried(text)
    if not _FROM_SELECTORS.keys() >= set(hidden):
        raise ValueError(f"not only variation selectors: {text[:40]!r}")
    return bytes(_FROM_SELECTORS[char] for char in hidden).decode()


def regional_indicators(text: str) -> str:
    """Return the text with ASCII letters as regional indicators, a space after each."""
    return text.translate(_REGIONAL)


def _by_paragraph(text: str, change: Callable[[str], str]) -> str:
    parts = _PARAGRAPHS.split(text)  # lines and what ends them in turn
    parts[::2] = [change(line) if line else "" for line in parts[::2]]
    return "".join(parts)


def _backwards(line: str) -> str:
    """Return a line from its last letter to its first, each with its marks; its own inverse."""
    if line.isascii():
        return line[::-1].translate(_MIRRORED)
    letters = [""]  # marks before the first letter stay in front
    for char in line:
        if unicodedata.category(char).startswith("M"):
            letters[-1] += char
        else:
            letters.append(char)
    return (letters[0] + "".join(letters[:0:-1])).translate(_MIRRORED)


def _carried(text: str) -> str:
    if not text.startswith(_CARRIER):
        raise ValueError(f"no {_CARRIER} before the hidden text: {text[:40]!r}")
    return text[1:]
