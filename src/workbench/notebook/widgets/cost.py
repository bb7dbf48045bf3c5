"""Cost: what was spent on what, how good estimates were, thresholds, and credits with quotas."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.core.money import ZERO, show_usd
from workbench.core.settings import project_root
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel, check_choice
from workbench.report.tables import Number, dollars, number, percent, short, words
from workbench.store.database import Store
from workbench.store.spending import GROUPS, Spent, ledger_names, spending
from workbench.store.usage import Quotas, read_quotas, usage, window_start

__all__ = ["Cost", "cost"]

_NAMES = {"phase": "Phase", "resource": "Model or resource", "experiment": "Experiment",
          "who": "Person"}  # fmt: skip
_PERIODS = {"all time": "", "this month": "month", "this week": "week", "today": "day"}
_MOST_GROUPS = 20
_ESTIMATED = 3
"""Experiments whose estimates are compared, the dearest."""


class Cost(Panel):
    """The ledger of the store, summed up.

    Args:
        store: What to read.
        experiment: Only of this one.
        period: ``all time``, ``this month``, ``this week`` or ``today``, in UTC.
        root: Folder of the project, with its ``alerts.yaml``; the present one if not given.

    Raises:
        ConfigError: If there is no such period.
    """

    title = "Cost and alerts"

    def __init__(
        self, store: Store | None = None, *, experiment: str = "", period: str = "all time",
        root: Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(store)
        self._experiment = experiment
        self._period = check_choice("period", period, _PERIODS)
        self._root = root or project_root()

    def snapshot(self) -> dict[str, Any]:
        """Return what was spent by whom on what, beside estimates, thresholds and quotas."""
        quotas = read_quotas(self._root)
        since = self._since()
        spent = spending(self.store.engine, experiment=self._experiment, since=since)
        blocks = {"facts": look.facts(self._facts(spent, quotas)), "alerts": self._alerts()}
        for column in GROUPS:
            blocks[column] = _by(spent, column)
        blocks["estimates"] = self._estimates(spent)
        blocks |= self._credits(quotas)
        return {"blocks": blocks}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the choice of a period and an experiment, and the button that reads again."""
        period = ipywidgets.Dropdown(
            options=list(_PERIODS), value=self._period, description="Period"
        )
        known = sorted(ledger_names(self.store.engine, "experiment") | {self._experiment})
        choices = [("all", ""), *((short(one), one) for one in known if one)]
        experiment = ipywidgets.Dropdown(
            options=choices, value=self._experiment, description="Experiment"
        )
        period.observe(lambda change: self._choose(period=change["new"]), names="value")
        experiment.observe(lambda change: self._choose(experiment=change["new"]), names="value")
        refresh = self.button("Read again", lambda: None)
        return [ipywidgets.HBox([period, experiment, refresh])]

    def _choose(self, *, period: str | None = None, experiment: str | None = None) -> None:
        self._period = self._period if period is None else period
        self._experiment = self._experiment if experiment is None else experiment
        self.do(lambda: None)

    def _since(self) -> str:
        window = _PERIODS[self._period]
        return window_start(window) if window else ""  # type: ignore[arg-type]  # one of its words

    def _facts(self, spent: Sequence[Spent], quotas: Quotas) -> list[tuple[str, str, str]]:
        billed, estimated, rehearsed = (
            sum((getattr(one, f"{kind}_usd") for one in spent), ZERO)
            for kind in ("billed", "estimated", "rehearsed")
        )
        return [
            ("billed", show_usd(billed), f"model calls and paid targets, {self._period}"),
            ("credits", number(float(billed / quotas.credit_usd)),
             f"of {show_usd(quotas.credit_usd)} each"),
            ("estimated", show_usd(estimated), "CPU time and energy at list prices, nobody's bill"),
            ("rehearsed", show_usd(rehearsed), "what rehearsals would have cost; not billed"),
        ]  # fmt: skip

    def _alerts(self) -> look.Block:
        from workbench.cost.alerts import check, read_thresholds

        found = check(self.store, read_thresholds(self._root), now=time.time())
        states = {"ok": "ok", "warn": "exceeded: warns", "abort": "exceeded: nothing new starts"}
        rows = [
            (words(one.threshold.metric), f"last {one.threshold.window}", number(one.value),
             number(one.threshold.limit), states[one.state])
            for one in sorted(found, key=lambda one: one.state == "ok")
        ]  # fmt: skip
        note = "Limits stand in alerts.yaml at the root of the project."
        heads = ("What", "Window", "Value", "Limit", "State")
        return look.table("Alerts", heads, rows, note=note)

    def _estimates(self, spent: Sequence[Spent]) -> look.Block:
        """Return estimates beside what was billed, of the dearest experiments."""
        from workbench.cost.calls import estimate_vs_truth

        dearest = dict.fromkeys(one.experiment for one in spent if one.billed_usd)
        names = [one for one in dearest if self.store.calls.estimates(one)]
        rows = [
            (name, row["work"], row["phase"], dollars(row["low_usd"]), dollars(row["expected_usd"]),
             dollars(row["worst_usd"]), dollars(row["usd"]), row["verdict"])
            for name in names[:_ESTIMATED] for row in estimate_vs_truth(self.store, name)
        ]  # fmt: skip
        heads = ("Experiment", "Work", "Phase", "Least", "Expected", "Worst", "Billed", "Bill is")
        left = len(names) - _ESTIMATED
        note = f"{left:,} more experiments: choose one." if left > 0 else ""
        return look.table("Estimated before, beside what was billed", heads, rows, note=note)

    def _credits(self, quotas: Quotas) -> dict[str, look.Block]:
        """Return the credits that people used in the window of quotas, and one's own by phase."""
        engine, me = self.store.engine, self.store.settings.user
        since = window_start(quotas.window)
        people = {me, *quotas.users, *ledger_names(engine, "who", since=since)}
        rows, mine = [], ZERO
        for person in sorted(people, key=lambda one: (one != me, one)):
            found = usage(engine, person, since=since, credit_usd=quotas.credit_usd)
            used = sum((one.credits for one in found), ZERO)
            mine = used if person == me else mine
            phases = ", ".join(f"{one.phase} {_credits(one.credits)}" for one in found)
            rows.append((person, _credits(used), *_left(used, quotas.of(person)), phases or "–"))
        note = f"This {quotas.window}, since {since[:10]} UTC. Quotas stand in alerts.yaml."
        heads = ("Person", "Credits used", "Quota", "Used up", "By phase")
        blocks = {}
        if (limit := quotas.of(me)) is not None:
            blocks["quota"] = look.progress(
                f"Your credits this {quotas.window}", done=min(round(mine), round(limit)),
                total=round(limit), note="the quota is used up" if mine >= limit else "",
            )  # fmt: skip
        blocks["credits"] = look.table("Credits and quotas", heads, rows, note=note)
        return blocks


