"""What files of others say, checked: the one way by which cases and attempts are made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.core.redact import redact
from workbench.store.records import Attempt, TestCase

__all__ = [
    "MAX_TEXT_CHARS",
    "SEVERITIES",
    "Incoming",
    "checked_case",
    "checked_number",
    "objects",
    "of_one_target",
    "paired",
    "section",
]  # fmt: skip

MAX_TEXT_CHARS: Final = 1_000_000
"""Longest prompt, turn or goal that is read; longer answers are cut."""
SEVERITIES: Final = ("low", "medium", "high", "critical")
_MOST_ITEMS: Final = 200
_MOST_JUDGES: Final = 200
_MOST_NAME: Final = 200
"""Characters of a name that every database takes."""
_FIELDS: Final[dict[str, type]] = {
    **dict.fromkeys(("prompt", "goal", "plugin", "category", "severity"), str),
    **dict.fromkeys(("strategies", "taxonomy", "turns", "assertions"), list),
    "is_control": bool, "metadata": dict,
}  # fmt: skip


def checked_case(fields: Mapping[str, Any], *, place: str) -> TestCase:
    """Return the case of these fields; missing lists and objects are empty.

    Raises:
        DataError: If a field is unknown, of another kind or too long; names it and the fix.
    """
    if strange := fields.keys() - _FIELDS.keys():
        raise DataError(f"{place}: unknown field {min(strange)[:40]!r}; drop it")
    for name, kind in _FIELDS.items():
        value = fields.get(name, kind())
        items = value if isinstance(value, list) else [value]
        inner = kind if kind is not list else dict if name == "assertions" else str
        if not isinstance(value, kind) or not all(isinstance(one, inner) for one in items):
            raise DataError(f"{place}: {name} is {str(value)[:40]!r}; that is no {kind.__name__}")
        size = max((len(one) for one in items if isinstance(one, str)), default=0)
        for length, most in ((len(items), _MOST_ITEMS), (size, MAX_TEXT_CHARS)):
            if length > most:
                what = f"{name} has {length:,} items or characters; the limit is {most:,}"
                raise DataError(f"{place}: {what}, so shorten or drop it")
    if fields["severity"] not in SEVERITIES:
        shown = f"severity is {fields['severity'][:40]!r}"
        raise DataError(f"{place}: {shown}; write one of {', '.join(SEVERITIES)}")
    return TestCase.from_json(dict(fields))


def checked_number(value: Any, name: str, *, place: str, most: float) -> float:
    """Return a number from 0 to ``most``; nothing is 0.

    Raises:
        DataError: If it is something else.
    """
    if value is None:
        return 0.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:  # which NaN is not either
        raise DataError(f"{place}: {name} is {str(value)[:40]!r}; write a number 0 to {most:g}")
    return float(value)


class Incoming:
    """Makes attempts: texts cut and redacted, numbers bounded, tries counted."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[str, str]] = Counter()
        self._judges: set[str] = set()

    def attempt(
        self, case_id: str, *, place: str, execution: str, target: str, sent: str, received: str,
        scores: Mapping[str, Any], reasons: Mapping[str, str] | None = None, success: bool = False,
        decision: str = "pass", error: str = "", latency_ms: Any = None, usd: Any = None,
    ) -> Attempt:  # fmt: skip
        """Return the next try of a case; one that failed has no verdict.

        Raises:
            DataError: If a number is none or out of bounds, or the judges are too many.
        """
        tried = case_id, _clean(target)[:_MOST_NAME]
        self._tried[tried] += 1
        said = {
            _clean(judge)[:_MOST_NAME]: checked_number(p, f"score of {judge}", place=place, most=1)
            for judge, p in scores.items()
            if not error
        }
        self._judges.update(said)
        if len(self._judges) > _MOST_JUDGES:
            raise DataError(f"{place}: over {_MOST_JUDGES} judges; split the file")
        why = {_clean(judge)[:_MOST_NAME]: _clean(text) for judge, text in (reasons or {}).items()}
        cost = checked_number(usd, "cost", place=place, most=1e6)
        return Attempt(
            execution=_clean(execution), case_id=case_id, target=tried[1], sent=_clean(sent),
            received=_clean(received), decision="error" if error else decision, scores=said,
            success=success and not error, usd=Decimal(f"{cost:.12g}"), error=_clean(error),
            latency_ms=checked_number(latency_ms, "latency in ms", place=place, most=1e12),
            trial=self._tried[tried] - 1, reasons={} if error else why,
        )  # fmt: skip


def paired(
    attempts: Iterable[Attempt], cases: Iterable[TestCase]
) -> Iterator[tuple[Attempt, TestCase]]:
    """Iterate over attempts with their cases.

    Raises:
        DataError: If one is of none of the cases.
    """
    known = {case.id: case for case in cases}
    for one in attempts:
        if one.case_id not in known:
            what = f"attempt of case {one.case_id[:12]!r}: none of the cases"
            raise DataError(f"{what}; give the test set that was executed")
        yield one, known[one.case_id]


def of_one_target(tried: Iterable[tuple[Attempt, TestCase]]) -> list[tuple[Attempt, TestCase]]:
    """Return attempts with their cases, all in memory.

    Raises:
        DataError: If they are on several targets, or there are none.
    """
    found = list(tried)
    if (count := len({one.target for one, _ in found})) != 1:
        raise DataError(f"{count} targets; such a file is of one, so write one for each")
    return found


def section(value: Any, name: str) -> Mapping[str, Any]:
    """Return an object inside of an object; an empty one where there is none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _clean(text: str) -> str:
    return storable(redact(text[:MAX_TEXT_CHARS]))
