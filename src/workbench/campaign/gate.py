"""Whether a campaign fails a build: conditions measured on an execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from workbench.campaign.columns import Columns, Flags, Source, dollars, read_columns
from workbench.campaign.comparisons import repeated_cases
from workbench.campaign.conditions import FILTERS, Condition, Expression, Joined, parse
from workbench.campaign.rates import attacks, controls, total
from workbench.core.errors import ConfigError
from workbench.core.fields import suggest
from workbench.store.records import Finding
from workbench.store.results import Interval

__all__ = ["GateCheck", "Measured", "evaluate", "failure"]

_READ = (*FILTERS, "goal", "case_id", "success", "error", "is_control", "usd")
_CLOSED = frozenset({"false_positive", "fixed"})


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A condition and what its metric came to."""

    condition: str
    value: float
    interval: Interval | None
    """Of shares."""
    n: int
    """Attempts, or cases, that the value is of."""
    holds: bool

    def __str__(self) -> str:
        """Return it in words, e.g. ``asr > 2%: 0.031 (0.02 to 0.05), n = 400``."""
        ends = self.interval
        within = f" ({ends['low']:.4g} to {ends['high']:.4g})" if ends else ""
        return f"{self.condition}: {self.value:.4g}{within}, n = {self.n}"


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    """An expression of ``--fail-if``."""

    expression: str
    passed: bool
    """Whether it does not hold: then the build may pass."""
    measured: tuple[Measured, ...]
    """Every condition in it."""

    def __str__(self) -> str:
        """Return the expression's conditions in words."""
        return "; ".join(map(str, self.measured))


def evaluate(
    expressions: Sequence[str], source: Source, *, findings: Sequence[Finding] | None = None
) -> list[GateCheck]:
    """Return a check per expression; the build fails where one has not passed.

    As among findings, targets that do not claim to defend count only where a condition names one,
    where none does claim it, and in ``cost_usd``.

    Args:
        expressions: See ``campaign.conditions``.
        source: An execution, or the Parquet file of its attempts.
        findings: Of the execution, as triaged; only the metric ``findings`` needs them.

    Raises:
        ConfigError: If an expression is wrong, or a condition is about nothing: what was never
            tried has not passed.
        StoreError: If the file is damaged.
    """
    parsed = [parse(text) for text in expressions]
    if not parsed:
        return []
    columns = read_columns(source, _READ)
    baselines = () if isinstance(source, Path) else source.baselines
    tested = columns.where(_defended(columns, baselines))
    checks = []
    for text, expression in zip(expressions, parsed, strict=True):
        # All conditions, also those that no longer decide: a reader wants every figure.
        found = {
            one.text: _measure(one, columns if _is_of_all(one) else tested, findings)
            for one in _conditions(expression)
        }
        held = _holds(expression, found)
        measured = tuple(found.values())
        checks.append(GateCheck(expression=text, passed=not held, measured=measured))
    return checks


def failure(checks: Sequence[GateCheck]) -> str:
    """Return what to say of the checks that did not pass, in one line; empty where all did."""
    failed = [f"{one.expression} ({one})" for one in checks if not one.passed]
    return f"gate failed: {' | '.join(failed)}" if failed else ""


class _Figure(NamedTuple):
    value: float
    n: int
    interval: Interval | None = None


def _conditions(expression: Expression) -> Iterator[Condition]:
    if isinstance(expression, Joined):
        for part in expression.parts:
            yield from _conditions(part)
    else:
        yield expression


def _holds(expression: Expression, found: Mapping[str, Measured]) -> bool:
    if isinstance(expression, Condition):
        return found[expression.text].holds
    held = [_holds(part, found) for part in expression.parts]
    return all(held) if expression.word == "and" else any(held)


def _measure(
    condition: Condition, columns: Columns, findings: Sequence[Finding] | None
) -> Measured:
    some = columns.where(_matching(condition, columns))
    if condition.metric == "findings":
        figure = _open_findings(condition, some, findings)
    else:
        figure = _FIGURES[condition.metric](some)
    if not figure.n:
        what = "cases tried twice" if condition.metric == "flaky" else "answered attempts"
        raise ConfigError(
            f"--fail-if {condition.text!r}: there are no {what} for it; test them, or change the"
            " condition"
        )
    return Measured(
        condition=condition.text,
        value=figure.value,
        interval=figure.interval,
        n=figure.n,
        holds=condition.holds(figure.value),
    )


def _defended(columns: Columns, baselines: Sequence[str]) -> Flags:
    codes = [columns.code("target", name) for name in baselines]
    mask = ~np.isin(columns["target"], codes)
    return mask if mask.any() else ~mask


def _is_of_all(condition: Condition) -> bool:
    return "target" in condition.filters or condition.metric == "cost_usd"


def _matching(condition: Condition, columns: Columns) -> Flags:
    mask = np.ones(columns.rows, np.bool_)
    for key, value in condition.filters.items():
        code = columns.code(key, value)
        if code < 0:
            known = suggest(value, sorted(columns.labels(key)))
            raise ConfigError(
                f"--fail-if {condition.text!r}: no attempt has {key}={value}; {known}"
            )
        mask &= columns[key] == code
    return mask


def _share(outcomes: Columns) -> _Figure:
    if not outcomes.rows:
        return _Figure(0.0, 0)
    rate = total(outcomes)
    return _Figure(rate["value"], outcomes.rows, rate)


def _errors(columns: Columns) -> _Figure:
    failed = {**columns.values, "success": ~columns.answered()}
    return _share(replace(columns, values=failed))


def _flaky(columns: Columns) -> _Figure:
    return _share(repeated_cases(columns.where(columns.answered())))


def _asr(columns: Columns) -> _Figure:
    return _share(columns.where(attacks(columns)))


def _asr_end(columns: Columns, end: Literal["low", "high"]) -> _Figure:
    found = _asr(columns)
    return found._replace(value=found.interval[end]) if found.interval else found


def _open_findings(
    condition: Condition, columns: Columns, findings: Sequence[Finding] | None
) -> _Figure:
    if findings is None:
        raise ConfigError(
            f"--fail-if {condition.text!r}: this execution is not analyzed, so its findings are"
            " not known; run its analysis first"
        )
    count = sum(
        one.status not in _CLOSED
        and all(getattr(one, key) == value for key, value in condition.filters.items())
        for one in findings
    )
    return _Figure(float(count), int(attacks(columns).sum()))


_FIGURES: Mapping[str, Callable[[Columns], _Figure]] = {
    "asr": _asr,
    "asr_low": lambda columns: _asr_end(columns, "low"),
    "asr_high": lambda columns: _asr_end(columns, "high"),
    "spoilt": lambda columns: _share(columns.where(controls(columns))),
    "errors": _errors,
    "flaky": _flaky,
    "cost_usd": lambda columns: _Figure(float(dollars(columns)), columns.rows),
}
