"""A folder of whatever people have: feeds for a snapshot, SBOMs, VEX, an inventory.

Recognized by what is in the files, since names differ from one mirror to the next.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from workbench.core.errors import DataError

__all__ = ["Folder", "read_folder"]

_HEAD_BYTES: Final = 1 << 16
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_FILES: Final = 10_000
_FEEDS: Final[Mapping[str, frozenset[str]]] = {
    "kev": frozenset({"cveid", "dateadded"}),
    "epss": frozenset({"cve", "epss", "percentile"}),
    "cve": frozenset({"cve", "description"}),
    "techniques": frozenset({"capec", "cwes", "attack"}),
}
"""Table of a snapshot → columns by which a CSV of it is known."""
_JSON: Final = (
    (b'"bomFormat"',), (b'"spdxVersion"',), (b'"SPDXID"',), (b"//spdx.org/rdf/",), (b"openvex",),
    (b"csaf_",), (b'"matches"', b'"vulnerability"'), (b'"Results"', b'"Target"'),
)  # fmt: skip
"""What is in the beginning of an SBOM, a VEX, a report of Grype or Trivy."""
_INVENTORY: Final = frozenset({"id", "criticality"})
_VULNERABILITIES: Final = frozenset({"cve", "asset"})


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What a folder has for an assessment."""

    feeds: Mapping[str, Path]
    """Table of a snapshot → file of it; of several the one whose name sorts last."""
    dates: Mapping[str, str]
    """Table → ISO date, where the name of the file has one; of techniques that of the file."""
    files: tuple[Path, ...]
    """SBOMs, VEX, scanner output, lists of vulnerabilities on assets."""
    assets: Path | None
    """Inventory."""
    left_out: tuple[str, ...]
    """Files that are none of that."""


def read_folder(folder: Path) -> Folder:
    """Return what is in a folder and below it; looks at the beginning of each file.

    Raises:
        DataError: If it is no folder, or holds far too many files.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; correct the path")
    feeds: dict[str, Path] = {}
    dates: dict[str, str] = {}
    files, left_out = [], []
    assets = None
    for path in _files(folder):
        kind = _kind(path)
        if kind in _FEEDS:
            feeds[kind] = path.parent if kind == "techniques" else path
            dates[kind] = _date(path, kind)
        elif kind == "file":
            files.append(path)
        elif kind == "assets":
            assets = path
        else:
            left_out.append(str(path.relative_to(folder)))
    return Folder(
        feeds=feeds, dates=dates, files=tuple(files), assets=assets, left_out=tuple(left_out)
    )  # fmt: skip


def _date(path: Path, kind: str) -> str:
    if found := _DATE.search(path.name):
        return found[0]
    if kind != "techniques":
        return ""
    return datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).date().isoformat()


def _files(folder: Path) -> Iterator[Path]:
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count >= _MOST_FILES:
            raise DataError(f"{folder}: has over {_MOST_FILES:,} files; give a smaller folder")
        if path.is_file():
            yield path


def _kind(path: Path) -> str:
    head = _head(path)
    if path.name.removesuffix(".gz").endswith(".json"):
        return "file" if any(all(one in head for one in marks) for marks in _JSON) else ""
    names = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace").lower()
    columns = {name.strip().strip('"') for name in names.replace(";", ",").split(",")}
    if columns >= _VULNERABILITIES:
        return "file"
    kinds = (*_FEEDS.items(), ("assets", _INVENTORY))
    return next((kind for kind, wanted in kinds if wanted <= columns), "")


def _head(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return bytes(file.read(_HEAD_BYTES))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); mend or remove it"
        ) from None
