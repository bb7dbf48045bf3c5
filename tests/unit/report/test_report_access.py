"""Accessible: contrast computed, headings in order, words for every figure, tables with heads."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report_html import Document
from test_report_notebooks import code, notebook, show, text

import report_results as made
from workbench.core.settings import read_settings
from workbench.report import palette
from workbench.report.compare import render_compare
from workbench.report.html import render
from workbench.report.index import render_index
from workbench.store.database import open_store

CSS = (Path(palette.__file__).parent / "templates" / "theme.css").read_text(encoding="utf-8")
WORDS = ("ink", "muted", "accent", "warn")
"""Properties that words are written in."""
MARKS = ("blue", "orange", "green", "vermillion", "purple", "sky", "gray")
LEAST_OF_WORDS, LEAST_OF_MARKS = 4.5, 3.0
PAGES = (
    "reports/index", "reports/first/index", "reports/first/data", "reports/first/scaling",
    "reports/first/frontier", "reports/first/campaign", "reports/first/risk", "reports/first/cost",
    "reports/first/notebooks", "reports/first/compare-other", "single/index", "notebook",
)  # fmt: skip


def themes() -> list[dict[str, str]]:
    """Return the custom properties by theme: light, dark, paper; each on top of the light one."""
    found = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6}|#[0-9a-f]{3})\b", block))
        for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    ]
    return [found[0] | one for one in found]


def channels(color: str) -> list[float]:
    digits = color.removeprefix("#")
    digits = "".join(one * 2 for one in digits) if len(digits) == 3 else digits
    return [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]


def luminance(color: list[float]) -> float:
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast of WCAG 2.2 between two colors."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast(channels("#000"), channels("#fff")) == pytest.approx(21)
    assert contrast(channels("#777777"), channels("#ffffff")) == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [0, 1, 2], ids=["light", "dark", "paper"])
def test_words_and_marks_stand_out(theme: int) -> None:
    named = themes()[theme]
    assert {*WORDS, *MARKS, "paper", "soft"} <= named.keys()
    for word, ground in itertools.product(WORDS, ("paper", "soft")):
        assert contrast(channels(named[word]), channels(named[ground])) >= LEAST_OF_WORDS, word
    for mark in MARKS:
        assert contrast(channels(named[mark]), channels(named["paper"])) >= LEAST_OF_MARKS, mark


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_stand_out_on_tones(theme: int) -> None:
    named = themes()[theme]
    paper = channels(named["paper"])
    solid = re.search(r"\.t-critical \{ background: var\(--(\w+)\); color: var\(--(\w+)\)", CSS)
    assert solid
    assert contrast(*(channels(named[name]) for name in solid.groups())) >= LEAST_OF_WORDS
    mixes = re.findall(
        r"\.(?:t-\w+|empty\.t-\w+) \{ background: color-mix\(in srgb, var\(--(\w+)\) (\d+)%", CSS
    )
    assert len(mixes) == 6
    for name, share in mixes:
        tone = [
            int(share) / 100 * a + (1 - int(share) / 100) * b
            for a, b in zip(channels(named[name]), paper, strict=True)
        ]
        assert contrast(channels(named["ink"]), tone) >= LEAST_OF_WORDS, name


def test_figures_have_the_colors_of_the_theme() -> None:
    light, dark, _ = themes()
    for name in (*MARKS, "ink", "muted", "paper"):
        assert palette.COLORS[name] == light[name]
        assert palette.DARK[light[name]] == dark[name]
    for ground, colors in (("paper", palette.TEXT.items()),):
        for name, color in colors:
            if name in MARKS:
                assert contrast(channels(color), channels(light[ground])) >= LEAST_OF_WORDS
                shown = palette.DARK[color]
                assert contrast(channels(shown), channels(dark[ground])) >= LEAST_OF_WORDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return one page of each type."""
    home = tmp_path_factory.mktemp("access")
    store = open_store(read_settings({"WORKBENCH_HOME": str(home / "home")}))
    made.fill(store, made.results(), experiment="first")
    made.fill(store, made.results(), experiment="other")
    spec = {"data": [{"type": "bar", "x": [1], "y": [2]}], "layout": {"title": {"text": "T"}}}
    cells = (
        text("### deep\n\n| a |\n|---|\n| 1 |"),
        code("x", show({"application/vnd.plotly.v1+json": spec})),
        code("y", show({"text/html": "<h4>x</h4><table><tr><th>a</th></tr></table>"})),
        code("z", show({"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>"})),
    )
    (home / "notebook.ipynb").write_text(notebook(*cells))
    run = store.runs.find(experiment="first")[0]
    store.runs.update(run.id, folder=str(home))
    render(store, "first", home / "reports" / "first", notebooks=True)
    render_compare(store, "first", "other", home / "reports" / "first")
    render_index(store, home / "reports")
    render(store, "first", home / "single", single_file=True)
    next(home.glob("reports/first/notebook-*.html")).rename(home / "notebook.html")
    store.engine.dispose()
    return home


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, folder: Path) -> Document:
    return Document((folder / f"{request.param}.html").read_text(encoding="utf-8"))


def test_the_page_has_a_language_a_title_and_a_way_past_its_head(page: Document) -> None:
    assert dict(page.elements[0][1])["lang"] == "en"
    tags = [tag for tag, _ in page.elements]
    assert tags.count("title") == tags.count("main") == 1
    body = page.elements[tags.index("body") + 1 :]
    assert body[0] == ("a", {"class": "skip", "href": "#content"})
    assert any(tag == "main" and one.get("id") == "content" for tag, one in body)


def test_headings_skip_no_level(page: Document) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    jumps = [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1]
    assert jumps == []


def test_tables_have_captions_and_heads_with_scope(page: Document) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption")
    for tag, one in page.elements:
        if tag == "th":
            assert one.get("scope") in {"col", "row"}


def test_everything_drawn_has_words(page: Document) -> None:
    for tag, one in page.elements:
        if tag == "img":
            assert one["alt"].strip()
        if tag == "svg" or one.get("class") == "plot":
            assert one["role"] == "img"
            assert one["aria-label"].strip()


def test_what_takes_the_focus_has_a_name(page: Document) -> None:
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    for tag, one in page.elements:
        if one.get("tabindex") == "0" and tag != "pre":
            assert one.get("role") == "region"
            assert one["aria-label"].strip()
        if "aria-labelledby" in one:
            assert one["aria-labelledby"] in ids
        if tag == "input":
            assert ("label", {"for": one["id"]}) in page.elements


def test_focus_is_seen_and_motion_is_not_forced() -> None:
    assert re.search(r":focus-visible \{ outline: 2px solid var\(--accent\)", CSS)
    assert "@media (prefers-reduced-motion: reduce)" in CSS
    hidden = [one for one in re.findall(r"([^{}]+)\{[^}]*outline: none", CSS) if "main" not in one]
    assert hidden == []


def test_the_figure_of_a_notebook_is_named_by_its_title(folder: Path) -> None:
    page = Document((folder / "notebook.html").read_text(encoding="utf-8"))
    labels = [one["aria-label"] for _, one in page.elements if one.get("class") == "plot"]
    assert labels == ["T. Figure of cell 2"]
    blocks = [text for one, text in page.scripts if one.get("class") == "figure-data"]
    assert json.loads(blocks[0])["data"][0]["type"] == "bar"
