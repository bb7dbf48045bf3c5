"""Printing: a browser found by name, cut off, on time; its failures told in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from workbench.core.errors import ConfigError, StoreError
from workbench.report import pdf

PRINT = """#!/bin/sh
for one in "$@"; do case "$one" in --print-to-pdf=*) to="${one#--print-to-pdf=}";; esac; done
printf '%s\\n' "$@" > "$0.said"
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    file = tmp_path / "a page?.html"
    file.write_text("<p>x</p>")
    return file


def program(folder: Path, script: str) -> str:
    file = folder / "chromium"
    file.write_text(PRINT + script)
    file.chmod(0o755)
    return str(file)


def test_a_page_is_printed_without_a_network(tmp_path: Path, page: Path) -> None:
    browser = program(tmp_path, "printf '%%PDF-1.4 x' > \"$to\"\n")
    made = pdf.print_pdf(page, tmp_path / "new" / "x.pdf", program=browser, timeout_s=10)
    assert made.read_bytes() == b"%PDF-1.4 x"
    said = Path(f"{browser}.said").read_text().splitlines()
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in said
    assert said[-1] == page.as_uri()
    assert ("--no-sandbox" in said) == (os.geteuid() == 0)


@pytest.mark.parametrize(("user", "is_root"), [(0, True), (1000, False)])
def test_only_root_gives_up_the_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: Path, user: int, is_root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    browser = program(tmp_path, "printf '%%PDF-' > \"$to\"\n")
    pdf.print_pdf(page, tmp_path / "x.pdf", program=browser, timeout_s=10)
    assert ("--no-sandbox" in Path(f"{browser}.said").read_text().splitlines()) == is_root


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "echo cannot open display >&2; exit 1\n",
            "printed nothing of a page.*cannot open display",
        ),
        ("exit 3\n", "exit status 3"),
        ("printf '<html>' > \"$to\"\n", "printed no PDF"),
    ],
)
def test_a_browser_that_fails_is_told(tmp_path: Path, page: Path, script: str, told: str) -> None:
    with pytest.raises(StoreError, match=told):
        pdf.print_pdf(page, tmp_path / "x.pdf", program=program(tmp_path, script), timeout_s=10)
    assert not (tmp_path / "x.pdf").exists()


def test_a_browser_that_hangs_is_ended_with_all_it_started(tmp_path: Path, page: Path) -> None:
    browser = program(
        tmp_path, f"(sleep 60; echo > '{tmp_path}/late') & echo $! > \"$0.pid\"; wait\n"
    )
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"did not print within 0\.5 s; raise --timeout"):
        pdf.print_pdf(page, tmp_path / "x.pdf", program=browser, timeout_s=0.5)
    assert time.monotonic() - started < 10
    child = int(Path(f"{browser}.pid").read_text())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_no_browser_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"no Chromium to print with.*apt-get install chromium"):
        pdf.find_chromium()
    program(tmp_path, "")
    assert pdf.find_chromium() == str(tmp_path / "chromium")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, page: Path) -> None:
    (tmp_path / "file").write_text("")
    browser = program(tmp_path, "printf '%%PDF-' > \"$to\"\n")
    with pytest.raises(StoreError, match="cannot write"):
        pdf.print_pdf(page, tmp_path / "file" / "x.pdf", program=browser, timeout_s=10)


def test_a_folder_that_stands_where_the_file_goes_is_told(tmp_path: Path, page: Path) -> None:
    (tmp_path / "x.pdf").mkdir()
    browser = program(tmp_path, "printf '%%PDF-' > \"$to\"\n")
    with pytest.raises(StoreError, match="cannot write"):
        pdf.print_pdf(page, tmp_path / "x.pdf", program=browser, timeout_s=10)
    assert list((tmp_path / "x.pdf").iterdir()) == []
