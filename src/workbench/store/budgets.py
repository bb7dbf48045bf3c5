"""Limits on what model calls may cost, by run, phase, experiment, day and user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

from workbench.core.money import ZERO, show_usd
from workbench.store.records import REHEARSAL, Phase

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
    @property
    def work(self) -> str: ...  # noqa: D102
    @property
    def at(self) -> str: ...  # noqa: D102
    @property
    def is_batch(self) -> bool: ...  # noqa: D102


def scopes_of(charge: Charge, *, at: str) -> tuple[Scope, ...]:
    """Return all that a charge at a moment (ISO 8601, UTC) counts towards.

    Rehearsals have a day of their own: nobody pays for them.
    """
    played = (REHEARSAL,) if charge.who.startswith(REHEARSAL) else ()
    return (
        ("run", charge.job),
        ("phase", charge.experiment, charge.phase),
        ("experiment", charge.experiment),
        ("day", at[:10], *played),
        ("user", charge.who, at[:7]),
    )


class Judge:
    """Says which calls may start, at one moment, in the order in which they are asked for.

    Args:
        budgets: The limits.
        billed: Dollars of the ledger by scope.
        at: Now, ISO 8601 in UTC. Flights count as of now whenever they started: what they come
            to will be billed when they end. Message batches, which may stay open for weeks, count
            as of their own day.
    """

    def __init__(self, budgets: Budgets, billed: Mapping[Scope, Decimal], *, at: str) -> None:
        self._budgets = budgets
        self._billed = billed
        self._at = at
        self._held: dict[Scope, Decimal] = {}
        self._batches: list[Reservation] = []

    def hold(self, flight: Reservation) -> None:
        """Count the worst case of a flight in progress."""
        if flight.is_batch:
            self._batches.append(flight)
        for scope, _ in self._limits(flight, at=flight.at if flight.is_batch else self._at):
            self._held[scope] = self._held.get(scope, ZERO) + flight.worst_usd

    def verdict(self, flight: Reservation) -> tuple[Literal["granted", "waiting", "denied"], str]:
        """Return whether a flight may start, and why it may not: not yet, or never.

        The batches of other work count as billed: nobody may be there to collect them.
        """
        worst, short = flight.worst_usd, ""
        others = [one for one in self._batches if not one.work or one.work != flight.work]
        for scope, limit in self._limits(flight, at=self._at):
            billed = self._billed.get(scope, ZERO)
            batches = [one for one in others if scope in scopes_of(one, at=one.at)]
            kept = sum((one.worst_usd for one in batches), ZERO)
            if billed + kept + worst > limit:
                by = "message batches of " + ", ".join(
                    sorted({one.job or one.experiment for one in batches})
                )
                return "denied", _reason(scope, limit, billed, worst, held=kept, by=by)
            held = self._held.get(scope, ZERO)
            if not short and billed + held + worst > limit:
                short = _reason(scope, limit, billed, worst, held=held, by="calls")
        return ("waiting" if short else "granted"), short

    def _limits(self, flight: Reservation, *, at: str) -> Iterable[tuple[Scope, Decimal]]:
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
        scopes = scopes_of(flight, at=at)
        return [
            (scope, limit) for scope, limit in zip(scopes, limits, strict=True) if limit is not None
        ]


def _reason(
    scope: Scope, limit: Decimal, billed: Decimal, worst: Decimal, *, held: Decimal, by: str
) -> str:
    kind, *names = scope
    whose = {
        "run": "run {0}",
        "phase": "phase {1} of experiment {0}",
        "experiment": "experiment {0}",
        "day": "everybody on {0}",
        "user": "user {0} in {1}",
    }[kind].format(*names)
    field_name = f"phase: {names[1]}" if kind == "phase" else kind
    also = f", open {by} may cost {show_usd(held)}" if held else ""
    return (
        f"the budget of {whose} is {show_usd(limit)}: {show_usd(billed)} is billed{also} and this"
        f" call may cost {show_usd(worst)}; what is done is kept, raise `llm: budgets:"
        f" {field_name}` in the experiment file and run again"
    )
