"""What to do about a risk and by when, from published decision tables.

A table becomes an array with one axis per decision point and one entry more on each, the last,
for a point that is missing: so position -1 finds the most urgent row that could apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, DataError
from workbench.core.files import read_table
from workbench.core.settings import seeds_folder
from workbench.risk.records import EXPOSURES
from workbench.risk.score import AUTOMATABLE, EXPLOITATION, TECHNICAL_IMPACT, USUAL, Codes

__all__ = [
    "MODEL_POLICY", "NEXT_UPGRADE", "POLICIES", "Decisions", "assumptions", "decide",
    "decision_names", "due_date", "due_dates", "model_decisions",
]  # fmt: skip

Days = npt.NDArray[np.int16]

NEXT_UPGRADE: Final = -1
"""In place of days: no date of its own."""
MODEL_POLICY: Final = "model-risk"

_HUMAN_IMPACTS: Final = ("low", "medium", "high", "very high")
_MISSIONS: Final = ("low", "medium", "high")
_KNOWN_OR_NOT: Final = ("no", "yes")
_POINTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "kev": (_KNOWN_OR_NOT, "no"),
    "exposed": (_KNOWN_OR_NOT, "no"),
    "exploitation": (EXPLOITATION, USUAL["exploitation"]),
    "automatable": (AUTOMATABLE, USUAL["automatable"]),
    "technical_impact": (TECHNICAL_IMPACT, USUAL["technical_impact"]),
    "exposure": (EXPOSURES, USUAL["exposure"]),
    "human_impact": (_HUMAN_IMPACTS, "medium"),
    "mission": (_MISSIONS, "medium"),
}  # fmt: skip
"""Decision point → its values, least first, and the usual one."""

_HUMAN_BY_CRITICALITY = np.array([-1, 0, 0, 1, 2, 3], dtype=np.int8)
_MISSION_BY_CRITICALITY = np.array([-1, 0, 0, 1, 2, 2], dtype=np.int8)
"""Position in ``_HUMAN_IMPACTS`` and ``_MISSIONS`` by criticality, 0 missing: assumed."""

_MODEL_DAYS: Final = (NEXT_UPGRADE, 90, 30, 14)
"""By level: assumed."""


@dataclass(frozen=True, kw_only=True)
class _Table:
    """A decision table as it is published."""

    file: str
    points: tuple[str, ...]
    decisions: Mapping[str, int]
    """Decision, least urgent first → days."""


_POLICIES: Final[Mapping[str, _Table]] = {
    "bod-26-04": _Table(
        file="bod_26_04.csv",
        points=("kev", "exposed", "automatable", "technical_impact"),
        decisions={
            "fix on system upgrade": NEXT_UPGRADE,
            "60 days": 60,
            "14 days": 14,
            "3 days": 3,
            "3 days & forensic investigation": 3,
        },
    ),
    "ssvc-deployer": _Table(
        file="ssvc_deployer.csv",
        points=("exploitation", "exposure", "automatable", "human_impact"),
        decisions={"defer": NEXT_UPGRADE, "scheduled": 60, "out-of-cycle": 14, "immediate": 3},
    ),
    "ssvc-coordinator": _Table(
        file="ssvc_coordinator.csv",
        points=("exploitation", "automatable", "technical_impact", "mission"),
        decisions={"track": NEXT_UPGRADE, "track*": 30, "attend": 14, "act": 3},
    ),
}
POLICIES: Final = tuple(_POLICIES)
"""The first is the default."""

_SSVC_TREE = {
    "exploitation": "a vulnerability in KEV counts as actively exploited (our assumption)",
}
_ASSUMED: Final[Mapping[str, Mapping[str, str]]] = {
    "bod-26-04": {
        "days": "as in the directive of 2026-06-10; a fix on system upgrade has no date",
        "exposed": "an asset is publicly exposed where its exposure is open",
    },
    "ssvc-deployer": {
        **_SSVC_TREE,
        "days": "immediate 3, out-of-cycle 14, scheduled 60, defer none (our assumption)",
        "human impact": "criticality 1 and 2 low, 3 medium, 4 high, 5 very high (our assumption)",
    },
    "ssvc-coordinator": {
        **_SSVC_TREE,
        "days": "act 3, attend 14, track* 30, track none (our assumption)",
        "mission": "criticality 1 and 2 low, 3 medium, 4 and 5 high (our assumption)",
    },
    MODEL_POLICY: {
        "days": "critical 14, high 30, medium 90, low with the next upgrade (our assumption: no"
        " published table covers model risks)",
    },
}


class Decisions(NamedTuple):
    """What to do about each risk, as positions in :func:`decision_names`, and days to do it."""

    codes: Codes
    """The most urgent row that could apply, given what is missing."""
    days: Days
    """:data:`NEXT_UPGRADE`: no date of its own."""
    codes_known: Codes
    """With usual values for what is missing."""
    days_known: Days


def decide(
    policy: str,
    *,
    kev: Codes,
    exploitation: Codes,
    automatable: Codes,
    technical_impact: Codes,
    exposure: Codes,
    criticality: Codes,
) -> Decisions:
    """Return decisions and days by a policy for vulnerabilities on assets, row by row.

    Args:
        policy: One of :data:`POLICIES`.
        kev: 0, 1; -1 missing, as in those that follow.
        exploitation: Position in ``score.EXPLOITATION``.
        automatable: Position in ``score.AUTOMATABLE``.
        technical_impact: Position in ``score.TECHNICAL_IMPACT``.
        exposure: Position in ``EXPOSURES``.
        criticality: 1 to 5; 0 missing.

    Raises:
        ConfigError: If the policy is unknown.
        DataError: If its table is damaged.

    Source:
        CISA BOD 26-04; CERT/CC SSVC, certcc.github.io/SSVC; see ``data/seeds/risk/decisions``.
    """
    table = _policy(policy)
    active = EXPLOITATION.index("active")
    shared = {
        "kev": kev,
        "exposed": np.where(exposure < 0, -1, exposure == EXPOSURES.index("open")),
        "automatable": automatable,
        "technical_impact": technical_impact,
        "exposure": exposure,
        "human_impact": _HUMAN_BY_CRITICALITY[criticality],
        "mission": _MISSION_BY_CRITICALITY[criticality],
    }
    # Not known to be in KEV may be in it, so at worst it is active too.
    worst = {**shared, "exploitation": np.where(kev != 0, active, exploitation)}
    known = {**shared, "exploitation": np.where(kev == 1, active, exploitation)}
    return _decisions(
        _lookup(table.file, worst=True)[tuple(worst[point] for point in table.points)],
        _lookup(table.file, worst=False)[tuple(known[point] for point in table.points)],
        days=tuple(table.decisions.values()),
    )


def model_decisions(levels: Codes, levels_known: Codes) -> Decisions:
    """Return decisions and days for model risks by level, positions in ``LEVELS``."""
    return _decisions(levels, levels_known, days=_MODEL_DAYS)


def decision_names(policy: str) -> tuple[str, ...]:
    """Return the decisions of a policy, or of :data:`MODEL_POLICY`, least urgent first."""
    if policy == MODEL_POLICY:
        named = (f"{days} days" for days in _MODEL_DAYS[1:])
        return ("next upgrade", *named)
    return tuple(_policy(policy).decisions)


def assumptions(policy: str) -> dict[str, str]:
    """Return what a policy's decisions rest on beside its table, in words, for the report."""
    if policy != MODEL_POLICY:
        _policy(policy)
    missing = "what is missing is taken so that the most urgent row applies"
    return {**_ASSUMED[policy], "missing": missing}


