"""PDF, DOCX, XLSX, Markdown and plain text as blocks of text, all bounded.

Files are hostile: a small archive may unpack to gigabytes, XML may define entities that grow, a
page tree may never end. What can be counted is counted before a library opens the file; who calls
bounds time and memory, see :mod:`workbench.risk.documents.pool`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import one_line
from workbench.risk.documents.archives import archive_kind
from workbench.risk.documents.records import Block, is_date

__all__ = ["ENDINGS", "LIMITS", "Limits", "Reading", "read_document"]

ENDINGS = {
    ".pdf": "pdf", ".docx": "docx", ".docm": "docx", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".md": "markdown", ".markdown": "markdown", ".txt": "text", ".text": "text", ".rst": "text",
}  # fmt: skip
"""Ending of the name → kind."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PDF_WITHIN = 1024  # bytes in which readers look for the mark
_SAID_CHARS = 200
_FRONT_LINES = 20
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_FRONT = re.compile(r"(title|asset|date|tags):[ \t]*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one file may have; one that has more is refused whole."""

    bytes: int = 50_000_000
    unpacked_bytes: int = 200_000_000
    """Of all members of an archive together."""
    members: int = 5_000
    """Of an archive."""
    pages: int = 2_000
    cells: int = 500_000
    chars: int = 10_000_000
    """Of text."""


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file says."""

    sha256: str
    kind: str
    blocks: tuple[Block, ...]
    title: str = ""
    date: str = ""
    asset: str = ""
    tags: tuple[str, ...] = ()


def read_document(path: Path, *, name: str = "", limits: Limits = LIMITS) -> Reading:
    """Return the blocks of a file; its content and the ending of its name must say one kind.

    Args:
        path: The file.
        name: What messages call it; the path if not given.
        limits: Beyond which it is refused.

    Raises:
        DataError: If the file is missing, broken, encrypted, empty, too large or of another kind.
        ConfigError: If the package that reads it is not installed.
    """
    name = name or str(path)
    data = _bytes_of(path, name, limits)
    kind = _kind_of(data, path, name, limits)
    read = {"pdf": _read_pdf, "docx": _read_docx, "xlsx": _read_xlsx}.get(kind, _read_text)
    try:
        found = read(data, kind, _Counter(name, limits))
    except (ConfigError, DataError):
        raise
    except ImportError as error:
        raise ConfigError(
            f"{name}: {error.name} is not installed; "
            "pip install 'prompt-safety-workbench[documents]'"
        ) from None
    except Exception as error:  # noqa: BLE001 - libraries raise anything on a broken file
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        raise DataError(
            f"{name}: broken {kind} ({reason}); save it again or leave it out"
        ) from None
    if not any(block.text.strip() for block in found["blocks"]):
        raise DataError(f"{name}: holds no text (scanned pages?); run text recognition first")
    said = {key: one_line(found.pop(key, ""))[:_SAID_CHARS] for key in ("title", "asset", "date")}
    return Reading(
        sha256=hashlib.sha256(data).hexdigest(),
        kind=kind,
        title=said["title"] or one_line(Path(name).stem),
        asset=said["asset"],
        date=said["date"] if is_date(said["date"]) else "",
        **found,
    )


class _Counter:
    """Counts what a file holds, and refuses it when that is too much."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self._limits = limits
        self._counts = {"pages": 0, "cells": 0, "chars": 0}

    def add(self, unit: str, number: int) -> None:
        self._counts[unit] += number
        limit = getattr(self._limits, unit)
        if self._counts[unit] > limit:
            raise DataError(f"{self.name}: more than {limit:,} {unit}; split it")


def _bytes_of(path: Path, name: str, limits: Limits) -> bytes:
    try:
        if not path.is_file():
            what = "not a file" if path.exists() else "no such file"
            raise DataError(f"{name}: {what}; correct the path")
        with path.open("rb") as file:
            data = file.read(limits.bytes + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); give another") from None
    if len(data) > limits.bytes:
        raise DataError(f"{name}: more than {limits.bytes:,} bytes; split it")
    if not data.strip():
        raise DataError(f"{name}: is empty; leave it out")
    return data


def _kind_of(data: bytes, path: Path, name: str, limits: Limits) -> str:
    by_name = ENDINGS.get(path.suffix.lower(), "")
    if data.startswith(_OLE):
        raise DataError(
            f"{name}: protected by a password, or of an Office before 2007; "
            "save it as .docx or .xlsx without password"
        )
    if b"%PDF-" in data[:_PDF_WITHIN]:
        kind = "pdf"
    elif data.startswith(b"PK"):
        kind = archive_kind(
            data, name=name, members=limits.members, unpacked_bytes=limits.unpacked_bytes
        )
    elif by_name in {"markdown", "text"}:
        return by_name
    elif by_name:
        raise DataError(f"{name}: is no {by_name} inside; fetch it again or rename it")
    else:
        known = " ".join(ENDINGS)
        raise DataError(f"{name}: unknown kind {path.suffix!r}; give one of {known}")
    if kind != by_name:
        raise DataError(f"{name}: is {kind} inside, its name says another kind; rename it")
    return kind


def _read_pdf(data: bytes, _: str, counter: _Counter) -> dict[str, Any]:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is broken is told as the reason
    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not _opens_without_password(reader):
        raise DataError(f"{counter.name}: encrypted PDF; save it without password")
    counter.add("pages", len(reader.pages))
    blocks = []
    for number, page in enumerate(reader.pages, start=1):
        text = unicodedata.normalize("NFKC", page.extract_text())  # ligatures as letters
        counter.add("chars", len(text))
        blocks += [Block(part, page=number) for part in _paragraphs(text)]
    said = reader.metadata
    return {
        "blocks": tuple(blocks),
        "title": _or_empty(lambda: str(said.title or "")),
        "date": _or_empty(lambda: said.modification_date.date().isoformat()),
    }


def _opens_without_password(reader: Any) -> bool:
    from pypdf.errors import DependencyError

    try:
        return bool(reader.decrypt(""))
    except (DependencyError, NotImplementedError):  # a cipher that nobody here can read
        return False


def _or_empty(value: Callable[[], str]) -> str:
    """Return a piece of metadata, empty where the file has none or a broken one."""
    try:
        return value()
    except Exception:  # noqa: BLE001 - a document is none the worse without its date
        return ""


def _read_docx(data: bytes, _: str, counter: _Counter) -> dict[str, Any]:
    from docx import Document

    document = Document(io.BytesIO(data))
    levels = {style.style_id: _level(str(style.name)) for style in document.styles}
    blocks = tuple(_docx_blocks(document.element.body, levels, counter))
    said = document.core_properties
    return {
        "blocks": blocks,
        "title": _or_empty(lambda: str(said.title or "")),
        "date": _or_empty(lambda: said.modified.date().isoformat()),
    }


def _level(style: str) -> int:
    """Return the level of a heading's style, 0 of any other."""
    first, _, number = style.partition(" ")
    if first == "Heading" and number.isdecimal():
        return min(int(number[:2]), 9)
    return int(style == "Title")


_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SPACES = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n"}


def _docx_blocks(parent: Any, levels: dict[str, int], counter: _Counter) -> Iterator[Block]:
    """Give paragraphs and table rows in the order of the body, whatever they are wrapped in."""
    for element in parent.iterchildren():
        if element.tag == f"{_W}p":
            text = _docx_text(element, counter)
            yield Block(text, heading=levels.get(element.style or "", 0))
        elif element.tag == f"{_W}tbl":
            # Not the cells that python-docx makes of a row: one that says it spans a
            # hundred million columns would be given as many times.
            for row in element.iterchildren(f"{_W}tr"):
                cells = list(row.iterchildren(f"{_W}tc"))
                counter.add("cells", len(cells))
                yield Block(" | ".join(one_line(_docx_text(cell, counter)) for cell in cells))
        else:
            yield from _docx_blocks(element, levels, counter)


def _docx_text(element: Any, counter: _Counter) -> str:
    pieces = []
    for node in element.iter():
        if node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag == f"{_W}p" and pieces:
            pieces.append(" ")  # between the paragraphs of a cell
        else:
            pieces.append(_SPACES.get(node.tag, ""))
    text = "".join(pieces)
    counter.add("chars", len(text))
    return text


def _read_xlsx(data: bytes, _: str, counter: _Counter) -> dict[str, Any]:
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    try:
        blocks: list[Block] = []
        for sheet in book.worksheets:
            blocks.append(Block(str(sheet.title), heading=1))
            blocks += _sheet_blocks(sheet, counter)
        said = book.properties
    finally:
        book.close()
    filled = [block for block in blocks if not block.heading]
    return {
        "blocks": tuple(blocks) if filled else (),
        "title": _or_empty(lambda: str(said.title or "")),
        "date": _or_empty(lambda: said.modified.date().isoformat()),
    }


def _sheet_blocks(sheet: Any, counter: _Counter) -> Iterator[Block]:
    """Give the rows of a sheet; below a first row of names, each value with its name."""
    sheet.reset_dimensions()  # what a sheet says of its size, the reader would fill with blanks
    names: tuple[str, ...] | None = None
    for row in sheet.iter_rows(values_only=True):
        counter.add("cells", max(len(row), 1))
        cells = [_cell(value) for value in row]
        counter.add("chars", sum(map(len, cells)))
        if not any(cells):
            continue
        if names is None:
            texts = all(isinstance(value, str) or value is None for value in row)
            names = tuple(cells) if texts and sum(map(bool, cells)) > 1 else ()
            if names:
                continue
        yield Block(_row_text(names, cells))


def _row_text(names: tuple[str, ...], cells: list[str]) -> str:
    if not names:
        return " | ".join(filter(None, cells))
    padded = (*names, *("" for _ in cells[len(names) :]))
    pairs = [(name, cell) for name, cell in zip(padded, cells, strict=False) if cell]
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs)


