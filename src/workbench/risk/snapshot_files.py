"""Snapshots from files that people already have: no service is asked, no socket opened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.core.errors import DataError
from workbench.core.files import read_object, read_table
from workbench.core.plain import one_line
from workbench.core.settings import seeds_folder
from workbench.risk.sources.base import Fetched, table_of, unpacked
from workbench.risk.tables import SCHEMAS
from workbench.store.database import Store

if TYPE_CHECKING:
    from workbench.risk.folder import Folder

__all__ = [
    "READERS", "fetched_from", "sample_tables", "snapshot_of_files", "snapshot_of_folder",
]  # fmt: skip

_MOST_BYTES: Final = 1 << 31
_MOST_RECORD: Final = 1 << 22
"""Bytes of one CVE record or advisory."""
_MOVING: Final = frozenset({"cve", "epss", "kev"})
"""Tables that change daily: how old they are is how old a snapshot is."""
_TEXT: Final = pa.string()
_CVE: Final = r"^CVE-\d{4}-\d{4,19}$"
_UNSAID: Final = ("", "n/a", "unknown")
_CVE_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "cve": ("cve", "cve_id", "cveID"),
    "published": ("published",),
    "title": ("title",),
    "description": ("description",),
    "cvss_vector": ("cvss_vector", "cvss3_vector", "cvss4_vector", "cvss2_vector"),
    "cvss_source": ("cvss_source", "cvss3_source"),
    "automatable": ("automatable", "ssvc_automatable"),
    "technical_impact": ("technical_impact", "ssvc_technical_impact"),
    "exploitation": ("exploitation", "ssvc_exploitation"),
    "ssvc_as_of": ("ssvc_as_of", "ssvc_date"),
    "vendor": ("vendor",),
    "product": ("product",),
    "modified": ("modified",),
    "as_of": ("as_of",),
}
"""Column of the table → columns of a flat file that may hold it, the first that says it counts."""


def snapshot_of_files(
    store: Store, paths: Mapping[str, Path], *, as_of: Mapping[str, str] | None = None
) -> str:
    """Return the id of a new snapshot in the store: the newest one with what the files say.

    Args:
        store: The open store.
        paths: ``kev``: JSON or CSV of the catalog · ``epss``: CSV of a day · ``cve``: flat CSV, or
            a folder of CVE JSON 5 records · ``osv``: JSON or JSON Lines of advisories ·
            ``techniques``: CSV of cwe, capec, technique, name, or a folder with
            ``capec_cwe_attack.csv`` and ``techniques.csv``. CSV and JSON may be gzipped.
        as_of: Table → ISO date of what its file says, where the file does not tell it.

    Raises:
        DataError: If a file is missing or damaged, or nobody knows its date; names file and place.
    """
    dates = as_of or {}
    return _written(
        store,
        {name: fetched_from(name, path, as_of=dates.get(name, "")) for name, path in paths.items()},
    )


def snapshot_of_folder(store: Store, folder: Folder) -> str:
    """Return the id of a new snapshot of a folder's feeds, as :func:`snapshot_of_files`.

    Where it has no advisories the shipped ones match components. Feeds that tell no day are of
    that in their name, techniques of that on which their file was changed.
    """
    tables = {
        name: fetched_from(name, path, as_of=folder.dates.get(name, ""))
        for name, path in folder.feeds.items()
    }
    return _written(store, {"osv": sample_tables()[1]["osv"], **tables})


def _written(store: Store, tables: Mapping[str, Fetched]) -> str:
    """Write a snapshot that is as old as the newest of its tables: the same files, the same id."""
    from workbench.risk.snapshot import write_snapshot

    moving = {name: one for name, one in tables.items() if name in _MOVING} or tables
    return write_snapshot(store, tables, made_at=max(one.as_of for one in moving.values()))


def sample_tables() -> tuple[str, dict[str, Fetched]]:
    """Return when the shipped sample was made, and its tables."""
    folder = seeds_folder() / "risk"
    about = read_object(folder / "sources.json")
    tables = {}
    for name, said in about["tables"].items():
        fetched = fetched_from(name, folder / said["file"], as_of=said["as_of"])
        tables[name] = replace(fetched, source=said["source"], url=said["url"])
    return about["made_at"], tables


def fetched_from(name: str, path: Path, *, as_of: str = "") -> Fetched:
    """Return a table of a snapshot from a file; raises as :func:`snapshot_of_files`."""
    if name not in READERS:
        raise DataError(
            f"{path}: no table {name!r} is read from files; known: {', '.join(READERS)}"
        )
    if not path.exists():
        raise DataError(f"{path}: no such file; correct the path")
    try:
        table, told, error = READERS[name](path)
    except DataError as fault:
        prefix = "" if str(path) in str(fault) else f"{path}: "
        raise DataError(f"{prefix}{fault}") from None
    date = as_of or told or ("" if table["as_of"].null_count else pc.max(table["as_of"]).as_py())
    if not date:
        raise DataError(
            f"{path}: does not say of what day it is; give as_of for {name!r}, or to a file in a"
            " folder a name like name_2026-11-27.csv"
        )
    return Fetched(source=path.name, url="", as_of=date, table=table, error=error)


def _read_kev(path: Path) -> tuple[pa.Table, str, str]:
    from workbench.risk.sources.kev import kev_catalog

    table, released = kev_catalog(_bytes(path))
    # A CSV of the catalog says no day of its own: it is at least as new as its newest entry.
    return _dated(table), released or pc.max(table["added"]).as_py() or "", ""


def _read_epss(path: Path) -> tuple[pa.Table, str, str]:
    from workbench.risk.sources.epss import parse_epss_csv

    table = parse_epss_csv(_bytes(path))
    return table, pc.max(table["as_of"]).as_py() or "", ""


def _read_osv(path: Path) -> tuple[pa.Table, str, str]:
    from workbench.risk.sources.osv import osv_rows

    rows: list[dict[str, Any]] = []
    for place, advisory in _advisories(path):
        try:
            rows += osv_rows(advisory)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
    return _dated(table_of(rows, SCHEMAS["osv"])), "", ""


def _advisories(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield place and text of each advisory of a file."""
    data = _bytes(path)
    if path.name.removesuffix(".gz").endswith(("jsonl", "ndjson")):
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                yield f"{path}: line {number}", line[:_MOST_RECORD]
        return
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); give JSON or JSON Lines of OSV") from None
    for number, one in enumerate(value if isinstance(value, list) else [value], start=1):
        yield f"{path}: advisory {number}", json.dumps(one).encode()


