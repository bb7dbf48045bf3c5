"""Rows of a local file: CSV, TSV, JSONL, JSON, Parquet or plain text, each also gzipped.

Whatever is wrong with a file becomes one :class:`DataError` that names file, place and fix.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import DataError

__all__ = ["FORMATS", "Table", "read_jsonl", "read_object", "read_table"]

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "txt")

_SHOWN_COLUMNS = 20


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one file, with the name and the position of each column."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    unit: str = "row"
    """What :meth:`place` counts: ``line`` or ``row``."""
    first: int = 1
    """Number of the first row, in that unit."""

    def column(self, reference: str | int) -> str:
        """Return the name of the column that a name or a position (from 0) points at.

        Raises:
            DataError: If there is none; the message lists those there are.
        """
        if isinstance(reference, int) and 0 <= reference < len(self.names):
            return self.names[reference]
        if reference in self.names:
            return str(reference)
        known = ", ".join(self.names[:_SHOWN_COLUMNS])
        raise DataError(
            f"{self.path}: no column {reference!r}; the columns are: {known}; fix the mapping"
        )

    def place(self, index: int) -> str:
        """Return the words for the place of a row, for messages."""
        return f"{self.path}: {self.unit} {self.first + index}"

    def texts(self, reference: str | int) -> list[str]:
        """Return a column of prompts, empty where a value is null.

        Raises:
            DataError: If the column is absent or a value is not text.
        """
        return self._values(reference, allowed=(str,))

    def labels(self, reference: str | int) -> list[str]:
        """Return a column of labels; numbers and truth values become text.

        Raises:
            DataError: If the column is absent or a value is a list or an object.
        """
        return self._values(reference, allowed=(str, bool, int, float))

    def _values(self, reference: str | int, *, allowed: tuple[type, ...]) -> list[str]:
        name = self.column(reference)
        values = [row.get(name) for row in self.rows]
        for index, value in enumerate(values):
            if value is not None and not isinstance(value, allowed):
                what = f"column {name!r} holds {type(value).__name__}, not text"
                raise DataError(f"{self.place(index)}: {what}; map another column")
        return ["" if value is None else str(value) for value in values]


def read_table(path: Path, *, kind: str = "", rows: str = "") -> Table:
    """Return the rows of a file.

    Args:
        path: The file; ``.gz`` is unpacked.
        kind: One of :data:`FORMATS`; empty: by the ending of the name.
        rows: JSON only: dotted path to the list of rows, e.g. ``train``.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, of unknown format or broken.
    """
    kind = kind or _format_of(path)
    if kind not in FORMATS:
        raise DataError(
            f"{path}: unknown format {kind!r}; set format to one of {', '.join(FORMATS)}"
        )
    data = _read_bytes(path)
    if kind == "parquet":
        table = _read_parquet(path, data)
    else:
        text = _decode(path, data)
        if kind in {"csv", "tsv"}:
            table = _read_csv(path, text, delimiter="\t" if kind == "tsv" else ",")
        elif kind == "jsonl":
            table = _table(path, (value for _, value in _json_lines(path, text)), unit="line")
        elif kind == "json":
            table = _table(path, _rows_at(path, _parse_json(path, text), rows))
        else:
            lines = (line.strip() for line in text.splitlines())
            table = _table(path, (line for line in lines if line))
    if not table.rows:
        raise DataError(f"{path}: holds no rows; give a file that has some")
    return table


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return (line number, object) for every line that is not blank.

    Raises:
        DataError: As :func:`read_table`, and if a line is not an object.
    """
    lines = []
    for number, value in _json_lines(path, _decode(path, _read_bytes(path))):
        if not isinstance(value, dict):
            raise DataError(
                f"{path}: line {number} is not a JSON object; write one object per line"
            )
        lines.append((number, value))
    return lines


def read_object(path: Path) -> dict[str, Any]:
    """Return the one JSON object of a file.

    Raises:
        DataError: As :func:`read_table`, and if the file holds something else.
    """
    value = _parse_json(path, _decode(path, _read_bytes(path)))
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {type(value).__name__}, not a JSON object; write one")
    return value


def _format_of(path: Path) -> str:
    suffixes = [suffix.lstrip(".").lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == "gz":
        suffixes.pop()
    ending = suffixes[-1] if suffixes else ""
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
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a readable file"
        ) from error
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


def _json_lines(path: Path, text: str) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}: line {number} is not JSON ({_short(error)}); fix that line"
                ) from None


def _parse_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno} is not JSON ({error.msg}); fix that line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON ({_short(error)}); fix the file") from None


def _short(error: BaseException) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__


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


def _read_csv(path: Path, text: str, *, delimiter: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    # Attack texts are longer than the 128 kB that the reader allows one field.
    limit = csv.field_size_limit(len(text) + 1)
    try:
        names = tuple(name.strip() for name in next(reader, ()))
        for cells in reader:
            if cells and len(cells) != len(names):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(cells)} fields, not {len(names)}; "
                    "quote texts that hold the delimiter"
                )
            if cells:
                rows.append(dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{path}: line {reader.line_num} is not CSV ({error}); fix that line"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return Table(path=path, names=names, rows=tuple(rows))


def _read_parquet(path: Path, data: bytes) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not Parquet ({str(error).splitlines()[0]}); give another file"
        ) from None
    return Table(path=path, names=tuple(table.column_names), rows=tuple(table.to_pylist()))


def _table(path: Path, values: Iterable[Any], *, unit: str = "row") -> Table:
    """Return rows of objects, of lists (columns ``0``, ``1``, ...) or of bare texts (``text``)."""
    rows: list[Mapping[str, Any]] = []
    names: dict[str, None] = {}
    for index, value in enumerate(values):
        if isinstance(value, dict):
            row = {str(key): cell for key, cell in value.items()}
        elif isinstance(value, list):
            row = {str(position): cell for position, cell in enumerate(value)}
        elif isinstance(value, str):
            row = {"text": value}
        else:
            raise DataError(
                f"{path}: {unit} {index + 1} is {type(value).__name__}, not an object, list or text"
            )
        names.update(dict.fromkeys(row))
        rows.append(row)
    return Table(path=path, names=tuple(names), rows=tuple(rows), unit=unit)
