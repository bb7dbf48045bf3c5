"""The index of experiments: each with what it found, and a link only where its report lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_report_html import Document

import report_results as made
from hostile_texts import HOSTILE
from workbench.report.html import render
from workbench.report.index import render_index, report_folder
from workbench.store.database import Store


def test_each_experiment_is_listed_with_its_finding(store: Store, tmp_path: Path) -> None:
    made.fill(store, made.results())
    made.fill(store, {"pairs": made.results()["pairs"]}, experiment="pairs-only")
    render(store, "quickstart", tmp_path / "quickstart")
    page = Document(render_index(store, tmp_path).read_text(encoding="utf-8"))
    for expected in ("quickstart", "pairs-only", "Attack success falls", "succeeded", "$0.00462"):
        assert expected in page.text
    links = [one["href"] for tag, one in page.elements if tag == "a"]
    assert links == ["#content", "./quickstart/index.html"]
    assert (tmp_path / links[1]).is_file()
    rows = [one for tag, one in page.elements if tag == "th" and one.get("scope") == "row"]
    assert [one["data-key"] for one in rows] == ["pairs-only", "quickstart"]


def test_an_empty_store_says_how_to_begin(store: Store, tmp_path: Path) -> None:
    page = Document(render_index(store, tmp_path).read_text(encoding="utf-8"))
    assert "No experiment ran here yet" in page.text
    assert not any(tag == "table" for tag, _ in page.elements)


def test_hostile_experiments_are_text_without_a_link(store: Store, tmp_path: Path) -> None:
    names = [one for one in HOSTILE if report_folder(tmp_path, one) is None]
    names = [one for one in names if one.isascii() or one.encode(errors="ignore").decode() == one]
    assert len(names) > 90
    run = made.make_run("run-x", "x", "pairs", result={})
    store.runs.add(run)
    for name in names:
        shown = {"file": name, "members": {"pairs": ["run-x"]}, "state": "failed", "owner": "t"}
        store.runs.set_experiment(name, **shown)
    page = Document(render_index(store, tmp_path).read_text(encoding="utf-8"))
    assert {one["href"] for tag, one in page.elements if tag == "a"} == {"#content"}
    assert not {tag for tag, _ in page.elements} & {"img", "iframe", "svg", "form", "object"}
    assert len(page.scripts) == 1  # the one that sorts


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "", "a\\b", "x" * 101, "a\n", "%2e%2e"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    assert report_folder(tmp_path, name) is None


def test_a_damaged_result_does_not_hide_the_other_experiments(store: Store, tmp_path: Path) -> None:
    made.fill(store, made.results())
    damaged = made.results()["ablation"][0] | {"combined": None}
    made.fill(store, {"ablation": [damaged]}, experiment="damaged")
    text = render_index(store, tmp_path).read_text(encoding="utf-8")
    assert "damaged" in text
    assert "quickstart" in text
