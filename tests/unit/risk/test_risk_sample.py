from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from cvss import CVSS3, CVSS4

from shared_data import shared
from workbench.core.settings import seeds_folder
from workbench.risk.evidence import KINDS, freshness, gather
from workbench.risk.intake.read import read_all
from workbench.risk.snapshot import load_snapshot

FOLDER = seeds_folder() / "risk"
CVE = re.compile(r"CVE-\d{4}-\d{4,7}")
OURS = [
    "cves.csv", "kev.csv", "epss.csv", "techniques.csv", "osv.jsonl", "assets.csv", "sbom.cdx.json",
    "vex.json", "inventory.csv", "taxonomy.json", "sources.json", "README.md",
]  # fmt: skip


def rows_of(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


RECORDS = {row["cve"]: row for row in rows_of("cves.csv")}
ADVISORIES = [json.loads(line) for line in (FOLDER / "osv.jsonl").read_text().splitlines()]


def test_at_most_fifty_cves_in_all_files_together() -> None:
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in OURS)
    assert set(CVE.findall(text)) == set(RECORDS)
    assert len(RECORDS) <= 50


def test_small_and_ascii() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 400_000
    for name in OURS[:-1]:
        (FOLDER / name).read_text(encoding="ascii")


@pytest.mark.parametrize("cve", [cve for cve, row in RECORDS.items() if row["cvss_vector"]])
def test_vectors_score_as_the_library_says(cve: str) -> None:
    vector = RECORDS[cve]["cvss_vector"]
    oracle = CVSS4(vector).base_score if vector.startswith("CVSS:4") else CVSS3(vector).base_score
    [found] = gather([cve], load_snapshot(None, "sample"), today=date(2025, 11, 1))[
        "cvss"
    ].to_pylist()
    assert found == float(oracle) > 0


def test_rows_are_well_formed() -> None:
    for cve, row in RECORDS.items():
        assert CVE.fullmatch(cve)
        assert row["exploitation"] in {"", "none", "poc", "active"}
        assert row["automatable"] in {"", "yes", "no"}
        assert row["technical_impact"] in {"", "partial", "total"}
        assert all(re.fullmatch(r"CWE-\d+", one) for one in filter(None, row["cwes"].split(";")))
        assert row["title"]
        assert re.fullmatch(r"[A-Z].{30,200}\.", row["description"])
        for name in ("published", "ssvc_as_of", "as_of"):
            assert not row[name] or date.fromisoformat(row[name]) <= date(2025, 10, 28)


def test_sample_is_read_whole_and_shows_every_status() -> None:
    sample = load_snapshot(None, "sample")
    assert (sample.id, sample.made_at) == ("sample", "2025-10-28T00:00:00+00:00")
    assert [one.error for one in sample.sources] == [""] * 5
    table = gather(list(RECORDS), sample, today=date(2025, 10, 28))
    statuses = {one for kind in KINDS for one in table[f"{kind}_status"].to_pylist()}
    assert statuses == {"checked", "missing", "stale"}
    counts = {row["kind"]: row for row in freshness(table)}
    assert counts["cvss"]["missing"] >= 5
    assert counts["exploitation"]["missing"] >= 5
    assert counts["epss"]["missing"] == 1
    assert table["kev"].to_pylist().count(True) == 16
    assert table["kev"].to_pylist().count(False) == 34
    assert [] in table["techniques"].to_pylist()


def test_inventory_fits_together() -> None:
    assets = {row["id"]: row for row in rows_of("assets.csv")}
    assert "bookshop" in assets
    assert len(assets) == 12
    assert any(not row["criticality"] for row in assets.values())
    for row in rows_of("inventory.csv"):
        assert row["asset"] in assets
        assert row["cve"] in RECORDS
    purls = {
        one["purl"] for one in json.loads((FOLDER / "sbom.cdx.json").read_text())["components"]
    }
    vex = json.loads((FOLDER / "vex.json").read_text())["vulnerabilities"]
    assert {one["affects"][0]["ref"] for one in vex} <= purls
    states = [one["analysis"]["state"] for one in vex]
    assert states == ["not_affected", "resolved", "in_triage"]
    assert vex[0]["analysis"]["justification"]


def test_files_are_valid_cyclonedx() -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    for name in ("sbom.cdx.json", "vex.json"):
        text = (FOLDER / name).read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_intake_takes_the_sample() -> None:
    files = [FOLDER / name for name in ("inventory.csv", "sbom.cdx.json", "vex.json")]
    intake = read_all(files, assets=FOLDER / "assets.csv", asset="bookshop")
    assert len(intake.assets) == 12
    assert intake.components.num_rows >= 20
    assert {one.subject for one in intake.occurrences} <= set(RECORDS)
    assert not intake.problems


