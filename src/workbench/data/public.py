"""Public data sets: each an entry of ``public.yaml``, read by the same mapping as local files.

A table comes from the option ``path``, else from ``data/public/<folder>/<file>`` of the project,
else from the hub, whose copy is then kept there under the commit that it is. Nothing is sent
anywhere while settings say offline.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.files import Table, read_table
from workbench.core.identity import seeded, text_id
from workbench.core.registry import Registry
from workbench.core.settings import read_settings, seeds_folder
from workbench.data.local import cut_templates, join_tables, open_table, source_of
from workbench.data.pairs import Source

__all__ = ["PUBLIC", "SHAPES", "Row", "Shape", "describe", "open_requests", "read_public"]

Row: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = Callable[[Row], Iterable[Row]]
"""A row of the set → rows that can be mapped; none where it says nothing of use."""

PUBLIC: Final[Mapping[str, Mapping[str, Any]]] = yaml.load(
    Path(__file__).with_name("public.yaml").read_bytes(), yaml.CSafeLoader
)
"""Name → what ``public.yaml`` says of the set."""
SHAPES: Registry[Shape] = Registry("shape")

_OPTIONS = ("name", "path", "format", "rows", "delimiter", "join")
_HERE = "[INSERT PROMPT HERE]"
_MARK = re.compile(
    r"[\[{<]{1,3}\s?(?:(?:insert|put|enter|write|your|user|any|my|the)[ _])*"
    r"(?:prompt|question|query|request)(?:[ _](?:on[ _])?here)?\s?\\?[\]}>]{1,3}",
    re.IGNORECASE,
)
"""How people mark where a request goes into a template that they share."""
_OVERRIDE = re.compile(
    r"(?:[.!?]\s|\n)\s{0,3}("
    r"(?:shrug off|disregard|ignore|set aside|forget|overlook|dismiss|now that)\b"
    r"[^.:\n]{0,150}):\s*",
    re.IGNORECASE,
)
"""Sentence that turns from an innocent topic to the question that is meant."""
_FIRST_QUOTED = re.compile(r"\[\s*(['\"])(.*?)\1")
_TOXIC_FROM = 5.5
"""Sum of both toxicity scores from which the authors call a statement toxic."""
_PATIENCE_S = 5.0


def read_public(name: str, options: Mapping[str, Any], *, folder: Path) -> Source:
    """Return the source of pairs that an entry describes.

    Raises:
        ConfigError: If an option is wrong, or the set has requests only.
        DataError: If the set is nowhere to be had, or its rows are not as described.
    """
    if PUBLIC[name].get("needs"):
        raise ConfigError(
            f"source {name}: has requests but no clean side yet; run workbench data synthesize "
            f"on {name}, or name it under decontaminate"
        )
    return open_requests(name, options, folder=folder)


def open_requests(name: str, options: Mapping[str, Any], *, folder: Path) -> Source:
    """Return a set for the requests in it: ``core`` and labels of its stems.

    Its pairs have an empty clean side where the set has none; cleaning drops them all.

    Raises:
        ConfigError: If an option is wrong.
        DataError: If the set is nowhere to be had, or its rows are not as described.
    """
    refuse_unknown(options, known=_OPTIONS, where=f"source {name}")
    entry = dict(PUBLIC[name])
    title = str(options.get("name") or name)
    table, revision = _table(name, entry, options, folder=folder)
    table, misfits = _shaped(table, entry.get("shape") or "")
    templates: list[tuple[str, list[str]]] = []
    if "wraps" in entry:
        templates = cut_templates(title, table, column="template", placeholder=_HERE)
        table = read_table(seeds_folder() / entry["wraps"])
    if twins := entry.get("twins"):
        table = table.with_rows(_twins(table, **twins) if twins != "blocks" else _in_blocks(table))
    columns = {field: _present(table, one) for field, one in entry["columns"].items()}
    mapping = {**entry, "columns": columns, "revision": revision}
    source = source_of(title, table, mapping, templates=templates)
    left_out = {**source.left_out, **({"row of another shape": misfits} if misfits else {})}
    return replace(source, left_out=left_out, is_evaluated_only=entry.get("use") == "evaluation")


def describe(folder: Path) -> list[dict[str, str]]:
    """Return a row per public set: what it holds, under which terms, and where it is kept.

    Args:
        folder: The project's.
    """
    rows = []
    for name, entry in PUBLIC.items():
        rows.append(
            {
                "name": name,
                "holds": "requests" if entry.get("needs") else entry["relation"],
                "use": entry.get("use", "train"),
                "license": entry["license"],
                "gated": "yes" if entry.get("gated") else "",
                "here": next(map(str, _copies(name, entry, folder=folder)), ""),
                "from": entry.get("hub") or entry["home"],
                "columns": ", ".join(
                    f"{ours}: {theirs}" for ours, theirs in entry["columns"].items()
                ),
            }
        )
    return rows


def _place(name: str, entry: Row, *, folder: Path) -> Path:
    return folder / "data" / "public" / str(entry.get("folder", name))


def _stem(entry: Row) -> str:
    """Return how the name of a copy from the hub begins; its commit follows."""
    return f"{entry.get('config', 'default')}-{entry.get('split', 'all')}"


def _copies(name: str, entry: Row, *, folder: Path) -> list[Path]:
    """Return the files that hold a set on this machine, somebody's own before those of the hub."""
    place, revision = _place(name, entry, folder=folder), entry["revision"]
    fetched = place.glob(f"{_stem(entry)}@{'*' if revision == 'main' else revision}.parquet")
    return [file for file in (place / entry["file"], *sorted(fetched)) if file.is_file()]


