"""``workbench export``: a sanitizer for others to run, without the Workbench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.sanitize import checkpoint_folder

__all__ = ["export"]


@click.command(epilog=EXIT_CODES)
@click.argument("model")
@click.option(
    "--out", required=True, metavar="FOLDER", type=click.Path(path_type=Path),
    help="Folder to make; all of it is written, or nothing.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", multiple=True, type=click.Choice(["float32", "int8"]),
    default=("float32", "int8"), show_default=True, help="Of the encoder; may be repeated.",
)  # fmt: skip
@click.option(
    "--evaluation",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Figures for the model card: what `workbench evaluate --out FILE` wrote.",
)
@click.option("--json", "as_json", is_flag=True, help="Print files and hashes as JSON.")
def export(
    model: str, *, out: Path, precisions: tuple[Any, ...], evaluation: Path | None, as_json: bool
) -> None:
    """Write a sanitizer as ONNX, with a model card and hashes.

    MODEL is a model's id in the store, its beginning, or a folder. Needs the extra 'onnx'; what is
    written runs on onnxruntime without the Workbench, its README.md says how.

    \b
    Examples:
      workbench export 3f9a --out exported
      workbench export 3f9a --out exported --precision int8 --json
      workbench export 3f9a --out exported --evaluation figures.json
    """  # noqa: D301 - \b keeps click from wrapping
    from workbench.core.files import read_object

    figures = read_object(evaluation) if evaluation else None
    folder = checkpoint_folder(open_here(), model)
    from workbench.diffusion.export import export_sanitizer
    from workbench.notebook.progress import show_table

    made = export_sanitizer(folder, out, precisions=precisions, evaluation=figures)
    sizes = {name: (out / name).stat().st_size for name in made.files}
    if as_json:
        files = {name: {"bytes": size, "sha256": made.files[name]} for name, size in sizes.items()}
        said = {"model": made.model, "folder": str(out), "redirects": made.redirects}
        click.echo(json.dumps(said | {"files": files}))
        return
    click.echo(f"model {made.model[:12]} → {out}\nredirects: {made.redirects}\n")
    show_table(
        ["file", "bytes", "sha256"],
        [[name, f"{size:,}", made.files[name][:12]] for name, size in sizes.items()],
    )
