"""Rows of a local file: CSV, TSV, JSONL, JSON, Parquet or plain text, each also gzipped.

Whatever is wrong with a file becomes one :class:`DataError` that names file, place and fix.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import DataError

__all__ = ["FORMATS", "Table", "read_object", "read_table", "text_in", "texts_in"]

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "txt")

_SHOWN_COLUMNS = 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one file."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    places: tuple[str, ...]
    """File and place of each row for messages, e.g. ``a.csv: line 3``."""

    def column(self, reference: str | int) -> str:
        """Return the name of the column that a name or a position (from 0) points at."""
        if type(reference) is int and 0 <= reference < len(self.names):
            return self.names[reference]
        if reference in self.names:
            return str(reference)
        known = ", ".join(self.names[:_SHOWN_COLUMNS])
        raise DataError(
            f"{self.path}: no column {reference!r}; the columns are: {known}; fix the mapping"
        )

    def texts(self, reference: str | int, *, allowed: tuple[type, ...] = (str,)) -> list[str]:
        """Return a column as texts, empty where a value is null.

        Raises:
            DataError: If the column is absent or a value is of no allowed type.
        """
        name = self.column(reference)
        values = [row.get(name) for row in self.rows]
        for index, value in enumerate(values):
            if value is not None and not isinstance(value, allowed):
                what = f"column {name!r} holds {type(value).__name__}, not text"
                raise DataError(f"{self.places[index]}: {what}; map another column")
        return ["" if value is None else str(value) for value in values]

    def labels(self, reference: str | int) -> list[str]:
        """Return a column of labels; numbers and truth values become text."""
        return self.texts(reference, allowed=(str, bool, int, float))


def read_table(path: Path, *, kind: str = "", rows: str = "") -> Table:
    """Return the rows of a file: objects, lists (columns ``0``, ``1``, ...) or texts (``text``).

    Args:
        path: The file; ``.gz`` is unpacked.
        kind: One of :data:`FORMATS`; empty: by the ending of the name.
        rows: JSON only: dotted path to the list of rows, e.g. ``train``.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, of unknown format or broken.
    """
    kind = kind or _format_of(path)
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: unknown format {kind!r}; set format to one of {known}")
    data = _read_bytes(path)
    numbered: Iterable[tuple[int, Any]]
    if kind == "parquet":
        numbered = enumerate(_parquet_rows(path, data), start=1)
    elif kind in {"csv", "tsv"}:
        delimiter = "\t" if kind == "tsv" else ","
        numbered = enumerate(_csv_rows(path, _decode(path, data), delimiter=delimiter), start=1)
    elif kind == "json":
        numbered = enumerate(_rows_at(path, _parse(path, _decode(path, data)), rows), start=1)
    else:
        # Not splitlines: a prompt may hold a line separator of Unicode.
        lines = enumerate(_decode(path, data).split("\n"), start=1)
        filled = ((number, line.strip()) for number, line in lines if line.strip())
        numbered = (
            (number, line if kind == "txt" else _parse(path, line, line=number))
            for number, line in filled
        )
    return _table(path, numbered, unit="line" if kind in {"jsonl", "txt"} else "row")


def read_object(path: Path) -> dict[str, Any]:
    """Return the one JSON object of a file; raises as :func:`read_table`."""
    value = _parse(path, _decode(path, _read_bytes(path)))
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {type(value).__name__}, not a JSON object; write one")
    return value


def text_in(row: Mapping[str, Any], name: str, *, place: str) -> str:
    """Return a text field of a row, stripped; refuse one that is absent, blank or no text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: field {name!r} is {value!r}; write a text")
    return value.strip()


def texts_in(row: Mapping[str, Any], name: str, *, place: str) -> tuple[str, ...]:
    """Return a field of a row that holds texts, at least one; refuse anything else."""
    value = row.get(name)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) and one for one in value)
    ):
        raise DataError(f"{place}: field {name!r} is not a list of texts; write at least one")
    return tuple(value)


def _format_of(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    ending = suffix.lstrip(".").lower()
    return {"ndjson": "jsonl", "pq": "parquet", "text": "txt"}.get(ending, ending)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another") from error
    if not data:
        raise DataError(f"{path}: is empty; give a file that has rows")
    return data


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec cuts the mark off before it counts.
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path}: not UTF-8 at byte {offset} (0x{data[offset]:02x}); save it as UTF-8"
        ) from None


def _parse(path: Path, text: str, *, line: int = 1) -> Any:
    """Return the JSON value of a text that begins at a line of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise DataError(f"{path}: line {line} is not JSON ({error.msg}); fix that line") from None
    except (ValueError, RecursionError) as error:
        what = type(error).__name__
        raise DataError(f"{path}: line {line}: not usable JSON ({what}); fix the file") from None


def _rows_at(path: Path, value: Any, dotted: str) -> list[Any]:
    for key in filter(None, dotted.split(".")):
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"{path}: no {key!r} on the way to rows {dotted!r}; {_keys(value)}")
        value = value[key]
    if not isinstance(value, list):
        raise DataError(
            f"{path}: rows {dotted!r} is not a list; {_keys(value)}; set rows to a list's path"
        )
    return value


def _keys(value: Any) -> str:
    if isinstance(value, dict):
        return "keys there: " + ", ".join(str(key) for key in list(value)[:_SHOWN_COLUMNS])
    return f"there is {type(value).__name__} there"


def _csv_rows(path: Path, text: str, *, delimiter: str) -> Iterator[dict[str, str]]:
    # Attack texts are longer than the 128 kB that the reader allows one field.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, ())]
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two columns have one name in {names}; rename one")
        for cells in filter(None, reader):
            if len(cells) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(cells)} fields, not {len(names)}; "
                    "quote texts that hold the delimiter"
                )
            yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is not CSV ({error}); fix it") from None


def _parquet_rows(path: Path, data: bytes) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not Parquet ({str(error).splitlines()[0]}); give another file"
        ) from None
    return rows


def _table(path: Path, numbered: Iterable[tuple[int, Any]], *, unit: str) -> Table:
    rows: list[dict[str, Any]] = []
    places = []
    for number, value in numbered:
        places.append(f"{path}: {unit} {number}")
        if isinstance(value, dict):
            rows.append(value)
        elif isinstance(value, list):
            rows.append({str(position): cell for position, cell in enumerate(value)})
        elif isinstance(value, str):
            rows.append({"text": value})
        else:
            what = type(value).__name__
            raise DataError(f"{places[-1]} is {what}, not an object, list or text")
    if not rows:
        raise DataError(f"{path}: holds no rows; give a file that has some")
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(path=path, names=names, rows=tuple(rows), places=tuple(places))
