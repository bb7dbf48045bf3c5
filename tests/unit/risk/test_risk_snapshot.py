from __future__ import annotations

import json
import pickle
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_data import shared
from workbench.core.errors import DataError
from workbench.core.identity import content_id, file_sha256
from workbench.risk.snapshot import in_memory, load_snapshot, write_snapshot
from workbench.risk.snapshot_files import fetched_from, snapshot_of_files
from workbench.risk.sources.base import Fetched
from workbench.risk.tables import SCHEMAS, clean, merged

MADE = "2025-01-02T00:00:00+00:00"


def kev(*cves: str, as_of: str = "2025-01-01") -> Fetched:
    columns = {
        "cve": list(cves), "added": ["2021-12-10"] * len(cves), "due": ["2021-12-24"] * len(cves),
        "ransomware": pa.array([True] * len(cves), pa.bool_()),
    }  # fmt: skip
    return said(pa.table(columns, schema=SCHEMAS["kev"]), as_of=as_of)


def epss(scores: dict[str, float], *, as_of: str = "2025-01-01") -> Fetched:
    columns = {
        "cve": list(scores),
        "epss": list(scores.values()),
        "percentile": [0.5] * len(scores),
    }
    return said(pa.table(columns, schema=SCHEMAS["epss"]), as_of=as_of)


def said(table: pa.Table | None, *, as_of: str = "2025-01-01", error: str = "") -> Fetched:
    return Fetched(source="test", url="https://test.example", as_of=as_of, table=table, error=error)


def folder_of(store, snapshot: str) -> Path:
    return store.artifacts.path("snapshot", snapshot)


def test_round_trip(store) -> None:
    tables = {"kev": kev("CVE-2021-44228"), "epss": epss({"CVE-2021-44228": 0.9})}
    snapshot = write_snapshot(store, tables, made_at=MADE)
    found = load_snapshot(store)
    assert found.id == snapshot == load_snapshot(store, snapshot[:12]).id
    assert found.table("kev").drop_columns("as_of").equals(tables["kev"].table)
    assert found.table("epss")["as_of"].to_pylist() == ["2025-01-01"]
    assert found.table("cve") is None
    assert found.age_days(date(2025, 1, 12)) == 10
    ages = {row["name"]: row for row in found.ages(date(2025, 1, 9))}
    assert ages["kev"]["status"] == "stale"
    assert ages["kev"]["age_days"] == 8
    assert found.ages(date(2025, 1, 8))[0]["status"] == "checked"


def test_same_content_has_the_same_id(store) -> None:
    first = write_snapshot(store, {"epss": epss({"CVE-1": 0.1, "CVE-2": 0.2})}, made_at=MADE)
    again = write_snapshot(store, {"epss": epss({"CVE-2": 0.2, "CVE-1": 0.1})}, made_at=MADE)
    assert first == again


def test_failed_source_keeps_its_table_and_its_date(store) -> None:
    write_snapshot(store, {"kev": kev("CVE-1", as_of="2024-12-01")}, made_at=MADE)
    write_snapshot(store, {"kev": said(None, as_of="", error="403 Forbidden")}, made_at=MADE)
    found = load_snapshot(store)
    source = found.source("kev")
    assert (source.as_of, source.status, source.error) == ("2024-12-01", "checked", "403 Forbidden")
    assert found.table("kev").num_rows == 1


def test_source_that_never_answered_is_missing(store) -> None:
    write_snapshot(store, {"kev": said(None, as_of="", error="403")}, made_at=MADE)
    found = load_snapshot(store)
    assert found.table("kev") is None
    assert found.ages(date(2025, 1, 2)) == [
        {"name": "kev", "status": "missing", "as_of": "", "age_days": 0, "rows": 0, "error": "403"}
    ]