def cost(store: Store | None = None, *, experiment: str = "", period: str = "all time") -> Cost:
    """Return the panel of cost and alerts."""
    return Cost(store, experiment=experiment, period=period)


def _by(spent: Sequence[Spent], column: str) -> look.Block:
    """Return the table of what was spent by one column, the dearest first."""
    sums: dict[str, list[Decimal]] = {}
    for one in spent:
        mine = sums.setdefault(getattr(one, column), [ZERO, ZERO, ZERO])
        for at, added in enumerate((one.billed_usd, one.estimated_usd, one.rehearsed_usd)):
            mine[at] += added
    total = sum((billed for billed, _, _ in sums.values()), ZERO)
    ordered = sorted(sums.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
    rows = [
        (name or "–", *(Number(show_usd(amount)) for amount in amounts),
         percent(float(amounts[0] / total)) if total else "–")
        for name, amounts in ordered[:_MOST_GROUPS]
    ]  # fmt: skip
    left = len(ordered) - _MOST_GROUPS
    heads = (_NAMES[column], "Billed", "Estimated", "Rehearsed", "Share of bills")
    caption = f"By {_NAMES[column].lower()}"
    return look.table(caption, heads, rows, note=f"{left:,} smaller ones." if left > 0 else "")


def _left(used: Decimal, quota: Decimal | None) -> tuple[str, str]:
    if quota is None:
        return "no limit", "–"
    return _credits(quota), percent(float(used / quota)) if quota else "–"


def _credits(amount: Decimal) -> Number:
    return Number(f"{amount:,.2f}".removesuffix(".00"))
