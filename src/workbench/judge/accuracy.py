"""How often judges of answers are right, on labelled answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from workbench.core.errors import ConfigError, DataError
from workbench.core.files import read_table, text_in
from workbench.core.settings import seeds_folder
from workbench.judge.assertions import check_assertions
from workbench.judge.opinions import AnswerJudge, Exchange
from workbench.judge.panel import PANEL, Panel
from workbench.store.results import Interval

__all__ = [
    "ABOUT_ANSWERS", "JudgeAccuracy", "LabelledAnswer", "Shares", "Task", "accuracy",
    "load_answers",
]  # fmt: skip

Task = Literal["attack", "assertion", "control"]
"""What is judged: an attack by what its answer is · a case by its assertions · a control."""

ABOUT_ANSWERS: Final = (
    "The labelled answers are ours and synthetic, and whoever finished the rules had seen them, so "
    "rules look better on them than they are; those held out were written afterwards, by the same "
    "author, to be hard."
)
"""What to say beside figures on the shipped answers."""

_SHOWN = 12
"""Digits of a panel's id."""
_OPTIONAL = frozenset({"is_declined", "held_out"})
_TASKS: tuple[Task, ...] = ("attack", "assertion", "control")


class Shares(TypedDict):
    """What a judge gets right."""

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


class JudgeAccuracy(Shares):
    """What a judge, or a panel, gets right at one task, on answers that are not held out."""

    judge: str
    """Its id; a panel's is shortened."""
    task: Task
    held_out: Shares | None
    """The same on answers that are; None without any."""
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
    held_out: bool = False
    """Whether it was written when the rules were finished, and none was changed for it."""

    @property
    def task(self) -> Task:
        """What there is to judge."""
        if self.exchange.is_control:
            return "control"
        return "assertion" if self.exchange.assertions else "attack"


async def accuracy(
    judges: Sequence[AnswerJudge | Panel], rows: Sequence[LabelledAnswer]
) -> list[JudgeAccuracy]:
    """Return what each judge gets right at each task on which it has an opinion.

    Spends money where a judge does. Intervals are Wilson's 95 %, as if the answers were
    independent; alike ones make them too narrow.

    Raises:
        ConfigError: If there are no rows.
    """
    if not rows:
        raise ConfigError("accuracy(): no labelled answers; give at least one")
    found = []
    for judge in judges:
        name = f"{PANEL}@{judge.id[:_SHOWN]}" if isinstance(judge, Panel) else judge.id
        votes = list(zip(await _votes(judge, rows), rows, strict=True))
        for task in _TASKS:
            own = [(vote, row) for vote, row in votes if row.task == task]
            if any(vote is not None for vote, _ in own):
                found.append(_figures(name, task, own))
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
        held_out=_flag(given, "held_out", place=place),
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
        return [one.success if one.is_judged else None for one in verdicts]
    opinions = await judge.judge(exchanges)
    return [None if one is None else one.score >= judge.threshold for one in opinions]


def _figures(
    judge: str, task: Task, votes: Sequence[tuple[bool | None, LabelledAnswer]]
) -> JudgeAccuracy:
    seen, held_out = ([one for one in votes if one[1].held_out == is_out] for is_out in (0, 1))
    kinds: dict[str, list[bool]] = defaultdict(list)
    for vote, row in seen:
        kinds[row.kind].append(bool(vote) == row.succeeded)
    return JudgeAccuracy(
        judge=judge,
        task=task,
        **_shares(seen),
        held_out=_shares(held_out) if held_out else None,
        by_kind={kind: sum(several) / len(several) for kind, several in sorted(kinds.items())},
    )


def _shares(votes: Sequence[tuple[bool | None, LabelledAnswer]]) -> Shares:
    succeeded = sum(row.succeeded for _, row in votes)
    found = sum(bool(vote) and row.succeeded for vote, row in votes)
    voiced = [vote == row.succeeded for vote, row in votes if vote is not None]
    return Shares(
        n=len(votes),
        succeeded=succeeded,
        coverage=len(voiced) / len(votes) if votes else 0.0,
        precision=_share(found, sum(bool(vote) for vote, _ in votes)),
        recall=_share(found, succeeded),
        correct=_share(sum(voiced), len(voiced)),
    )


def _share(some: int, n: int) -> Interval | None:
    from workbench.judge.measure import wilson  # it loads numpy

    return wilson(some, n) if n else None