def test_advisories_are_well_formed() -> None:
    assert len({one["id"] for one in ADVISORIES}) == len(ADVISORIES) >= 50
    for one in ADVISORIES:
        assert set(one["aliases"]) <= set(RECORDS)
        for affected in one["affected"]:
            assert affected["package"]["name"]
            assert affected.get("ranges") or affected["versions"]
            for ranged in affected.get("ranges", ()):
                assert list(ranged["events"][0]) == ["introduced"]


def test_advisories_hit_the_components_of_real_boms() -> None:
    found = [
        *_hits(shared("risk/sbom/juice-shop-11.1.2.cdx.json")),
        *_hits(shared("risk/sbom/laravel-7.12.0.cdx14.json")),
    ]
    assert len(set(found)) >= 40
    assert "pkg:npm/semver@7.3.2" in found
    assert "pkg:npm/socket.io-parser@3.4.1" not in found


def test_advisories_hit_what_the_shop_is_made_of() -> None:
    found = set(_hits(FOLDER / "sbom.cdx.json"))
    assert "pkg:npm/ws@8.16.0" in found
    assert not {"pkg:npm/react@18.3.1", "pkg:npm/word-wrap@1.2.5", "pkg:pypi/numpy@2.1.0"} & found
    assert len(found) >= 15


def _hits(bom: Path) -> Iterator[str]:
    """Yield package URLs that an advisory names, by versions compared as numbers."""
    types = {
        "npm": "npm",
        "Packagist": "composer",
        "PyPI": "pypi",
        "Maven": "maven",
        "Go": "golang",
    }
    affected = [
        (types[one["package"]["ecosystem"]], one["package"]["name"].replace(":", "/"), one)
        for advisory in ADVISORIES for one in advisory["affected"]
    ]  # fmt: skip
    for component in json.loads(bom.read_text(encoding="utf-8"))["components"]:
        purl = component.get("purl", "")
        for kind, name, one in affected:
            head, _, version = purl.rpartition("@")
            if head == f"pkg:{kind}/{name}" and _is_in(version.removeprefix("v"), one):
                yield purl


def _is_in(version: str, affected: dict) -> bool:
    if version in affected.get("versions", ()):
        return True
    inside = False
    for ranged in affected.get("ranges", ()):
        for event in ranged["events"]:
            [(name, at)] = event.items()
            if name == "introduced" and _numbers(version) >= _numbers(at):
                inside = True
            elif name != "introduced":
                inside &= _numbers(version) < _numbers(at) + [1] * (name == "last_affected")
    return inside


def _numbers(version: str) -> list[int]:
    return [int(one) for one in re.findall(r"\d+", version)][:3]


def _runs(text: str, length: int = 8) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("risk/ssvc_vulnrichment/vulnrichment_2024-10-24.csv.gz", "description"),
        ("risk/kev/kev_2025-08-25.csv", "shortDescription"),
        ("risk/kev/epss_kev_nvd_2026-08-22.csv", "Description"),
    ],
)
def test_no_sentence_is_anybody_elses(path: str, column: str) -> None:
    data = shared(path).read_bytes()
    text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
    ours = {
        run for row in RECORDS.values() for run in _runs(row["description"] + " " + row["title"])
    }
    ours |= {run for one in ADVISORIES for run in _runs(one["summary"])}
    assert ours
    for row in csv.DictReader(io.StringIO(text, newline="")):
        cve = row.get("cve") or row.get("cveID") or row.get("CVE")
        if cve in RECORDS:  # all others were compared once; that takes too long here
            shared_run = ours & _runs(row[column])
            assert not shared_run, (cve, shared_run)


def test_facts_are_those_of_the_files() -> None:
    known = {
        row["cve"]: row
        for row in csv.DictReader(
            io.StringIO(
                gzip.decompress(
                    shared("risk/ssvc_vulnrichment/vulnrichment_2024-10-24.csv.gz").read_bytes()
                ).decode("utf-8"),
                newline="",
            )
        )
    }
    compared = 0
    for cve, row in RECORDS.items():
        if row["as_of"] == "2024-10-24":
            fact = known[cve]
            assert row["cvss_vector"] in {fact["cvss3_vector"], fact["cvss4_vector"]}
            assert row["exploitation"] == fact["ssvc_exploitation"].lower()
            assert (row["published"], row["cwes"]) == (fact["published"], fact["cwes"])
            compared += 1
        else:
            assert cve not in known
    assert compared >= 30
    listed = {
        row["cveID"]: row
        for row in csv.DictReader(
            io.StringIO(shared("risk/kev/kev_2025-08-25.csv").read_text("utf-8"), newline="")
        )
    }
    assert {cve for cve in RECORDS if cve in listed} == {row["cveID"] for row in rows_of("kev.csv")}
    for row in rows_of("kev.csv"):
        assert row == {name: listed[row["cveID"]][name] for name in row}