def _read_techniques(path: Path) -> tuple[pa.Table, str, str]:
    if not path.is_dir():
        table = read_table(path, kind="csv")
        columns = {name: table.texts(name) for name in SCHEMAS["techniques"].names}
        return _dated(pa.table(columns, schema=SCHEMAS["techniques"])), "", ""
    attack = read_table(path / "techniques.csv")
    names = dict(zip(attack.texts("id"), attack.texts("name"), strict=True))
    patterns = read_table(path / "capec_cwe_attack.csv")
    cells = (patterns.texts(column) for column in ("cwes", "capec", "attack"))
    rows = [
        {"cwe": cwe, "capec": capec, "technique": technique, "name": names.get(technique, "")}
        for cwes, capec, techniques in zip(*cells, strict=True)
        for cwe in filter(None, cwes.split(";"))
        for technique in filter(None, techniques.split(";"))
    ]
    return _dated(table_of(rows, SCHEMAS["techniques"])), "", ""


def _read_cves(path: Path) -> tuple[pa.Table, str, str]:
    return _cve_folder(path) if path.is_dir() else _cve_csv(path)


def _cve_folder(folder: Path) -> tuple[pa.Table, str, str]:
    from workbench.risk.sources.cve_records import cve_row
    from workbench.risk.sources.cve_rows import cve_table

    rows, errors = [], []
    paths = sorted(folder.rglob("CVE-*.json"))
    for path in paths:
        try:
            rows.append({**cve_row(path.read_bytes()[:_MOST_RECORD]), "as_of": None})
        except DataError as error:
            errors.append(f"{path.name}: {error}")
    if not rows:
        what = errors[0] if errors else "no file CVE-*.json"
        raise DataError(f"{folder}: no CVE JSON 5 record in it ({what}); give another folder")
    note = f"{len(errors)} of {len(paths)} files left out, the first: {errors[0]}" if errors else ""
    return cve_table(rows), "", note


