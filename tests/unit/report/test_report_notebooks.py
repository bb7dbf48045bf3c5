"""Executed notebooks as pages: all that they showed, nothing that acts."""

from __future__ import annotations

import base64
import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from test_report_html import Document

import report_results as made
from hostile_texts import HOSTILE
from workbench.core.errors import ConfigError
from workbench.report import outputs
from workbench.report.document import Frame, document
from workbench.report.html import render
from workbench.report.notebooks import notebook_file, notebook_page
from workbench.report.palette import DARK
from workbench.store.database import Store

PLOTLY = "application/vnd.plotly.v1+json"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
SCRIPTS = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def show(data: dict[str, Any]) -> dict[str, Any]:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def stream(text: Any, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def code(source: str, *shown: dict[str, Any]) -> dict[str, Any]:
    return {
        "cell_type": "code", "metadata": {}, "execution_count": 1, "source": source,
        "outputs": [*shown],
    }  # fmt: skip


def text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def notebook(*cells: dict[str, Any]) -> str:
    return json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [*cells]})


def html_of(*cells: dict[str, Any]) -> str:
    run = made.make_run("run-1", "quickstart", "train")
    page = notebook_page(run, notebook(*cells))
    return document(page.name, [page], Frame(title="quickstart", heading="")).decode()


def body_of(html: str) -> str:
    return html[html.index("<main") : html.index("</main>")]