def test_rows_by_id_replace_and_stay_with_their_own_date(store) -> None:
    write_snapshot(store, {"epss": epss({"CVE-1": 0.1, "CVE-2": 0.2})}, made_at=MADE)
    later = epss({"CVE-2": 0.9, "CVE-3": 0.3}, as_of="2025-02-01")
    write_snapshot(store, {"epss": later}, made_at="2025-02-01")
    rows = load_snapshot(store).table("epss").select(["cve", "epss", "as_of"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("CVE-1", 0.1, "2025-01-01"), ("CVE-2", 0.9, "2025-02-01"), ("CVE-3", 0.3, "2025-02-01"),
    ]  # fmt: skip


def test_what_is_older_than_what_is_kept_is_not_taken(store) -> None:
    write_snapshot(store, {"kev": kev("CVE-2021-0001", "CVE-2021-0002"),
                           "epss": epss({"CVE-2021-0001": 0.9})}, made_at=MADE)  # fmt: skip
    scores = {"CVE-2021-0001": 0.1, "CVE-2021-0003": 0.2}
    day = "2024-06-01"
    older = {"kev": kev("CVE-2021-0001", as_of=day), "epss": epss(scores, as_of=day)}
    found = load_snapshot(store, write_snapshot(store, older, made_at=MADE))
    assert found.table("kev")["cve"].to_pylist() == ["CVE-2021-0001", "CVE-2021-0002"]
    assert found.source("kev").as_of == "2025-01-01"
    assert "of 2024-06-01, older than what is kept: not taken" in found.source("kev").error
    scores = zip(*(found.table("epss")[one].to_pylist() for one in ("epss", "as_of")), strict=True)
    assert list(scores) == [(0.9, "2025-01-01"), (0.2, "2024-06-01")]


def test_a_row_of_no_day_is_of_the_day_of_its_source(store, tmp_path: Path) -> None:
    path = tmp_path / "cve.csv"
    path.write_text("cve,as_of\nCVE-2021-0001,yesterday\nCVE-2021-0002,2024-02-03T10:00:00Z\n")
    found = load_snapshot(
        store, snapshot_of_files(store, {"cve": path}, as_of={"cve": "2024-05-06"})
    )
    assert found.table("cve")["as_of"].to_pylist() == ["2024-05-06", "2024-02-03"]
    assert found.ages(date(2024, 5, 7))[0]["age_days"] == 1


def test_a_file_whose_rows_all_say_of_what_day_they_are(store, tmp_path: Path) -> None:
    path = tmp_path / "cve.csv"
    path.write_text("cve,as_of\nCVE-2021-0001,2024-01-02\nCVE-2021-0002,2024-02-03\n")
    found = load_snapshot(store, snapshot_of_files(store, {"cve": path}))
    assert (found.made_at, found.source("cve").as_of) == ("2024-02-03", "2024-02-03")


@pytest.mark.parametrize("day", ["20250101", "2025-W01-1", "31.12.2024", "2025-02-30"])
def test_days_that_do_not_sort_as_text_are_refused(store, day: str) -> None:
    with pytest.raises(DataError, match="is no date"):
        write_snapshot(store, {"kev": kev("CVE-2021-0001", as_of=day)}, made_at=MADE)


def test_list_that_lost_most_of_itself_is_not_believed(store) -> None:
    write_snapshot(store, {"kev": kev(*(f"CVE-2024-{n}" for n in range(1000, 1010)))}, made_at=MADE)
    write_snapshot(store, {"kev": kev("CVE-2024-1000", as_of="2025-01-02")}, made_at=MADE)
    found = load_snapshot(store)
    assert found.table("kev").num_rows == 10
    assert "1 rows after 10: not taken" in found.source("kev").error
    empty = in_memory("x", {"kev": kev()}, made_at=MADE)
    assert empty.table("kev") is None
    assert empty.source("kev").status == "missing"


def test_values_that_are_not_understood_are_missing_and_named() -> None:
    table = epss({"CVE-1": 93.0, "CVE-2": float("nan"), "": 0.1, "cve-2024-3 ": 0.5}).table
    found, note = clean(table, "epss", as_of="2025-01-01")
    assert found["cve"].to_pylist() == ["CVE-1", "CVE-2", "CVE-2024-3"]
    assert found["epss"].to_pylist() == [None, None, 0.5]
    assert "2 values of epss not understood, e.g. '93.0'" in note
    assert "1 rows without cve" in note


def test_case_of_decision_points_does_not_count() -> None:
    empty = dict.fromkeys(SCHEMAS["cve"].names)
    rows = [{**empty, "cve": "CVE-1", "exploitation": "PoC", "automatable": "maybe"}]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["cve"])
    found, note = clean(table, "cve", as_of="2025-01-01")
    assert found["exploitation"].to_pylist() == ["poc"]
    assert found["automatable"].to_pylist() == [None]
    assert "automatable" in note


