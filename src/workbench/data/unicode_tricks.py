"""Tricks of Unicode: what a person sees and what a program reads are not the same."""

from __future__ import annotations

import re
import unicodedata
from random import Random
from string import ascii_letters

__all__ = [
    "bidi", "full_width", "homoglyph", "regional_indicators", "tags", "variation_selectors",
    "zero_width",
]  # fmt: skip

# Cyrillic letters that look like Latin ones.
_LOOKALIKES = dict(zip("aceiopsxyABCEHIKMOPTXY", "асеіорѕхуАВСЕНІКМОРТХУ", strict=True))
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060"
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_SOME = 0.5
"""Share of letters that ``homoglyph`` and ``zero_width`` touch."""

_OVERRIDE, _POP = "\u202e", "\u202c"
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")
# Characters of the bidirectional class B: they end an override.
_PARAGRAPHS = re.compile("([\n\r\x1c-\x1e\x85\u2029]+)")

_CARRIER = "\U0001f60a"
"""Smiling face that shows in place of the hidden text."""
_TAGS = {code: 0xE0000 + code for code in range(0x20, 0x7F)}
_SELECTORS = tuple(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
# The space keeps two of them from joining into a flag.
_REGIONAL = str.maketrans(
    {letter: chr(0x1F1E6 + ord(letter.upper()) - ord("A")) + " " for letter in ascii_letters}
)


def homoglyph(text: str, draw: Random) -> str:
    """Return the text with half of its Latin letters in Cyrillic, where those look the same."""
    return "".join(_LOOKALIKES.get(char, char) if draw.random() < _SOME else char for char in text)


def zero_width(text: str, draw: Random) -> str:
    """Return the text with a character of no width after every other one, at random."""
    return "".join(
        char + draw.choice(_ZERO_WIDTH) if draw.random() < _SOME else char for char in text
    )


def full_width(text: str) -> str:
    """Return the text with printable ASCII in the wide forms of East Asian typesetting."""
    return text.translate(_FULL_WIDTH)


def bidi(text: str) -> str:
    """Return left-to-right text backwards under a right-to-left override: it looks the same.

    Combining marks stay behind their letter and brackets turn, as the override mirrors them. Each
    line has its own override.

    Source:
        Unicode Standard Annex 9, sections 2.2 and 3.4; Boucher et al. 2021, arXiv:2106.09898.
    """
    parts = _PARAGRAPHS.split(text)  # lines and what ends them in turn
    parts[::2] = [_OVERRIDE + _backwards(line) + _POP if line else "" for line in parts[::2]]
    return "".join(parts)


def tags(text: str) -> str:
    """Return a smiling face and, invisible after it, printable ASCII as tag characters.

    Other characters stay visible.

    Source:
        The Unicode Standard, block Tags, U+E0000 to U+E007F.
    """
    return _CARRIER + text.translate(_TAGS)


def variation_selectors(text: str) -> str:
    """Return a smiling face and, invisible after it, a variation selector per UTF-8 byte.

    Source:
        The Unicode Standard, section 23.4: selectors 1 to 16 are U+FE00 to U+FE0F, 17 to 256
        U+E0100 to U+E01EF.
    """
    return _CARRIER + "".join([_SELECTORS[byte] for byte in text.encode()])


def regional_indicators(text: str) -> str:
    """Return the text with ASCII letters as regional indicators, a space after each."""
    return text.translate(_REGIONAL)


def _backwards(line: str) -> str:
    """Return a line from its last letter to its first, each with its marks."""
    if line.isascii():
        return line[::-1].translate(_MIRRORED)
    letters = [""]  # marks before the first letter stay in front
    for char in line:
        if unicodedata.category(char).startswith("M"):
            letters[-1] += char
        else:
            letters.append(char)
    return (letters[0] + "".join(letters[:0:-1])).translate(_MIRRORED)
