"""Folders are read by what is in the files."""

from __future__ import annotations

import gzip

import pytest

from workbench.core.errors import DataError
from workbench.risk.folder import read_folder


def test_files_are_known_by_content(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.csv").write_text("cveID,vendorProject,dateAdded\n")
    with gzip.open(tmp_path / "scores_2026-01-02.csv.gz", "wb") as file:
        file.write(b"cve;epss;percentile\n")
    (tmp_path / "deep" / "records.csv").write_text("cve,cvss3_vector,description\n")
    (tmp_path / "deep" / "hosts.csv").write_text("id,name,criticality\n")
    (tmp_path / "deep" / "list.csv").write_text("cve,asset,description\n")
    (tmp_path / "bom").write_text("x")
    (tmp_path / "bom.json").write_text('{"bomFormat": "CycloneDX"}')
    (tmp_path / "other.json").write_text('{"a": 1}')
    found = read_folder(tmp_path)
    assert {kind: path.name for kind, path in found.feeds.items()} == {
        "kev": "a.csv", "epss": "scores_2026-01-02.csv.gz", "cve": "records.csv",
    }  # fmt: skip
    assert {kind: day for kind, day in found.dates.items() if day} == {"epss": "2026-01-02"}
    assert [path.name for path in found.files] == ["bom.json", "list.csv"]
    assert found.assets == tmp_path / "deep" / "hosts.csv"
    assert found.left_out == ("bom", "other.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"matches": [{"vulnerability": {"id": "CVE-2024-1"}}]}',
        '{"SchemaVersion": 2, "Results": [{"Target": "go.sum"}]}',
        '{"SPDXID": "SPDXRef-DOCUMENT"}',
        '{"$schema": "' + "x" * 5_000 + '", "bomFormat": "CycloneDX"}',
        '{"document": {"category": "csaf_vex"}}',
    ],
)
def test_json_is_known_by_content_packed_or_not(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(text.encode()))
    assert [path.name for path in read_folder(tmp_path).files] == ["a.json", "b.json.gz"]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: no such folder"):
        read_folder(tmp_path / "absent")
    (tmp_path / "x.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"x\.csv\.gz: cannot be read"):
        read_folder(tmp_path)