def test_a_notebook_is_a_page_with_all_that_it_showed() -> None:
    frame = pd.DataFrame({"rate": [0.25, 0.75]}, index=["bare", "guarded"])
    html = html_of(
        text("# Title\n\nSome *words*, `code`.\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        code("x = 1 < 2", stream("one\n"), stream("two\n")),
        code("frame", show({"text/html": frame.to_html(), "text/plain": "plain"})),
        code("image", show({"image/png": PIXEL, "text/plain": "<Figure size 1x1>"})),
        code("1/0", {
            "output_type": "error", "ename": "E", "evalue": "no",
            "traceback": ["\x1b[31mE\x1b[0m: no"],
        }),
    )  # fmt: skip
    page = Document(html)
    for expected in ("Title", "x = 1 < 2", "one\ntwo", "guarded", "0.75", "E: no"):
        assert expected in page.text
    assert "⟨U+001B⟩" not in html
    assert f'<img src="data:image/png;base64,{PIXEL}" alt="&lt;Figure size 1x1&gt;">' in html
    assert "plain" not in body_of(html)


def test_tables_of_a_styler_survive() -> None:
    frame = pd.DataFrame({"rate": [0.25, 0.75]})
    styler = frame.style.highlight_max(color="#ffe0e0").bar(color="#5fba7d").set_caption("Rates")
    html = body_of(html_of(code("styled", show({"text/html": styler.to_html()}))))
    rules = dict(re.findall(r"(#o1 #o1-T_\w+)\{([^}]*)\}", html))
    assert any("background-color:#ffe0e0" in one for one in rules.values())
    assert any("linear-gradient(90deg, #5fba7d" in one for one in rules.values())
    for selector in rules:
        assert f'id="{selector.split("#")[-1]}"' in html
    assert "<caption>Rates</caption>" in html
    assert html.count("<caption") == 1


def test_every_table_has_a_caption_and_scopes() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    page = Document(html_of(code("frame", show({"text/html": frame.to_html()}))))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("table") == tags.count("caption") == 1
    assert {one.get("scope") for tag, one in page.elements if tag == "th"} == {"col", "row"}


def test_a_widget_is_shown_by_its_still_twin() -> None:
    view = "application/vnd.jupyter.widget-view+json"
    html = html_of(
        code(
            "a",
            show({view: {"model_id": "m"}, "text/html": "<p>the twin</p>", "text/plain": "W()"}),
        ),
        code("b", show({view: {"model_id": "m"}, "text/plain": "Slider()"})),
        code("c", show({"application/javascript": "window.probe=1"})),
    )
    assert "the twin" in html
    assert "Slider()" in html
    assert "application/javascript: not shown" in html
    assert "model_id" not in html
    assert "window.probe" not in html


def test_figures_are_drawn_by_the_one_plotly() -> None:
    spec = {
        "data": [{"type": "bar", "x": [1], "y": [float("nan")]}, {"x": [1, 2], "y": [3, 4]}],
        "layout": {"title": {"text": "<b>Two</b> traces"}, "width": 3000},
    }
    html = html_of(code("figure", show({PLOTLY: spec, "text/html": "<script>x</script>"})))
    blocks = re.findall(r'class="figure-data">(.*?)</script>', html)
    assert len(blocks) == 1
    drawn = json.loads(blocks[0])
    assert [one["y"] for one in drawn["data"]] == [[None], [3, 4]]
    assert "width" not in drawn["layout"]
    assert "Two traces" in " ".join(Document(html).text.split())
    assert sum(len(one) > 1_000_000 for one in SCRIPTS.findall(html)) == 1
    assert len(html.encode()) <= 6_000_000


@pytest.mark.parametrize(
    "spec",
    [
        {"data": [{"type": "scattergeo", "lat": [1], "lon": [1]}], "layout": {}},
        {"data": [{"type": "densitymapbox"}], "layout": {"mapbox": {"style": "http://x"}}},
        {"data": [{"type": "image", "source": "http://192.0.2.1/x"}], "layout": {}},
        {"data": [], "layout": {}},
        {},
    ],
)
def test_figures_that_ask_a_server_are_not_drawn(spec: dict[str, Any]) -> None:
    assert outputs.safe_figure(spec) is None
    html = html_of(code("figure", show({PLOTLY: spec, "text/plain": "Figure(map)"})))
    assert "Figure(map)" in html


def test_a_figure_loses_images_and_links() -> None:
    layout = {
        "images": [{"source": "http://192.0.2.1/x"}],
        "annotations": [{"text": "<a href='http://192.0.2.1'>x</a> <b>y</b> < A x"}],
    }
    made_safe = outputs.safe_figure({"data": [{"x": [1]}], "layout": layout})
    assert made_safe is not None
    assert "images" not in made_safe["layout"]
    shown = made_safe["layout"]["annotations"][0]["text"]
    assert not re.search(r"<\s*/?\s*a\b", shown, re.IGNORECASE)
    assert "<b>y</b>" in shown


def test_a_figure_wears_the_colors_of_the_page_by_day_and_night() -> None:
    shown = go.Figure(go.Bar(y=[1])).to_plotly_json()  # white, by Plotly's own template
    made_safe = outputs.safe_figure(shown)
    assert made_safe is not None
    look = made_safe["layout"]["template"]["layout"]
    assert look["paper_bgcolor"] == look["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert {look["font"]["color"], *look["colorway"], look["xaxis"]["gridcolor"]} <= DARK.keys()
    shown["layout"]["paper_bgcolor"] = "pink"
    own = outputs.safe_figure(shown)
    assert own is not None
    assert own["layout"]["paper_bgcolor"] == "pink"  # said by the notebook itself
    assert go.Figure(own).data


@pytest.mark.parametrize(
    "place", ["text/html", "text/markdown", "markdown", "code", "stream", "error"]
)
def test_hostile_texts_do_nothing(place: str) -> None:
    error = {"output_type": "error", "ename": "x", "evalue": "x"}
    makers = {
        "markdown": text,
        "code": code,
        "stream": lambda one: code("x", stream(one)),
        "error": lambda one: code("x", {**error, "traceback": [one]}),
    }
    make = makers.get(place, lambda one: code("x", show({place: one})))
    cells = [make(one) for one in HOSTILE]
    html = html_of(*cells)
    page = Document(html)
    assert [one for one, _ in page.scripts] == []
    tags = {tag for tag, _ in page.elements}
    assert not tags & {
        "iframe", "object", "embed", "base", "form", "input", "video", "audio", "math", "template",
        "animate", "foreignobject", "use", "image",
    }  # fmt: skip
    for tag, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes)
        if tag not in ("link", "a"):
            assert "href" not in attributes
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/")
        assert "url(" not in (attributes.get("style") or "")
    links = {one.get("href") for tag, one in page.elements if tag == "a"}
    assert links <= {"#content", None}
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    assert "192.0.2.1" not in "".join(re.findall(r"<style>(.*?)</style>", html, re.DOTALL))


@pytest.mark.parametrize(
    ("css", "kept"),
    [
        ("#T_1_row0 {color: red}", "#o #o-T_1_row0{color:red}"),
        (".a, td.b > p:hover {color: red}", "#o .o-a,#o td.o-b > p:hover{color:red}"),
        ("body {background: url(http://x)}", ""),
        ("p {background: u\\72l(http://x)}", ""),
        ("p {background: image-set('http://x' 1x)}", ""),
        ("p {background: linear-gradient(red, url(x))}", ""),
        ("p {position: fixed; z-index: 9; color: red}", "#o p{color:red}"),
        ("p {color: var(--ink)}", "#o p{color:var(--ink)}"),
        ("p {color: 'x</style><script>'}", ""),
        ("@import 'http://x'; p {color: red}", "#o p{color:red}"),
        ("@font-face {src: url(http://x)}", ""),
        ("@media (prefers-color-scheme: dark) {.a {color: red} @import 'x';}",
         "@media (prefers-color-scheme: dark){#o .o-a{color:red}}"),
        ("a[href^='x'] {color: red}", ""),
        ("p {color: red} } </style>", "#o p{color:red}"),
    ],
)  # fmt: skip
def test_style_sheets_keep_what_only_looks(css: str, kept: str) -> None:
    html = str(outputs.rich(f"<style>{css}</style><p>x</p>", name="o", caption="c"))
    assert (html.partition("</style>")[0].removeprefix("<style>") if kept else "") == kept
    assert html.count("<style>") == bool(kept)


def test_classes_and_ids_take_the_place_of_nothing() -> None:
    hostile = '<div id="content" class="sortable figure-data plot">x</div>'
    html = str(outputs.rich(hostile, name="o7", caption="c"))
    assert 'id="o7-content"' in html
    assert 'class="o7-sortable o7-figure-data o7-plot"' in html


def test_terminals_are_read_as_people_see_them() -> None:
    bar = "".join(f"\r{step} %" for step in range(0, 101, 10))
    assert outputs.plain_text(f"{bar}\ndone\r\n\x1b[1;31mred\x1b[0m") == "100 %\ndone\nred"
    assert outputs.plain_text("\x1b]8;;http://x\x07link\x1b]8;;\x07") == "link"


@pytest.mark.parametrize(
    ("mime", "data", "is_shown"),
    [
        ("image/png", PIXEL, True),
        ("image/jpeg", PIXEL, False),
        ("image/png", base64.b64encode(b"<svg onload=x>").decode(), False),
        ("image/png", "%%%", False),
        ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", True),
        ("image/svg+xml", "<p>", False),
        ("image/x", PIXEL, False),
    ],
)
def test_images_are_what_they_say(mime: str, data: str, is_shown: bool) -> None:
    address = outputs.image(mime, data)
    assert (address is not None) == is_shown
    if address:
        assert re.fullmatch(rf"data:{re.escape(mime)};base64,[A-Za-z0-9+/=]+", address)


def test_headings_skip_no_level() -> None:
    page = Document(html_of(text("#### deep\n\n# top\n\n###### six"), text("### three\n\n## two")))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert levels.count(1) == 1


def test_a_page_never_grows_too_large() -> None:
    wide = {"data": [{"type": "bar", "x": [*range(200_000)]}], "layout": {}}
    html = html_of(
        code("a", show({PLOTLY: wide})),
        code("b", show({"text/html": "<p>" + "x" * 9_000_000})),
        code("c", stream("y" * 9_000_000)),
        code("d", stream("the end")),
    )
    assert len(html.encode()) <= 6_000_000
    assert html.count("are left out here: the page would be too large") == 2
    assert "characters are left out here" in html
    assert "the end" in html


@pytest.mark.parametrize(
    "torn",
    ["", "{", "[]", "{}", '{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{}]}',
     '{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": 3}', "[" * 100_000],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_notebook_is_a_page_that_says_so(torn: str) -> None:
    page = notebook_page(made.make_run("run-1", "quickstart", "train"), torn)
    assert any("This notebook cannot be read" in one.text for one in page.notes)


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    made.fill(store, {"pairs": made.results()["pairs"], "train": made.results()["train"][:3]})
    for at, run in enumerate(store.runs.find(experiment="quickstart", step="train")[:2]):
        folder = tmp_path / f"run-{at}"
        folder.mkdir()
        (folder / "notebook.ipynb").write_text(notebook(text(f"# Notebook {at}")))
        store.runs.update(run.id, folder=str(folder), notebook="notebooks/02_train_phase.ipynb")
    return store


def test_the_report_leads_to_its_notebooks(filled: Store, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    index = render(filled, "quickstart", folder, notebooks=True)
    files = {path.name for path in folder.glob("notebook-*.html")}
    assert len(files) == 2
    for page in (index, folder / "notebooks.html"):
        links = {one.get("href") for tag, one in Document(page.read_text()).elements if tag == "a"}
        assert files < links
        assert "notebooks.html" in links
    assert "Notebook 0" in "".join((folder / name).read_text() for name in files)


def test_a_changed_notebook_is_written_again(filled: Store, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    render(filled, "quickstart", folder, notebooks=True)
    run = filled.runs.find(experiment="quickstart", step="train")[0]
    page = folder / f"{notebook_file(run.id)}.html"
    before = page.stat().st_mtime_ns
    render(filled, "quickstart", folder, notebooks=True)
    assert page.stat().st_mtime_ns == before
    (tmp_path / "run-0" / "notebook.ipynb").write_text(notebook(text("# Another")))
    render(filled, "quickstart", folder, notebooks=True)
    assert "Another" in page.read_text()


def test_without_notebooks_none_is_left(filled: Store, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    render(filled, "quickstart", folder, notebooks=True)
    (folder / "notebook-of-mine.html").write_text("mine")
    render(filled, "quickstart", folder)
    assert [path.name for path in folder.glob("notebook*.html")] == ["notebook-of-mine.html"]
    assert "notebook-" not in (folder / "index.html").read_text()


def test_a_single_file_holds_no_notebooks(filled: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pages of their own"):
        render(filled, "quickstart", tmp_path, single_file=True, notebooks=True)


@pytest.mark.parametrize(
    "slow",
    [
        "<style>",
        "<script>",
        "<style",
        "\r",
        "<",
        "< ",
        "\x1b]",
        "[",
        "*a_",
        "<div>",
        "`",
        "<b x>",
        "<p>",
    ],
)
def test_no_text_takes_long(slow: str) -> None:
    many = slow * (50_000 // len(slow))
    started = time.process_time()
    outputs.plain_text(many)
    outputs.safe_figure({"data": [{"x": [1], "name": many}]})
    html_of(code("x", show({"text/html": many})), code(many, stream(many)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("deep", ["<div>", "<b x>", "<", "<p>", "<ul><li>"])
def test_html_that_would_take_long_is_not_read(deep: str) -> None:
    assert not outputs.is_calm_html(deep * 100_000)
    assert outputs.is_calm_html(pd.DataFrame({"a": [1] * 2_000}).to_html())


@pytest.mark.parametrize(
    "html",
    [
        "<p " + " ".join(f"a{n}" for n in range(100_000)) + ">x</p>",
        "<p " + "".join(f"a{n}/" for n in range(100_000)) + ">x</p>",
        "<p " + "".join(f"a{n}='<'" for n in range(50_000)) + ">x</p>",
        "<p " + "".join(f'a{n}=">"' for n in range(50_000)) + ">x</p>",
        "<!--<i a='-->" + "<p " + " ".join(f"a{n}" for n in range(50_000)) + "'>x</p>",
        "<p a=" * 40_000,
        "&" * 900_000,
    ],
)
def test_what_a_parser_is_slow_at_is_left_out(html: str) -> None:
    began = time.monotonic()
    page = html_of(code("1", show({"text/html": html})))
    assert time.monotonic() - began < 5
    assert "are left out here" in page


@pytest.mark.parametrize(
    "output",
    [
        show({"text/html": "<style>a{color:" + "(" * 50_000 + "</style>"}),
        show({"text/html": "<style>" + "@media print{" * 5_000 + "</style>"}),
        show({PLOTLY: {"data": 5, "layout": []}}),
        show({PLOTLY: {"data": [{"type": ["x"]}], "layout": {}}}),
        {"output_type": "stream"},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_output_that_cannot_be_read_hides_no_other(output: dict[str, Any]) -> None:
    page = html_of(text("before it"), code("1", output), text("behind it"))
    assert "Cell 2 cannot be shown" in page
    assert "before it" in page
    assert "behind it" in page


def test_an_image_with_half_a_character_is_shown() -> None:
    page = html_of(code("1", show({"image/svg+xml": "<svg>\ud800</svg>"})))
    assert "data:image/svg+xml" in page
