"""The texts of a chat request: a body is read strictly, and what users said in it is found.

Two readers of one body must see the same texts, or what the guard reads is not what the model is
told. So names that are given twice, and names that some readers take for another, are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from workbench.serving.refusal import Refusal

__all__ = ["Passage", "count", "passages", "read_body"]

_NAME = re.compile(r"[a-z0-9_.-]+")
_TEXTS = ("text", "content", "title", "context", "source")
"""Fields of a user's message that hold text, or blocks with text."""
_TRUSTED = frozenset({"assistant", "developer", "system"})
"""Roles whose texts are the operator's or the model's; everything else is a user's."""
_MOST_DEPTH = 8
_MOST_TEXTS = 4096
_MOST_TOKENS = 10_000_000


class _Place(NamedTuple):
    """Where a text stands."""

    holder: Any
    field: str | int
    siblings: list[Any]
    """List of blocks that the holder is one of; empty where there is none."""

    @property
    def text(self) -> str:
        """What stands there."""
        return str(self.holder[self.field])


class Passage(NamedTuple):
    """A text that a model reads as one: a block, or all text blocks of a message together."""

    places: tuple[_Place, ...]
    is_current: bool
    """Whether it came after the last answer."""

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(place.text for place in self.places)

    def replace(self, text: str) -> None:
        """Put another text in its place."""
        first, *others = self.places
        gone = [place.holder if place.siblings else place.text for place in others]
        first.holder[first.field] = text
        for place, one in zip(others, gone, strict=True):
            blocks = place.siblings or place.holder
            blocks[:] = [block for block in blocks if block is not one]


def read_body(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body that no two readers take differently.

    Raises:
        Refusal: 400, saying why not.
    """
    try:
        text = raw.decode()
        body = json.loads(
            text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object
        )
        if "\\u" in text:
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeError:
        raise Refusal(400, "the body is not UTF-8, or holds half a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"the body is no JSON: {reason}; send one object") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the body is no JSON object; send one with model and messages")
    return body


def passages(body: dict[str, Any]) -> list[Passage]:
    """Return the texts of users and tools in a chat.

    Each block stands by itself, then all text blocks of a message together: what is split over
    blocks is seen as a whole too.

    Raises:
        Refusal: 400, if the messages are none, or hide texts.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise Refusal(400, "messages: send a list of objects with role and content")
    _refuse_odd_names(body)
    found: list[Passage] = []
    is_current, has_asked = True, False
    for message in reversed(messages):
        _refuse_odd_names(message)
        role = message.get("role")
        if not isinstance(role, str):
            raise Refusal(400, "messages: each needs a role, which is text")
        is_current = is_current and not (role == "assistant" and has_asked)
        has_asked = has_asked or role not in _TRUSTED
        for places in _groups(message, "content"):
            if role not in _TRUSTED:
                found += _passages(places, is_current=is_current)
        if role == "assistant":
            for places in _tool_results(message.get("content")):
                found += _passages(places, is_current=is_current)
        if len(found) > _MOST_TEXTS:
            raise Refusal(413, f"messages: more than {_MOST_TEXTS} texts; send a shorter chat")
    return found


def count(value: Any) -> int:
    """Return a number of tokens that a service says; 0 for what is none."""
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else 0


def _passages(places: list[_Place], *, is_current: bool) -> Iterator[Passage]:
    full = [place for place in places if place.text.strip()]
    for place in full:
        yield Passage((place,), is_current)
    if len(full) > 1:
        yield Passage(tuple(full), is_current)


def _tool_results(content: Any) -> Iterator[list[_Place]]:
    """Give the texts of results of tools that the service ran itself: they stand in its turn."""
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and str(block.get("type")).endswith("tool_result"):
            yield from _groups(block, "content")


def _groups(holder: Any, field: str | int, *, depth: int = 0) -> Iterator[list[_Place]]:
    """Give lists of places whose texts are read one after another."""
    value = holder.get(field) if isinstance(holder, dict) else holder[field]
    if depth > _MOST_DEPTH:
        raise Refusal(400, f"messages: content is nested deeper than {_MOST_DEPTH}; make it flat")
    if isinstance(value, str):
        yield [_Place(holder, field, [])]
    elif isinstance(value, dict):
        yield from _fields(value, depth=depth)
    elif isinstance(value, list):
        texts = []
        for at, block in enumerate(value):
            if isinstance(block, str):
                texts.append(_Place(value, at, []))
            elif isinstance(block, dict) and isinstance(block.get("text"), str):
                texts.append(_Place(block, "text", value))
            if isinstance(block, dict):
                yield from _fields(block, depth=depth, is_block=True)
        if texts:
            yield texts


def _fields(value: dict[str, Any], *, depth: int, is_block: bool = False) -> Iterator[list[_Place]]:
    _refuse_odd_names(value)
    for name in _TEXTS:
        if name in value and not (is_block and name == "text" and isinstance(value[name], str)):
            yield from _groups(value, name, depth=depth + 1)
    if value.get("type") == "text" and isinstance(value.get("data"), str):  # a plain document
        yield [_Place(value, "data", [])]


def _refuse_odd_names(value: dict[str, Any]) -> None:
    """Refuse names such as ``Content``, which some services read as ``content``."""
    for name in value:
        if not _NAME.fullmatch(name):
            raise Refusal(400, f"field {name[:40]!r}: names are lower-case ASCII; correct it")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
