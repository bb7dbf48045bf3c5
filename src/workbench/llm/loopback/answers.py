"""What the loopback server answers: harmless words, or JSON that meets a schema."""

from __future__ import annotations

import html
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from workbench.core.identity import seeded
from workbench.llm.loopback.wire import Call

__all__ = ["Answers"]

_ITEM_ID = re.compile(r'<item id="([^"]*)"')
_WORDS = (  # noqa: SIM905 - reads as what it is
    "the record names a library whose parser reads past a short buffer when a field is empty and"
    " a later release checks the length first so users should update soon"
).split()


class Answers:
    """Writes the n-th answer to a prompt; the same for the same seed, model and prompt."""

    def __init__(self, *, seed: int, answer: Callable[[dict[str, Any]], str] | None) -> None:
        self._seed, self._answer = seed, answer
        self._asked: Counter[str] = Counter()

    def write(self, call: Call) -> tuple[str, str, int]:
        """Return text within the request's limit, stop reason and tokens."""
        self._asked[call.digest] += 1
        chance = seeded(self._seed, call.model, call.digest, self._asked[call.digest])
        if self._answer:
            text = self._answer(call.body)
        elif call.schema:
            ids = [html.unescape(name) for name in _ITEM_ID.findall(call.prompt)]
            text = json.dumps(_fill(call.schema, call.schema, ids, chance), ensure_ascii=False)
        else:
            text = _sentence(chance, 12 + chance.randrange(30) + min(len(call.prompt) // 64, 200))
        data, limit = text.encode(), call.max_tokens * 4
        if not limit or len(data) > limit:
            return data[:limit].decode("utf-8", "ignore"), "max_tokens", call.max_tokens
        return text, "end_turn", max(1, -(-len(data) // 4))


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."


def _fill(
    schema: Mapping[str, Any], root: Mapping[str, Any], ids: list[str], chance: random.Random
) -> Any:
    """Return a value that meets a schema; a list of things with an id has one for each of ids."""
    while "$ref" in schema or "anyOf" in schema:
        name = schema.get("$ref", "").rpartition("/")[2]
        schema = root["$defs"][name] if name else schema["anyOf"][0]
    if "enum" in schema or "const" in schema:
        return chance.choice(schema.get("enum") or [schema["const"]])
    kind = schema.get("type", "string")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        parts = schema["properties"].items()
        return {name: _fill(part, root, ids, chance) for name, part in parts}
    if kind == "array":
        some = [_fill(schema.get("items", {}), root, ids, chance) for _ in ids or "ab"]
        if ids and isinstance(some[0], dict) and "id" in some[0]:
            return [one | {"id": name} for one, name in zip(some, ids, strict=True)]
        return some[:2]
    if kind == "string":
        return _sentence(chance, 5 + chance.randrange(10))
    return {"integer": chance.randrange(10), "number": chance.random(), "boolean": True}.get(kind)
