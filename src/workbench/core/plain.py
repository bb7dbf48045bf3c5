"""Text of others where it is shown: nothing in it is obeyed."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str) -> str:
    """Return a text as one line without codes, line ends and invisible characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
