"""Conditions under which a campaign fails a build: ``asr(category=pii) > 2% and findings > 0``.

A condition is ``metric(filter=value, …) operator number``; filters may be absent, the number a
percentage. ``and``, ``or`` and parentheses join them. Values are words such as ``pii`` or
``rot13+base64``, or stand in quotes.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NoReturn, TypeAlias

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown

__all__ = ["FILTERS", "METRICS", "SHARES", "Condition", "Expression", "Joined", "parse"]

METRICS = {
    "asr": "share of answered attacks that succeeded",
    "asr_low": "lower end of its 95 % interval",
    "asr_high": "upper end of its 95 % interval",
    "spoilt": "share of answered controls that were refused or changed",
    "errors": "share of attempts without an answer",
    "flaky": "share of cases, tried several times, that did not always end alike",
    "cost_usd": "dollars that the attempts cost",
    "findings": "findings that nobody called false or fixed",
}
"""Metric → what it is."""
SHARES = frozenset(METRICS) - {"cost_usd", "findings"}
FILTERS = ("plugin", "strategy", "category", "severity", "target")

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_MOST_CHARS = 1000
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_CONDITION = re.compile(
    rf"(?!(?:and|or)\b)\b([a-z_]\w*)\s*(?:\(((?:{_QUOTED}|[^()\"'])*)\))?"
    rf"\s*({'|'.join(_COMPARE)})\s*([0-9]+\.?[0-9]*|\.[0-9]+)(\s*%)?",
    re.IGNORECASE,
)
_FILTER = re.compile(rf"\s*(\w+)\s*=\s*({_QUOTED}|[\w.+:/@-]+)\s*(?:,|$)")
_JOINTS = re.compile(r"\b(?:and|or)\b|[()]", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A metric beside a limit."""

    text: str
    """As it was written."""
    metric: str
    filters: dict[str, str]
    compare: str
    limit: float

    def holds(self, value: float) -> bool:
        """Return whether a value of the metric meets the condition."""
        return _COMPARE[self.compare](value, self.limit)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Expressions of which all (``and``), or any (``or``), must hold."""

    word: str
    parts: tuple[Expression, ...]


Expression: TypeAlias = Condition | Joined


def parse(text: str) -> Expression:
    """Return what an expression says.

    Raises:
        ConfigError: Naming what cannot be read or, of a misspelt name, the right one.
    """
    if len(text) > _MOST_CHARS:
        raise ConfigError(f"--fail-if has {len(text)} characters; give at most {_MOST_CHARS}")
    if odd := _JOINTS.sub("", _CONDITION.sub(" ", text)).split():
        _refuse(text, f"cannot read {odd[0][:20]!r}")
    conditions = [_condition(found) for found in _CONDITION.finditer(text)]
    at = count()
    joints = _CONDITION.sub(lambda _: f" [{next(at)}] ", text).lower().split()
    try:  # "and", "or" and parentheses around lists of a number: Python's own grammar reads it
        return _joined(ast.parse(f"({' '.join(joints)})", mode="eval").body, conditions)
    except (SyntaxError, TypeError):
        _refuse(text, "conditions, and, or and parentheses do not fit together")


def _joined(node: ast.expr, conditions: Sequence[Condition]) -> Expression:
    match node:
        case ast.List(elts=[ast.Constant(value=int(at))]):
            return conditions[at]
        case ast.BoolOp(op=op, values=values):
            parts = tuple(_joined(one, conditions) for one in values)
            return Joined(word="and" if isinstance(op, ast.And) else "or", parts=parts)
    raise TypeError(ast.dump(node))


def _condition(found: re.Match[str]) -> Condition:
    metric, inside, compare, number, percent = found.groups()
    text, limit = found[0], float(number) / (100 if percent else 1)
    refuse_unknown([metric], known=METRICS, where=f"--fail-if {text!r}")
    if percent and metric not in SHARES:
        _refuse(text, f"{metric} is no share: give a plain number")
    if limit > 1 and metric in SHARES:
        _refuse(text, f"{metric} is a share: give 0 to 1, or a percentage such as {number}%")
    pairs = _FILTER.findall(inside or "")
    filters = {key: value.strip("\"'") for key, value in pairs}
    if len(filters) < len(pairs) or _FILTER.sub("", inside or "").strip():
        _refuse(text, "give each filter once, as category=pii, with commas between")
    refuse_unknown(filters, known=FILTERS, where=f"--fail-if {text!r}")
    return Condition(text=text, metric=metric, filters=filters, compare=compare, limit=limit)


def _refuse(text: str, why: str) -> NoReturn:
    raise ConfigError(f"--fail-if {text!r}: {why}; write e.g. asr(category=pii) > 2% or flaky > 0")
