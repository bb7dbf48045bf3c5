"""CSV of the register: what is written is read again, and no cell is a formula."""

from __future__ import annotations

import csv
import io
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from risk_fakes import HOSTILE, make_assessment, make_risk, make_risks
from workbench.core.errors import ConfigError
from workbench.core.files import read_table
from workbench.core.plain import cell
from workbench.risk.export import ENDINGS, export, format_of
from workbench.risk.export.table import to_csv
from workbench.risk.register import RISKS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def uncell(text):
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


@given(text=TEXT | TEXT.map("'".__add__) | TEXT.map("=".__add__))
@example("\t=1")
@example("＝1")
@example("﹢1")
@example("⁺1")
@example("\u200b@SUM(A1)")
@example("''-x")
@example("'-x")
@example("\u00a0 -1")
@example("\r\n=x")
def test_no_cell_is_a_formula_and_all_are_read_again(text):
    shown = cell(text)
    seen = shown.lstrip("\u200b\u00a0 \ufeff")
    assert not normalize("NFKC", seen)[:1].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert all(char.isprintable() or ord(char) >= 160 or char in "\t\r\n" for char in shown)
    if text.isprintable():
        assert uncell(shown) == text


def test_the_whole_register_comes_back(tmp_path):
    rows = [
        make_risk(1, title=HOSTILE, annual_loss_usd=-5.5, missing=["kev", "epss"]),
        make_risk(2, kev=True, cvss=None, p_exploit=1e-9, subject="@SUM", score=25),
    ]
    table = make_risks(*rows)
    assert export(make_assessment(*rows), tmp_path / "risks.csv") == "csv"
    text = (tmp_path / "risks.csv").read_bytes().decode()
    assert text == to_csv(table)
    assert text.endswith("\r\n")
    read = read_table(tmp_path / "risks.csv")
    assert list(read.names) == RISKS.names
    for shown, row in zip(read.rows, table.to_pylist(), strict=True):
        for name, value in row.items():
            if value is None:
                assert shown[name] == ""
            elif isinstance(value, list):
                assert shown[name] == "; ".join(value)
            elif isinstance(value, bool):
                assert shown[name] == str(value).lower()
            elif isinstance(value, int | float):
                assert type(value)(shown[name]) == value
            elif name != "title":
                assert uncell(shown[name]) == value
    assert read.rows[0]["subject"] == "'@SUM"
    assert ",-5.5," in text  # a number, not a formula to be quoted
    assert read.rows[1]["title"].startswith("'=1+1\ufffd \ufffd[31m<script>")


def test_quotes_and_line_ends_stay_in_their_cell():
    table = make_risks(make_risk(1, title='a "b", c\nd'))
    header, row = csv.reader(io.StringIO(to_csv(table)))
    assert dict(zip(header, row, strict=True))["title"] == 'a "b", c\nd'


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"), ("A.CSV", "csv"), ("a.docx", "docx"), ("a.cdx.json", "cyclonedx"),
        ("bom.json", "cyclonedx"), ("x.vex.json", "vex"), ("vex.json", "vex"),
        ("x.openvex.json", "openvex"),
    ],
)  # fmt: skip
def test_the_ending_tells_the_format(tmp_path, name, form):
    assert format_of(tmp_path / name) == form


@pytest.mark.parametrize(
    ("name", "form"), [("a.json", ""), ("a", ""), ("a.xlsx", ""), ("a.csv", "x")]
)
def test_an_unknown_format_lists_all(tmp_path, name, form):
    with pytest.raises(ConfigError, match=r".*".join(ENDINGS)):
        export(make_assessment(make_risk()), tmp_path / name, form=form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ENDINGS)
def test_the_same_assessment_gives_the_same_bytes(tmp_path, form):
    rows = [make_risk(n, title=HOSTILE, asset=f"a{n % 2}") for n in range(5)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        export(make_assessment(*order), tmp_path / name, form=form)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    export(make_assessment(), tmp_path / "none", form=form)  # nothing found is a result too