def due_date(first_seen: str, days: int) -> str:
    """Return the ISO date by which to act; empty where it has none of its own.

    Raises:
        DataError: If ``first_seen`` is no ISO date.
    """
    return "" if days < 0 else (_day(first_seen) + timedelta(days=int(days))).isoformat()


def due_dates(first_seen: Sequence[str], days: Iterable[int]) -> list[str]:
    """Return :func:`due_date` of each; each different pair is computed once."""
    once = cache(due_date)
    return [once(seen, int(left)) for seen, left in zip(first_seen, days, strict=True)]


def _decisions(codes: Codes, known: Codes, *, days: tuple[int, ...]) -> Decisions:
    table = np.array(days, dtype=np.int16)
    return Decisions(codes=codes, days=table[codes], codes_known=known, days_known=table[known])


def _policy(name: str) -> _Table:
    if name not in _POLICIES:
        raise ConfigError(f"policy {name!r} is unknown; choose one of {', '.join(POLICIES)}")
    return _POLICIES[name]


@cache
def _lookup(file: str, *, worst: bool) -> npt.NDArray[np.int8]:
    """Return a table as an array, with one entry more per axis for what is missing."""
    table = next(one for one in _POLICIES.values() if one.file == file)
    array = _read(table)
    for axis, point in enumerate(table.points):
        values, usual = _POINTS[point]
        more = (
            array.max(axis=axis, keepdims=True)
            if worst
            else array.take([values.index(usual)], axis=axis)
        )
        array = np.concatenate([array, more], axis=axis)
    array.setflags(write=False)
    return array


def _read(table: _Table) -> npt.NDArray[np.int8]:
    """Return the decisions of a table file as positions, one axis per point."""
    path = seeds_folder() / "risk" / "decisions" / table.file
    read = read_table(path)
    names = tuple(table.decisions)
    array = np.full([len(_POINTS[point][0]) for point in table.points], -1, dtype=np.int8)
    for row, place in zip(read.rows, read.places, strict=True):
        position = tuple(
            _position(point, row.get(column), place=place)
            for point, column in zip(table.points, read.names, strict=False)
        )
        if len(position) != len(table.points) or array[position] >= 0:
            raise DataError(f"{place}: repeats a row or lacks a column; reinstall the product")
        decision = row.get("decision")
        if decision not in names:
            raise DataError(f"{place}: unknown decision {decision!r}; reinstall the product")
        array[position] = names.index(decision)
    if (array < 0).any():
        raise DataError(f"{path}: {int((array < 0).sum())} rows are missing; reinstall the product")
    return array


def _position(point: str, value: object, *, place: str) -> int:
    values = _POINTS[point][0]
    if value not in values:
        raise ConfigError(f"{place}: {point} is {value!r}; give one of {', '.join(values)}")
    return values.index(str(value))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text!r} is no date; write it as 2026-08-22") from None
