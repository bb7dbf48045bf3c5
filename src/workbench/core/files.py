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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.core.errors import DataError

__all__ = ["FORMATS", "Table", "read_object", "read_table", "text_in", "texts_in"]

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "txt")

_SHOWN_COLUMNS = 20
_DELIMITERS = ("\t", ";", "|", ",")
_MAX_BYTES = 1 << 31
"""Most that is unpacked: a bomb must not fill the memory."""


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

    def texts(self, reference: str | int) -> list[str]:
        """Return a column as texts, empty where a value is null.

        Raises:
            DataError: If the column is absent, from a row too, or a value is of no allowed type.
        """
        name = self.column(reference)
        for row, place in zip(self.rows, self.places, strict=True):
            if name not in row:
                raise DataError(f"{place} has no {name!r}; write it there, null for none")
        return self._cells(name, allowed=(str,))

    def _cells(self, name: str, *, allowed: tuple[type, ...]) -> list[str]:
        values = [row.get(name) for row in self.rows]
        for index, value in enumerate(values):
            if value is not None and not isinstance(value, allowed):
                what = f"column {name!r} holds {type(value).__name__}, not text"
                raise DataError(f"{self.places[index]}: {what}; map another column")
        return ["" if value is None else str(value) for value in values]

    def labels(self, reference: str | int) -> list[str]:
        """Return a column of labels, empty where absent; numbers and truth values become text."""
        return self._cells(self.column(reference), allowed=(str, bool, int, float))

    def with_rows(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Table:
        """Return a table of other rows, each with its place in this file.

        Raises:
            DataError: If there are none.
        """
        placed = list(rows)
        if not placed:
            raise DataError(f"{self.path}: no usable row; correct the mapping or the file")
        names = tuple(dict.fromkeys(name for _, row in placed for name in row))
        places, cells = zip(*placed, strict=True)
        return replace(self, names=names, rows=cells, places=places)


def read_table(path: Path, *, kind: str = "", rows: str = "", delimiter: str = "") -> Table:
    """Return the rows of a file: objects, lists (columns ``0``, ``1``, ...) or texts (``text``).

    Args:
        path: The file; ``.gz`` is unpacked.
        kind: One of :data:`FORMATS`; empty: by the ending of the name.
        rows: JSON only: dotted path to the list of rows, e.g. ``train``; ``*`` is every key, each
            kept as a column ``*1``, ``*2``, ... of the rows below it.
        delimiter: CSV only: one character, where it is not the comma or, in TSV, the tab.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, of unknown format or broken.
    """
    kind = kind or _format_of(path)
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(f"{path}: unknown format {kind!r}; set format to one of {known}")
    data = _read_bytes(path)
    if kind == "jsonl" and _is_array(data):
        kind = "json"
    numbered: Iterable[tuple[int, Any]]
    if kind == "parquet":
        numbered = enumerate(_parquet_rows(path, data), start=1)
    elif kind in {"csv", "tsv"}:
        if not delimiter:
            delimiter = "\t" if kind == "tsv" else ","
            _check_delimiter(path, data, delimiter=delimiter)
        numbered = enumerate(_csv_rows(path, data, delimiter=delimiter), start=1)
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
        data = _unpacked(path) if path.suffix.lower() == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct the path") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another") from error
    if not data:
        raise DataError(f"{path}: is empty; give a file that has rows")
    return data


def _unpacked(path: Path) -> bytes:
    data = bytearray()
    with gzip.open(path) as file:
        while chunk := file.read(1 << 20):
            data += chunk
            if len(data) > _MAX_BYTES:
                raise DataError(f"{path}: unpacks to over {_MAX_BYTES:,} bytes; split the file")
    return bytes(data)


def _check_delimiter(path: Path, data: bytes, *, delimiter: str) -> None:
    """Refuse a header that another delimiter would split and this one does not."""
    header = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    likely = max(_DELIMITERS, key=header.count)
    if delimiter not in header and likely in header:
        raise DataError(
            f"{path}: no {delimiter!r} in the header, which seems to use {likely!r}; "
            f"set delimiter to {likely!r}, or to {delimiter!r} where there is one column only"
        )


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16 or UTF-32; save it as UTF-8")
    if (offset := data.find(b"\0")) >= 0:
        raise DataError(
            f"{path}: null byte at byte {offset}, so UTF-16 or no text at all; save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec cuts the mark off before it counts.
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path}: not UTF-8 at byte {offset} (0x{data[offset]:02x}, line {line}); "
            "save it as UTF-8"
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


def _is_array(data: bytes) -> bool:
    """Return whether a file called JSON Lines holds one JSON list of its rows."""
    first, _, rest = data.strip().partition(b"\n")
    return first.startswith(b"[") and not (rest and first.rstrip().endswith(b"]"))


def _rows_at(path: Path, value: Any, dotted: str) -> Iterator[Any]:
    steps = [step for step in dotted.split(".") if step]
    for keys, found in _walk(path, value, steps, ()):
        if not isinstance(found, list):
            raise DataError(
                f"{path}: rows {dotted!r} is not a list; {_keys(found)}; set rows to a list's path"
            )
        labels = {f"*{number}": key for number, key in enumerate(keys, start=1)}
        for row in found:
            yield {**_cells_of(row), **labels} if labels else row


def _walk(
    path: Path, value: Any, steps: list[str], keys: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what the steps lead to, and the keys that the stars among them stand for."""
    if not steps:
        yield keys, value
    elif isinstance(value, dict) and steps[0] == "*":
        for key, below in value.items():
            yield from _walk(path, below, steps[1:], (*keys, key))
    elif isinstance(value, dict) and steps[0] in value:
        yield from _walk(path, value[steps[0]], steps[1:], keys)
    else:
        raise DataError(f"{path}: no {steps[0]!r} on the way to rows; {_keys(value)}")


def _keys(value: Any) -> str:
    if isinstance(value, dict):
        return "keys there: " + ", ".join(str(key) for key in list(value)[:_SHOWN_COLUMNS])
    return f"there is {type(value).__name__} there"


def _csv_rows(path: Path, data: bytes, *, delimiter: str) -> Iterator[dict[str, str]]:
    # Attack texts are longer than the 128 kB that the reader allows one field.
    csv.field_size_limit(max(csv.field_size_limit(), len(_decode(path, data)) + 1))
    # Decoded piece by piece: a StringIO of the whole would take four bytes a character.
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
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
        rows.append(_cells_of(value))
        if not isinstance(value, dict | list | str):
            what = type(value).__name__
            raise DataError(f"{places[-1]} is {what}, not an object, list or text")
    if not rows:
        raise DataError(f"{path}: holds no rows; give a file that has some")
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(path=path, names=names, rows=tuple(rows), places=tuple(places))


def _cells_of(row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    if isinstance(row, list):
        return {str(position): cell for position, cell in enumerate(row)}
    return {"text": row}
