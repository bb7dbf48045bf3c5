"""The Word document of an assessment, read again with python-docx."""

from __future__ import annotations

import io
import sys
import zipfile

import pytest
from docx import Document
from docx.oxml.ns import qn
from hypothesis import given, settings
from hypothesis import strategies as st

from risk_fakes import HOSTILE, make_assessment, make_risk
from workbench.core.errors import ConfigError
from workbench.risk.export.word import to_docx


def read(assessment):
    document = Document(io.BytesIO(to_docx(assessment)))
    tables = [[[cell.text for cell in row.cells] for row in one.rows] for one in document.tables]
    return document, tables, "\n".join(one.text for one in document.paragraphs)


def test_what_it_says():
    rows = [make_risk(n, score=15, due="2026-01-0" + str(n)) for n in range(1, 4)]
    rows += [
        make_risk(4, score=25, level="critical", likelihood=5, due="2025-12-31", kev=True,
                  reasons=["Listed in KEV."], explanation="Update it.", explained_by="rules"),
        make_risk(5, status="accepted"), make_risk(6, status="closed", state="fixed"),
        make_risk(7, level="low", score=2, due="", stale=["epss"], missing=[]),
    ]  # fmt: skip
    document, tables, text = read(make_assessment(*rows, narrative="First.\n\nSecond."))
    summary, grid, due, unchecked = tables
    assert dict(summary) == {
        "Risks": "Number", "open, critical": "1", "open, high": "3", "open, medium": "0",
        "open, low": "1", "open, known to be exploited (KEV)": "1", "overdue": "1",
        "due within 7 days": "3", "accepted": "1", "closed": "1",
    }  # fmt: skip
    assert [row[0] for row in grid] == ["Likelihood", "5", "4", "3", "2", "1"]
    assert (grid[1][5], grid[3][5]) == ("1", "4")
    assert due[1:] == [
        ["2025-12-31", "1", "0", "0", "0"], ["2026-01-01", "0", "1", "0", "0"],
        ["2026-01-02", "0", "1", "0", "0"], ["2026-01-03", "0", "1", "0", "0"],
        ["next upgrade", "0", "0", "0", "1"],
    ]  # fmt: skip
    assert unchecked[1:] == [["epss", "0", "1"], ["kev", "6", "0"]]
    for said in ("snapshot of 2025-12-30", "2 days old", "1. CVE-2024-00004 on shop: critical",
                 "Update it. (explained by rules)", "Listed in KEV.", "Source nvd: missing 403",
                 "component 3 has no version", "First.", "Second."):  # fmt: skip
        assert said in text
    assert "CVE-2024-00005" not in text  # accepted
    assert document.core_properties.title == "Risk assessment of 2026-01-01"


def test_each_field_of_the_matrix_has_the_color_of_its_level():
    document, _, _ = read(make_assessment(make_risk()))
    found = {}
    for at, row in enumerate(document.tables[1].rows[1:]):
        for impact, cell in enumerate(row.cells[1:], start=1):
            found[(5 - at) * impact] = cell._tc.tcPr.find(qn("w:shd")).get(qn("w:fill"))
    levels = {color: [s for s in found if found[s] == color] for color in found.values()}
    assert sorted(map(sorted, levels.values())) == [
        [1, 2, 3, 4], [5, 6, 8, 9, 10], [12, 15, 16], [20, 25]
    ]  # fmt: skip


@given(text=st.text(max_size=30) | st.just(HOSTILE) | st.just("\ud800\uffff]]>&<w:p/>" * 3_000))
@settings(max_examples=20, deadline=None)
def test_no_text_breaks_the_document(text):
    text = text.encode("utf-8", "replace").decode()  # a column of texts holds no lone surrogates
    row = make_risk(
        1, title=text, asset=text, component=text, owner=text, fixed_in=text, explanation=text,
        explained_by=text, reasons=[text], missing=[text], due="",
    )  # fmt: skip
    assessment = make_assessment(
        row, policy=text, narrative=text, problems=[text], snapshot_made_at=text,
        sources=[{"name": text, "status": "missing", "error": text}],
    )  # fmt: skip
    document, _, _ = read(assessment)
    assert all(len(one.text) < 2_100 for one in document.paragraphs)


def test_the_file_does_not_tell_when_it_was_made():
    with zipfile.ZipFile(io.BytesIO(to_docx(make_assessment(make_risk())))) as file:
        assert {one.date_time for one in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"2026-01-01T00:00:00Z" in file.read("docProps/core.xml")


def test_nothing_found_and_nothing_left_out():
    _, tables, text = read(make_assessment(sources=[], problems=[]))
    assert "Nothing: all evidence was there" in text
    assert [row[1] for row in tables[0][1:]] == ["0"] * 9


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(ConfigError, match=r"\[documents\]"):
        to_docx(make_assessment(make_risk()))
