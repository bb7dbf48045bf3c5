"""``workbench train``: the trainings of an experiment, for torchrun to start in many processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.bar import progress_bar
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.diffusion.callbacks import Progress

__all__ = ["train"]


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--step", "steps", multiple=True, help="Train this step only; may be repeated.")
@click.option(
    "--set", "overrides", multiple=True, metavar="STEP.PARAMETER=VALUE",
    help="Override a parameter; the value is YAML.",
)  # fmt: skip
@click.option("--rehearsal", is_flag=True, help="Train the file's smaller version.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained; train nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per training.")
def train(
    file: Path, *, steps: tuple[str, ...], overrides: tuple[str, ...], rehearsal: bool,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train what the experiment FILE trains, ahead of its notebooks.

    `workbench run FILE` then finds the weights and goes on. Started by torchrun, all processes
    share each batch and the first one speaks; see experiments/launch/. Told to terminate, or
    killed, the same command goes on from the last checkpoint.

    \b
    Examples:
      workbench train experiments/phase2.yaml --step train --dry-run
      experiments/launch/1x4.sh workbench train experiments/phase2.yaml --step train
      workbench train experiments/phase2.yaml --step train --set train.pair_set=3f9a
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.notebook.experiment import load_experiment
    from workbench.notebook.training import train_members, trainings

    experiment = load_experiment(file, overrides=overrides, rehearsal=rehearsal)
    store = open_here(experiment.root)
    members = trainings(experiment, store, steps=steps)
    if dry_run or not members:
        for member in members:
            named = {"step": member.step, "member": member.label, **member.parameters}
            click.echo(json.dumps(named) if as_json else f"{member.step} {member.label}".rstrip())
        if not members:
            click.echo("nothing to train: finished runs have it all", err=True)
        return
    from workbench.diffusion.distributed import rank

    is_first = rank()[0] == 0
    with progress_bar("steps", as_json=as_json) as bar:

        def show(at: Progress) -> None:
            bar(at.step, at.total, f"loss {at.loss:.4f}")

        try:
            for member, took in train_members(
                members, store, experiment=experiment.name, progress=show
            ):
                if is_first:
                    named = {"step": member.step, "member": member.label, **took}
                    click.echo(json.dumps(named) if as_json else _line(named))
        except KeyboardInterrupt:
            raise WorkbenchError(
                "interrupted; checkpoints are kept, run the same command to go on"
            ) from None


def _line(took: dict[str, object]) -> str:
    share = took["utilization"]
    used = "" if share is None else f", {share:.1%} of the GPUs' dense bf16 peak"
    name = f"{took['step']} {took['member']}".rstrip()
    return (
        f"{name}: {took['steps']:,} steps in {took['train_s']:,.0f} s on {took['processes']} × "
        f"{took['hardware']}, {took['samples_per_s']:,.0f} samples/s, {took['flops']:.3g} FLOP"
        f"{used}"
    )
