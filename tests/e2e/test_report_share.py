"""What is shared, in a real browser: nothing asked, nothing hostile run, readable and printable."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

import report_results as made
from conftest import require
from hostile_texts import HOSTILE
from workbench.report.compare import render_compare
from workbench.report.html import render
from workbench.report.index import render_index
from workbench.report.pdf import find_chromium, render_pdf
from workbench.store.database import Store

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
LOOKS = {
    "desktop-light": {"color_scheme": "light", "viewport": {"width": 1180, "height": 900}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}
FIRST_FIGURE_S, TRIES = 2.0, 3
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = require("chromium", "chromium", "chromium-browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield opened
        opened.close()


def seen(browser: Any, file: Path, **look: Any) -> tuple[Any, float]:
    """Open a file; check what must hold of every page; return it and when a figure was there."""
    page = browser.new_context(**look).new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: errors.append(line.text) if line.type in ("error", "warning") else None,
    )
    page.goto(file.as_uri())
    figures = int(page.get_attribute("html", "data-figures") or 0)
    if figures:
        page.wait_for_selector("html[data-figures-drawn]", state="attached")
    first_s = float(page.get_attribute("html", "data-first-figure-ms") or 0) / 1000
    # what a page holds in itself is no request
    assert [one for one in asked if not one.startswith("data:")] == [file.as_uri()]
    assert errors == []
    assert page.evaluate("window.probe") is None
    assert page.evaluate("window.__pwned") is None
    assert page.locator(".js-plotly-plot").count() == figures
    assert page.locator(".fallback:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), file.name
    assert page.locator("[data-probe]").count() == 0
    return page, first_s


def spoilt(value: Any, texts: Iterator[str]) -> Any:
    """Return a result in which every text is led by the next hostile one, keys as they are."""
    if isinstance(value, str):
        shown = next(texts).encode(errors="replace").decode().replace("\0", "")
        return shown + value
    if isinstance(value, list):
        return [spoilt(one, texts) for one in value]
    if isinstance(value, dict):
        kept = {"kind", "group", "target", "split", "method"}
        return {
            key: one if key in kept and isinstance(one, str) else spoilt(one, texts)
            for key, one in value.items()
        }
    return value


def notebook(texts: tuple[str, ...]) -> str:
    cells: list[dict[str, Any]] = []
    code = {"cell_type": "code", "metadata": {}, "execution_count": 1}
    for one in texts:
        title = {"title": {"text": one}}
        bar = {"type": "bar", "x": [one], "y": [1], "name": one}
        figure = {"data": [bar], "layout": {**title, "xaxis": title}}
        picture = f"<svg xmlns='http://www.w3.org/2000/svg'>{one}</svg>"
        shown: list[dict[str, Any]] = [
            {f"text/{kind}": one} for kind in ("html", "markdown", "plain")
        ]
        shown += [{"image/svg+xml": picture}]
        shown += [{PLOTLY: figure}] if len(cells) < 20 else []
        found = [{"output_type": "display_data", "metadata": {}, "data": data} for data in shown]
        streamed = {"output_type": "stream", "name": "stdout", "text": one}
        cells.append({"cell_type": "markdown", "metadata": {}, "source": one})
        cells.append({**code, "source": one, "outputs": [*found, streamed]})
    return json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells})


@pytest.fixture
def shared(store: Store, tmp_path: Path) -> list[Path]:
    """Return one page of every type, with every hostile text in them."""
    texts = cycle(HOSTILE)
    steps = {step: [spoilt(one, texts) for one in found] for step, found in made.results().items()}
    made.fill(store, steps, experiment="first")
    made.fill(store, made.results(), experiment="other")
    book = tmp_path / "notebook.ipynb"
    book.write_text(notebook(HOSTILE), encoding="utf-8", errors="surrogatepass")
    run = store.runs.find(experiment="first")[0]
    store.runs.update(run.id, folder=str(tmp_path))
    reports = tmp_path / "reports"
    render(store, "first", reports / "first", notebooks=True)
    render_compare(store, "first", "other", reports / "first")
    render(store, "first", tmp_path / "single", single_file=True)
    render_index(store, reports)
    return [*sorted(reports.rglob("*.html")), tmp_path / "single" / "index.html"]


@pytest.mark.parametrize("look", LOOKS)
def test_a_hundred_hostile_texts_do_nothing_on_any_page(
    browser: Any, shared: list[Path], look: str
) -> None:
    names = [re.sub(r"-[0-9a-f]{12}", "", file.stem) for file in shared]
    assert {"index", "notebook", "notebooks", "compare-other", "campaign", "risk"} <= {*names}
    for file in shared:
        is_single = file.parent.name == "single"
        assert file.stat().st_size <= (8_000_000 if is_single else 6_000_000)
        page, first_s = seen(browser, file, **LOOKS[look])
        for _ in range(TRIES - 1):  # what else the machine does is not the page's
            if first_s > FIRST_FIGURE_S:
                page.context.close()
                page, first_s = seen(browser, file, **LOOKS[look])
        assert first_s <= FIRST_FIGURE_S, f"{file.name}: {first_s:.2f} s"
        page.context.close()


def test_the_index_leads_on_by_keyboard_and_searches(
    browser: Any, store: Store, tmp_path: Path
) -> None:
    for name in ("first", "other"):
        made.fill(store, made.results(), experiment=name)
    render(store, "first", tmp_path / "first")
    page, _ = seen(browser, render_index(store, tmp_path))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.fill(".filter input", "other")
    assert page.locator(".sortable tbody tr:visible").count() == 1
    page.fill(".filter input", "")
    page.focus("tbody a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/first/index.html")
    page.context.close()


def test_a_report_is_printed_whole_and_light(store: Store, tmp_path: Path) -> None:
    require("chromium", "chromium", "chromium-browser")
    from pypdf import PdfReader

    made.fill(store, made.results(), experiment="first")
    file = render_pdf(store, "first", tmp_path / "first.pdf", timeout_s=120)
    reader = PdfReader(file)
    words = " ".join(page.extract_text() for page in reader.pages)
    for expected in ("What first found", "Attack success by plugin", "Register of risks"):
        assert expected in words
    assert "not drawn" not in words
    assert "harm-violence" in words
    assert len(reader.pages) >= 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_figure_or_table_is_wider_than_paper(
    browser: Any, store: Store, tmp_path: Path, scheme: str
) -> None:
    made.fill(store, made.results(), experiment="first")
    file = render(store, "first", tmp_path, single_file=True)
    paper = {"width": 695, "height": 1000}
    page, _ = seen(browser, file, color_scheme=scheme, viewport=paper)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("[...document.querySelectorAll('.main-svg')].every("
                           "one => one.getBoundingClientRect().width <= 660)")  # fmt: skip
    assert page.evaluate("document.documentElement.scrollWidth") <= paper["width"]
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    ticks = "getComputedStyle(document.querySelector('.xtick text')).fill"
    assert page.evaluate(ticks) == "rgb(35, 34, 31)"
    page.context.close()


def test_printing_asks_nobody(tmp_path: Path) -> None:
    require("chromium", "chromium", "chromium-browser")
    import http.server
    import threading

    from workbench.report.pdf import print_pdf

    asked: list[str] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        page = tmp_path / "page.html"
        page.write_text(f"<p>x</p><img src='http://name.invalid:{port}/a'><img "
                        f"src='http://localhost:{port}/b'>")  # fmt: skip
        print_pdf(page, tmp_path / "x.pdf", program=find_chromium(), timeout_s=60)
        server.shutdown()
    assert asked == []
