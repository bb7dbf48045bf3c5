"""JSON as JavaScript prints it, which promptfoo's ids are hashes of."""

from __future__ import annotations

import json.encoder
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

__all__ = ["js_number", "stringify"]

_HALF: Final = re.compile(r"[\ud800-\udfff]")
_SAFE_INTEGER: Final = 2**53
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
    parts: list[str] = []
    _print(value, parts)
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", "".join(parts))


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


def _print(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(json.encoder.encode_basestring(value))
    elif isinstance(value, bool) or value is None:
        parts.append({True: "true", False: "false", None: "null"}[value])
    elif isinstance(value, dict):
        parts.append("{")
        for number, (key, item) in enumerate(_ordered(value)):
            parts.append(f"{',' * (number > 0)}{json.encoder.encode_basestring(key)}:")
            _print(item, parts)
        parts.append("}")
    elif isinstance(value, list | tuple):
        parts.append("[")
        for number, item in enumerate(value):
            if number:
                parts.append(",")
            _print(item, parts)
        parts.append("]")
    else:
        parts.append(js_number(value))


def _ordered(value: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    if not any(map(_is_index, value)):
        return value.items()
    indexes = sorted(filter(_is_index, value), key=int)
    others = (key for key in value if not _is_index(key))
    return [(key, value[key]) for key in (*indexes, *others)]


def _is_index(key: str) -> bool:
    """Return whether objects of JavaScript sort this key as a number."""
    if not key[:1].isdigit():  # nearly all keys end here
        return False
    short = len(key) <= len(str(_MOST_INDEX)) and key.isascii() and key.isdigit()
    return short and str(int(key)) == key and int(key) <= _MOST_INDEX
