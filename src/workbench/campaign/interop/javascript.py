"""JSON as JavaScript prints it, which promptfoo's ids are hashes of."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any, Final

__all__ = ["HALF", "stringify"]

HALF: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair."""
_INDEX: Final = re.compile(r"(?:0|[1-9]\d{0,9})", re.ASCII)
_MOST_INDEX: Final = 2**32 - 2


def stringify(value: Any) -> str:
    """Return what ``JSON.stringify`` prints for a value read from JSON or YAML.

    Keys keep their order but for those that are array indexes, which objects of JavaScript put
    first, in numeric order. Half surrogate pairs are escaped.

    Source:
        ECMA-262, 25.5.2 (JSON.stringify), 10.1.11 (order of keys), 6.1.6.1.20 (numbers).
    """
    text = _printed(value)
    return text if text.isascii() else HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _printed(value: Any) -> str:
    kind = value.__class__  # faster than isinstance, and what files hold has no other classes
    if kind is str:
        return _quoted(value)
    if kind is dict:
        # No index sorts behind ":", so most objects need no closer look.
        items = (_ordered(value) if value and min(value) < ":" else value).items()
        return "{" + ",".join([
            f"{_quoted(key)}:{_quoted(item) if item.__class__ is str else _printed(item)}"
            for key, item in items
        ]) + "}"  # fmt: skip
    if kind is list or kind is tuple:
        return f"[{','.join([_printed(item) for item in value])}]"
    if kind is bool or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return _number(value)


def _ordered(value: dict[str, Any]) -> dict[str, Any]:
    indexes = [key for key in value if _INDEX.fullmatch(key) and int(key) <= _MOST_INDEX]
    return {key: value[key] for key in sorted(indexes, key=int)} | value


def _number(number: float) -> str:
    try:
        double = float(number)
    except OverflowError:
        return "null"
    if not math.isfinite(double):
        return "null"
    # Python and JavaScript both choose the shortest digits that read back as the same double.
    if not double or 1e-6 <= abs(double) < 1e21:
        return f"{Decimal(repr(abs(double) and double)):f}".removesuffix(".0")
    return repr(double).replace("e-0", "e-")
