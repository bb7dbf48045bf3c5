"""Differences of two JSON values as a short list of changes, and how to make them.

A change is ``[path, value]``: put the value there; or ``[path]``: remove what is there. A path is a
list of keys of objects and positions in lists. A position at the end of a list appends to it;
``[path]`` with a position drops everything from there on. The empty path is the whole value.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

__all__ = ["apply", "diff"]

_ABSENT = object()


def diff(old: Any, new: Any) -> list[list[Any]]:
    """Return the changes that make one JSON value of another, in the order to make them.

    They are never longer, as JSON, than the new value as a whole. None of them is a float NaN:
    that is no JSON.
    """
    return _changes(old, new, ())


def apply(state: Any, diffs: Sequence[Sequence[Any]]) -> Any:
    """Return a JSON value after changes; the given one stays as it is.

    Args:
        state: Any JSON value.
        diffs: As :func:`diff` returns them.

    Raises:
        LookupError: If a path leads nowhere: the changes are of another value.
    """
    for path, *value in diffs:
        state = _put(state, path, value[0] if value else _ABSENT)
    return state


def _changes(old: Any, new: Any, path: tuple[str | int, ...]) -> list[list[Any]]:
    if type(old) is not type(new):  # True == 1 in Python, not in JSON
        return [[list(path), new]]
    if isinstance(new, dict):
        parts = _of_objects(old, new, path)
    elif isinstance(new, list):
        parts = _of_lists(old, new, path)
    else:
        return [] if old == new else [[list(path), new]]
    whole = [[list(path), new]]
    return parts if not parts or _size(parts) <= _size(whole) else whole


def _of_objects(
    old: dict[str, Any], new: dict[str, Any], path: tuple[str | int, ...]
) -> list[list[Any]]:
    parts: list[list[Any]] = [[[*path, key]] for key in old if key not in new]
    for key, value in new.items():
        parts += _changes(old.get(key, _ABSENT), value, (*path, key))
    return parts


def _of_lists(old: list[Any], new: list[Any], path: tuple[str | int, ...]) -> list[list[Any]]:
    parts: list[list[Any]] = []
    for at, value in enumerate(new):
        parts += _changes(old[at] if at < len(old) else _ABSENT, value, (*path, at))
    return [*parts, [[*path, len(new)]]] if len(new) < len(old) else parts


def _put(state: Any, path: Sequence[str | int], value: Any) -> Any:
    """Return the state with a value at a path; copies what the path goes through, nothing else."""
    if not path:
        return None if value is _ABSENT else value
    key, *rest = path
    if isinstance(state, dict) and isinstance(key, str):
        return _put_in_object(state, key, rest, value)
    if isinstance(state, list) and type(key) is int and 0 <= key < len(state) + (not rest):
        return _put_in_list(state, key, rest, value)
    raise LookupError(f"no place {key!r:.80} in a {type(state).__name__}; ask for a new snapshot")


def _put_in_list(state: list[Any], at: int, rest: Sequence[Any], value: Any) -> list[Any]:
    if rest:
        return [*state[:at], _put(state[at], rest, value), *state[at + 1 :]]
    return state[:at] if value is _ABSENT else [*state[:at], value, *state[at + 1 :]]


def _put_in_object(
    state: dict[str, Any], key: str, rest: Sequence[Any], value: Any
) -> dict[str, Any]:
    if rest:
        if key not in state:
            raise LookupError(f"no key {key[:80]!r}; ask for a new snapshot")
        return {**state, key: _put(state[key], rest, value)}
    if value is _ABSENT:
        return {name: one for name, one in state.items() if name != key}
    return {**state, key: value}


def _size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":")))
