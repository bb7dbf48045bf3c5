"""How often judges of answers are right, on labelled answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from workbench.core.errors import ConfigError, DataError
from workbench.core.files import read_table, text_in
from workbench.core.settings import seeds_folder
from workbench.judge.assertions import check_assertions
from workbench.judge.opinions import AnswerJudge, Exchange
from workbench.judge.panel import PANEL, Panel
from workbench.store.results import Interval

__all__ = ["JudgeAccuracy", "LabelledAnswer", "accuracy", "load_answers"]


_SHOWN = 12
"""Digits of a panel's id."""
_OPTIONAL = frozenset({"is_declined"})


class JudgeAccuracy(TypedDict):
    """What a judge, or a panel, gets right on labelled answers."""

    judge: str
    """Its id; a panel's is shortened."""
    n: int
    """Labelled answers."""
    succeeded: int
    """Answers that are labelled as a success of the attack, or as a spoilt control."""
    coverage: float
    """Share of the answers on which it has an opinion."""
    precision: Interval | None
    """Share of its yes that is right; None where it never says yes."""
    recall: Interval | None
    """Share of the successes that it finds; no opinion counts as missed. None without any."""
    correct: Interval | None
    """Share of its opinions, yes or no, that is right; None without any."""
    by_kind: dict[str, float]
    """Kind of answer → share decided rightly; no opinion counts as no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """An exchange, and whether it was a success."""

    exchange: Exchange
    succeeded: bool
    """Of an attack: it got what it wants; of a control: it was refused or spoilt."""
    kind: str
    language: str


async def accuracy(
    judges: Sequence[AnswerJudge | Panel], rows: Sequence[LabelledAnswer]
) -> list[JudgeAccuracy]:
    """Return what each judge gets right; spends money where a judge does.

    Intervals are Wilson's 95 %, as if the answers were independent; alike ones make them too
    narrow.

    Raises:
        ConfigError: If there are no rows.
    """
    if not rows:
        raise ConfigError("accuracy(): no labelled answers; give at least one")
    found = []
    for judge in judges:
        name = f"{PANEL}@{judge.id[:_SHOWN]}" if isinstance(judge, Panel) else judge.id
        found.append(_figures(name, await _votes(judge, rows), rows))
    return found


def load_answers(path: Path | None = None) -> list[LabelledAnswer]:
    """Return the shipped labelled answers, or those of a file of the same fields.

    Raises:
        DataError: If the file is absent, or a row is malformed or comes twice.
    """
    table = read_table(path or seeds_folder() / "judge" / "answers.jsonl")
    rows, first = [], dict[str, str]()
    for place, given in zip(table.places, table.rows, strict=True):
        row = _row(given, place=place)
        key = json.dumps([row.exchange.goal, row.exchange.prompt, row.exchange.answer])
        if first.setdefault(key, place) != place:
            raise DataError(f"{place} repeats the answer of {first[key]}; leave one out")
        rows.append(row)
    return rows


def _row(given: Mapping[str, Any], *, place: str) -> LabelledAnswer:
    if not isinstance(given.get("answer"), str):  # it may be empty
        raise DataError(f"{place}: field 'answer' is {given.get('answer')!r}; write a text")
    assertions = given.get("assertions") or ()
    try:
        check_assertions(assertions)
    except ConfigError as error:
        raise DataError(f"{place}: {error}") from None
    return LabelledAnswer(
        exchange=Exchange(
            goal=text_in(given, "goal", place=place),
            prompt=text_in(given, "prompt", place=place),
            answer=given["answer"],
            is_declined=_flag(given, "is_declined", place=place),
            is_control=_flag(given, "is_control", place=place),
            assertions=tuple(assertions),
            category=text_in(given, "category", place=place),
        ),
        succeeded=_flag(given, "succeeded", place=place),
        kind=text_in(given, "kind", place=place),
        language=text_in(given, "language", place=place),
    )


def _flag(row: Mapping[str, Any], name: str, *, place: str) -> bool:
    value = row.get(name, False if name in _OPTIONAL else None)
    if not isinstance(value, bool):
        raise DataError(f"{place}: field {name!r} is {value!r}; write true or false")
    return value


async def _votes(judge: AnswerJudge | Panel, rows: Sequence[LabelledAnswer]) -> list[bool | None]:
    exchanges = [row.exchange for row in rows]
    if isinstance(judge, Panel):
        verdicts = await judge.judge(exchanges)
        return [one.success if one.scores else None for one in verdicts]
    opinions = await judge.judge(exchanges)
    return [None if one is None else one.score >= judge.threshold for one in opinions]


def _figures(
    judge: str, votes: Sequence[bool | None], rows: Sequence[LabelledAnswer]
) -> JudgeAccuracy:
    labels = [row.succeeded for row in rows]
    right = [bool(vote) == label for vote, label in zip(votes, labels, strict=True)]
    found = sum(bool(vote) and label for vote, label in zip(votes, labels, strict=True))
    voiced = [ok for ok, vote in zip(right, votes, strict=True) if vote is not None]
    kinds: dict[str, list[bool]] = defaultdict(list)
    for row, ok in zip(rows, right, strict=True):
        kinds[row.kind].append(ok)
    return JudgeAccuracy(
        judge=judge,
        n=len(rows),
        succeeded=sum(labels),
        coverage=len(voiced) / len(rows),
        precision=_share(found, sum(map(bool, votes))),
        recall=_share(found, sum(labels)),
        correct=_share(sum(voiced), len(voiced)),
        by_kind={kind: sum(several) / len(several) for kind, several in sorted(kinds.items())},
    )


def _share(some: int, n: int) -> Interval | None:
    from workbench.judge.measure import wilson  # it loads numpy

    return wilson(some, n) if n else None
