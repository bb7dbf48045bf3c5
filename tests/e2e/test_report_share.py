"""What is shared, in a real browser: nothing asked, nothing hostile run, readable and printable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import report_results as made
from browser import chromium
from machine import require
from report_hostile import hostile_report
from workbench.core.settings import read_settings
from workbench.report.compare import render_compare
from workbench.report.html import render
from workbench.report.index import render_index
from workbench.report.pdf import find_chromium, render_pdf
from workbench.store.database import Store, open_store

pytestmark = pytest.mark.slow

DESKTOP = {"width": 1180, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path]]:
    """A store with two experiments, and a folder with an index of both, of which one has pages."""
    folder = tmp_path_factory.mktemp("finished")
    steps = made.results() | {"assessment": [made.assessment(register=40)]}  # few pages of paper
    store = open_store(read_settings({"WORKBENCH_HOME": str(folder / "home")}))
    for name in ("first", "other"):
        made.fill(store, steps, experiment=name)
    render(store, "first", folder / "first")
    render_compare(store, "first", "other", folder / "first")
    render_index(store, folder)
    yield store, folder
    store.engine.dispose()


def seen(browser: Any, file: Path, **look: Any) -> Any:
    """Return the page of an opened file, once what must hold of every page does."""
    page = browser.new_context(**{"viewport": DESKTOP} | look).new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: errors.append(line.text) if line.type in ("error", "warning") else None,
    )
    page.goto(file.as_uri())
    drawn(page)
    # what a page holds in itself is no request
    assert [one for one in asked if not one.startswith("data:")] == [file.as_uri()]
    assert errors == []
    harmless(page, file)
    return page


def drawn(page: Any) -> None:
    """Wait until all figures are there."""
    if int(page.get_attribute("html", "data-figures") or 0):
        page.wait_for_selector("html[data-figures-drawn]", state="attached")


def harmless(page: Any, file: Path) -> None:
    """Check that no text got its way, and that all is shown."""
    assert page.evaluate("window.probe") is None
    assert page.evaluate("window.__pwned") is None
    figures = int(page.get_attribute("html", "data-figures") or 0)
    assert page.locator(".js-plotly-plot").count() == figures
    assert page.locator(".fallback:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), file.name
    assert page.locator("[data-probe]").count() == 0


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return hostile_report(tmp_path_factory.mktemp("hostile"))


def test_a_hundred_hostile_texts_do_nothing_on_any_page(browser: Any, hostile: list[Path]) -> None:
    names = [re.sub(r"-[0-9a-f]{12}", "", file.stem) for file in hostile]
    assert {"index", "notebook", "notebooks", "compare-other", "campaign", "risk"} <= {*names}
    for file in hostile:
        is_single = file.parent.name == "single"
        assert file.stat().st_size <= (8_000_000 if is_single else 6_000_000)
        if is_single:  # all pages once more, as a phone has them from the first
            page = seen(browser, file, color_scheme="dark", viewport=PHONE)
        else:
            page = seen(browser, file)
            turned(page, file)
        page.context.close()


def turned(page: Any, file: Path) -> None:
    """Have a page drawn anew, dark and as narrow as a phone."""
    page.evaluate("delete document.documentElement.dataset.figuresDrawn")
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    drawn(page)
    harmless(page, file)


def test_the_index_leads_on_by_keyboard_and_searches(
    browser: Any, finished: tuple[Store, Path]
) -> None:
    page = seen(browser, finished[1] / "index.html")
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


def test_words_of_a_wide_table_are_not_squeezed_on_a_phone(
    browser: Any, finished: tuple[Store, Path]
) -> None:
    page = seen(browser, finished[1] / "first" / "compare-other.html", viewport=PHONE)
    told = page.locator("td > bdi", has_text="not told apart").evaluate_all(
        "all => all.map(one => one.getClientRects().length && one.clientHeight)"
    )
    line = page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).lineHeight)")
    assert told
    assert max(told) < 2 * line
    page.context.close()


def test_the_box_of_words_can_be_read_at_night(browser: Any, finished: tuple[Store, Path]) -> None:
    page = seen(browser, finished[1] / "index.html", color_scheme="dark")
    hint = "getComputedStyle(document.querySelector('.filter input'), '::placeholder').color"
    muted = "getComputedStyle(document.querySelector('.filter output')).color"
    assert page.evaluate(hint) == page.evaluate(muted)
    page.context.close()


def test_a_report_is_printed_whole_and_light(finished: tuple[Store, Path], tmp_path: Path) -> None:
    require("chromium", "chromium", "chromium-browser")
    from pypdf import PdfReader

    file = render_pdf(finished[0], "first", tmp_path / "first.pdf", timeout_s=120)
    reader = PdfReader(file)
    words = " ".join(page.extract_text() for page in reader.pages)
    for expected in ("What first found", "Attack success by plugin", "Register of risks"):
        assert expected in words
    assert "not drawn" not in words
    assert "harm-violence" in words
    assert len(reader.pages) >= 20


def test_no_figure_or_table_is_wider_than_paper(
    browser: Any, finished: tuple[Store, Path], tmp_path: Path
) -> None:
    file = render(finished[0], "first", tmp_path, single_file=True)
    paper = {"width": 695, "height": 1000}
    page = seen(browser, file, color_scheme="dark", viewport=paper)
    for scheme in ("dark", "light"):
        page.emulate_media(media="print", color_scheme=scheme)
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
