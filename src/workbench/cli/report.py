"""`workbench report`: the pages of an experiment, all of them, two beside each other, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.opening import EXIT_CODES, open_here
from workbench.core.errors import ConfigError

if TYPE_CHECKING:
    from workbench.store.database import Store

__all__ = ["check_ran", "render_report", "report"]


@click.command(epilog=EXIT_CODES)
@click.argument("experiment", required=False)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder.  [default: reports/NAME; of the index: reports]",
)
@click.option("--single-file", is_flag=True, help="One HTML file with everything, to be mailed.")
@click.option("--notebooks", is_flag=True, help="Also the executed notebooks, a page each.")
@click.option("--pdf", is_flag=True, help="Print everything as NAME.pdf; needs Chromium.")
@click.option("--compare", "other", metavar="OTHER", help="Set experiment OTHER beside it.")
@click.option("--index", "is_index", is_flag=True, help="List all experiments instead of one.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    help="Seconds that printing may take.",
)
def report(
    experiment: str | None, *, out: Path | None, single_file: bool, notebooks: bool, pdf: bool,
    other: str | None, is_index: bool, timeout_s: float,
) -> None:  # fmt: skip
    """Render the report of EXPERIMENT and print its path.

    \b
    Examples:
      workbench report quickstart
      workbench report quickstart --single-file --out /tmp/mail
      workbench report quickstart --notebooks
      workbench report quickstart --pdf
      workbench report quickstart --compare larger
      workbench report --index
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.settings import project_root

    reports = project_root() / "reports"
    asked = [name for name, given in (("--pdf", pdf), ("--compare", other), ("--index", is_index),
                                      ("--single-file", single_file)) if given]  # fmt: skip
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} are different documents; ask for one")
    if notebooks and asked:
        raise click.UsageError(f"notebooks are pages of a folder; leave {asked[0]} out")
    if is_index != (experiment is None):
        raise click.UsageError("name an EXPERIMENT, or --index without one")
    store = open_here()
    try:
        if experiment is None:
            from workbench.report.index import render_index

            path = render_index(store, out or reports)
        else:
            check_ran(store, experiment)
            folder = out or _folder(reports, experiment)
            path = _render(
                store, experiment, folder, other=other, pdf=pdf, timeout_s=timeout_s,
                single_file=single_file, notebooks=notebooks,
            )  # fmt: skip
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; say where with --out") from error
    click.echo(path)


def _folder(reports: Path, experiment: str) -> Path:
    from workbench.report.index import report_folder

    folder = report_folder(reports, experiment)
    if folder is None:
        raise ConfigError(f"{experiment!r} names no folder; say where with --out")
    return folder


def _render(
    store: Store, experiment: str, folder: Path, *, other: str | None, pdf: bool, timeout_s: float,
    single_file: bool, notebooks: bool,
) -> Path:  # fmt: skip
    """Return the one document that was asked for."""
    if other:
        from workbench.report.compare import render_compare

        check_ran(store, other)
        return render_compare(store, experiment, other, folder)
    if pdf:
        from workbench.report.index import report_folder
        from workbench.report.pdf import render_pdf

        name = report_folder(Path(), experiment) or "report"
        return render_pdf(store, experiment, folder / f"{name}.pdf", timeout_s=timeout_s)
    return render_report(store, experiment, folder, single_file=single_file, notebooks=notebooks)


def render_report(
    store: Store, experiment: str, folder: Path, *, single_file: bool = False,
    notebooks: bool = False,
) -> Path:  # fmt: skip
    """Return the first page of the report of an experiment that ran."""
    from workbench.report.html import render

    check_ran(store, experiment)
    return render(store, experiment, folder, single_file=single_file, notebooks=notebooks)


def check_ran(store: Store, experiment: str) -> None:
    """Refuse a name that never ran; what only asked models is shown elsewhere."""
    if experiment not in store.runs.experiments() and store.ledger.rows(experiment=experiment):
        raise ConfigError(
            f"{experiment!r} has model calls but no runs; see `workbench cost show {experiment}`"
        )
    store.runs.experiment(experiment)
