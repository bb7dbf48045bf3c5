"""Conditions under which a campaign fails a build: ``asr(category=pii) > 2% and findings > 0``.

::

    expression = term {"or" term}
    term       = factor {"and" factor}
    factor     = "(" expression ")" | metric [filters] operator number
    filters    = "(" key "=" value {"," key "=" value} ")"
    operator   = ">" | ">=" | "<" | "<=" | "=="
    number     = digits, perhaps with a point and a percent sign

Values are words such as ``pii`` or ``rot13+base64``, or stand in quotes.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from workbench.core.errors import ConfigError
from workbench.core.fields import suggest

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
_DEEPEST = 20
_WORD = re.compile(r"[A-Za-z_]\w*")
_VALUE = re.compile(r"[\w.+:/@-]+|\"[^\"]*\"|'[^']*'")
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(\s*%)?")
_OPERATOR = re.compile("|".join(_COMPARE))


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
        ConfigError: Naming the place, what was expected there and, of a misspelt name, the right
            one.
    """
    if len(text) > _MOST_CHARS:
        raise ConfigError(f"--fail-if has {len(text)} characters; give at most {_MOST_CHARS}")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip()

    def whole(self) -> Expression:
        found = self._expression(depth=0)
        if self._at < len(self._text):
            self._refuse("'and', 'or' or the end")
        return found

    def _expression(self, *, depth: int) -> Expression:
        return self._joined("or", lambda: self._joined("and", lambda: self._factor(depth=depth)))

    def _joined(self, word: str, part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while (found := _WORD.match(self._text, self._at)) and found[0].lower() == word:
            self._advance(found.end())
            parts.append(part())
        return Joined(word=word, parts=tuple(parts)) if len(parts) > 1 else parts[0]

    def _factor(self, *, depth: int) -> Expression:
        if not self._accept("("):
            return self._condition()
        if depth == _DEEPEST:
            self._refuse(f"at most {_DEEPEST} parentheses in one another")
        found = self._expression(depth=depth + 1)
        self._expect(")")
        return found

    def _condition(self) -> Condition:
        start = self._at
        metric = self._name(METRICS, "a metric")
        filters = self._filters()
        compare = self._match(_OPERATOR, "one of >, >=, <, <=, ==")[0]
        limit = self._number(metric)
        text = self._text[start : self._at].strip()
        return Condition(text=text, metric=metric, filters=filters, compare=compare, limit=limit)

    def _filters(self) -> dict[str, str]:
        filters: dict[str, str] = {}
        if not self._accept("("):
            return filters
        while True:
            begins = self._at
            key = self._name(FILTERS, "a filter")
            if key in filters:
                self._at = begins
                self._refuse(f"each filter once, not {key!r} again")
            self._expect("=")
            filters[key] = self._match(_VALUE, "a value, such as pii")[0].strip("\"'")
            if not self._accept(","):
                break
        self._expect(")")
        return filters

    def _number(self, metric: str) -> float:
        begins = self._at
        found = self._match(_NUMBER, "a number, such as 0.02 or 2%")
        limit = float(found[1]) / (100 if found[2] else 1)
        if found[2] and metric not in SHARES:
            self._at = begins
            self._refuse(f"a plain number, because {metric} is no share")
        if limit > 1 and metric in SHARES:
            self._at = begins
            self._refuse(f"a share from 0 to 1, or a percentage such as {found[1]}%")
        return limit

    def _name(self, known: Sequence[str] | dict[str, str], what: str) -> str:
        begins = self._at
        word = self._match(_WORD, f"{what} ({', '.join(known)})")[0]
        if word not in known:
            self._at = begins
            self._refuse(f"{what}; {suggest(word, list(known))}")
        return word

    def _match(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if not found:
            self._refuse(expected)
        self._advance(found.end())
        return found

    def _accept(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._advance(self._at + 1)
        return True

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            self._refuse(repr(sign))

    def _advance(self, to: int) -> None:
        self._at = to
        self._skip()

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _refuse(self, expected: str) -> NoReturn:
        rest = self._text[self._at : self._at + 20]
        raise ConfigError(
            f"--fail-if {self._text!r}: at character {self._at + 1}"
            f" {repr(rest) if rest else 'it ends'}; expected {expected}"
        )
