"""The texts of a chat request: a body is read strictly, and what users said in it is found.

Two readers of one body must see the same texts, or what the guard reads is not what the model is
told. So names that are given twice, and names that some readers take for another, are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from workbench.serving.refusal import Refusal

__all__ = ["Passage", "count", "passages", "read_body", "write_body"]

_NAME = re.compile(r"[a-z0-9_.-]+")
_PACKED = {"data", "encrypted_content", "encrypted_stdout", "file_data", "image_url", "url"}
"""Fields of a user's message that hold no text, and may be long."""
_WORDS = {
    "detail", "file_id", "format", "id", "media_type", "role", "tool_call_id", "tool_use_id", "ttl",
    "type",
}  # fmt: skip
"""Those that hold a short word; every other field is read, known or not."""
_MOST_WORD = 256
_TRUSTED = frozenset({"assistant", "developer", "system"})
"""Roles whose texts are the operator's or the model's; everything else is a user's."""
_MOST_DEPTH = 8
_MOST_PARTS = 500_000
"""Commas and opening brackets of a body: everybody waits while they are read."""
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

    def readings(self) -> list[str]:
        """Return its text; two where a word may go on in the next block, or may not."""
        texts = [place.text for place in self.places if place.text.strip()]
        ends = any(a[-1].isalnum() and b[0].isalnum() for a, b in pairwise(texts))
        return [glue.join(texts) for glue in ("\n", "")[: 1 + ends]]

    def replace(self, text: str) -> None:
        """Put another text in its place."""
        first, *others = self.places
        first.holder[first.field] = text
        if others:  # all are of one list
            blocks = first.siblings or first.holder
            gone = {id(place.holder) for place in others if place.siblings}
            words = {place.field for place in others if not place.siblings}
            blocks[:] = [
                one for at, one in enumerate(blocks) if at not in words and id(one) not in gone
            ]


def read_body(raw: bytes) -> dict[str, Any]:
    """Return the JSON object of a body that no two readers take differently.

    Raises:
        Refusal: 400, saying why not; 413, if it has too many parts.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) > _MOST_PARTS:
        raise Refusal(413, f"the body has more than {_MOST_PARTS:,} parts; send a shorter chat")
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


def write_body(body: dict[str, Any]) -> bytes:
    """Return a body as it goes on.

    Raises:
        Refusal: 400, if it is nested too deep: for the reader it was not.
    """
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except RecursionError:
        raise Refusal(400, "the body is no JSON: nested too deep; send one object") from None


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
        for places in _tool_results(message) if role in _TRUSTED else _fields(message):
            found += _passages(places, is_current=is_current)
            if len(found) > _MOST_TEXTS:
                raise _too_many()
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


def _tool_results(message: dict[str, Any]) -> Iterator[list[_Place]]:
    """Give the texts of results of tools that the service ran itself: they stand in its turn."""
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            _refuse_odd_names(block)
            if str(block.get("type")).endswith("tool_result"):
                yield from _fields(block)


def _groups(holder: Any, field: str | int, *, depth: int) -> Iterator[list[_Place]]:
    """Give lists of places whose texts are read one after another."""
    value = holder[field]
    if depth > _MOST_DEPTH:
        raise Refusal(400, f"messages: content is nested deeper than {_MOST_DEPTH}; make it flat")
    if isinstance(value, str):
        yield [_Place(holder, field, [])]
    elif isinstance(value, dict):
        yield from _fields(value, depth=depth)
    elif isinstance(value, list):
        yield from _blocks(value, depth=depth)


def _blocks(value: list[Any], *, depth: int) -> Iterator[list[_Place]]:
    texts = []
    for at, block in enumerate(value):
        if isinstance(block, str):
            texts.append(_Place(value, at, []))
        elif isinstance(block, dict):
            if isinstance(block.get("text"), str):
                texts.append(_Place(block, "text", value))
            yield from _fields(block, depth=depth, is_block=True)
        elif isinstance(block, list):
            yield from _groups(value, at, depth=depth + 1)
        if len(texts) > _MOST_TEXTS:
            raise _too_many()
    if texts:
        yield texts


def _fields(
    value: dict[str, Any], *, depth: int = -1, is_block: bool = False
) -> Iterator[list[_Place]]:
    _refuse_odd_names(value)
    for name, held in value.items():
        is_done = is_block and name == "text"
        if not (isinstance(held, str) and (is_done or _is_no_text(value, name, held))):
            yield from _groups(value, name, depth=depth + 1)


def _is_no_text(holder: dict[str, Any], name: str, held: str) -> bool:
    """Return whether a field holds bytes, a name or an address, as its name says."""
    if name == "data" and (holder.get("type") == "text" or _is_plain(holder.get("media_type"))):
        return False
    is_word = name in _WORDS and len(held) <= _MOST_WORD
    return (is_word or name in _PACKED) and " " not in held


def _is_plain(media_type: Any) -> bool:
    return isinstance(media_type, str) and media_type.lower().startswith("text/")


def _too_many() -> Refusal:
    return Refusal(413, f"messages: more than {_MOST_TEXTS} texts; send a shorter chat")


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