def _cve_csv(path: Path) -> tuple[pa.Table, str, str]:
    from pyarrow import csv

    data = _bytes(path)
    names = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().split(",")
    try:
        found = csv.read_csv(
            pa.BufferReader(data),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, _TEXT), strings_can_be_null=True
            ),
        )
    except pa.ArrowException as error:
        raise DataError(f"{path}: not to be read as CSV ({_first_line(error)}); fix it") from None
    columns = {
        name: _coalesced(found, sources, name=name) for name, sources in _CVE_COLUMNS.items()
    }
    if not any(name in found.column_names for name in _CVE_COLUMNS["cve"]):
        raise DataError(f"{path}: no column {' or '.join(_CVE_COLUMNS['cve'])}; rename one")
    is_id = pc.fill_null(pc.match_substring_regex(columns["cve"], _CVE), fill_value=False)
    if not pc.all(is_id).as_py():
        wrong = one_line(str(columns["cve"].filter(pc.invert(is_id))[0].as_py()))[:40]
        raise DataError(f"{path}: {wrong!r} is no CVE id; correct it, or leave the row out")
    vectors = columns["cvss_vector"]
    numbered = pc.extract_regex(vectors, r"^CVSS:(?P<version>\d\.\d)/")
    version = pc.coalesce(pc.struct_field(numbered, "version"), "2.0")
    columns["cvss_version"] = pc.if_else(pc.is_valid(vectors), version, pa.scalar(None, _TEXT))
    columns["title"] = pc.coalesce(columns["title"], _named(columns))
    cwes = _coalesced(found, ("cwes", "cwe"), name="cwes")
    columns["cwes"] = pc.split_pattern_regex(cwes, r"[;,\s]+")
    order = (*SCHEMAS["cve"].names, "as_of")
    return pa.table({name: columns[name] for name in order}), "", ""


def _coalesced(table: pa.Table, names: tuple[str, ...], *, name: str) -> pa.ChunkedArray:
    """Return the first of some columns that says something, row by row."""
    present = [table[one] for one in names if one in table.column_names]
    empty = pa.chunked_array([pa.nulls(table.num_rows, _TEXT)])
    value = pc.coalesce(*present, empty)
    unsaid = _UNSAID if name in {"vendor", "product", "title"} else ("",)
    is_unsaid = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(value)), value_set=pa.array(unsaid))
    return pc.if_else(is_unsaid, pa.scalar(None, _TEXT), value)


def _named(columns: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return vendor and product as a title; null where neither is said."""
    joined = pc.utf8_trim_whitespace(
        pc.binary_join_element_wise(
            pc.coalesce(columns["vendor"], ""), pc.coalesce(columns["product"], ""), " "
        )
    )
    return pc.if_else(pc.equal(joined, ""), pa.scalar(None, _TEXT), joined)


def _dated(table: pa.Table) -> pa.Table:
    return table.append_column("as_of", pa.nulls(table.num_rows, _TEXT))


def _bytes(path: Path) -> bytes:
    try:
        return unpacked(path.read_bytes(), source=path.name, most_bytes=_MOST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


READERS: Final[Mapping[str, Callable[[Path], tuple[pa.Table, str, str]]]] = {
    "cve": _read_cves,
    "kev": _read_kev,
    "epss": _read_epss,
    "osv": _read_osv,
    "techniques": _read_techniques,
}
"""Table → what reads it: the table, the date that the file tells, and what was left out."""
