"""Text of others where it is shown or kept: nothing in it is obeyed, all of it can be stored."""

from __future__ import annotations

__all__ = ["one_line", "storable"]


def one_line(text: str) -> str:
    """Return a text as one line without codes, line ends and invisible characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def storable(text: str) -> str:
    """Return a text without what is legal in Python and in no database: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
