"""Test sets: yours, what is in one, what making and executing it costs; execute, abort."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import ipywidgets

from workbench.core.errors import ConfigError, DataError, InputError
from workbench.core.money import show_usd, usd
from workbench.core.settings import project_root
from workbench.notebook.widgets import children, look
from workbench.notebook.widgets.panel import Panel
from workbench.notebook.widgets.table import PagedTable, Rows
from workbench.report.tables import number, short
from workbench.store.database import Store
from workbench.store.live import newest_events, watched_execution

if TYPE_CHECKING:
    from workbench.campaign.conduct import ExecuteOptions, Forecast
    from workbench.campaign.generate import Preview
    from workbench.llm.estimate import Estimate

__all__ = ["TestSets", "test_sets"]

_COLUMNS = ("id", "created_at", "tests", "cost_usd", "tags", "parent")
_LABELS = {
    "id": "Test set", "created_at": "Made", "tests": "Cases", "cost_usd": "Cost, USD",
    "tags": "Tags", "parent": "Part of",
}  # fmt: skip
_PREVIEWED = 5
_MOST_TARGETS = 20


class TestSets(Panel):
    """The test sets of the user of the store.

    Args:
        store: What to read.
        tag: Only those with this tag.
    """

    __test__ = False  # pytest: not a test
    title = "My test sets"
    only_static = ("list",)

    def __init__(self, store: Store | None = None, *, tag: str = "") -> None:
        super().__init__(store)
        self._tag = tag
        self._listed: list[dict[str, Any]] = []

    def snapshot(self) -> dict[str, Any]:
        """Return the list, and how far the newest execution is; no case is in it."""
        mine = self._rows()
        blocks = {"facts": look.facts(_sums(mine))}
        if running := self._running():
            blocks["running"] = look.progress(
                f"Execution {short(running['id'])}",
                done=sum(made for made, _, _ in running["targets"].values()),
                total=running["total"],
                note="the campaign monitor shows it",
            )
        elif not children.is_running(self.store, self._child):
            words = children.complaint(self.store, self._child)
            if words:
                blocks["said"] = look.text(f"The last execution started here: {words}")
        heads = [_LABELS[name] for name in _COLUMNS]
        rows = [[_told(name, row[name]) for name in _COLUMNS] for row in mine]
        blocks["list"] = look.table("Test sets, the newest first", heads, rows)
        return {"blocks": blocks, "rows": mine}

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the table to choose from, and what can be done with what is chosen."""
        buttons = [
            self.button("Preview", self.preview),
            self.button("What it costs", self.costs),
            self.button("Execute", self.execute, style="primary"),
            self.button("Abort", self.abort, style="danger"),
        ]
        limits = ipywidgets.HBox([self.trials, self.budget, self.staging])
        return [self.table, self.targets, limits, ipywidgets.HBox(buttons)]

    @cached_property
    def table(self) -> PagedTable:
        """All test sets of the user; the row chosen last counts, the newest if none is."""
        return PagedTable(
            Rows(self._rows(), columns=_COLUMNS), label="My test sets", labels=_LABELS,
            widths={"id": 1.4, "created_at": 1.4}, key="id", opened=self.preview, height=8,
        )  # fmt: skip

    @cached_property
    def targets(self) -> ipywidgets.Textarea:
        """Whom to attack, one a line, as ``--target`` takes them."""
        hint = "bare\nsanitizer@4\nhttp://127.0.0.1:8000/ask"
        return ipywidgets.Textarea(
            value="bare", placeholder=hint, description="Targets", rows=3, layout={"width": "95%"}
        )

    @cached_property
    def trials(self) -> ipywidgets.BoundedIntText:
        """Tries of each case."""
        return ipywidgets.BoundedIntText(value=1, min=1, max=100, description="Tries")

    @cached_property
    def budget(self) -> ipywidgets.Text:
        """Most US dollars to spend; empty for no limit of its own."""
        return ipywidgets.Text(placeholder="no limit", description="Budget, $")

    @cached_property
    def staging(self) -> ipywidgets.Checkbox:
        """Whether the targets are declared not to be production."""
        return ipywidgets.Checkbox(description="Targets are not production")

    def draw(self, read: dict[str, Any]) -> dict[str, Any]:
        """Show what changed of a snapshot, and return it; the table follows the list."""
        rows = read.get("rows", self._listed)
        if rows != self._listed:
            self._listed = rows
            self.table.replace(Rows(rows, columns=_COLUMNS))
        return super().draw(read)

    def preview(self, test_set: str = "") -> None:
        """Show below what is in a test set, the chosen one if none is given."""
        from workbench.campaign.strategies.base import chain_name
        from workbench.campaign.testsets import stored

        found = stored(self.store, test_set or self._chosen()["id"])
        plugins = Counter(case.plugin for case in found)
        chains = Counter(chain_name(case.strategies) for case in found)
        cases = [
            (
                f"{case.plugin} · {chain_name(case.strategies)} · {case.severity}",
                [("goal", case.goal), *(("turn", turn) for turn in case.turns),
                 ("prompt", case.prompt)],
            )
            for case in islice(found, _PREVIEWED)
        ]  # fmt: skip
        tables = {
            name: look.table(f"By {name}", (name.capitalize(), "Cases"),
                             [(one, number(n)) for one, n in some.most_common()])
            for name, some in (("plugin", plugins), ("strategy", chains))
        }  # fmt: skip
        what = look.text(f"Test set {short(found.id)}: {len(found):,} cases, the first of them:")
        self.reply({"what": what, "cases": look.passages(cases), **tables})

    def costs(self) -> None:
        """Show below what making the chosen test set, and executing it, takes; spends nothing."""
        from workbench.campaign.conduct import forecast
        from workbench.campaign.testsets import stored

        chosen = self._chosen()
        found = stored(self.store, chosen["id"])
        ahead = asyncio.run(forecast(self.store, found, self._options()))
        again, why = _generation(self.store, found.recipe)
        caption = f"Test set {short(found.id)}: what its two steps cost"
        rows = _side_by_side(again, ahead, tests=len(found), billed=str(chosen["cost_usd"]))
        heads = ("", "Generating it", "Executing it")
        self.reply({"costs": look.table(caption, heads, rows, note=why)})

    def execute(self) -> None:
        """Start ``workbench campaign execute`` in a process of its own; stored answers stay.

        Raises:
            ConfigError: If a target or limit makes no sense, or one runs already.
        """
        options, chosen = self._options(), self._chosen()
        arguments = ["campaign", "execute", chosen["id"], f"--trials={options.trials}"]
        arguments += [f"--target={one}" for one in options.targets]
        arguments += [] if options.budget_usd is None else [f"--budget={options.budget_usd}"]
        arguments += ["--staging"] * options.staging
        children.start(self.store, self._child, arguments, folder=project_root())
        self.tell(f"test set {short(chosen['id'])} is being executed; the monitor shows it live")

    def abort(self) -> None:
        """Ask the execution that runs to stop; what is stored is kept.

        Raises:
            DataError: If none runs.
        """
        from workbench.campaign.execute import abort

        if running := self._running():
            abort(self.store, running["id"])
        elif not children.stop(self.store, self._child):
            raise DataError("no execution of yours runs")
        self.tell("asked to stop; Execute goes on with it later")

    @property
    def _child(self) -> str:
        return f"campaign execute of {self.store.settings.user}"

    def _rows(self) -> list[dict[str, Any]]:
        """Return the user's test sets, the newest first."""
        from workbench.campaign.testsets import list_test_sets

        return [
            {
                "id": one.id, "created_at": one.created_at[:16].replace("T", " "),
                "tests": one.tests, "cost_usd": float(one.cost_usd), "tags": " ".join(one.tags),
                "parent": short(one.parent),
            }
            for one in reversed(list_test_sets(self.store, tag=self._tag))
        ]  # fmt: skip

    def _chosen(self) -> dict[str, Any]:
        rows = self._rows()
        wanted = next(iter(reversed(self.table.selected)), "")
        for row in rows:
            if not wanted or row["id"] == wanted:
                return row
        raise DataError("you own no test set; make one with workbench campaign generate")

    def _options(self) -> ExecuteOptions:
        from workbench.campaign.conduct import ExecuteOptions
        from workbench.campaign.targets.spec import parse_target

        lines = tuple(filter(None, map(str.strip, self.targets.value.splitlines())))
        if len(lines) > _MOST_TARGETS:
            raise ConfigError(f"{len(lines)} targets; give {_MOST_TARGETS} at most")
        for line in lines:
            parse_target(line, folder=project_root())
        limit = self.budget.value.strip()
        if limit and usd(limit) < 0:
            raise ConfigError(f"budget {limit[:80]}: write dollars from 0 on, or nothing")
        return ExecuteOptions(
            targets=lines, trials=self.trials.value, staging=self.staging.value,
            budget_usd=usd(limit) if limit else None,
        )  # fmt: skip

    def _running(self) -> dict[str, Any] | None:
        engine, owner = self.store.engine, self.store.settings.user
        newest = newest_events(engine, owner=owner).get("attack_run_started")
        if newest is None:
            return None
        found = watched_execution(engine, newest[1], owner=owner)
        is_on = found is not None and found["state"] == "running"
        return {**found, "id": newest[1]} if found and is_on else None


