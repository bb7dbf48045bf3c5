"""The tables of a snapshot: columns, keys, times to live, and what may stand in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import DataError
from workbench.core.plain import one_line

__all__ = ["DAYS_FRESH", "KEYS", "REJECTED", "SCHEMAS", "WHOLE", "clean", "conform", "merged"]

_TEXT: Final = pa.string()
_TEXTS: Final = pa.list_(pa.string())


def _schema(texts: str, **others: pa.DataType) -> pa.Schema:
    return pa.schema([*((name, _TEXT) for name in texts.split()), *others.items()])


SCHEMAS: Final[Mapping[str, pa.Schema]] = {
    "cve": _schema(
        "cve published title description cvss_vector cvss_version cvss_source automatable"
        " technical_impact exploitation ssvc_as_of vendor product modified",
        cwes=_TEXTS,
    ),
    "kev": _schema("cve added due", ransomware=pa.bool_()),
    "epss": _schema("cve", epss=pa.float64(), percentile=pa.float64()),
    "osv": _schema("id ecosystem package ranges summary severity", aliases=_TEXTS, versions=_TEXTS),
    "packages": _schema("purl"),
    "techniques": _schema("cwe capec technique name"),
    "assets": _schema(
        "id name exposure owner environment source",
        criticality=pa.int64(),
        incident_usd=pa.float64(),
    ),
    "atlas": _schema("id name attack", tactics=_TEXTS),
    "owasp_llm": _schema("id name"),
}
"""Table → columns; each table also has ``as_of``, the date of what its source said of the row."""

REJECTED: Final = "Rejected CVE record"
"""Title of a CVE record that its publisher withdrew."""

KEYS: Final[Mapping[str, str]] = {
    "cve": "cve", "epss": "cve", "osv": "id", "packages": "purl"
}  # fmt: skip
"""Tables that are fetched by id → column of that; rows that are not asked for stay."""

WHOLE: Final = frozenset({"kev", "techniques", "atlas", "owasp_llm"})
"""Lists that are always fetched whole, so that not to be listed says something."""

DAYS_FRESH: Final[Mapping[str, int]] = {
    "cve": 30, "kev": 7, "epss": 7, "osv": 7, "packages": 7, "techniques": 180, "assets": 30,
    "atlas": 180, "owasp_llm": 730,
}  # fmt: skip
"""Table → days after which what it says is stale."""

_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "automatable": ("no", "yes"),
    "technical_impact": ("partial", "total"),
    "exploitation": ("none", "poc", "active"),
    "exposure": ("small", "controlled", "open"),
}
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "epss": (0.0, 1.0), "percentile": (0.0, 1.0), "criticality": (1, 5),
    "incident_usd": (0.0, 1e15),
}  # fmt: skip
_IDS: Final = {
    "cve": "cve", "kev": "cve", "epss": "cve", "osv": "id", "assets": "id", "atlas": "id",
    "owasp_llm": "id", "packages": "purl",
}  # fmt: skip
_ONCE: Final = frozenset(_IDS) - {"osv"}
"""Tables with one row per id."""
_DAY: Final = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"
_MOST_TEXT: Final = 20_000
"""Characters of a cell that are kept."""


def conform(table: pa.Table, name: str, *, where: str, fix: str) -> pa.Table:
    """Return a table with the columns of its schema and ``as_of``, in that order and type.

    Raises:
        DataError: If a column is absent or of another kind.
    """
    columns = {}
    for field in (*SCHEMAS[name], pa.field("as_of", _TEXT)):
        if field.name not in table.column_names:
            raise DataError(f"{where}: table {name!r} has no column {field.name!r}; {fix}")
        column = table[field.name]
        if _kind(column.type) not in {_kind(field.type), "none"}:
            what = f"is {column.type}, not {field.type}"
            raise DataError(f"{where}: column {field.name!r} of table {name!r} {what}; {fix}")
        try:
            columns[field.name] = column.cast(field.type)
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"{where}: column {field.name!r} of {name!r}: {reason}; {fix}"
            ) from None
    return pa.table(columns)


def clean(table: pa.Table, name: str, *, as_of: str) -> tuple[pa.Table, str]:
    """Return a fetched table as it is kept, sorted by id, and what of it could not be used.

    Values that are not understood become null, so missing, and are named; a row whose ``as_of`` is
    no day is of the day of its source.

    Raises:
        DataError: As :func:`conform`.
    """
    dates = pa.repeat(pa.scalar(as_of, _TEXT), table.num_rows)
    if "as_of" in table.column_names:
        said = pc.utf8_slice_codeunits(table["as_of"].cast(_TEXT), 0, 10)
        is_day = pc.match_substring_regex(said, _DAY)
        dates = pc.coalesce(pc.if_else(is_day, said, pa.scalar(None, _TEXT)), dates)
        table = table.drop_columns("as_of")
    table = conform(
        table.append_column("as_of", dates), name, where="snapshot", fix="its source has changed"
    )
    notes = []
    for column in table.column_names:
        table, note = _understood(table, column)
        notes.append(note)
    if (key := _IDS.get(name)) is not None:
        table, note = _identified(table, key, once=name in _ONCE)
        notes.append(note)
    return table.combine_chunks(), "; ".join(filter(None, notes))


def merged(old: pa.Table | None, new: pa.Table, key: str) -> pa.Table:
    """Return the rows of both by id; those of an id in both are those that were said later.

    The new ones where both are of one day.
    """
    if old is None:
        return new
    new = new.filter(pc.invert(_is_older(new, old, key)))
    kept = old.filter(pc.invert(pc.is_in(old[key], value_set=new[key].combine_chunks())))
    return pa.concat_tables([kept, new]).sort_by(key).combine_chunks()


def _is_older(rows: pa.Table, others: pa.Table, key: str) -> pa.ChunkedArray:
    """Return of which rows the others know something later."""
    at = pc.index_in(rows[key], value_set=others[key].combine_chunks())
    return pc.fill_null(pc.less(rows["as_of"], others["as_of"].take(at)), fill_value=False)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    tests = {
        "none": (pa.types.is_null,),
        "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        "number": (pa.types.is_integer, pa.types.is_floating),
        "truth": (pa.types.is_boolean,),
    }
    for known, checks in tests.items():
        if any(check(kind) for check in checks):
            return known
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _kind(kind.value_type)
        return "list of text" if inner in {"text", "none"} else f"list of {inner}"
    return str(kind)


def _understood(table: pa.Table, column: str) -> tuple[pa.Table, str]:
    """Return the table with null for what the column may not hold, and a note of that."""
    values = table[column]
    if column in _VALUES:
        values = pc.utf8_lower(values)
        table = table.set_column(table.column_names.index(column), column, values)
        good = pc.is_in(values, value_set=pa.array(_VALUES[column]))
    elif column in _BOUNDS:
        least, most = _BOUNDS[column]
        good = pc.and_(pc.greater_equal(values, least), pc.less_equal(values, most))
    elif pa.types.is_string(values.type):
        long = pc.greater(pc.utf8_length(values), _MOST_TEXT)
        if pc.any(long).as_py():
            cut = pc.utf8_slice_codeunits(values, 0, _MOST_TEXT)
            table = table.set_column(table.column_names.index(column), column, cut)
        return table, ""
    else:
        return table, ""
    bad = pc.and_(pc.is_valid(values), pc.invert(pc.fill_null(good, fill_value=False)))
    count = pc.sum(bad).as_py() or 0
    if not count:
        return table, ""
    example = one_line(str(values.filter(bad)[0].as_py()))[:40]
    kept = pc.if_else(bad, pa.scalar(None, values.type), values)
    table = table.set_column(table.column_names.index(column), column, kept)
    return table, f"{count} values of {column} not understood, e.g. {example!r}: taken as missing"


def _identified(table: pa.Table, key: str, *, once: bool) -> tuple[pa.Table, str]:
    """Return the rows with an id, sorted by it; of several of one id the last if ``once``."""
    ids = pc.utf8_trim_whitespace(table[key])
    if key == "cve":
        ids = pc.utf8_upper(ids)
    table = table.set_column(table.column_names.index(key), key, ids)
    named = table.filter(pc.greater(pc.utf8_length(table[key]), 0))
    note = f"{table.num_rows - named.num_rows} rows without {key}: left out"
    table = named.sort_by(key).combine_chunks()
    if once and table.num_rows > 1:
        ids = table[key].combine_chunks()
        is_last = pc.not_equal(ids[:-1], ids[1:])
        table = table.filter(pa.concat_arrays([is_last, pa.array([True])]))
    return table, note if not note.startswith("0 ") else ""
