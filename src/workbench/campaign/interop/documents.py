"""Files of other people: YAML and JSON read within limits, nothing in them executed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import yaml

from workbench.core.errors import DataError, StoreError
from workbench.core.plain import one_line

__all__ = [
    "MAX_DEPTH",
    "MAX_FILE_BYTES",
    "Document",
    "check_depth",
    "json_lines",
    "read_document",
    "written",
]

MAX_FILE_BYTES: Final = 256 * 2**20
"""Largest file that is read whole."""
MAX_DEPTH: Final = 60
"""Most values inside each other."""
_MOST_EXPANDED: Final = 64_000_000
"""Characters that aliases may stand for together, or twice those of the file where that is more; a
few lines can stand for billions."""
_JSON_ITEMS: Final = re.compile(r"(?m)^tests:\n(?=- \{)")
_SHOWN: Final = 160

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one of C is some ten times faster


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a file says."""

    value: Any
    """Made of dictionaries with texts for keys, lists, texts, numbers, truth values and None."""
    lines: tuple[int, ...] = ()
    """Line where each item of the list (or of ``tests``) begins, from 1; empty if not known."""


def read_document(path: Path) -> Document:
    """Return the content of a JSON file (by its name) or a YAML file.

    YAML is read as JavaScript's readers do, after version 1.2: ``yes`` and ``12:30`` are texts,
    dates too, whole numbers are integers however they are written.

    Raises:
        DataError: If the file is missing, too large, not UTF-8, malformed, too deep, or stands for
            far more than it says; names file, line and fix.
    """
    text = _text(path)
    try:
        if path.suffix.lower() == ".json":
            return Document(value=_json(text))
        return _json_tests(text) or _yaml(path, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = one_line(error.problem or error.context or "malformed")[:_SHOWN]
        raise DataError(f"{path}: line {line}: not usable YAML ({what}); fix that line") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = one_line(str(error.reason))[:_SHOWN]
        raise DataError(f"{path}: line {line}: {what}; remove that character") from None
    except json.JSONDecodeError as error:
        where = f"{path}: line {error.lineno}"
        raise DataError(f"{where}: not JSON ({error.msg}); fix that line") from None
    except (ValueError, RecursionError) as error:
        what = one_line(str(error))[:_SHOWN]
        raise DataError(f"{path}: not usable ({what}); correct the file") from None


def json_lines(path: Path, *, most_bytes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over the objects of a JSON Lines file with their line numbers, one in memory.

    Args:
        path: The file; blank lines are skipped.
        most_bytes: Longest line that is read.

    Raises:
        DataError: If the file is missing, or a line is too long or no JSON object.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(most_bytes + 1):
            number += 1
            place = f"{path}: line {number}"
            if len(line) > most_bytes:
                raise DataError(f"{place} is over {most_bytes:,} bytes; split or drop it")
            if line.strip():
                yield number, _object(line, place)


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
        raise StoreError(f"{path}: cannot be written ({error.strerror}); free space or "
                         "choose another place") from error  # fmt: skip
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another") from error


def _text(path: Path) -> str:
    with _opened(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path}: is over {MAX_FILE_BYTES:,} bytes; split the file")
    try:
        text: str = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from None
    return text


def _object(line: bytes, place: str) -> dict[str, Any]:
    try:
        value = _json(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{place}: not UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        what = one_line(str(error))[:_SHOWN]
        raise DataError(f"{place}: not usable JSON ({what}); fix or drop that line") from None
    if not isinstance(value, dict):
        raise DataError(f"{place}: {type(value).__name__}, not a JSON object; fix or drop it")
    return value


def _json(text: str) -> Any:
    value = json.loads(text, parse_float=_number, parse_constant=_refuse)
    check_depth(value)
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _number(text: str) -> float:
    """Return a number: JavaScript has one kind, so 1.0 is 1 there."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def check_depth(value: Any) -> None:
    """Refuse a value with too many values inside each other.

    Raises:
        ValueError: If there are more than :data:`MAX_DEPTH`.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} values inside each other")
        nested = [one for one in level if isinstance(one, dict | list)]
        level = [
            inner
            for one in nested
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]


class _Loader(_Base):
    """YAML 1.2 as JavaScript reads it; only JSON's kinds of values, nested not too deep."""

    depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:  # noqa: ARG002
        # Called before each node: the composer recurses in C, where no limit of Python holds.
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = current_node.start_mark if current_node else None
            what = f"more than {MAX_DEPTH} values inside each other"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        pairs = super().construct_mapping(node, deep=deep)
        return {key if isinstance(key, str) else _as_key(key): pairs[key] for key in pairs}


def _as_key(key: Any) -> str:
    if key is None:
        return "null"
    return str(key).lower() if isinstance(key, bool) else str(key)


def _as_integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0) if text.lstrip("+-")[:2].lower() in {"0x", "0o", "0b"} else int(text)


def _as_float(loader: Any, node: Any) -> float:
    text = loader.construct_scalar(node).lower().replace("_", "")
    if text.endswith((".inf", ".nan")):
        raise yaml.MarkedYAMLError(problem=f"{text} is no JSON value", problem_mark=node.start_mark)
    return _number(text)


_CONSTRUCTORS: dict[str | None, Callable[..., Any]] = {
    f"tag:yaml.org,2002:{kind}": constructor
    for kind, constructor in (
        ("null", _Base.construct_yaml_null),
        ("bool", _Base.construct_yaml_bool),
        ("str", _Base.construct_yaml_str),
        ("seq", _Base.construct_yaml_seq),
        ("map", _Base.construct_yaml_map),
        ("int", _as_integer),
        ("float", _as_float),
    )
}
_Loader.yaml_constructors = {**_CONSTRUCTORS, None: _Base.construct_undefined}
_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _starts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$", re.ASCII), _starts
    )