def test_sets(store: Store | None = None, *, tag: str = "") -> TestSets:  # noqa: PT028 - no test
    """Return the panel of the user's test sets."""
    return TestSets(store, tag=tag)


test_sets.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def _told(name: str, value: Any) -> str:
    if name == "id":
        return short(value)
    if name == "cost_usd":
        return show_usd(usd(str(value)))
    return number(value) if isinstance(value, int) else str(value)


def _sums(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    cases = sum(row["tests"] for row in rows)
    paid = sum(row["cost_usd"] for row in rows)
    return [
        ("test sets", number(len(rows)), "yours, nobody else's"),
        ("cases", number(cases), "in all of them"),
        ("generating cost", show_usd(usd(str(round(paid, 6)))), "billed by models"),
    ]


def _generation(store: Store, recipe: Mapping[str, Any]) -> tuple[Estimate | None, str]:
    """Return what models would take to write it again, None if none has to; and a remark."""
    from workbench.campaign.generate import GenerateConfig, preview

    known = {one.name for one in fields(GenerateConfig)}
    if not known <= recipe.keys():
        return None, "It was not generated here: imported, or a part of another."
    values = {name: value for name, value in recipe.items() if name in known}
    lists = {name: tuple(values[name]) for name in ("plugins", "strategies")}
    try:
        plan = preview(store, GenerateConfig(**values | lists))
        if not plan.pending:
            return None, "No model is needed to generate it."
        return asyncio.run(_written(store, plan)), f"A model writes {len(plan.pending):,} cases."
    except InputError as error:  # of a pair set or profile that is gone, or of another version
        return None, f"Generating it again is not possible here: {error}"


async def _written(store: Store, plan: Preview) -> Estimate:
    from workbench.campaign.conduct import open_attacker
    from workbench.campaign.generate import planned

    async with open_attacker(store, plan, is_rehearsed=True) as (attacker, gateway):
        return await gateway.estimate(planned(plan, attacker), is_kept=False)


def _side_by_side(
    again: Estimate | None, ahead: Forecast, *, tests: int, billed: str
) -> list[tuple[str, str, str]]:
    models = list(ahead.models.values())

    def dollars(at: str) -> tuple[str, str]:
        first = usd(str(getattr(again.usd, at))) if again else usd("0")
        second = sum((usd(str(getattr(one.usd, at))) for one in models), ahead.declared_usd)
        return show_usd(first), show_usd(second)

    return [
        ("cases, attempts", number(tests), number(ahead.attempts)),
        ("messages to targets", "–", number(ahead.messages)),
        ("calls of models", number(again.calls if again else 0),
         number(sum(one.calls for one in models))),
        ("at declared prices", "–", show_usd(ahead.declared_usd)),
        ("expected", *dollars("expected")),
        ("at least", *dollars("low")),
        ("at most", *dollars("worst")),
        ("billed for it so far", show_usd(usd(billed)), "–"),
    ]  # fmt: skip
