"""What the loopback server answers: harmless words, or JSON that meets a schema."""

from __future__ import annotations

import html
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Answers"]

_ITEM_ID = re.compile(r'<item id="([^"]*)"')
_WORDS = (  # noqa: SIM905 - reads as what it is
    "the record names a library whose parser reads past a short buffer when a field is empty and"
    " a later release checks the length first so users should update soon"
).split()
_HALF = 0.5


class Answers:
    """Writes the n-th answer to a prompt; the same for the same seed, model and prompt."""

    def __init__(
        self, *, seed: int, spoil_items: float, answer: Callable[[dict[str, Any]], str] | None
    ) -> None:
        self._seed, self._spoil_items, self._answer = seed, spoil_items, answer
        self._asked: Counter[str] = Counter()

    def write(
        self, body: dict[str, Any], *, prompt: str, digest: str, model: str, max_tokens: int
    ) -> tuple[str, str, int]:
        """Return text, stop reason and output tokens."""
        if max_tokens == 0:
            return "", "max_tokens", 0
        self._asked[digest] += 1
        chance = random.Random(f"{self._seed}/{model}/{digest}/{self._asked[digest]}")  # noqa: S311
        if self._answer:
            text = self._answer(body)
        elif schema := _asked_schema(body):
            ids = [html.unescape(name) for name in _ITEM_ID.findall(prompt)]
            maker = _Maker(schema.get("$defs", {}), ids, chance, self._spoil_items)
            text = json.dumps(maker.value(schema), ensure_ascii=False)
        else:
            text = _sentence(chance, 12 + chance.randrange(30) + min(len(prompt) // 64, 200))
        data = text.encode()
        if len(data) > max_tokens * 4:
            return data[: max_tokens * 4].decode("utf-8", "ignore"), "max_tokens", max_tokens
        return text, "end_turn", max(1, -(-len(data) // 4))


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words)).capitalize() + "."


def _asked_schema(body: Mapping[str, Any]) -> dict[str, Any]:
    asked = (body.get("output_config") or {}).get("format") or body.get("response_format") or {}
    schema: dict[str, Any] = asked.get("schema") or asked.get("json_schema", {}).get("schema", {})
    return schema


class _Maker:
    def __init__(
        self, defs: Mapping[str, Any], ids: list[str], chance: random.Random, spoil: float
    ) -> None:
        self._defs, self._ids, self._chance, self._spoil = defs, ids, chance, spoil

    def value(self, schema: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one per kind of schema
        if "$ref" in schema:
            return self.value(self._defs[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return self.value(schema["anyOf"][0])
        if "const" in schema or "enum" in schema:
            return self._chance.choice(schema.get("enum") or [schema["const"]])
        kind, low = schema.get("type", "string"), schema.get("minimum", 0)
        match kind[0] if isinstance(kind, list) else kind:
            case "object":
                return {name: self.value(part) for name, part in schema["properties"].items()}
            case "array":
                return self._array(schema.get("items", {}), schema.get("minItems", 2))
            case "integer":
                return self._chance.randint(low, schema.get("maximum", low + 10))
            case "number":
                return round(self._chance.uniform(low, schema.get("maximum", low + 1)), 3)
            case "boolean" | "null" as simple:
                return self._chance.random() < _HALF if simple == "boolean" else None
        return _sentence(self._chance, 5 + self._chance.randrange(10))

    def _array(self, items: Mapping[str, Any], least: int) -> list[Any]:
        if not (self._ids and "id" in items.get("properties", {})):
            return [self.value(items) for _ in range(least)]
        rows = []
        for name in self._ids:
            row, luck = self.value(items) | {"id": name}, self._chance.random()
            if luck >= self._spoil:
                rows.append(row)
            elif luck < self._spoil * _HALF:
                rows.append({"id": name})
        return rows
