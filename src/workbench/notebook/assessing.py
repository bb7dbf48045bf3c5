"""What notebook 07 needs beside the room of risks: its parameters as options, its progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from workbench.core.errors import ConfigError
from workbench.core.money import usd
from workbench.core.settings import project_root
from workbench.llm.config import read_config
from workbench.notebook.show import figure
from workbench.report.figures import spans
from workbench.risk.folder import read_folder
from workbench.risk.snapshot_files import snapshot_of_folder

if TYPE_CHECKING:
    from workbench.risk.assess import AssessOptions
    from workbench.store.database import Store
    from workbench.store.results import Interval

__all__ = ["draw_calendar", "draw_losses", "draw_matrix", "options_of", "tell_stages"]

_STEPS = [1, 2, 3, 4, 5]
_LEVELS = ("critical", "high", "medium", "low")


def options_of(
    store: Store, *, files: Sequence[Any], assets: str, folder: str, snapshot: str, today: str,
    budget_usd: float, **choices: Any,
) -> AssessOptions:  # fmt: skip
    """Return the options that a notebook's parameters say; may write a snapshot to the store.

    Args:
        store: Where snapshots are.
        files: Paths, or mappings with a ``path``, from the project's folder.
        assets: Path of the inventory, or empty.
        folder: Feeds, SBOMs and VEX, taken where it exists; else, without files, the sample.
        snapshot: Id; what the folder has goes before.
        today: ISO date, or empty.
        budget_usd: Most that models may cost.
        **choices: Other fields of ``AssessOptions``.

    Raises:
        InputError: If something of it makes no sense.
    """
    from workbench.risk.assess import AssessOptions
    from workbench.risk.inputs import sample_inputs

    root = project_root()
    taken = [root / (one["path"] if isinstance(one, Mapping) else one) for one in files]
    inventory = root / assets if assets else None
    if folder and (root / folder).is_dir():
        found = read_folder(root / folder)
        taken += found.files
        inventory = inventory or found.assets
        snapshot = snapshot_of_folder(store, found) if found.feeds else snapshot
    elif not taken and (folder or not (choices["draw_cves"] or choices["campaigns"])):
        shipped, shipped_assets = sample_inputs()
        taken += shipped
        inventory = inventory or shipped_assets
        choices["draw_cves"] = 0  # there are no records of one's own to draw from
    config = read_config(store.settings)
    return AssessOptions(
        files=tuple(taken), assets=inventory, snapshot=snapshot, today=_day(today),
        llm=replace(config, budgets=replace(config.budgets, run=usd(budget_usd))), **choices,
    )  # fmt: skip


def tell_stages(tell: Callable[[str], None] = print) -> Callable[[str, int, int], None]:
    """Return what to give ``assess`` as ``progress``: a line at the end of each stage."""

    def show(stage: str, done: int, whole: int) -> None:
        if done >= whole:
            tell(f"{stage}: {done:,}")

    return show


def draw_matrix(result: Mapping[str, Any]) -> go.Figure:
    """Return how many open risks there are by likelihood and impact."""
    cells = result["matrix"]
    grid = go.Heatmap(
        x=_STEPS, y=_STEPS, z=cells, text=cells, texttemplate="%{text}", colorscale="Reds",
        showscale=False, xgap=2, ygap=2,
    )  # fmt: skip
    axes = {"xaxis": {"title": "impact", "dtick": 1}, "yaxis": {"title": "likelihood", "dtick": 1}}
    return go.Figure(grid, layout={**axes, "width": 440, "height": 380})


def draw_calendar(result: Mapping[str, Any]) -> go.Figure:
    """Return how many open risks are due on which day, by level."""
    rows = result["calendar"]
    days = [row["due"] for row in rows]
    bars = [go.Bar(name=level, x=days, y=[row[level] for row in rows]) for level in _LEVELS]
    return go.Figure(bars, layout={"barmode": "stack", "height": 320})


def draw_losses(result: Mapping[str, Any]) -> go.Figure:
    """Return what a year may cost, all together and of the costliest assets."""
    rows: dict[str, Interval] = {
        row["group"]: {"value": row["p50"], "low": row["p05"], "high": row["p95"]}
        for row in result["loss"]
    }
    means = [row["expected"] for row in result["loss"]]
    return figure(spans(rows, means=means), title="Loss in a year, 5 to 95 % of years")


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ConfigError(f"today is {text!r}, no date; write it as 2026-11-27") from None
