"""YAML and JSON of others as JavaScript reads and prints them: within limits, nothing executed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

import yaml

from workbench.core.errors import DataError, StoreError
from workbench.core.plain import one_line

__all__ = ["HALF", "MAX_DEPTH", "json_lines", "not_deep", "read_document", "stringify", "written"]

_MOST_JSON_BYTES: Final = 256 * 2**20
_MOST_YAML_BYTES: Final = 16 * 2**20
_MOST_LINE_BYTES: Final = 32 * 2**20
MAX_DEPTH: Final = 60
"""Most values inside each other."""
_MOST_VALUES: Final = 2_000_000
"""In YAML once each alias is replaced by what it names: a few lines can stand for billions. A text
counts once more for every 32 characters."""
_MOST_MARKS: Final = 10_000_000
"""Commas and opening brackets in JSON: each can stand for a value of 64 bytes."""
HALF: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair."""
_PRINTER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def read_document(path: Path) -> Any:
    """Return the content of a JSON file (by its name) or a YAML file.

    It is made of dictionaries with texts for keys, lists, texts, numbers, truth values and None.
    YAML is read as JavaScript's readers do, after version 1.2: ``yes`` and ``12:30`` are texts,
    dates too, whole numbers are integers however they are written.

    Raises:
        DataError: If the file is missing, over 16 MiB (JSON: 256 MiB), not UTF-8, malformed, too
            deep, or stands for far more than it says; names file, line and fix.
    """
    is_json = path.suffix.lower() == ".json"
    most = _MOST_JSON_BYTES if is_json else _MOST_YAML_BYTES
    with _opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{path}: is over {most:,} bytes; split it, or give YAML as .json")
    return _parsed(data, str(path), _json if is_json else _yaml)


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the objects of a JSON Lines file with their places, one in memory.

    Raises:
        DataError: If the file is missing, or a line is over 32 MiB or no JSON object.
    """
    with _opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE_BYTES + 1), b""), 1):
            place = f"{path}: line {number}"
            if len(line) > _MOST_LINE_BYTES:
                raise DataError(f"{place} is over {_MOST_LINE_BYTES:,} bytes; split or drop it")
            if line.strip():
                value = _parsed(line, place, _json)
                if not isinstance(value, dict):
                    raise DataError(f"{place}: is no JSON object; fix or drop it")
                yield place, value


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """Yield a text file that takes its name once it is complete.

    Raises:
        StoreError: If it cannot be written.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        part.replace(path)
    except OSError as error:
        what = f"{path}: cannot be written ({error.strerror})"
        raise StoreError(f"{what}; free space or choose another place") from error
    finally:
        part.unlink(missing_ok=True)


def not_deep(value: Any) -> Any:
    """Return a value.

    Raises:
        ValueError: If more than :data:`MAX_DEPTH` values are inside each other.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return value
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, dict) else one)
        ]
    raise ValueError(f"more than {MAX_DEPTH} values inside each other")


def stringify(value: Any) -> str:
    """Return what ``JSON.stringify`` prints for a value read from JSON or YAML.

    Different are numbers from 1e16 on or below 1e-4, and objects with numbers for keys, which
    JavaScript puts first. Half surrogate pairs are escaped as there.

    Source:
        ECMA-262, 25.5.2 (JSON.stringify).
    """
    text = _PRINTER.encode(value)
    return text if text.isascii() else HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path") from None


def _parsed(data: bytes, place: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(data.decode("utf-8-sig"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        what = one_line(str(error).replace('in "<unicode string>",', "at"))[:160]
        raise DataError(f"{place}: not usable ({what}); correct it") from None


def _number(text: str) -> float:
    """Return a number: JavaScript has one kind, so 1.0 is 1 there."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no JSON value")
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def _json(text: str) -> Any:
    if sum(map(text.count, ",[{")) > _MOST_MARKS:
        raise ValueError(f"more than {_MOST_MARKS:,} values")
    return not_deep(json.loads(text, parse_float=_number, parse_constant=_number))


def _yaml(text: str) -> Any:
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return not_deep(_Yaml(yaml.parse(text, Loader=loader)).document())


class _Yaml:
    """Makes a value of the events of a parser, counting what they stand for."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def document(self) -> Any:
        """Return the value of the only document."""
        content = (one for one in self._events if isinstance(one, yaml.NodeEvent))
        values = [self._value(one, depth=1) for one in content]
        if len(values) != 1:
            raise ValueError(f"{len(values)} documents; write one that has tests")
        return values[0]

    def _value(self, event: Any, *, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            value, size = self._anchors.get(str(event.anchor), (None, 0))
            if not size:
                _fail(event, "an alias of nothing, or inside of what it names")
            self._add(event, size)
            return value
        if event.tag not in _TAGS:
            _fail(event, f"unknown tag {event.tag[:80]!r}")
        if depth > MAX_DEPTH:
            _fail(event, f"more than {MAX_DEPTH} values inside each other")
        before = self._count
        is_text = isinstance(event, yaml.ScalarEvent)
        self._add(event, 1 + (len(event.value) // 32 if is_text else 0))
        value = _scalar(event) if is_text else self._many(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _add(self, event: Any, size: int) -> None:
        self._count += size
        if self._count > _MOST_VALUES:
            _fail(event, f"stands for over {_MOST_VALUES:,} values")

    def _many(self, event: Any, depth: int) -> Any:
        inside = takewhile(lambda one: not isinstance(one, yaml.CollectionEndEvent), self._events)
        items = (self._value(one, depth=depth + 1) for one in inside)
        if isinstance(event, yaml.SequenceStartEvent):
            return list(items)
        found: dict[str, Any] = {}
        for key, value in zip(items, items, strict=True):
            merged = value if isinstance(value, list) else [value]
            if key == "<<" and all(isinstance(one, dict) for one in merged):
                for one in merged:
                    found.update({name: one[name] for name in one if name not in found})
            else:
                found[key if isinstance(key, str) else stringify(key)] = value
        return found


_TEXT_TAGS: Final = ("!", "tag:yaml.org,2002:str")
_KINDS: Final = ("null", "bool", "int", "float", "seq", "map")
_TAGS: Final = {None, *_TEXT_TAGS, *(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)}
_PLAIN: Final = re.compile(
    r"(?P<null>~|null|Null|NULL|)|(?P<bool>true|True|TRUE|false|False|FALSE)"
    r"|(?P<int>[-+]?(?:[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+))"
    r"|(?P<float>[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN))",
    re.ASCII,
)
_MADE: Final[dict[str, Callable[[str], Any]]] = {
    "null": lambda _: None,
    "bool": lambda text: text[0] in "tT",
    "int": lambda text: int(text, 0 if text.lstrip("+-")[1:2].isalpha() else 10),
    "float": _number,
}


def _scalar(event: Any) -> Any:
    """Return a scalar in YAML 1.2 as JavaScript reads it, only JSON's kinds of values."""
    is_plain = event.implicit[0] if event.tag is None else event.tag not in _TEXT_TAGS
    found = _PLAIN.fullmatch(event.value) if is_plain else None
    return _MADE[str(found.lastgroup)](event.value) if found else event.value


def _fail(event: Any, what: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=what, problem_mark=event.start_mark)
