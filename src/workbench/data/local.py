"""Pairs from other people's files, by a mapping of columns in the experiment.

::

    adapter: local
    name: gptfuzz-clinc150             # what the pairs will be called
    path: clinc150/data_full.json.gz   # csv, tsv, jsonl, json, parquet or txt, also .gz
    format: json                       # where the name does not tell
    rows: train                        # json: dotted path to the list of rows
    columns: {clean: 0}                # field of the pair: name or position of a column
    values: {category: benign}         # field of the pair: one text for all rows
    relation: dewrap
    license: CC-BY-3.0
    revision: 828f8093932c
    templates: {path: gptfuzz/GPTFuzzer.csv, column: text, placeholder: "[INSERT PROMPT HERE]"}
    join: {path: behaviors.csv, key: index}   # adds the columns of a second file by a key
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id, text_id
from workbench.data.chance import seeded
from workbench.data.dedupe import near_duplicates, normalize
from workbench.data.files import Table, read_table
from workbench.data.pairs import RELATIONS
from workbench.store.records import Pair

__all__ = ["LocalFiles", "read_local"]

_PROMPTS = ("adversarial", "clean", "core")
_LABELS = ("category", "domain", "context", "language", "parent", "wrapper_family")
_OPTIONS = (
    "name", "path", "format", "rows", "columns", "values", "relation", "license", "revision",
    "templates", "join",
)  # fmt: skip
_FILE_OPTIONS = ("path", "format", "rows")


@dataclass(frozen=True, kw_only=True)
class Template:
    """A text around a place for a request."""

    text: str
    placeholder: str
    family: str

    def fill(self, request: str) -> str:
        """Return the text with the request at every place."""
        return self.text.replace(self.placeholder, request)


@dataclass(frozen=True, kw_only=True)
class LocalFiles:
    """Rows of local files, read and checked."""

    name: str
    revision: str
    license: str
    relation: Any
    rows: tuple[Mapping[str, str], ...]
    """Fields of the pair, by name."""
    templates: tuple[Template, ...]
    """Wrappers to put each row's request into; none where rows are whole pairs."""

    def grow(self, *, seed: int) -> Iterator[Pair]:
        """Yield every row once, or every row in every template once."""
        rows = list(self.rows)
        seeded("local", self.name, seed).shuffle(rows)
        if not self.templates:
            yield from (self._pair(row, row.get("wrapper_family", "")) for row in rows)
            return
        templates = list(self.templates)
        seeded("templates", self.name, seed).shuffle(templates)
        for shift in range(len(templates)):
            for template, row in zip(_cycle(templates, shift), rows, strict=False):
                request = row["core"] or row["clean"]
                yield self._pair({**row, "adversarial": template.fill(request)}, template.family)

    def _pair(self, row: Mapping[str, str], family: str) -> Pair:
        sides = {side: row.get(side, "") for side in ("adversarial", "clean")}
        if self.relation == "identity":
            sides = dict.fromkeys(sides, sides["adversarial"] or sides["clean"])
        core = row.get("core", "")
        if not core:
            core = sides["clean"] if self.relation == "dewrap" else sides["adversarial"]
        labels = {
            label: row[label] for label in ("domain", "context", "language") if row.get(label)
        }
        parent = row.get("parent", "")
        return Pair(
            **sides,
            **labels,
            relation=self.relation,
            source=self.name,
            source_rev=self.revision,
            license=self.license,
            category=row.get("category") or "uncategorized",
            core=core,
            wrapper_family=family,
            generator="local/1",
            parent_id=f"{self.name}:{parent}" if parent else "",
        )


def read_local(options: Mapping[str, Any], *, folder: Path) -> LocalFiles:
    """Return the source that a mapping describes, with all of its rows read and checked.

    Args:
        options: See the module.
        folder: Folder that relative paths start from.

    Raises:
        ConfigError: If the mapping is wrong.
        DataError: If a file is missing, broken or lacks a column.
    """
    name = str(options.get("name") or Path(str(options.get("path", "local"))).stem)
    _check_keys(name, "option", options, _OPTIONS)
    relation = options.get("relation")
    if relation not in RELATIONS:
        raise ConfigError(
            f"source {name}: relation is {relation!r}; write one of {', '.join(RELATIONS)}"
        )
    columns, values = options.get("columns") or {}, options.get("values") or {}
    for what, mapping in (("columns", columns), ("values", values)):
        if not isinstance(mapping, Mapping):
            raise ConfigError(f"source {name}: {what} is {mapping!r}; write a mapping")
        _check_keys(name, f"field in {what}", mapping, (*_PROMPTS, *_LABELS))
    _check_sides(name, columns, relation=relation, has_templates="templates" in options)
    table = _open_table(name, options, folder=folder)
    if "join" in options:
        table = _join(name, table, options["join"], folder=folder)
    templates: tuple[Template, ...] = ()
    if "templates" in options:
        templates = _read_templates(name, options["templates"], folder=folder)
    rows = _rows(table, columns=columns, values=values)
    content = [rows, [(one.text, one.family) for one in templates]]
    return LocalFiles(
        name=name,
        revision=str(options.get("revision") or f"sha256:{content_id(content)[:12]}"),
        license=str(options.get("license") or "unknown"),
        relation=relation,
        rows=tuple(rows),
        templates=templates,
    )