def _table(name: str, entry: Row, options: Row, *, folder: Path) -> tuple[Table, str]:
    """Return the rows of a set and their revision; none where only their content can tell."""
    if "path" in options:
        spec = {"rows": entry.get("rows", ""), **options}
        table, revision = open_table(name, spec, folder=folder), ""
    else:
        table, revision = _found(name, entry, folder=folder)
    join = entry.get("join")
    if not join or _present(table, entry["columns"]["clean"]) in table.names:
        return table, revision
    if "join" in options:
        other = open_table(name, options["join"], folder=folder)
    else:
        other, _ = _found(name, {**entry, **join}, folder=folder)
    return join_tables(name, table, other, key=join["key"], prefix=join["prefix"]), revision


def _found(name: str, entry: Row, *, folder: Path) -> tuple[Table, str]:
    copies = _copies(name, entry, folder=folder)
    copy = copies[0] if copies else _fetch(name, entry, _place(name, entry, folder=folder))
    is_own = copy.name == entry["file"]
    table = read_table(copy, rows=str(entry.get("rows", "")) if is_own else "")
    return table, "" if is_own else copy.stem.partition("@")[2]


def _fetch(name: str, entry: Row, place: Path) -> Path:
    """Return the file that a set of the hub was written to; connects to the hub."""
    hub = entry.get("hub")
    page = f"https://huggingface.co/datasets/{hub}" if hub else entry["home"]
    # from the project's folder on: reports quote this
    shown = "/".join(place.parts[-3:])
    fix = f"put {entry['file']} into {shown} (source and licence, {entry['license']}: {page})"
    if not hub:
        raise DataError(f"source {name}: not on this machine and not on the hub; {fix}")
    online = "set WORKBENCH_OFFLINE=0" + (
        " and HF_TOKEN to a token whose owner accepted its terms" if entry.get("gated") else ""
    )
    if read_settings().offline:
        raise DataError(f"source {name}: not on this machine, and offline; {fix}, or {online}")
    if trouble := _hub_trouble():
        raise DataError(f"source {name}: the hub is out of reach ({trouble}); {fix}")
    from datasets import concatenate_datasets, load_dataset
    from huggingface_hub import HfApi

    part, split = place / f"{_stem(entry)}.part", entry["split"]
    try:
        commit = HfApi().dataset_info(hub, revision=entry["revision"]).sha
        load = {"revision": commit, "split": None if split == "all" else split}
        rows = load_dataset(hub, entry.get("config"), **load, **entry.get("load", {}))
        if split == "all":
            rows = concatenate_datasets(list(rows.values()))
        place.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(part)
    except Exception as error:  # whatever a downloader raises, the set is named
        first = (str(error).splitlines() or [""])[0]
        what = f"{type(error).__name__}: {first}"
        raise DataError(f"source {name}: {hub} not loaded ({what}); {fix}, or {online}") from error
    return part.rename(place / f"{_stem(entry)}@{commit}.parquet")


@cache  # asked once: each set would wait for its own
def _hub_trouble() -> str:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE_S)
    except Exception as error:  # noqa: BLE001 - whatever a client raises, it is no way out
        return type(error).__name__
    return ""


def _shaped(table: Table, shape: str) -> tuple[Table, int]:
    """Return the table's rows in another shape, and how many have none."""
    if not shape:
        return table, 0
    reshape = SHAPES.get(shape)
    shaped = [
        (place, list(reshape(row))) for place, row in zip(table.places, table.rows, strict=True)
    ]
    misfits = sum(not rows for _, rows in shaped)
    if misfits == len(shaped):
        there = ", ".join(table.names)
        raise DataError(f"{table.path}: no row as {shape!r} needs it; the columns are: {there}")
    return table.with_rows((place, row) for place, rows in shaped for row in rows), misfits


