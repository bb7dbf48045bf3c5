"""Files of many formats become one intake; a format is known by content, never by a name."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.core.errors import DataError
from workbench.core.files import read_object, read_table
from workbench.risk.intake.cve_lists import (
    CVE_COLUMNS,
    heading,
    is_cve_line,
    read_cve_lines,
    read_cve_rows,
)
from workbench.risk.intake.cyclonedx import read_cyclonedx
from workbench.risk.intake.inventory import (
    INVENTORY_COLUMNS,
    asset_id,
    by_name,
    careful,
    read_inventory,
)
from workbench.risk.intake.reading import Reading, mapping, text_of
from workbench.risk.intake.scanners import read_grype, read_trivy
from workbench.risk.intake.settle import settle
from workbench.risk.intake.spdx import read_spdx, read_spdx_graph
from workbench.risk.intake.vex import read_csaf, read_openvex
from workbench.risk.records import Asset, Intake, Occurrence

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMATS", "read_all"]

FORMATS: Final = (
    "CVE ids (one a line, or a CSV column named cve)", "CycloneDX JSON", "SPDX JSON",
    "OpenVEX, CSAF or CycloneDX VEX", "Grype or Trivy JSON",
    "inventory CSV (id, name, criticality, exposure, ...)",
)  # fmt: skip

_HEAD_BYTES = 65_536
_COMPONENT = ("purl", "name", "version", "asset", "source")
_DELIMITERS = (",", ";", "\t", "|")


def read_all(
    files: Sequence[Path | str], *, assets: Path | str | None = None, asset: str = "",
    known: Mapping[str, Asset] | None = None,
) -> Intake:  # fmt: skip
    """Return what the files tell: assets, vulnerabilities on them, components.

    Where a file does not say what asset it is about it is on ``asset``, else on that which its
    SBOM is named for, else on one that is called as the file. What nobody tells of an asset is
    missing. VEX closes what the same call reads, in any order.

    Args:
        files: In any of :data:`FORMATS`, in any order; ``.gz`` is unpacked.
        assets: An inventory, if there is one.
        asset: Where everything in files belongs that name no asset for each row.
        known: Assets told by a service, by id.

    Raises:
        DataError: If a file cannot be read or is in no known format; names file and fix.
    """
    paths = [Path(one) for one in files]
    asset = text_of(asset)
    readings = [_read(path, asset=asset) for path in paths]
    if assets is not None:
        inventory = _read(Path(assets), asset="")
        if not inventory.assets:
            raise DataError(f"{assets}: is no inventory; give CSV with id, criticality, exposure")
        readings.insert(0, inventory)
    all_assets = dict(known or {})
    for one in readings:
        for key, told in one.assets.items():
            all_assets[key] = careful(all_assets[key], told) if key in all_assets else told
    called = by_name(all_assets)
    occurrences, problems = settle(readings, assets=called)
    components = _components(readings, called)
    for name, source in _named(occurrences, readings, called):
        if name not in all_assets:
            all_assets[name] = Asset(id=name, name=name, source=source)
    return Intake(
        assets=all_assets,
        occurrences=tuple(occurrences),
        components=components,
        files=tuple(_summary(one) for one in readings),
        problems=(*(line for one in readings for line in one.problems), *problems),
    )


def _read(path: Path, *, asset: str) -> Reading:
    reading = Reading(path, asset=asset)
    head = _head(path)
    first = head[:1]
    if first == "{":
        document = read_object(path)
        _json_reader(document, path)(document, reading)
    elif first == "[":
        _read_list(path, reading)
    elif first == "<" or head.startswith("SPDXVersion"):
        kind = "XML" if first == "<" else "SPDX tag-value"
        raise DataError(f"{path}: is {kind}, which is not read; export it as JSON")
    else:
        _read_text(path, head, reading)
    return reading


def _head(path: Path) -> str:
    """Return the beginning of a file; of one that cannot be opened nothing, readers say why."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return file.read(_HEAD_BYTES).decode("utf-8-sig", "replace").lstrip()
    except (OSError, EOFError, zlib.error):
        return ""


def _json_reader(
    document: Mapping[str, Any], path: Path
) -> Callable[[dict[str, Any], Reading], None]:
    context = str(document.get("@context"))[:1_000]
    signs = (
        (document.get("bomFormat") == "CycloneDX", read_cyclonedx),
        ("spdxVersion" in document, read_spdx),
        ("@graph" in document and "spdx.org" in context, read_spdx_graph),
        ("openvex" in context, read_openvex),
        (str(mapping(document.get("document")).get("category")).startswith("csaf"), read_csaf),
        ("matches" in document, read_grype),
        ("Results" in document or "ArtifactName" in document, read_trivy),
    )
    for is_it, reader in signs:
        if is_it:
            return reader
    keys = ", ".join(text_of(key, 40) for key in list(document)[:8])
    raise DataError(f"{path}: JSON in no known format (keys: {keys}); give {'; '.join(FORMATS)}")


def _read_list(path: Path, reading: Reading) -> None:
    """Take a JSON list: of ids, or of results as Trivy wrote them before it had a schema."""
    rows = read_table(path, kind="json")
    if rows.names == ("text",):
        reading.format = "CVE list"
        read_cve_lines(rows, reading)
    elif "Vulnerabilities" in rows.names:
        read_trivy({"Results": list(rows.rows)}, reading)
    else:
        raise DataError(f"{path}: a JSON list in no known format; give {'; '.join(FORMATS)}")


def _read_text(path: Path, head: str, reading: Reading) -> None:
    lines = [line.strip() for line in head.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    first = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=first.count)
    try:
        headings = {heading(one) for one in next(csv.reader([first], delimiter=delimiter), ())}
    except csv.Error:
        headings = set()
    if headings & {*CVE_COLUMNS}:
        reading.format = "CVE table"
        read_cve_rows(read_table(path, kind="csv", delimiter=delimiter), reading)
    elif headings & {*INVENTORY_COLUMNS}:
        reading.format = "inventory"
        read_inventory(read_table(path, kind="csv", delimiter=delimiter), reading)
    else:
        table = read_table(path, kind="txt")  # first: it says what is wrong with the file
        if not any(map(is_cve_line, lines)):
            raise DataError(f"{path}: in no known format; give {'; '.join(FORMATS)}")
        reading.format = "CVE list"
        read_cve_lines(table, reading)


def _components(readings: Sequence[Reading], called: Mapping[str, str]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in _COMPONENT])
    tables = [schema.empty_table()]
    for one in readings:
        if one.components:
            purls, names, versions = zip(*one.components.values(), strict=True)
            count = len(purls)
            columns = [pa.array(values, pa.string()) for values in (purls, names, versions)]
            columns += [
                pa.repeat(value, count) for value in (asset_id(one.asset, called), one.source)
            ]
            tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(tables)


def _named(
    occurrences: Sequence[Occurrence], readings: Sequence[Reading], called: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the assets that something is on, with who told of them."""
    for one in readings:
        if one.components:
            yield asset_id(one.asset, called), one.source
    for found in occurrences:
        yield found.asset, found.source


def _summary(one: Reading) -> dict[str, Any]:
    return {
        "file": one.file,
        "format": one.format,
        "occurrences": len(one.occurrences) + len(one.statements),
        "components": len(one.components),
        "assets": len(one.assets),
    }
