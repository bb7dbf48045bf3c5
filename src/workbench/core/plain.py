"""Text of others where it is shown or kept: nothing in it is obeyed, all of it can be stored."""

from __future__ import annotations

from itertools import takewhile
from unicodedata import category, normalize

__all__ = ["CONTROLS", "cell", "one_line", "storable"]

_FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet would compute.

Source: OWASP, "CSV Injection".
"""
_SKIPPED = ("Z", "C")
"""Categories of characters that some spreadsheet skips on its way to one of those: spaces,
controls, marks of direction and the like."""
CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "\ufffd")
"""What no CSV or issue shows, as ``str.translate`` takes it."""


def one_line(text: str) -> str:
    """Return a text as one line without codes, line ends and invisible characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def storable(text: str) -> str:
    """Return a text without what is legal in Python and in no database: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")


def cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: such get an apostrophe before.

    So does what would look like that already: to read it back, take one apostrophe off where the
    rest without apostrophes begins as a formula.
    """
    if text[:1].isalnum() and text.isprintable():
        return text
    text = text.translate(CONTROLS)
    bare = text.lstrip("'")
    skipped = "".join(takewhile(lambda char: category(char)[0] in _SKIPPED, bare))
    first = normalize("NFKC", bare[len(skipped) : len(skipped) + 1])  # full-width, small, raised
    is_formula = first.startswith(_FORMULA) or bool(set(skipped) & set("\t\r\n"))
    return f"'{text}" if is_formula else text
