"""Every kind is read, every bound holds, and whatever is wrong is said with the file's name."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import docx
import openpyxl
import pypdf
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.core.errors import ConfigError, DataError
from workbench.risk.documents.readers import Limits, read_document


def pdf(*pages: str) -> bytes:
    """Write a PDF by hand: a catalog, a font, and a page with one line of text each."""
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        font,
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 50 700 Td ({text}) Tj ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R"
            f" >> >> /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    data, offsets = "%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{one}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(data)}\n%%EOF\n"
    return f"{data}xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


def word_file() -> docx.document.Document:
    document = docx.Document()
    document.core_properties.title = "Runbook"
    document.add_heading("First steps", level=1)
    document.add_paragraph("Open a channel.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["Who", "What", "duty manager", "decides"], strict=True):
        cell.text = text
    document.add_heading("Afterward", level=2)
    document.add_paragraph("Write it down.")
    return document


def saved(document: docx.document.Document | openpyxl.Workbook) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_member(data: bytes, name: str, content: bytes) -> bytes:
    """Return an archive with one member in place of what it had."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    return zipped(members | {name: content})


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, data: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def texts(path: Path) -> list[str]:
    return [block.text for block in read_document(path).blocks]


def test_pdf_has_pages(put):
    found = read_document(put("a.pdf", pdf("Patch on Tuesday", "Restore on Friday")))
    assert [(block.text.strip(), block.page) for block in found.blocks] == [
        ("Patch on Tuesday", 1),
        ("Restore on Friday", 2),
    ]
    assert (found.kind, found.title, len(found.sha256)) == ("pdf", "a", 64)


def test_docx_has_headings_and_tables_in_order(put):
    found = read_document(put("a.docx", saved(word_file())))
    assert [(block.text, block.heading) for block in found.blocks] == [
        ("First steps", 1),
        ("Open a channel.", 0),
        ("Who | What", 0),
        ("duty manager | decides", 0),
        ("Afterward", 2),
        ("Write it down.", 0),
    ]
    assert found.title == "Runbook"
    assert found.date


def test_xlsx_rows_carry_the_names_of_their_columns_and_values_not_formulas(put):
    book = openpyxl.Workbook()
    book.active.title = "Assets"
    for row in [
        ("asset", "owner", "sum"),
        ("shop", "team", 3),
        (None, None, None),
        ("mail", "", 5),
    ]:
        book.active.append(row)
    book.active.append(("total", None, "=SUM(C2:C4)"))
    found = read_document(put("a.xlsx", saved(book)))
    assert [(block.text, block.heading) for block in found.blocks] == [
        ("Assets", 1),
        ("asset: shop; owner: team; sum: 3", 0),
        ("asset: mail; sum: 5", 0),
        ("asset: total", 0),
    ]


def test_markdown_has_headings_front_matter_and_no_headings_in_code(put):
    text = (
        "---\ntitle: 'Policy'\nasset: shop\ndate: 2026-02-01\ntags: [patch, policy]\nx: y\n---\n"
        "# One #\nfirst\nline\n\n```\n# no heading\n```\n## Two\nlast\n"
    )
    found = read_document(put("a.md", text.encode()))
    assert [(block.text, block.heading) for block in found.blocks] == [
        ("One", 1),
        ("first\nline", 0),
        ("```\n# no heading\n```", 0),
        ("Two", 2),
        ("last", 0),
    ]
    said = (found.title, found.asset, found.date, found.tags)
    assert said == ("Policy", "shop", "2026-02-01", ("patch", "policy"))


@pytest.mark.parametrize("text", ["---\nno end\nof it", "---\n", "text\n---\ntitle: x\n---\n"])
def test_a_rule_is_no_front_matter(put, text):
    assert "".join(texts(put("a.md", text.encode()))).replace("\n", "") == text.replace("\n", "")


def test_a_date_that_is_none_is_dropped(put):
    assert read_document(put("a.md", b"---\ndate: soon\n---\ntext")).date == ""


def test_plain_text_is_paragraphs(put):
    assert texts(put("a.txt", "one\r\ntwo\r\n\r\nthree".encode("utf-16"))) == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.md", b"", "is empty"),
        ("a.md", b"  \n\n ", "is empty"),
        ("a.md", b"---\ntitle: x\n---\n", "holds no text"),
        ("a.md", b"caf\xe9", "not UTF-8 at byte 3"),
        ("a.txt", b"a\0b", "null bytes"),
        ("a.exe", b"MZ", "unknown kind '.exe'"),
        ("a.pdf", b"no such thing", "is no pdf inside"),
        ("a.docx", pdf("x"), "is pdf inside"),
        ("a.md", saved(word_file()), "is docx inside"),
        ("a.xlsx", saved(word_file()), "is docx inside"),
        ("a.docx", b"PK\x03\x04 torn", "damaged archive"),
        ("a.docx", saved(word_file())[:-200], "damaged archive"),
        ("a.docx", zipped({"x": b""}), "neither .docx nor .xlsx"),
        ("a.docx", zipped({"word/document.xml": b"<a/>"}), "broken docx"),
        ("a.xlsx", zipped({"xl/workbook.xml": b"<a"}), "broken xlsx"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 512, "protected by a password, or"),
        ("a.pdf", b"%PDF-1.7\nnothing more", "broken pdf"),
        ("a.pdf", pdf(""), "holds no text"),
    ],
)
def test_what_is_wrong_is_said_with_the_name(put, name, data, reason):
    with pytest.raises(DataError) as caught:
        read_document(put(name, data), name="folder/file")
    message = str(caught.value)
    assert message.startswith("folder/file: ")
    assert reason in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_missing_file_and_a_folder_are_no_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_document(tmp_path / "none.md")
    with pytest.raises(DataError, match="not a file"):
        read_document(tmp_path)


