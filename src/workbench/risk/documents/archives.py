"""What a file of Office is inside, found out without unpacking more than is allowed."""

from __future__ import annotations

import io
import zipfile
from typing import IO

from workbench.core.errors import DataError
from workbench.core.plain import one_line

__all__ = ["archive_kind"]

_MAIN_MEMBERS = {"word/document.xml": "docx", "xl/workbook.xml": "xlsx"}
_DECLARATIONS = (b"<!doctype", b"<!entity")
_PART_BYTES = 1 << 20


def archive_kind(data: bytes, *, name: str, members: int, unpacked_bytes: int) -> str:
    """Return ``docx`` or ``xlsx`` for an archive that is fit to be opened by a library.

    Args:
        data: The file.
        name: Of the file, for messages.
        members: The most that it may have.
        unpacked_bytes: The most that they may have together.

    Raises:
        DataError: If it is damaged, too large, neither kind, or its XML declares document types or
            entities, which can grow without end.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            kind, problem = _inspect(archive, members=members, unpacked_bytes=unpacked_bytes)
    except Exception as error:  # noqa: BLE001 - zipfile, zlib, bz2 and lzma have errors of their own
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        raise DataError(f"{name}: damaged archive ({reason}); fetch it again") from None
    if problem:
        raise DataError(f"{name}: {problem}")
    return kind


def _inspect(archive: zipfile.ZipFile, *, members: int, unpacked_bytes: int) -> tuple[str, str]:
    """Return the kind of an archive and what is wrong with it; one of them is empty.

    What a member declares as its size is the most that :mod:`zipfile` ever unpacks of it.
    """
    found = archive.infolist()
    names = {member.filename for member in found}
    kind = next((kind for main, kind in _MAIN_MEMBERS.items() if main in names), "")
    if len(found) > members:
        return "", f"more than {members:,} members; save it again"
    if sum(member.file_size for member in found) > unpacked_bytes:
        return "", f"unpacks to more than {unpacked_bytes:,} bytes; split it"
    if not kind:
        return "", "an archive that is neither .docx nor .xlsx; unpack it"
    for member in found:
        if member.filename.lower().endswith((".xml", ".rels")):
            with archive.open(member) as file:
                if _declares(file):
                    place = one_line(member.filename)[:100]
                    return "", f"{place} declares a document type, as no Office does; leave it out"
    return kind, ""


def _declares(file: IO[bytes]) -> bool:
    tail = b""
    while part := file.read(_PART_BYTES):
        plain = (tail + part).replace(b"\0", b"").lower()  # UTF-16 without nulls reads as ASCII
        if any(mark in plain for mark in _DECLARATIONS):
            return True
        tail = part[-32:]
    return False
