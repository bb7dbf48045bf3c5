"""Pairs from other people's files, by a mapping of columns in the experiment.

::

    adapter: local                     # may be left out
    name: gptfuzz-clinc150             # what the pairs will be called
    path: clinc150/data_full.json.gz   # csv, tsv, jsonl, json, parquet or txt, also .gz
    format: json                       # where the name does not tell
    rows: train                        # json: dotted path to the list of rows
    columns: {clean: 0}                # field of the pair: name or position of a column
    values: {category: benign}         # field of the pair: one text for all rows
    rename: {category: {Fraud/Deception: manipulation}}   # field: label in the file: ours
    relation: dewrap
    license: CC-BY-3.0
    revision: 828f8093932c
    templates: {path: gptfuzz/GPTFuzzer.csv, column: text, placeholder: "[INSERT PROMPT HERE]"}
    join: {path: behaviors.csv, key: index}   # adds the columns of a second file by a key
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.files import Table, read_table
from workbench.core.identity import content_id, seeded, text_id
from workbench.data.dedupe import SAME_WRAPPER, normalize
from workbench.data.pairs import RELATIONS, Source
from workbench.data.split import group_texts
from workbench.data.wrappers import family_split
from workbench.store.records import Pair

__all__ = ["read_local"]

_PROMPTS = ("adversarial", "clean", "core")
_LABELS = ("category", "domain", "context", "language", "parent_id", "wrapper_family")
_FILE_OPTIONS = ("path", "format", "rows")
_OPTIONS = (
    *_FILE_OPTIONS, "name", "columns", "values", "rename", "relation", "license", "revision",
    "templates", "join",
)  # fmt: skip


def read_local(options: Mapping[str, Any], *, folder: Path) -> Source:
    """Return the source that a mapping describes, with all of its rows read and checked.

    Raises:
        ConfigError: If the mapping is wrong.
        DataError: If a file is missing, broken or lacks a column.
    """
    name = str(options.get("name") or Path(str(options.get("path", "local"))).stem)
    refuse_unknown(options, known=_OPTIONS, where=f"source {name}")
    relation = options.get("relation")
    if relation not in RELATIONS:
        known = ", ".join(RELATIONS)
        raise ConfigError(f"source {name}: relation is {relation!r}; write one of {known}")
    mappings = {what: options.get(what) or {} for what in ("columns", "values", "rename")}
    for what, mapping in mappings.items():
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"source {name}: {what} is {mapping!r}; write a mapping")
        refuse_unknown(mapping, known=(*_PROMPTS, *_LABELS), where=f"source {name}: {what}")
    _check_sides(name, mappings["columns"], relation=relation, is_wrapped="templates" in options)
    table = _open_table(name, options, folder=folder)
    if "join" in options:
        table = _join(name, table, options["join"], folder=folder)
    templates: list[tuple[str, list[str]]] = []
    if "templates" in options:
        templates = _read_templates(name, options["templates"], folder=folder)
    rows = _read_rows(name, table, **mappings)
    revision = str(options.get("revision") or f"sha256:{content_id([rows, templates])[:12]}")
    license_ = str(options.get("license") or "unknown")
    prototype = Pair(
        adversarial="", clean="", relation=relation, source=name, source_rev=revision,
        license=license_, category="uncategorized", generator="local/1",
    )  # fmt: skip
    grow = partial(_grow, prototype, rows, templates)
    return Source(name=name, revision=revision, license=license_, grow=grow)


def _grow(
    prototype: Pair,
    rows: Sequence[Mapping[str, str]],
    templates: Sequence[tuple[str, list[str]]],
    *,
    seed: int,
) -> Iterator[Pair]:
    """Yield every row once, or every row in every template once."""
    rows, templates = list(rows), list(templates)
    seeded("local", prototype.source, seed).shuffle(rows)
    seeded("templates", prototype.source, seed).shuffle(templates)
    for row in () if templates else rows:
        yield _pair(prototype, row)
    for shift in range(len(templates)):
        for position, row in enumerate(rows):
            family, halves = templates[(position + shift) % len(templates)]
            core = row.get("core") or row["clean"]
            own = {"core": core, "adversarial": core.join(halves), "wrapper_family": family}
            yield _pair(prototype, {**row, **own})


def _pair(prototype: Pair, row: Mapping[str, Any]) -> Pair:
    """Return the pair of a row; empty cells keep what the prototype says."""
    pair = dataclasses.replace(prototype, **{name: cell for name, cell in row.items() if cell})
    if pair.relation == "identity":
        text = pair.adversarial or pair.clean
        pair = dataclasses.replace(pair, adversarial=text, clean=text)
    core = pair.core or (pair.clean if pair.relation == "dewrap" else pair.adversarial)
    return dataclasses.replace(pair, core=core)


def _check_sides(name: str, columns: Mapping[str, Any], *, relation: str, is_wrapped: bool) -> None:
    given = set(columns) & {"adversarial", "clean"}
    if is_wrapped:
        # The request goes into the template; unwrapped again it is also the clean side.
        if given != {"clean"}:
            raise ConfigError(
                f"source {name}: with templates, map columns.clean (and columns.core where "
                "the request to wrap differs from it), not columns.adversarial"
            )
    elif relation == "identity":
        if not given:
            raise ConfigError(f"source {name}: map columns.clean to the column of the prompts")
    elif missing := sorted({"adversarial", "clean"} - given):
        raise ConfigError(f"source {name}: map columns.{missing[0]} to a column")


def _open_table(name: str, options: Any, *, folder: Path) -> Table:
    if not isinstance(options, Mapping) or not isinstance(options.get("path"), str):
        raise ConfigError(f"source {name}: {options!r} has no path; write path: <file>")
    kind, rows = str(options.get("format") or ""), str(options.get("rows") or "")
    return read_table(folder / options["path"], kind=kind, rows=rows)


def _join(name: str, table: Table, options: Any, *, folder: Path) -> Table:
    """Return the table with the columns of a second one beside; its own win where names collide."""
    other = _open_table(name, options, folder=folder)
    refuse_unknown(options, known=(*_FILE_OPTIONS, "key"), where=f"source {name}: join")
    if "key" not in options:
        raise ConfigError(f"source {name}: join has no 'key'; write the key column of both files")
    key = options["key"]
    by_key = dict(zip(other.labels(key), other.rows, strict=True))
    if len(by_key) < len(other.rows):
        raise DataError(
            f"{other.path}: values of column {key!r} repeat; join on a column where they differ"
        )
    rows = []
    for index, value in enumerate(table.labels(key)):
        if value not in by_key:
            raise DataError(
                f"{table.places[index]}: {key!r} is {value!r}, not in {other.path}; add it there"
            )
        rows.append({**by_key[value], **table.rows[index]})
    names = tuple(dict.fromkeys((*table.names, *other.names)))
    return dataclasses.replace(table, names=names, rows=tuple(rows))


def _read_templates(name: str, options: Any, *, folder: Path) -> list[tuple[str, list[str]]]:
    """Return (wrapper family, the texts between the places of the request) of each template."""
    table = _open_table(name, options, folder=folder)
    known = (*_FILE_OPTIONS, "column", "placeholder", "family")
    refuse_unknown(options, known=known, where=f"source {name}: templates")
    placeholder = options.get("placeholder")
    if not isinstance(placeholder, str) or not placeholder:
        raise ConfigError(
            f"source {name}: templates.placeholder is {placeholder!r}; write the text to replace"
        )
    texts = table.texts(options.get("column", "text"))
    for index, text in enumerate(texts):
        if placeholder not in text:
            raise DataError(
                f"{table.places[index]}: no placeholder {placeholder!r}; correct it or the template"
            )
    if "family" in options:
        families = [f"{name}/{label}" for label in table.labels(options["family"])]
    else:
        # Variants of one template are one family, so that none is a test while its twin trains.
        keys = [normalize(text) for text in texts]
        names = [f"{name}/{text_id(key)[:8]}" for key in keys]
        families = group_texts(keys, names, side=family_split, threshold=SAME_WRAPPER)
    halves = [text.split(placeholder) for text in texts]
    return list(zip(families, halves, strict=True))


def _read_rows(
    name: str,
    table: Table,
    *,
    columns: Mapping[str, Any],
    values: Mapping[str, Any],
    rename: Mapping[str, Any],
) -> list[dict[str, str]]:
    fields = {field: [str(value)] * len(table.rows) for field, value in values.items()}
    for field, reference in columns.items():
        fields[field] = table.texts(reference) if field in _PROMPTS else table.labels(reference)
    for field, ours in rename.items():
        if field not in columns or not isinstance(ours, Mapping):
            raise ConfigError(f"source {name}: rename.{field} needs columns.{field} and a mapping")
        for index, label in enumerate(fields[field]):
            if label not in ours:
                raise DataError(
                    f"{table.places[index]}: {field} is {label!r}; add it to rename.{field}"
                )
        fields[field] = [str(ours[label]) for label in fields[field]]
    if "parent_id" in fields:
        fields["parent_id"] = [cell and f"{name}:{cell}" for cell in fields["parent_id"]]
    return [dict(zip(fields, cells, strict=True)) for cells in zip(*fields.values(), strict=True)]
