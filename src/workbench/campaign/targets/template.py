"""What is sent to a target, and where in what comes back its answer stands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, urlencode

from workbench.campaign.targets.pacing import TargetError
from workbench.core.errors import ConfigError
from workbench.core.fields import suggest

__all__ = [
    "CONTENT_TYPES", "GUESSES", "Asked", "Format", "Path", "Template", "answer_in", "at_path",
    "parse_path",
]  # fmt: skip

Format = Literal["json", "form", "text"]
Path: TypeAlias = tuple[str, ...]

CONTENT_TYPES: Mapping[Format, str] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}
GUESSES: tuple[Path, ...] = tuple(
    tuple(path.split("."))
    for path in (
        "choices.0.message.content", "choices.0.text", "message.content", "content.0.text",
        "output.text", "text", "output", "response", "answer", "reply", "completion", "content",
        "message", "result", "generated_text", "0.generated_text", "data.text",
    )
)  # fmt: skip
"""Where answers stand in most services; the first place that holds text counts."""

_PLACEHOLDER = re.compile(r"\{\{ {0,3}(\w{1,40}) {0,3}\}\}")
_NAMES = ("prompt", "messages", "conversation")
_MOST_TEXTS = 10_000
"""In a body; a file of nested aliases could say more than any memory holds."""
_HTML = re.compile(r"\s{0,100}<(?:!doctype|html|head|body|\?xml)", re.IGNORECASE)


class Asked(NamedTuple):
    """What one message to a target consists of."""

    prompt: str
    """What the attacker says now."""
    messages: Sequence[Mapping[str, str]]
    """All of the conversation, ``prompt`` last, with the target's own replies between."""
    conversation: str
    """Random id of the conversation."""


class Template:
    """A body, and maybe an address, with ``{{prompt}}``, ``{{messages}}``, ``{{conversation}}``.

    What is put in is a value, never syntax: no prompt can end a string, add a field or be taken
    for a placeholder. A placeholder that stands alone in a JSON body becomes a JSON value; within
    other text ``{{messages}}`` becomes JSON as text.

    Args:
        body: JSON values, or text that holds JSON; a mapping for a form; text; None for no body.
        format: How the body is written.
        where: Whose body, for messages.
        query: What follows ``?`` in the address.

    Raises:
        ConfigError: If the body is not of its format, or would not carry the prompt.
    """

    def __init__(self, body: Any, *, format: Format, where: str, query: str = "") -> None:  # noqa: A002
        self._format = format
        self._body = _checked(body, format=format, where=where)
        self._query = query
        try:
            texts = [*islice(_texts(self._body), _MOST_TEXTS + 1), query]
        except RecursionError:
            texts = [""] * (_MOST_TEXTS + 2)
        if len(texts) > _MOST_TEXTS + 1:
            raise ConfigError(f"{where}: body is too large or contains itself; write it shorter")
        used = {name for text in texts for name in _PLACEHOLDER.findall(text)}
        if unknown := sorted(used.difference(_NAMES)):
            raise ConfigError(
                f"{where}: unknown placeholder {unknown[0]!r}; {suggest(unknown[0], _NAMES)}"
            )
        if not used & {"prompt", "messages"}:
            raise ConfigError(f"{where}: nothing of the prompt is sent; put {{{{prompt}}}} in body")
        self.has_history = bool(used & {"messages", "conversation"})

    def body(self, asked: Asked) -> bytes | None:
        """Return the body to send; None where there is none."""
        if self._body is None:
            return None
        values = asked._asdict()
        filled = _filled(self._body, values)
        if self._format == "json":
            return json.dumps(filled).encode("ascii")
        if self._format == "form":
            texts = {name: _as_text(value) for name, value in filled.items()}
            return urlencode(texts, errors="replace").encode("ascii")
        return _as_text(filled).encode("utf-8", "replace")

    def query(self, asked: Asked) -> str:
        """Return what follows ``?`` in the address."""
        values = asked._asdict()
        return _PLACEHOLDER.sub(
            lambda found: quote(_as_text(values[found[1]]), safe="", errors="replace"), self._query
        )


def _checked(body: Any, *, format: Format, where: str) -> Any:  # noqa: A002
    try:
        if format == "json" and isinstance(body, str):
            body = json.loads(body)
        if format == "json":
            json.dumps(body, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"{where}: body is no JSON ({' '.join(str(error).split())[:80]}); write placeholders as"
            ' texts, e.g. {"prompt": "{{prompt}}"}, or set format: text'
        ) from None
    is_form = isinstance(body, Mapping) and all(isinstance(one, str) for one in body.values())
    if body is not None and format == "form" and not is_form:
        raise ConfigError(f"{where}: body of a form is a mapping of names to texts")
    if body is not None and format == "text" and not isinstance(body, str):
        raise ConfigError(f"{where}: body of format text is a text")
    return body


def _texts(node: Any) -> Iterator[str]:
    """Yield the texts of a body; each number, too, as nothing, so that it is counted."""
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)
    else:
        yield node if isinstance(node, str) else ""


def _filled(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, str):
        if "{{" not in node:
            return node
        if alone := _PLACEHOLDER.fullmatch(node):
            return values[alone[1]]
        return _PLACEHOLDER.sub(lambda found: _as_text(values[found[1]]), node)
    if isinstance(node, Mapping):
        return {name: _filled(value, values) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_filled(value, values) for value in node]
    return node


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parse_path(text: str) -> Path:
    """Return the steps of a path such as ``choices.0.message.content``; none for the whole text.

    Raises:
        ConfigError: If a step is empty.
    """
    steps = tuple(text.split(".")) if text else ()
    if not all(steps):
        raise ConfigError(f"the path {text[:80]!r} has an empty step; write e.g. choices.0.text")
    return steps


def at_path(value: Any, path: Path) -> Any:
    """Return what stands at a path; None where nothing does."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list):
            try:
                value = value[int(step)]
            except (ValueError, IndexError):
                return None
        else:
            return None
    return value


def answer_in(text: str, path: Path | None) -> str:
    """Return the answer that stands in what a target sent.

    Args:
        text: All of it; hostile.
        path: Where the answer stands; empty for all of the text, None for a guess: JSON is looked
            at in :data:`GUESSES`, other text is the answer as it is.

    Raises:
        TargetError: If the text is HTML or, with a path, no JSON; or no text stands there.
    """
    if path == ():
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if _HTML.match(text):
            raise TargetError("answered HTML where JSON was expected; check the url") from None
        if path is None:
            return text
        raise TargetError(
            'answered what is no JSON; set response_path: "" to take the whole text'
        ) from None
    for steps in (path,) if path else GUESSES:
        found = at_path(value, steps)
        if isinstance(found, str):
            return found
        if isinstance(found, int | float) and path:
            return json.dumps(found)
    if path is None and isinstance(value, str):
        return value
    shown = f"at {'.'.join(path)}" if path else "in any usual place"
    raise TargetError(f"no text {shown} in the answer; set response_path to where it stands")