def test_an_encrypted_pdf_is_refused_and_one_with_an_empty_password_is_read(put):
    for password, opens in (("secret", False), ("", True)):
        writer = pypdf.PdfWriter(io.BytesIO(pdf("Patch on Tuesday")))
        writer.encrypt(user_password=password, owner_password="other", algorithm="RC4-128")
        buffer = io.BytesIO()
        writer.write(buffer)
        path = put("a.pdf", buffer.getvalue())
        if opens:
            assert "Patch" in texts(path)[0]
        else:
            with pytest.raises(DataError, match="encrypted PDF; save it without password"):
                read_document(path)


@pytest.mark.parametrize(
    ("name", "data", "limits", "reason"),
    [
        ("a.md", b"x" * 101, Limits(bytes=100), "more than 100 bytes"),
        ("a.md", b"x " * 60, Limits(chars=100), "more than 100 chars"),
        ("a.pdf", pdf("a", "b", "c"), Limits(pages=2), "more than 2 pages"),
        ("a.pdf", pdf("a" * 60, "b" * 60), Limits(chars=100), "more than 100 chars"),
        ("a.docx", saved(word_file()), Limits(cells=3), "more than 3 cells"),
        ("a.docx", saved(word_file()), Limits(chars=9), "more than 9 chars"),
        ("a.docx", saved(word_file()), Limits(members=3), "more than 3 members"),
    ],
)
def test_what_is_too_large_is_refused(put, name, data, limits, reason):
    with pytest.raises(DataError, match=reason):
        read_document(put(name, data), limits=limits)


@pytest.mark.parametrize("kind", ["docx", "xlsx"])
def test_a_zip_bomb_is_refused_before_a_library_opens_it(put, monkeypatch, kind):
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(docx, "Document", opened)
    monkeypatch.setattr(openpyxl, "load_workbook", opened)
    main = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml"}[kind]
    data = zipped({main: b"<a/>", "media/zeros": bytes(3_000_000)})
    assert len(data) < 5_000
    with pytest.raises(DataError, match="unpacks to more than 2,000,000 bytes"):
        read_document(put(f"a.{kind}", data), limits=Limits(unpacked_bytes=2_000_000))


_BOMB = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><d>&b;</d>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "member", ["word/document.xml", "[Content_Types].xml", "_rels/.rels", "docProps/core.xml"]
)
def test_xml_that_declares_entities_is_refused(put, member, encoding):
    data = with_member(saved(word_file()), member, _BOMB.encode(encoding))
    with pytest.raises(DataError, match="declares a document type"):
        read_document(put("a.docx", data))


@pytest.mark.parametrize("before", range((1 << 20) - 40, (1 << 20) - 25))
def test_no_comment_is_long_enough_to_hide_a_declaration(put, before):
    text = f'<?xml version="1.0"?><!--{"x" * before}--><!DOCTYPE d SYSTEM "d.dtd"><d/>'
    data = zipped({"word/document.xml": text.encode()})
    with pytest.raises(DataError, match="declares a document type"):
        read_document(put("a.docx", data))


def test_a_row_that_claims_a_hundred_million_columns_is_read_as_it_is(put):
    document = word_file()
    cell = document.tables[0]._cells[0]._tc.get_or_add_tcPr()
    span = OxmlElement("w:gridSpan")
    span.set(qn("w:val"), "100000000")
    cell.append(span)
    assert "Who | What" in texts(put("a.docx", saved(document)))


def test_a_sheet_that_claims_a_million_empty_rows_is_bounded(put):
    book = openpyxl.Workbook()
    book.active.append(["one", "two"])
    book.active.cell(1_000_000, 1, "far")
    with pytest.raises(DataError, match="more than 1,000 cells"):
        read_document(put("a.xlsx", saved(book)), limits=Limits(cells=1_000))


@pytest.mark.parametrize(
    ("name", "data", "package"),
    [
        ("a.pdf", pdf("x"), "pypdf"),
        ("a.docx", saved(word_file()), "docx"),
        ("a.xlsx", saved(openpyxl.Workbook()), "openpyxl"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(put, monkeypatch, name, data, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'prompt-safety-workbench\[documents\]'"):
        read_document(put(name, data))


_WHOLE = {"pdf": pdf("Patch on Tuesday"), "docx": saved(word_file())}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kind=st.sampled_from(sorted(_WHOLE)), data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(put, kind, data):
    whole = bytearray(_WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    with suppress(DataError):
        read_document(put(f"damaged.{kind}", bytes(whole[:cut])))
