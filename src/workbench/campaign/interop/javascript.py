"""JSON as JavaScript prints it, which promptfoo's ids are hashes of."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any, Final

__all__ = ["HALF", "js_number", "stringify"]

HALF: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair."""
_SAFE_INTEGER: Final = 2**53
_INDEX: Final = re.compile(r"(?:0|[1-9]\d{0,9})", re.ASCII)
_MOST_INDEX: Final = 2**32 - 2
_PLAIN_DIGITS: Final = 21
"""Digits before the point from which JavaScript writes an exponent."""
_LEAST_EXPONENT: Final = -6


def stringify(value: Any) -> str:
    """Return what ``JSON.stringify`` prints for a value read from JSON or YAML.

    Keys keep their order but for those that are array indexes, which objects of JavaScript put
    first, in numeric order. Half surrogate pairs are escaped.

    Source:
        ECMA-262, 25.5.2 (JSON.stringify), 10.1.11 (order of keys), 6.1.6.1.20 (numbers).
    """
    text = _printed(value)
    return text if text.isascii() else HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def js_number(number: float) -> str:
    """Return a number as JavaScript prints it: ``1`` for 1.0, ``1e+21``, ``null`` for NaN."""
    if isinstance(number, int) and abs(number) <= _SAFE_INTEGER:
        return str(number)
    try:
        double = float(number)
    except OverflowError:
        return "null"
    if not math.isfinite(double):
        return "null"
    if not double:
        return "0"
    # Python and JavaScript both choose the shortest digits that read back as the same double.
    sign, figures, exponent = Decimal(repr(double)).normalize().as_tuple()
    digits, before = "".join(map(str, figures)), len(figures) + int(exponent)
    return f"{'-' * sign}{_placed(digits, before)}"


def _placed(digits: str, before: int) -> str:
    """Return the digits with their point, ``before`` of them in front of it."""
    if len(digits) <= before <= _PLAIN_DIGITS:
        return digits.ljust(before, "0")
    if 0 < before <= _PLAIN_DIGITS:
        return f"{digits[:before]}.{digits[before:]}"
    if _LEAST_EXPONENT < before <= 0:
        return f"0.{'0' * -before}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{before - 1:+d}"


def _printed(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        # No index sorts behind ":", so most objects need no closer look.
        value = _ordered(value) if min(value, default=":") < ":" else value
        return "{" + ",".join([
            f"{_quoted(key)}:{_quoted(item) if isinstance(item, str) else _printed(item)}"
            for key, item in value.items()
        ]) + "}"  # fmt: skip
    if isinstance(value, list | tuple):
        return f"[{','.join([_printed(item) for item in value])}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return js_number(value)


def _ordered(value: dict[str, Any]) -> dict[str, Any]:
    indexes = [key for key in value if _INDEX.fullmatch(key) and int(key) <= _MOST_INDEX]
    return {key: value[key] for key in sorted(indexes, key=int)} | value