def _present(table: Table, reference: str | int) -> str | int:
    """Return the one of the columns ``a|b`` that the table has."""
    names = reference.split("|") if isinstance(reference, str) else []
    return next((name for name in names if name in table.names), reference)


def _twins(
    table: Table, *, text: str, group: str, label: str, harmful: list[Any]
) -> Iterator[tuple[str, Row]]:
    """Yield each harmful row beside a harmless one of its group, drawn in turn."""
    bad = {str(one).lower() for one in harmful}
    sides: dict[str, tuple[list[Any], list[Any]]] = defaultdict(lambda: ([], []))
    cells = zip(
        table.places, table.labels(group), table.labels(label), table.texts(text), strict=True
    )
    for place, one_group, one_label, one_text in cells:
        sides[one_group][one_label.lower() in bad].append((place, one_text))
    for one_group, (benign, attacks) in sides.items():
        seeded("twins", one_group).shuffle(benign)
        for number, (place, attack) in enumerate(attacks if benign else ()):
            yield place, _beside(attack, benign[number % len(benign)][1], one_group)


def _in_blocks(table: Table) -> Iterator[tuple[str, Row]]:
    """Yield each row of a ``contrast_`` block beside that of the safe block before it (XSTest)."""
    rows = zip(table.labels("type"), table.places, table.texts("prompt"), strict=True)
    blocks = [(kind, list(block)) for kind, block in groupby(rows, key=lambda row: row[0])]
    for (_, safe), (kind, unsafe) in pairwise(blocks):
        if kind.startswith("contrast_") and len(safe) == len(unsafe):
            for (_, _, benign), (_, place, harmful) in zip(safe, unsafe, strict=True):
                yield place, _beside(harmful, benign, kind)


def _beside(harmful: str, benign: str, group: str) -> Row:
    # Pairs that share a harmless side must not meet across splits.
    return {"harmful": harmful, "benign": benign, "group": group, "twin": text_id(benign)[:16]}


@SHAPES.register("instruction_response")
def _instruction_response(row: Row) -> Iterator[Row]:
    """Split ``### Instruction: … ### Response: …``, and the question from what it hides behind."""
    before, found, response = str(row.get("text") or "").partition("### Response:")
    instruction = before.replace("### Instruction:", "", 1).strip()
    if found and instruction:
        override = _OVERRIDE.search(instruction)
        yield {
            "instruction": instruction,
            "response": response.strip(),
            "question": instruction[override.end() :] if override else instruction,
            "is_wrapped": override is not None,
            "override": f"aurora/{text_id(override[1].lower())[:8]}" if override else "",
        }


@SHAPES.register("scored_statement")
def _scored_statement(row: Row) -> Iterator[Row]:
    """Add whether raters call the statement toxic (ToxiGen, README: the sum of both scores)."""
    text = re.sub(r"^b(['\"])(.*)\1$", r"\2", str(row.get("text") or ""))
    with suppress(KeyError, TypeError, ValueError):  # not rated
        score = float(row["toxicity_ai"]) + float(row["toxicity_human"])
        yield {**row, "text": text, "is_toxic": int(score > _TOXIC_FROM)}


@SHAPES.register("marked_template")
def _marked_template(row: Row) -> Iterator[Row]:
    """Keep a template that marks where the request goes, its mark written in one way."""
    template, marks = _MARK.subn(_HERE, str(row.get("prompt") or row.get("text") or ""))
    if marks:
        yield {"template": template}


@SHAPES.register("first_category")
def _first_category(row: Row) -> Iterator[Row]:
    """Keep the first of the categories of a row, and no row whose prompt was taken out."""
    for column in ("violated_categories", "harm_category"):
        value = row.get(column)
        if isinstance(value, list):
            value = value[0] if value else ""
        listed = _FIRST_QUOTED.match(str(value or ""))
        if column in row:
            row = {**row, column: listed[2] if listed else str(value or "").split(",")[0].strip()}
    if row.get("prompt") not in (None, "", "REDACTED"):
        yield row


@SHAPES.register("translations")
def _translations(row: Row) -> Iterator[Row]:
    """Make a row of each language; columns of two letters hold them."""
    for language, text in row.items():
        if re.fullmatch("[a-z]{2}", language) and language != "id" and text:
            yield {"id": row.get("id"), "language": language, "prompt": text}
