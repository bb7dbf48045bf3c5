"""``workbench serve --plan``: the machines, dollars and kilowatt-hours that a load takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.bar import progress_bar
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import InputError

if TYPE_CHECKING:
    from workbench.serving.capacity import Hardware, Plan

__all__ = ["WithPlan", "plan"]

_SANITIZER = {"kind": "sanitizer"}


class WithPlan(click.Group):
    """A group that takes ``--plan`` for its command ``plan``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read ``--plan`` as ``plan``."""
        return super().parse_args(ctx, ["plan" if one == "--plan" else one for one in args])


@click.command(epilog=EXIT_CODES)
@click.option(
    "--prompts-per-day", type=click.FloatRange(1), default=1e7, show_default=True,
    help="The load; 10 million is the roadmap's.",
)  # fmt: skip
@click.option(
    "--on", "hardware_name", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True,
    help="Kind of machine; the GPU's figures are of a benchmark, not of the product.",
)  # fmt: skip
@click.option(
    "--model", default=None, metavar="ID",
    help="Measure batches of this model here first; '' for the newest.  [shipped measurements]",
)  # fmt: skip
@click.option(
    "--assume", "given", multiple=True, metavar="NAME=NUMBER",
    help="Replace an assumption; the report lists all of them.",
)  # fmt: skip
@click.option("--days", type=click.IntRange(2), default=5, show_default=True, help="To simulate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--no-sensitivity", is_flag=True, help="Leave out what it hangs on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Also write it as a page, with figures.",
)  # fmt: skip
def plan(
    *, prompts_per_day: float, hardware_name: str, model: str | None, given: Sequence[str],
    days: int, seed: int, no_sensitivity: bool, as_json: bool, page: Path | None,
) -> None:  # fmt: skip
    """Simulate a load and show the machines it takes, beside what the roadmap claims.

    Prints Markdown. Nothing is served and no service is asked.

    \b
    Examples:
      workbench serve --plan
      workbench serve --plan --prompts-per-day 1e6 --assume tokens_mean=300
      workbench serve --plan --model '' --json
      workbench serve --plan --on gpu --seed 7
      workbench serve --plan --html capacity.html
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.serving.capacity import hardware
    from workbench.serving.capacity import plan as make_plan

    values = {"prompts_per_day": prompts_per_day, **dict(map(_parse, given))}
    machine = hardware(hardware_name)
    if model is not None:
        with progress_bar("batches measured", as_json=as_json) as tell:
            machine = _measured(machine, model, tell)
    with progress_bar("sizes simulated", as_json=as_json) as tell:
        made = make_plan(
            machine, given=values, days=days, seed=seed, sensitivity=not no_sensitivity, tell=tell
        )
    if page:
        from workbench.serving.capacity_page import render_page
        from workbench.store.artifacts import write_atomic

        write_atomic(page, render_page(made))
    click.echo(_as_json(made) if as_json else _as_markdown(made))


def _parse(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InputError(f"--assume {text!r:.80}: write NAME=NUMBER") from None


def _measured(machine: Hardware, model: str, tell: Callable[..., None]) -> Hardware:
    """Return the hardware with what batches of a model take on this machine."""
    from workbench.diffusion.sanitizer import Sanitizer
    from workbench.serving.calibrate import measure
    from workbench.serving.config import ServeConfig

    if not machine.front_on_worker:
        raise InputError("--model measures on the CPU; leave it out with --on gpu")
    precision = ServeConfig().encoder
    kept = open_here().artifacts
    found = kept.resolve("model", model) if model else kept.newest("model", said=_SANITIZER)
    if not found:
        raise InputError("no sanitizer in the store yet; run experiments/quickstart.yaml first")
    sanitizer = Sanitizer.load(kept.path("model", found), precision=precision, threads=1)
    return replace(machine, measured=measure(sanitizer, precision=precision, tell=tell))


def _as_json(made: Plan) -> str:
    from workbench.serving.claims import claims

    figures = asdict(made)
    figures["claims"] = [one._asdict() for one in claims(made)]
    return json.dumps(figures, ensure_ascii=False, indent=1)


def _as_markdown(made: Plan) -> str:
    from workbench.serving.capacity_report import render_plan

    return render_plan(made)