def _cell(value: Any) -> str:
    return "" if value is None else one_line(str(value))


def _read_text(data: bytes, kind: str, counter: _Counter) -> dict[str, Any]:
    text = _decode(data, counter.name)
    counter.add("chars", len(text))
    if kind == "text":
        return {"blocks": tuple(Block(part) for part in _paragraphs(text))}
    lines = text.splitlines()
    front, lines = _front_matter(lines)
    blocks = tuple(_markdown_blocks(lines))
    first = next(iter(blocks), Block(""))
    return {"title": first.text if first.heading == 1 else "", **front, "blocks": blocks}


def _decode(data: bytes, name: str) -> str:
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    if "\0" in text:
        raise DataError(f"{name}: holds null bytes, so no text; save it as UTF-8")
    return text


def _front_matter(lines: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what the head says of title, asset, date and tags, and the lines below it."""
    ends = [at for at, line in enumerate(lines[:_FRONT_LINES]) if line.rstrip() == "---"]
    if ends[:1] != [0] or len(ends) == 1:
        return {}, lines
    matches = [_FRONT.fullmatch(line.rstrip()) for line in lines[1 : ends[1]]]
    front: dict[str, Any] = {match[1]: match[2].strip("\"'") for match in matches if match}
    tags = (one_line(tag) for tag in front.pop("tags", "").strip("[]").split(","))
    return {**front, "tags": tuple(filter(None, tags))}, lines[ends[1] + 1 :]


def _markdown_blocks(lines: list[str]) -> Iterator[Block]:
    paragraph: list[str] = []
    is_code = False
    for line in [*lines, ""]:
        is_code ^= _FENCE.match(line) is not None
        heading = None if is_code else _HEADING.fullmatch(line)
        if heading or not line.strip():
            if paragraph:
                yield Block("\n".join(paragraph))
            paragraph = []
        else:
            paragraph.append(line)
        if heading:
            yield Block(heading[2].rstrip("# \t"), heading=len(heading[1]))


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")) if part.strip()]
