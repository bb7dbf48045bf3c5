"""``workbench evaluate``: the whole metric contract on any labelled prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.bar import progress_bar
from workbench.cli.opening import EXIT_CODES, open_here
from workbench.cli.sanitize import check_gain, checkpoint_folder
from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import one_line

if TYPE_CHECKING:
    import pandas as pd

    from workbench.core.files import Table
    from workbench.store.database import Store
    from workbench.store.evaluation import EvaluationResult

__all__ = ["evaluate"]

_TRUE = {"true", "1", "1.0", "yes", "y", "harmful", "unsafe", "malicious", "jailbreak", "attack"}
_FALSE = {"false", "0", "0.0", "no", "n", "benign", "safe", "harmless"}
_FRONTIER = (
    "semantic/cosine", "keep/bare", "keep/wrapped", "harm/decoded", "harm/blocked",
    "detect/recall", "detect/false_positives",
)  # fmt: skip
_HASH = re.compile("@[0-9a-f]{12}$")
_PARTS = (
    "detect/auroc_matched", "detect/recall", "detect/false_positives", "dewrap/cosine",
    "dewrap/f1", "keep/bare", "keep/wrapped", "harm/decoded",
)  # fmt: skip


@click.command(epilog=EXIT_CODES)
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option(
    "--data", required=True, metavar="FILE|PAIR_SET",
    help="CSV, TSV, JSONL, JSON or Parquet with prompts and labels; or the id of a pair set.",
)  # fmt: skip
@click.option(
    "--split", "splits", multiple=True, default=("test_both",), show_default=True,
    help="Of a pair set; may be repeated.",
)  # fmt: skip
@click.option(
    "--columns", default="", metavar="OURS=THEIRS,...",
    help="Columns of the file that are called otherwise, e.g. prompt=text,harmful=label.",
)  # fmt: skip
@click.option("--gains", default="0.5,1,2,4", show_default=True, help="Points of the frontier.")
@click.option(
    "--precision", type=click.Choice(["float32", "int8"]), default="float32", show_default=True,
    help="Of the encoder; int8 is faster and needs the extra 'onnx'.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Prompts to draw at random.  [all]")
@click.option("--seed", default=0, show_default=True, help="Decides all that is drawn.")
@click.option(
    "--judge", type=click.Choice(["embedding", "text"]),
    help="Blocks inside, and then does not report.  [none blocks]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this file.")
def evaluate(
    checkpoints: tuple[str, ...], *, data: str, splits: tuple[str, ...], columns: str, gains: str,
    precision: Any, limit: int | None, seed: int, judge: str | None, as_json: bool,
    out: Path | None,
) -> None:  # fmt: skip
    """Measure a sanitizer on labelled prompts.

    A CHECKPOINT is a model's id in the store, its beginning, or a folder. Of several, trained
    alike from other seeds, figures are means over them with intervals over the seeds.

    A file needs the columns prompt and harmful (true or false, 1 or 0, harmful or benign); core
    (the bare request), clean (a safe reference), family, source, language, domain, category, group
    and lookalike are used where they are there.

    \b
    Examples:
      workbench evaluate 3f9a --data 87022c42 --split test_both --split test_intents
      workbench evaluate 3f9a --data attacks.csv --columns prompt=text,harmful=label
      workbench evaluate 3f9a 77ab c021 --data mine.jsonl --gains 0.5,1,2 --out figures.json
    """  # noqa: D301 - \b keeps click from wrapping
    points = _gains(gains)
    store = open_here()
    folders = [checkpoint_folder(store, one) for one in checkpoints]
    table, origin = _table(store, data, splits=splits, columns=columns)
    if limit and limit < len(table):
        table = table.sample(limit, random_state=seed)
    from workbench.diffusion.contract import evaluate_sanitizer
    from workbench.diffusion.intervals import over_seeds
    from workbench.diffusion.sanitizer import Sanitizer
    from workbench.embedding.vectors import open_encoder
    from workbench.judge.probe import train_bench
    from workbench.store.artifacts import write_json_atomic

    encoder = open_encoder(store)
    bench = train_bench(store, encoder)
    inside = getattr(bench, judge) if judge else None
    results = []
    with progress_bar("texts", as_json=as_json) as tell:
        for folder in folders:
            sanitizer = Sanitizer.load(folder, precision=precision, judge=inside)
            redirects = sanitizer.redirector.gallery.texts
            results.append(
                evaluate_sanitizer(
                    sanitizer, table, encoder=encoder, bench=bench, gains=points,
                    redirects=redirects, seed=seed, origin=origin, precision=precision,
                    tell=tell,
                )
            )  # fmt: skip
    result = results[0]
    models = [model for one in results for model in one["models"]]
    if len(set(models)) < len(models):
        raise ConfigError("one model is given twice; figures would look surer than they are")
    if len(results) > 1:
        result["figures"] = over_seeds([one["figures"] for one in results])
        result["models"] = models
    if out:
        write_json_atomic(out, result)
    click.echo(json.dumps(result, ensure_ascii=False)) if as_json else _show(result)


def _gains(written: str) -> list[float]:
    try:
        gains = [float(one) for one in written.split(",") if one.strip()]
    except ValueError:
        raise ConfigError(f"--gains {written!r:.60}: write numbers, e.g. 0.5,1,2") from None
    for gain in gains:
        check_gain(gain)
    return gains


def _table(
    store: Store, data: str, *, splits: Sequence[str], columns: str
) -> tuple[pd.DataFrame, str]:
    """Return the labelled prompts of a file or of splits of a pair set, and where they are from."""
    import pandas as pd

    from workbench.core.files import read_table
    from workbench.diffusion.labelled import complete, labelled

    if Path(data).exists() or Path(data).suffix:
        return complete(_read(read_table(Path(data)), columns)), Path(data).name
    if columns:
        raise ConfigError(f"--columns is for files; {data!r} is none here")
    from workbench.data.build import load_pairs
    from workbench.data.requests import load_benign

    pairs = load_pairs(store, data)
    parts = pd.concat([pairs.part(split) for split in splits], ignore_index=True)
    lookalikes = {one.request for one in load_benign() if one.lookalike}
    origin = f"pair set {pairs.version}, {', '.join(splits)}"
    return labelled(parts, lookalikes=lookalikes), origin


def _read(table: Table, columns: str) -> pd.DataFrame:
    """Return the columns of a file that an evaluation knows; rows are called by their place."""
    import pandas as pd

    from workbench.core.fields import refuse_unknown
    from workbench.diffusion.labelled import COLUMNS

    named = dict(one.partition("=")[::2] for one in columns.split(",") if one.strip())
    refuse_unknown(named, known=COLUMNS, where="--columns")
    found: dict[str, Sequence[Any]] = {}
    for ours in COLUMNS:
        theirs = named.get(ours, ours)
        if ours in ("prompt", "harmful") or ours in named or theirs in table.names:
            read = table.texts if ours == "prompt" else table.labels
            found[ours] = read(theirs)
    found["harmful"] = [
        _truth(cell, place) for cell, place in zip(found["harmful"], table.places, strict=True)
    ]
    if "lookalike" in found:
        both = zip(found["lookalike"], table.places, strict=True)
        found["lookalike"] = [_truth(cell or "no", place) for cell, place in both]
    return pd.DataFrame(found, index=list(table.places))


def _truth(cell: str, place: str) -> bool:
    if (said := cell.strip().lower()) in _TRUE | _FALSE:
        return said in _TRUE
    raise DataError(
        f"{place}: label {one_line(cell)[:40]!r}; write true or false, 1 or 0, harmful or benign"
    )


def _show(result: EvaluationResult) -> None:
    from workbench.diffusion.contract import BY

    click.echo(f"models {', '.join(one[:12] for one in result['models'])}")
    click.echo(", ".join(f"{count:,} {name}" for name, count in result["rows"].items()))
    listed = ", ".join(f"{count:,} {kind}" for kind, count in result["gallery"].items())
    click.echo(f"gallery {result['gallery_id'][:12]}: {listed}\n{result['method']}")
    whole = [row for row in result["figures"] if not row["by"]]
    own = [row for row in result["figures"] if row["method"] == "sanitizer"]
    cells = [(row["metric"], "n", f"{row['n']:,}") for row in own if row in whole]
    for method in ("sanitizer", "identity", "length"):
        at_1 = [row for row in whole if row["method"] == method and row["gain"] == 1]
        cells += [(row["metric"], method, _cell(row)) for row in at_1]
    _pivot("figure", cells)
    errors = [row for row in whole if row["metric"].startswith("judge/")]
    cells = [(row["method"], row["metric"], _cell(row)) for row in errors]
    for one in result["judges"]:
        cells.append((one["id"], "own set: auroc", _cell(one["auroc_benign"])))
        cells.append((one["id"], "own set: recall", f"{one['recall']:.2f}"))
    _pivot("judge", cells)
    _pivot(
        "gain",
        [
            (f"{row['gain']:g}", row["metric"], _cell(row))
            for row in own
            if not row["by"] and (row["metric"] in _FRONTIER or row["metric"][:7] == "safety@")
        ],
    )
    for by in BY:
        parts = [row for row in own if row["by"] == by and row["metric"] in _PARTS]
        _pivot(by, [(row["of"], row["metric"], _cell(row)) for row in parts])


def _pivot(heading: str, cells: Sequence[tuple[str, str, str]]) -> None:
    """Print cells by line and column, both in the order of their coming; nothing where none is."""
    from workbench.notebook.progress import show_table

    if not cells:
        return
    found = {(line, column): cell for line, column, cell in cells}
    lines, columns = (list(dict.fromkeys(each)) for each in zip(*found, strict=True))
    click.echo()
    show_table(
        [heading, *(_HASH.sub("", column) for column in columns)],
        [[_HASH.sub("", line), *(found.get((line, one), "") for one in columns)] for line in lines],
    )


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f}–{row['high']:.2f})"