def _cycle(templates: list[Template], shift: int) -> Iterator[Template]:
    return (templates[(position + shift) % len(templates)] for position in count())


def _check_keys(name: str, what: str, mapping: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(str(key) for key in set(mapping) - set(known)):
        raise ConfigError(
            f"source {name}: unknown {what} {unknown[0]!r}; known: {', '.join(known)}"
        )


def _check_sides(
    name: str, columns: Mapping[str, Any], *, relation: str, has_templates: bool
) -> None:
    given = set(columns) & set(_PROMPTS)
    if has_templates:
        # The request goes into the template; unwrapped again it is also the clean side.
        if "adversarial" in given or "clean" not in given:
            raise ConfigError(
                f"source {name}: with templates, map columns.clean (and columns.core where "
                "the request to wrap differs from it), not columns.adversarial"
            )
    elif relation == "identity":
        if not given & {"adversarial", "clean"}:
            raise ConfigError(f"source {name}: map columns.clean to the column of the prompts")
    elif not {"adversarial", "clean"} <= given:
        missing = sorted({"adversarial", "clean"} - given)
        raise ConfigError(f"source {name}: map columns.{missing[0]} to a column")


def _open_table(name: str, options: Any, *, folder: Path) -> Table:
    if not isinstance(options, Mapping) or not isinstance(options.get("path"), str | Path):
        raise ConfigError(f"source {name}: {options!r} has no path; write path: <file>")
    return read_table(
        folder / options["path"],
        kind=str(options.get("format") or ""),
        rows=str(options.get("rows") or ""),
    )


def _join(name: str, table: Table, options: Any, *, folder: Path) -> Table:
    """Return the table with the columns of a second one beside; its own win where names collide."""
    other = _open_table(name, options, folder=folder)
    _check_keys(name, "option in join", options, (*_FILE_OPTIONS, "key"))
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
                f"{table.place(index)}: {key!r} is {value!r}, not in {other.path}; add it there"
            )
        rows.append({**by_key[value], **table.rows[index]})
    names = dict.fromkeys((*table.names, *other.names))
    return Table(
        path=table.path, names=tuple(names), rows=tuple(rows), unit=table.unit, first=table.first
    )


def _read_templates(name: str, options: Any, *, folder: Path) -> tuple[Template, ...]:
    table = _open_table(name, options, folder=folder)
    _check_keys(
        name, "option in templates", options, (*_FILE_OPTIONS, "column", "placeholder", "family")
    )
    placeholder = options.get("placeholder")
    if not isinstance(placeholder, str) or not placeholder:
        raise ConfigError(
            f"source {name}: templates.placeholder is {placeholder!r}; write the text to replace"
        )
    texts = table.texts(options.get("column", "text"))
    for index, text in enumerate(texts):
        if placeholder not in text:
            raise DataError(
                f"{table.place(index)}: no placeholder {placeholder!r}; correct it or the template"
            )
    if "family" in options:
        families = table.labels(options["family"])
    else:
        # Variants of one template are one family, so that none is a test while its twin trains.
        repeats = near_duplicates([normalize(text) for text in texts])
        origins = [texts[index if origin < 0 else origin] for index, origin in enumerate(repeats)]
        families = [text_id(normalize(origin))[:8] for origin in origins]
    return tuple(
        Template(text=text, placeholder=placeholder, family=f"{name}/{family}")
        for text, family in zip(texts, families, strict=True)
    )


def _rows(
    table: Table, *, columns: Mapping[str, Any], values: Mapping[str, Any]
) -> list[dict[str, str]]:
    fields = {field: [str(value)] * len(table.rows) for field, value in values.items()}
    for field, reference in columns.items():
        fields[field] = table.texts(reference) if field in _PROMPTS else table.labels(reference)
    fields.setdefault("core", [""] * len(table.rows))
    return [dict(zip(fields, cells, strict=True)) for cells in zip(*fields.values(), strict=True)]
