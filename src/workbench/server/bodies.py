"""What clients send, read strictly: size, type, depth, fields and values are checked before use."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NoReturn

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown
from workbench.core.identity import canonical_json
from workbench.server.problems import Refusal

__all__ = ["MOST_BYTES", "check", "parse_body", "parse_query"]

MOST_BYTES = 1_000_000
"""Most of a request's body."""
_MOST_DEPTH = 16
"""Most objects and lists inside one another."""
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_JUPYTERS = frozenset({"token", "_xsrf", "no_track_activity"})
"""Query parameters that Jupyter itself reads."""


def parse_body(raw: bytes, *, media_type: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON object of a body that is as its schema says.

    Raises:
        Refusal: 415 if it is declared as something else, 400 if it is not as the schema says.
    """
    if media_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, f"Content-Type {media_type[:80]!r}: send application/json")
    try:
        value = json.loads(
            raw, parse_constant=_no_constant, parse_float=_number, object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"the body is no JSON: {reason}") from None
    _check_texts(value)
    check(value, schema, where="body")
    return dict(value)


def parse_query(
    given: Mapping[str, list[bytes]], *, schemas: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the query parameters by name, with the defaults of those that are not given.

    Raises:
        Refusal: 400 if one is unknown, is given twice, or has a value that makes no sense.
    """
    found = {name: one["default"] for name, one in schemas.items() if "default" in one}
    for name, values in given.items():
        if name in _JUPYTERS:
            continue
        if name not in schemas or len(values) > 1:
            known = ", ".join(schemas) or "none"
            raise Refusal(400, f"query: {name!r} is unknown or given twice; known: {known}")
        try:
            text = values[0].decode()
        except UnicodeDecodeError:
            raise Refusal(400, f"query: {name} is not UTF-8; percent-encode it so") from None
        is_number = schemas[name].get("type") == "integer" and _INTEGER.fullmatch(text)
        found[name] = int(text) if is_number else text
        _check_texts(found[name])
        check(found[name], schemas[name], where=f"query: {name}")
    return found


def check(value: Any, schema: Mapping[str, Any], *, where: str) -> None:
    """Refuse a value that is not as its JSON schema says.

    Raises:
        Refusal: 400, naming the place, the value and what is allowed there.
    """
    if isinstance(value, dict) and schema.get("additionalProperties") is False:
        try:
            refuse_unknown(value, known=tuple(schema["properties"]), where=where)
        except ConfigError as error:
            raise Refusal(400, str(error)) from None
    wrong = next(_validator(canonical_json(schema)).iter_errors(value), None)
    if wrong is not None:
        place = "".join(f"[{one!r}]" for one in wrong.absolute_path)
        fix = "; write a day that exists, e.g. 2026-11-27" if wrong.validator == "format" else ""
        raise Refusal(400, f"{where}{place}: {wrong.message}{fix}")


@cache
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker, validators

    # Python's $ lets a line end pass, that of JSON Schema does not
    strict = validators.extend(Draft202012Validator, {"pattern": _pattern})
    return strict(json.loads(schema), format_checker=FormatChecker(["date"]))


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[Exception]:
    from jsonschema import ValidationError

    if isinstance(value, str) and not re.search(pattern.replace("$", r"\Z"), value):
        yield ValidationError(f"{value[:80]!r} does not match {pattern!r}")


def _check_texts(value: Any) -> None:
    """Refuse what is nested too deep, and texts that no database can keep."""
    level, depth = [value], 0
    while level:
        for one in level:
            if isinstance(one, str) and not _is_storable(one):
                raise Refusal(400, "a text holds NUL or half a surrogate pair; take it out")
        lists = [one for one in level if isinstance(one, list)]
        objects = [one for one in level if isinstance(one, dict)]
        depth += bool(lists or objects)
        if depth > _MOST_DEPTH:
            raise Refusal(400, f"the body is nested deeper than {_MOST_DEPTH}; make it flatter")
        level = [item for one in lists for item in one]
        level += [item for one in objects for pair in one.items() for item in pair]


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose names are each given once: readers differ on which of two counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:80]!r} is given twice")
    return found


def _number(text: str) -> int | float:
    """Return a number; 1.0 is an integer in JSON Schema."""
    value = float(text)
    return int(value) if value.is_integer() else value