def test_last_of_several_rows_of_one_id_counts() -> None:
    table = pa.concat_tables([epss({"CVE-1": 0.1}).table, epss({"CVE-1": 0.7}).table])
    found, _ = clean(table, "epss", as_of="2025-01-01")
    assert found["epss"].to_pylist() == [0.7]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (epss({"CVE-1": 0.1}).table.drop_columns("percentile"), "no column 'percentile'"),
        (
            epss({"CVE-1": 0.1}).table.set_column(1, "epss", pa.array(["0.1"])),
            "column 'epss' of table 'epss' is string, not double",
        ),
    ],
)
def test_changed_schema_is_refused(store, table: pa.Table, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        write_snapshot(store, {"epss": said(table)}, made_at=MADE)


def test_unknown_table_and_bad_dates_are_refused(store) -> None:
    with pytest.raises(DataError, match="unknown table 'kevs'; known: cve, kev"):
        write_snapshot(store, {"kevs": kev("CVE-1")}, made_at=MADE)
    with pytest.raises(DataError, match="made_at 'yesterday' is no date"):
        write_snapshot(store, {}, made_at="yesterday")
    with pytest.raises(DataError, match="kev: as_of '2025-13-01' is no date"):
        write_snapshot(store, {"kev": kev("CVE-1", as_of="2025-13-01")}, made_at=MADE)


def test_no_snapshot_yet(store) -> None:
    with pytest.raises(DataError, match="risk sync`, or take the snapshot 'sample'"):
        load_snapshot(store)


def _cut(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def _alter_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("2025-01-01", "2025-01-03"))


def _newer(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": 2}))


def _other(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "no manifest of a snapshot"),
        (_alter_manifest, "manifest.json: was altered"),
        (_newer, "format 2 is newer than 1; update"),
        (_other, "no manifest of a snapshot"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: is missing"),
        (
            lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
            "no manifest of a snapshot",
        ),
    ],
)
def test_damaged_manifest_is_named_with_the_fix(store, damage, reason: str) -> None:
    snapshot = write_snapshot(store, {"kev": kev("CVE-1")}, made_at=MADE)
    damage(folder_of(store, snapshot))
    with pytest.raises(DataError, match=f"{reason}.*workbench risk sync"):
        load_snapshot(store)


@pytest.mark.parametrize("cut", [0, 50, None])
def test_damaged_table_is_named_with_the_fix(store, cut: int | None) -> None:
    snapshot = write_snapshot(store, {"kev": kev("CVE-1")}, made_at=MADE)
    path = folder_of(store, snapshot) / "kev.parquet"
    if cut is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"kev.parquet: (was altered|is missing).*risk sync"):
        load_snapshot(store).table("kev")


def test_table_altered_with_a_matching_manifest_is_still_found_out(store) -> None:
    snapshot = write_snapshot(store, {"kev": kev("CVE-1")}, made_at=MADE)
    folder = folder_of(store, snapshot)
    pq.write_table(kev("CVE-2").table, folder / "kev.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sources"][0]["sha256"] = file_sha256(folder / "kev.parquet")
    assert content_id(manifest) != snapshot
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="was altered"):
        load_snapshot(store)


def test_sync_mends_what_is_damaged(store) -> None:
    snapshot = write_snapshot(store, {"kev": kev("CVE-1")}, made_at=MADE)
    (folder_of(store, snapshot) / "kev.parquet").write_bytes(b"")
    write_snapshot(store, {"kev": kev("CVE-1")}, made_at="2025-01-03")
    found = load_snapshot(store)
    assert found.table("kev").num_rows == 1
    assert "the table before was lost" in found.source("kev").error


def test_pickled_as_a_reference(store) -> None:
    snapshot = write_snapshot(store, {"epss": epss({"CVE-1": 0.5})}, made_at=MADE)
    data = pickle.dumps(load_snapshot(store))
    assert b"PAR1" not in data
    assert len(data) < 1000
    found = pickle.loads(data)
    assert (found.id, found.table("epss").num_rows) == (snapshot, 1)
    assert pickle.loads(data) is found  # once per process
    memory = pickle.loads(
        pickle.dumps(in_memory("m", {"epss": epss({"CVE-1": 0.5})}, made_at=MADE))
    )
    assert memory.table("epss").num_rows == 1


ids = st.dictionaries(
    st.sampled_from([f"CVE-2024-{n}" for n in range(1000, 1012)]), st.floats(0, 1)
)


@settings(deadline=None, max_examples=40)
@given(old=ids, new=ids)
def test_merging_is_that_of_mappings(old: dict[str, float], new: dict[str, float]) -> None:
    before, _ = clean(epss(old).table, "epss", as_of="2025-01-01")
    after, _ = clean(epss(new).table, "epss", as_of="2025-01-02")
    table = merged(before, after, "cve")
    found = dict(zip(table["cve"].to_pylist(), table["epss"].to_pylist(), strict=True))
    assert found == old | new
    assert table["cve"].to_pylist() == sorted(old | new)


# Files that people have.

RECORD = {
    "dataType": "CVE_RECORD",
    "cveMetadata": {"cveId": "CVE-2024-1234", "state": "PUBLISHED", "dateUpdated": "2024-02-01"},
    "containers": {"cna": {"descriptions": [{"lang": "en", "value": "Words."}]}},
}


