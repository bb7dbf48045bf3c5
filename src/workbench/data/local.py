"""Pairs from other people's files, by a mapping of columns in the experiment.

::

    adapter: local                     # may be left out
    name: gptfuzz-clinc150             # what the pairs will be called
    path: clinc150/data_full.json.gz   # csv, tsv, jsonl, json, parquet or txt, also .gz
    format: json                       # where the name does not tell
    rows: train                        # json: dotted path to the list of rows; * is every key
    delimiter: ";"                     # csv: where it is not the comma
    keep: {label: [unsafe, 1]}         # only rows whose column has one of these values
    first_turn: transcript             # column of dialogues, of which the first human turn is kept
    columns: {clean: 0}                # field of the pair: name or position of a column
    values: {category: benign}         # field of the pair: one text for all rows
    rename: {category: {Fraud/Deception: manipulation, "*": violence}}   # label: ours; *: others
    relation: dewrap
    license: CC-BY-3.0
    revision: 828f8093932c
    templates: {path: gptfuzz/GPTFuzzer.csv, column: text, placeholder: "[INSERT PROMPT HERE]"}
    join: {path: behaviors.csv, key: index, prefix: b_}   # adds a second file's columns by a key
    scrub: true                        # a log: see below

Logs of what real people sent are read with ``scrub``: personal data and secrets become placeholders
before a pair exists, and a mapped ``parent_id`` (a user or a conversation) becomes a number.
Columns that are not mapped never leave the file. Patterns miss names of people, so this is no
anonymity: pairs in which something was replaced say so by their generator, :data:`SCRUBBED`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from workbench.core.errors import ConfigError, DataError
from workbench.core.fields import refuse_unknown
from workbench.core.files import Table, read_table
from workbench.core.identity import content_id, seeded, text_id
from workbench.core.redact import redact
from workbench.data.clean import MAX_CHARS
from workbench.data.dedupe import SAME_WRAPPER, normalize
from workbench.data.pairs import RELATIONS, Source, Stem
from workbench.data.split import group_texts
from workbench.data.wrappers import family_split
from workbench.store.records import Pair

__all__ = [
    "GENERATOR",
    "SCRUBBED",
    "cut_templates",
    "join_tables",
    "open_table",
    "read_local",
    "source_of",
]

GENERATOR: Final = "local/1"
SCRUBBED: Final = f"{GENERATOR}+scrubbed"
"""Generator of pairs in which personal data or a secret was replaced."""

_PROMPTS = ("adversarial", "clean", "core")
_LABELS = ("category", "domain", "context", "language", "parent_id", "wrapper_family")
_FILE_OPTIONS = ("path", "format", "rows", "delimiter")
_OPTIONS = (
    *_FILE_OPTIONS, "name", "columns", "values", "rename", "relation", "license", "revision",
    "templates", "join", "keep", "first_turn", "scrub",
)  # fmt: skip
_MAX_CELL = 10 * MAX_CHARS
"""Longest prompt that is read at all: beyond it is a mistake in the file, not a long prompt."""
_TURN = re.compile(r"^[ \t]*(human|user|assistant|ai):", re.IGNORECASE | re.MULTILINE)
_HUMAN = ("human", "user")
_SAID = ("content", "value", "text")


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
    table = open_table(name, options, folder=folder)
    if "join" in options:
        table = _join(name, table, options["join"], folder=folder)
    templates: list[tuple[str, list[str]]] = []
    if "templates" in options:
        templates = _read_templates(name, options["templates"], folder=folder)
    return source_of(name, table, options, templates=templates)


def source_of(
    name: str,
    table: Table,
    options: Mapping[str, Any],
    *,
    templates: Sequence[tuple[str, list[str]]] = (),
) -> Source:
    """Return the source whose rows are those of a table, wherever it comes from.

    Args:
        name: What the pairs will be called.
        table: The rows.
        options: How they are mapped: all that :func:`read_local` takes but files.
        templates: Wrapper family and text around the request of each template.

    Raises:
        ConfigError: If the mapping is wrong.
        DataError: If a column is missing or no row is left.
    """
    table = _kept(name, table, options.get("keep") or {})
    left_out: Counter[str] = Counter()
    if "first_turn" in options:
        table, left_out = _first_turns(table, options["first_turn"])
    mappings = {what: options.get(what) or {} for what in ("columns", "values", "rename")}
    rows = _read_rows(name, table, **mappings)
    short = [row for row in rows if all(len(row.get(side, "")) <= _MAX_CELL for side in _PROMPTS)]
    if too_long := len(rows) - len(short):
        left_out[f"cell over {_MAX_CELL} characters"] = too_long
    if options.get("scrub"):
        short = _scrubbed(short)
    # Of what is left of the rows, so that nothing tells of what was scrubbed.
    content = content_id([short, templates, options["relation"]])
    revision = str(options.get("revision") or f"sha256:{content[:12]}")
    license_ = str(options.get("license") or "unknown")
    prototype = Pair(
        adversarial="", clean="", relation=options["relation"], source=name, source_rev=revision,
        license=license_, category="uncategorized", generator=GENERATOR,
    )  # fmt: skip
    stems = [_stem(prototype, row, templates) for row in short]
    return Source(
        name=name, revision=revision, content=content, license=license_, stems=stems,
        left_out=dict(left_out),
    )  # fmt: skip


def open_table(name: str, options: Any, *, folder: Path) -> Table:
    """Return the rows of the file that options name by ``path``; raises as :func:`read_local`."""
    if not isinstance(options, Mapping) or not isinstance(options.get("path"), str):
        raise ConfigError(f"source {name}: {options!r} has no path; write path: <file>")
    kind, rows, delimiter = (
        str(options.get(option) or "") for option in ("format", "rows", "delimiter")
    )
    if len(delimiter) > 1:
        raise ConfigError(f"source {name}: delimiter is {delimiter!r}; write one character")
    return read_table(folder / options["path"], kind=kind, rows=rows, delimiter=delimiter)


def join_tables(
    name: str, table: Table, other: Table, *, key: str | int, prefix: str = ""
) -> Table:
    """Return the table with the columns of a second one beside; its own win where names collide.

    Args:
        name: Of the source, for messages.
        table: The rows.
        other: What is added; it holds each key once.
        key: Column of both.
        prefix: Put before the names of the columns that are added.

    Raises:
        DataError: If a key repeats in ``other`` or is missing there.
    """
    by_key: dict[str, Mapping[str, Any]] = {}
    for place, value, row in zip(other.places, other.labels(key), other.rows, strict=True):
        if value in by_key:
            raise DataError(
                f"{place}: values of column {key!r} repeat ({value!r}); join source {name} on a "
                "column where they differ"
            )
        by_key[value] = {f"{prefix}{column}": cell for column, cell in row.items()}
    rows = []
    for place, value, row in zip(table.places, table.labels(key), table.rows, strict=True):
        if value not in by_key:
            raise DataError(f"{place}: {key!r} is {value!r}, not in {other.path}; add it there")
        rows.append((place, {**by_key[value], **row}))
    joined = table.with_rows(rows)
    return dataclasses.replace(joined, names=tuple(dict.fromkeys((*table.names, *joined.names))))


def cut_templates(
    name: str, table: Table, *, column: str | int, placeholder: str, family: str | int | None = None
) -> list[tuple[str, list[str]]]:
    """Return (wrapper family, the texts between the places of the request) of each template.

    Args:
        name: Of the source, put before families that the file names.
        table: A template per row.
        column: Of the templates.
        placeholder: Text that the request replaces.
        family: Column of the families; none: variants of one template are one family.

    Raises:
        DataError: If a template has no place for the request.
    """
    texts = table.texts(column)
    for index, text in enumerate(texts):
        if placeholder not in text:
            raise DataError(
                f"{table.places[index]}: no placeholder {placeholder!r}; correct it or the template"
            )
    if family is not None:
        families = [f"{name}/{label}" for label in table.labels(family)]
    else:
        # Variants of one template are one family, so that none is a test while its twin trains.
        keys = [normalize(text) for text in texts]
        names = [f"template/{text_id(key)[:8]}" for key in keys]  # the same in every source
        families = group_texts(keys, names, side=family_split, threshold=SAME_WRAPPER)
    halves = [text.split(placeholder) for text in texts]
    return list(zip(families, halves, strict=True))


def _stem(
    prototype: Pair, row: Mapping[str, str], templates: Sequence[tuple[str, list[str]]]
) -> Stem:
    plain = _pair(prototype, row)
    return Stem(
        core=plain.core,
        parent_id=plain.parent_id,
        category=plain.category,
        language=plain.language,
        texts=tuple(sorted({plain.core, plain.clean, plain.adversarial} - {""})),
        grow=partial(_in_templates, plain, templates) if templates else partial(_once, plain),
        size=len(templates) or 1,
    )


def _once(pair: Pair, *, seed: int) -> Iterator[Pair]:  # noqa: ARG001
    yield pair


def _in_templates(
    pair: Pair, templates: Sequence[tuple[str, list[str]]], *, seed: int
) -> Iterator[Pair]:
    """Yield the pair in every template once, in an order of its own."""
    order = seeded("templates", pair.source, seed, pair.core).sample(templates, len(templates))
    for family, halves in order:
        yield dataclasses.replace(pair, adversarial=pair.core.join(halves), wrapper_family=family)


def _pair(prototype: Pair, row: Mapping[str, Any]) -> Pair:
    """Return the pair of a row; empty cells keep what the prototype says."""
    pair = dataclasses.replace(prototype, **{name: cell for name, cell in row.items() if cell})
    if pair.relation == "identity":
        text = pair.adversarial or pair.clean
        pair = dataclasses.replace(pair, adversarial=text, clean=text)
    core = pair.core or (pair.clean if pair.relation == "dewrap" else pair.adversarial)
    return dataclasses.replace(pair, core=core or pair.clean)  # no adversarial side: in templates


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


def _join(name: str, table: Table, options: Any, *, folder: Path) -> Table:
    other = open_table(name, options, folder=folder)
    known = (*_FILE_OPTIONS, "key", "prefix")
    refuse_unknown(options, known=known, where=f"source {name}: join")
    if "key" not in options:
        raise ConfigError(f"source {name}: join has no 'key'; write the key column of both files")
    prefix = str(options.get("prefix") or "")
    return join_tables(name, table, other, key=options["key"], prefix=prefix)


def _kept(name: str, table: Table, keep: Any) -> Table:
    """Return the table with only the rows whose columns have one of the values to keep."""
    if not isinstance(keep, Mapping):
        raise ConfigError(f"source {name}: keep is {keep!r}; write a mapping of columns to values")
    for column, wanted in keep.items():
        values = {str(one).lower() for one in (wanted if isinstance(wanted, list) else [wanted])}
        labels = [label.lower() for label in table.labels(column)]
        if not values & set(labels):
            there = ", ".join(sorted(set(labels))[:5])
            raise DataError(
                f"{table.path}: no row of source {name} has {column!r} {sorted(values)}; "
                f"there: {there}; correct keep"
            )
        rows = zip(table.places, table.rows, labels, strict=True)
        table = table.with_rows((place, row) for place, row, label in rows if label in values)
    return table


def _first_turns(table: Table, reference: str | int) -> tuple[Table, Counter[str]]:
    """Return the table with a column's dialogues cut to their first human turn, and what had none.

    A dialogue is a text of ``Human:`` and ``Assistant:`` turns (or ``User:`` and ``AI:``), or a
    list of objects with ``role`` or ``from``, and ``content``, ``value`` or ``text``.
    """
    column = table.column(reference)
    turns = [_first_turn(row.get(column)) for row in table.rows]
    rows = zip(table.places, table.rows, turns, strict=True)
    cut = table.with_rows((place, {**row, column: turn}) for place, row, turn in rows if turn)
    return cut, Counter({"dialogue without a human turn": turns.count("")} if "" in turns else {})


def _first_turn(dialogue: Any) -> str:
    turns: list[tuple[Any, Any]] = []
    if isinstance(dialogue, str):
        _, *said = _TURN.split(dialogue)
        turns = [(role.lower(), text) for role, text in zip(said[::2], said[1::2], strict=True)]
    elif isinstance(dialogue, list):
        for turn in (turn for turn in dialogue if isinstance(turn, Mapping)):
            text = next(filter(None, map(turn.get, _SAID)), "")
            turns.append((turn.get("role") or turn.get("from"), text))
    first = next((text for role, text in turns if role in _HUMAN), "")
    return first.strip() if isinstance(first, str) else ""


def _scrubbed(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the rows of a log without personal data, secrets and whose they are.

    Users are numbered as they appear: nothing tells who they are, and a log that grows at its end
    leaves the numbers, and so the splits, as they were.
    """
    users: dict[str, str] = {}
    scrubbed = []
    for row in rows:
        safe = {field: redact(cell) for field, cell in row.items() if field != "parent_id"}
        if any(safe[field] != row[field] for field in safe):
            safe["generator"] = SCRUBBED
        if owner := row.get("parent_id"):
            number = users.setdefault(owner, f"user-{len(users) + 1}")
            safe["parent_id"] = f"{owner.partition(':')[0]}:{number}"
        scrubbed.append(safe)
    return scrubbed


def _read_templates(name: str, options: Any, *, folder: Path) -> list[tuple[str, list[str]]]:
    table = open_table(name, options, folder=folder)
    known = (*_FILE_OPTIONS, "column", "placeholder", "family")
    refuse_unknown(options, known=known, where=f"source {name}: templates")
    placeholder = options.get("placeholder")
    if not isinstance(placeholder, str) or not placeholder:
        raise ConfigError(
            f"source {name}: templates.placeholder is {placeholder!r}; write the text to replace"
        )
    return cut_templates(
        name,
        table,
        column=options.get("column", "text"),
        placeholder=placeholder,
        family=options.get("family"),
    )


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
        others = ours.get("*")
        for index, label in enumerate(fields[field]):
            if label not in ours and others is None:
                raise DataError(
                    f"{table.places[index]}: {field} is {label!r}; add it to rename.{field}"
                )
        fields[field] = [str(ours.get(label, others)) for label in fields[field]]
    if "parent_id" in fields:
        fields["parent_id"] = [cell and f"{name}:{cell}" for cell in fields["parent_id"]]
    return [dict(zip(fields, cells, strict=True)) for cells in zip(*fields.values(), strict=True)]
