"""Limits on what model calls may cost, by run, phase, experiment, day and user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

from workbench.core.money import ZERO, show_usd
from workbench.store.records import Phase

__all__ = ["Budgets", "Charge", "Judge", "Reservation", "Scope", "scopes_of"]

Scope = tuple[str, ...]
"""What one limit is about: its kind, then which, e.g. ``("day", "2026-11-21")``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Most dollars that may be billed; None without a limit."""

    run: Decimal | None = None
    phase: Mapping[Phase, Decimal] = field(default_factory=dict)
    """Per phase of the experiment."""
    experiment: Decimal | None = None
    day: Decimal | None = None
    """Everybody in this store, per day in UTC."""
    user: Decimal | None = None
    """This user, per calendar month in UTC."""


class Charge(Protocol):
    """Something to be billed: a ledger row or a flight."""

    @property
    def who(self) -> str: ...  # noqa: D102 - as in the ledger
    @property
    def job(self) -> str: ...  # noqa: D102
    @property
    def experiment(self) -> str: ...  # noqa: D102
    @property
    def phase(self) -> Phase: ...  # noqa: D102


class Reservation(Charge, Protocol):
    """A charge that is not known yet, only what it may come to."""

    @property
    def worst_usd(self) -> Decimal: ...  # noqa: D102


def scopes_of(charge: Charge, *, at: str) -> tuple[Scope, ...]:
    """Return all that a charge at a moment (ISO 8601, UTC) counts towards."""
    return (
        ("run", charge.job),
        ("phase", charge.experiment, charge.phase),
        ("experiment", charge.experiment),
        ("day", at[:10]),
        ("user", charge.who, at[:7]),
    )


class Judge:
    """Says which calls may start, at one moment, in the order in which they are asked for.

    Args:
        budgets: The limits.
        billed: Dollars of the ledger by scope.
        at: Now, ISO 8601 in UTC. Flights count as of now whenever they started: what they come
            to will be billed when they end.
    """

    def __init__(self, budgets: Budgets, billed: Mapping[Scope, Decimal], *, at: str) -> None:
        self._budgets = budgets
        self._billed = billed
        self._at = at
        self._held: dict[Scope, Decimal] = {}

    def hold(self, flight: Reservation) -> None:
        """Count the worst case of a flight in progress."""
        for scope, _ in self._limits(flight):
            self._held[scope] = self._held.get(scope, ZERO) + flight.worst_usd

    def verdict(self, flight: Reservation) -> tuple[Literal["granted", "waiting", "denied"], str]:
        """Return whether a flight may start, and why it never may."""
        worst, is_short = flight.worst_usd, False
        for scope, limit in self._limits(flight):
            billed = self._billed.get(scope, ZERO)
            if billed + worst > limit:
                return "denied", _reason(scope, limit, billed=billed, worst=worst)
            is_short |= billed + self._held.get(scope, ZERO) + worst > limit
        return ("waiting" if is_short else "granted"), ""

    def _limits(self, flight: Reservation) -> Iterable[tuple[Scope, Decimal]]:
        budgets = self._budgets
        limits = (
            budgets.run,
            budgets.phase.get(flight.phase),
            budgets.experiment,
            budgets.day,
            budgets.user,
        )
        if limits == (None,) * 5:
            return []
        scopes = scopes_of(flight, at=self._at)
        return [
            (scope, limit) for scope, limit in zip(scopes, limits, strict=True) if limit is not None
        ]


def _reason(scope: Scope, limit: Decimal, *, billed: Decimal, worst: Decimal) -> str:
    kind, *names = scope
    whose = {
        "run": "run {0}",
        "phase": "phase {1} of experiment {0}",
        "experiment": "experiment {0}",
        "day": "everybody on {0}",
        "user": "user {0} in {1}",
    }[kind].format(*names)
    field_name = f"phase: {names[1]}" if kind == "phase" else kind
    return (
        f"the budget of {whose} is {show_usd(limit)}: {show_usd(billed)} is billed and this call"
        f" may cost {show_usd(worst)}; what is done is kept, raise `llm: budgets: {field_name}` in"
        " the experiment file and run again"
    )
