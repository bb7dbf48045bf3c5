"""`workbench report`: which document, where it goes, what cannot be asked for together."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import report_results as made
from workbench.cli import main
from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings
from workbench.report import pdf
from workbench.store.database import open_store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which two experiments ran, and one whose name is a path."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    store = open_store(read_settings())
    made.fill(store, made.results())
    for name in ("larger", "../up"):
        made.fill(store, {"pairs": made.results()["pairs"]}, experiment=name)
    store.engine.dispose()
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["report", *arguments])


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("quickstart",), "reports/quickstart/index.html"),
        (("quickstart", "--single-file", "--out", "to be mailed"), "to be mailed/index.html"),
        (("quickstart", "--notebooks"), "reports/quickstart/index.html"),
        (("quickstart", "--compare", "larger"), "reports/quickstart/compare-larger.html"),
        (("--index",), "reports/index.html"),
        (("../up", "--out", "up"), "up/index.html"),
    ],
)
def test_the_path_of_what_was_written_is_printed(
    project: Path, arguments: tuple[str, ...], file: str
) -> None:
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert (project / done.output.strip()).resolve() == project / file
    assert (project / file).read_text(encoding="utf-8").startswith("<!doctype html>")
    is_folder = (project / file).with_name("data.html").is_file()
    assert is_folder == ("--out" not in arguments and "quickstart/index" in file) or "up" in file


def test_one_file_has_every_page_and_a_folder_one_each(project: Path) -> None:
    call("quickstart")
    call("quickstart", "--single-file", "--out", "one")
    names = {file.stem for file in (project / "reports/quickstart").glob("*.html")}
    assert {"index", "data", "scaling", "campaign", "risk", "cost"} <= names
    assert [file.name for file in (project / "one").glob("*.html")] == ["index.html"]
    assert (project / "one/index.html").stat().st_size <= 8e6


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name an EXPERIMENT, or --index"),
        (("quickstart", "--index"), "name an EXPERIMENT, or --index"),
        (("quickstart", "--pdf", "--single-file"), "--pdf and --single-file are different"),
        (("quickstart", "--compare", "larger", "--pdf"), "--pdf and --compare are different"),
        (("quickstart", "--notebooks", "--pdf"), "leave --pdf out"),
        (("quickstart", "--timeout", "0"), "x>=1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    project: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert told in done.output
    assert not (project / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), "never ran here"),
        (("quickstart", "--compare", "nothing"), "never ran here"),
        (("quickstart", "--compare", "quickstart"), "compared with itself"),
        (("../up",), "names no folder; say where with --out"),
        (("quickstart", "--out", "file"), "say where with --out"),
        (("quickstart", "--out", "file/below"), "say where with --out"),
        (("--index", "--out", "file"), "say where with --out"),
    ],
)
def test_errors_are_one_line(project: Path, arguments: tuple[str, ...], told: str) -> None:
    (project / "file").write_text("kept")
    done = call(*arguments)
    assert done.exit_code == ConfigError.exit_code
    assert done.output.startswith("error: ")
    assert told in done.output
    assert len(done.output.splitlines()) == 1
    assert (project / "file").read_text() == "kept"
    assert not (project / "up").exists()
    assert not (project.parent / "up").exists()


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (("quickstart", "--pdf"), "reports/quickstart/quickstart.pdf"),
        (("../up", "--pdf", "--out", "on paper"), "on paper/report.pdf"),
    ],
)
def test_a_pdf_lies_in_the_folder_of_the_report(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], file: str
) -> None:
    browser = project / "chromium"
    browser.write_text(
        '#!/bin/sh\nfor one in "$@"; do case "$one" in --print-to-pdf=*) '
        "printf '%%PDF-1.4' > \"${one#--print-to-pdf=}\";; esac; done\n"
    )
    browser.chmod(0o755)
    monkeypatch.setattr(pdf, "find_chromium", lambda: str(browser))
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert (project / file).read_bytes() == b"%PDF-1.4"