def test_snapshot_of_files(store, tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text(
        "cveID,dateAdded,dueDate,knownRansomwareCampaignUse\nCVE-2024-1234,2024-03-01,2024-03-22,Known\n"
    )
    (tmp_path / "e.csv").write_text(
        "#model_version:v1,score_date:2024-10-27T00:00:00+0000\ncve,epss,percentile\n"
        "CVE-2024-1234,0.5,0.9\n"
    )
    (tmp_path / "c.csv").write_text(
        "cve,published,cvss3_vector,cvss4_vector,ssvc_exploitation,ssvc_automatable,"
        "ssvc_technical_impact,ssvc_date,cwes,vendor,product,description\n"
        "CVE-2024-1234,2024-02-01,,CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:L/VA:N/SC:N/SI:N/SA:N,"
        'poc,yes,partial,2024-02-02,CWE-20;CWE-79,n/a,Thing,"Two\nlines"\n'
    )
    advisory = {
        "id": "X-1", "modified": "2024-01-01T00:00:00Z", "aliases": ["CVE-2024-1234"],
        "affected": [{"package": {"ecosystem": "npm", "name": "thing"}, "versions": ["1.0.0"]}],
    }  # fmt: skip
    (tmp_path / "o.jsonl").write_text(json.dumps(advisory) + "\n")
    paths = {"kev": "k.csv", "epss": "e.csv", "cve": "c.csv", "osv": "o.jsonl"}
    as_of = {"kev": "2024-11-01", "cve": "2024-10-24", "osv": "2024-11-02"}
    files = {name: tmp_path / path for name, path in paths.items()}
    found = load_snapshot(store, snapshot_of_files(store, files, as_of=as_of))
    [row] = found.table("cve").to_pylist()
    assert (row["title"], row["cvss_version"], row["cwes"]) == (
        "Thing",
        "4.0",
        ["CWE-20", "CWE-79"],
    )
    assert row["vendor"] is None
    assert row["description"] == "Two\nlines"
    assert found.source("epss").as_of == "2024-10-27"
    assert found.table("kev")["ransomware"].to_pylist() == [True]
    assert found.table("osv")["package"].to_pylist() == ["thing"]


def test_folder_of_records_says_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "CVE-2024-1234.json").write_text(json.dumps(RECORD))
    (tmp_path / "CVE-2024-9999.json").write_text('{"half":')
    found = fetched_from("cve", tmp_path, as_of="2024-10-24")
    assert found.table["cve"].to_pylist() == ["CVE-2024-1234"]
    assert "1 of 2 files left out, the first: CVE-2024-9999.json" in found.error


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("kev", b"cveID,dateAdded\n", "is empty"),
        ("kev", b'{"vulnerabilities": [{"cveID"', "not JSON"),
        ("epss", b"cve,epss,percentile\nCVE-2024-1234,93,0.5\n", "from 0 to 1"),
        ("cve", b"id,published\nCVE-2024-1234,2024-01-01\n", "no column cve or cve_id"),
        ("cve", b"cve,published\nCVE-2024-1234\n", "as CSV"),
        ("cve", b"cve,published\nCVE-24-1,2024-01-01\n", "'CVE-24-1' is no CVE id"),
        ("osv", b'{"id": 1}\n', "x.jsonl"),
        ("techniques", b"cwe,capec\nCWE-1,CAPEC-1\n", "no column 'technique'"),
        ("nvd", b"", "no table 'nvd' is read from files"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / ("x.jsonl" if name == "osv" else "x.csv")
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        fetched_from(name, path, as_of="2024-01-01")
    assert str(path) in str(caught.value)


def test_a_file_of_no_day_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("cve\nCVE-2024-1234\n")
    with pytest.raises(DataError, match="of what day it is; give as_of for 'cve'"):
        fetched_from("cve", path)
    with pytest.raises(DataError, match="no such file"):
        fetched_from("cve", tmp_path / "other.csv")


def test_real_files_give_a_portable_database(store) -> None:
    files = {
        "kev": shared("risk/kev/kev_2025-08-25.csv"),
        "epss": shared("risk/epss/epss_2024-10-27.csv.gz"),
        "cve": shared("risk/ssvc_vulnrichment/vulnrichment_2024-10-24.csv.gz"),
        "techniques": shared("risk/attack"),
    }
    dates = ("2025-08-25", "2024-10-27", "2024-10-24", "2025-10-28")
    as_of = dict(zip(files, dates, strict=True))
    found = load_snapshot(store, snapshot_of_files(store, files, as_of=as_of))
    rows = {one.name: (one.rows, one.error) for one in found.sources}
    assert rows["epss"] == (263_619, "")
    assert rows["cve"] == (44_130, "")
    assert rows["kev"] == (1404, "")
    assert rows["techniques"][0] > 500