def _json_tests(text: str) -> Document | None:
    """Return a YAML file whose tests are one JSON object a line, some 20 times faster; or None."""
    start = _JSON_ITEMS.search(text)
    if start is None:
        return None
    lines = text[start.end() :].rstrip("\n").split("\n")
    first = text.count("\n", 0, start.end()) + 1
    try:
        tests = [_json(line.removeprefix("- ")) for line in lines]
    except ValueError:
        return None
    if not all(line.startswith("- {") for line in lines):
        return None
    head = _Loader(text[: start.start()])
    try:
        value = head.get_single_data() or {}
    finally:
        head.dispose()
    if not isinstance(value, dict) or "tests" in value:
        return None
    return Document(value={**value, "tests": tests}, lines=tuple(range(first, first + len(lines))))


def _yaml(path: Path, text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise DataError(f"{path}: is empty; give a file that has tests")
        _Expansion(max(_MOST_EXPANDED, 2 * len(text))).measure(root)
        return Document(value=loader.construct_document(root), lines=_lines_of(root))
    finally:
        loader.dispose()


class _Expansion:
    """Counts what a document stands for once each alias is replaced by what it names."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[int, tuple[int, int]] = {}

    def measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return the size and the depth of a node; refuse too much of either, and circles."""
        if isinstance(node, yaml.ScalarNode):
            return len(node.value) + 1, 1
        if (known := self._known.get(id(node))) is not None:
            if not known[0]:
                _fail(node, "an alias inside of what it names")
            return known
        self._known[id(node)] = (0, 0)
        size, depth = 1, 0
        for inner in _children(node):
            more, below = self.measure(inner)
            size, depth = size + more, max(depth, below)
        if size > self._most:
            _fail(node, f"aliases stand for over {self._most:,} characters")
        if depth >= MAX_DEPTH:
            _fail(node, f"more than {MAX_DEPTH} values inside each other")
        self._known[id(node)] = (size, depth + 1)
        return size, depth + 1


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for one in node.value:
        if isinstance(one, tuple):
            yield from one
        else:
            yield one


def _fail(node: yaml.Node, what: str) -> None:
    raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def _lines_of(root: yaml.Node) -> tuple[int, ...]:
    if isinstance(root, yaml.MappingNode):
        root = next((item for key, item in root.value if key.value == "tests"), root)
    if not isinstance(root, yaml.SequenceNode):
        return ()
    return tuple(item.start_mark.line + 1 for item in root.value)
