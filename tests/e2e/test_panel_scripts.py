"""The scripts of panels in a real browser, with a stand-in for what connects them to a kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from browser import chromium
from finding_fakes import make_finding
from hostile_texts import HOSTILE
from workbench.notebook.widgets import look
from workbench.notebook.widgets.monitor import Monitor
from workbench.notebook.widgets.panel import View
from workbench.notebook.widgets.register import Register
from workbench.notebook.widgets.table import PagedTable, Rows
from workbench.notebook.widgets.triage import Triage
from workbench.store.findings import add_findings

CONNECT = """async ([script, state]) => {
  const told = [];
  const model = {
    get: (name) => state[name],
    on: (_, listener) => told.push(listener),
    off: () => {},
    send: async (content) => {
      for (const one of await window.kernel(content)) told.forEach((hear) => hear(one));
    },
  };
  window.hear = (message) => told.forEach((listener) => listener(message));
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const module = await import(url);
  const el = document.createElement("div");
  document.body.append(el);
  module.default.render({ model, el });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def connect(browser):
    """Show a widget on an empty page; what it sends comes back as what the page is told."""
    errors: list[str] = []
    requests: list[str] = []
    pages = []

    def show(widget, names):
        page = browser.new_context(viewport={"width": 1000, "height": 800}).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        answers: list[Any] = []
        widget.send = lambda content, buffers=None: answers.append(json.loads(json.dumps(content)))

        def kernel(content):
            answers.clear()
            widget._handle_custom_msg(content, [])
            return list(answers)

        page.expose_function("kernel", kernel)
        state = {name: getattr(widget, name) for name in names}
        page.add_style_tag(content=str(getattr(widget, "_css", "")) or " ")
        page.evaluate(CONNECT, [str(widget._esm), state])
        pages.append(page)
        return page

    yield show
    assert [page.evaluate("window.probe") for page in pages] == [None] * len(pages)
    assert errors == []
    assert [url for url in requests if not url.startswith("blob:")] == []


TABLE = ("label", "heads", "widths", "height", "page_size")


def active(page):
    return page.locator(".wb-active").inner_text()


def test_a_table_is_walked_by_keyboard(connect):
    opened = []
    rows = [{"key": f"k{n:05d}", "n": n, "text": f"row {n}"} for n in range(100_000)]
    table = PagedTable(Rows(rows), label="Many", key="key", opened=opened.append, height=10)
    page = connect(table, TABLE)
    grid = page.get_by_role("grid", name="Many")
    page.get_by_text("row 9", exact=True).wait_for()
    assert grid.get_attribute("aria-rowcount") == "100001"
    assert grid.locator('[role="row"]').count() == 11  # no more than is seen
    grid.focus()
    for key, expected in (
        ("ArrowDown", "k00001"), ("PageDown", "k00011"), ("End", "k99999"), ("ArrowDown", "k99999"),
        ("PageUp", "k99989"), ("ArrowRight", "99989"), ("Home", "0"), ("ArrowLeft", "k00000"),
    ):  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_function("!document.querySelector('.wb-active')?.textContent.includes('…')")
        assert active(page).replace(",", "") == expected, key
    here = page.locator(".wb-active")
    assert grid.get_attribute("aria-activedescendant") == here.get_attribute("id")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    page.locator('[role="row"][aria-selected="true"]').wait_for()
    assert opened == ["k00001"]
    assert table.selected == ["k00001"]


def test_a_table_sorts_filters_and_scrolls(connect):
    rows = [{"key": f"k{n:04d}", "n": (n * 7) % 1000} for n in range(1_000)]
    table = PagedTable(Rows(rows), label="Some", key="key", height=10)
    page = connect(table, TABLE)
    head = page.get_by_role("columnheader", name="N", exact=True)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    page.locator('[aria-rowindex="2"]').get_by_text("999").wait_for()
    page.get_by_role("searchbox").fill("k0001")
    page.get_by_text("1–1 of 1 rows").wait_for()
    page.get_by_role("searchbox").fill("no such")
    page.get_by_text("no rows").wait_for()
    page.get_by_role("searchbox").fill("")
    page.get_by_text("1–10 of 1,000 rows").wait_for()
    page.locator(".wb-grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight }")
    page.get_by_text("991–1,000 of 1,000 rows").wait_for()
    table.replace(Rows(rows[:3]))
    page.evaluate("window.hear({ stale: 1 })")
    page.get_by_text("1–3 of 3 rows").wait_for()


PLACES = """row => [...row.children].map(cell => {
  const place = cell.getBoundingClientRect();
  return [Math.round(place.left), Math.round(place.right)];
})"""


@pytest.mark.parametrize("make", [Triage, Register, Monitor])
def test_all_columns_are_in_sight_in_a_lab(connect, store, make):
    add_findings(store.engine, [make_finding(1, target="https://example.org/" + "long-name/" * 40)])
    panel = make(store)
    panel.build()
    table = panel.attempts if make is Monitor else panel.table
    page = connect(table, TABLE)
    page.set_viewport_size({"width": 816, "height": 800})  # a cell of a Lab that is 1,280 wide
    page.get_by_text(re.compile("rows$")).first.wait_for()
    grid = page.locator(".wb-grid")
    assert grid.evaluate("grid => grid.scrollWidth - grid.clientWidth") == 0
    rows = grid.locator("[role=row]").evaluate_all(f"rows => rows.slice(0, 2).map({PLACES})")
    assert make is not Triage or rows[0] == rows[1]  # a head is above its column
    wanted = ["Risk", "Severity", "Guess", "Status"] if make is Triage else []
    for head in wanted:
        button = page.get_by_role("button", name=head, exact=True)
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth"), head
    panel.close()


@pytest.mark.parametrize("width", [816, 400])
def test_long_names_break_no_page(browser, width):
    name = "https://example.org/" + "x" * 300
    rate = {"value": 0.5, "low": 0.2, "high": 0.9}
    blocks = {
        "facts": look.facts([(name, name, name)] * 7),
        "rates": look.bars(name, [(name, rate, name)]),
        "table": look.table(name, (name, "Two"), [(name, name)]),
        "run": look.progress(name, done=1, total=2, note=name),
        "passages": look.passages([(name, [(name, name)])]),
        "text": look.text(name),
        "graph": look.graph(name, [{"name": name, "needs": [], "state": "due", "note": name}]),
    }
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_content(f"<!doctype html><body style='margin:0'>{look.page_html(name, blocks)}")
    too_wide = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(too_wide) == 0
    beside = page.locator(".wb-bars > div").evaluate(PLACES)
    ends = [right for _, right in beside]
    assert max(ends) <= width
    context.close()


def test_hostile_cells_are_text(connect):
    rows = [{"text": text, "more": "x"} for text in HOSTILE]
    table = PagedTable(Rows(rows), label=HOSTILE[0], key="text", height=len(HOSTILE))
    page = connect(table, TABLE)
    page.locator('[aria-rowindex="2"]').get_by_text(HOSTILE[0], exact=True).wait_for()
    page.wait_for_function(
        "![...document.querySelectorAll('.wb-grid')].some(g => g.textContent.includes('…x'))"
    )
    tags = page.evaluate(
        "[...new Set([...document.querySelectorAll('.wb-grid *')].map(n => n.tagName))]"
    )
    assert sorted(tags) == ["BUTTON", "DIV"]


def test_a_view_follows_by_differences_and_asks_when_it_missed_one(connect):
    view = View("Panel <b>")
    state = {"title": view.title, "css": view.css}
    blocks = {
        "facts": look.facts([("done", 1, "of 9")]),
        "rates": look.bars("Rates", [("bare", {"value": 0.5, "low": 0.2, "high": 0.9}, "of 4")]),
        "run": look.progress("Run", done=1, total=9),
    }
    view.show(blocks)
    page = connect(view, tuple(state))
    page.get_by_text("of 9").first.wait_for()
    assert page.locator("h3").inner_text() == "Panel <b>"
    sent = []
    view.send = lambda content, buffers=None: sent.append(content)
    view.show(
        {
            "facts": look.facts([("done", HOSTILE[0], "of 9")]),
            "rates": look.bars("Rates", [("bare", {"value": 1, "low": 0.6, "high": 1}, "of 5")]),
            "run": look.progress("Run", done=5, total=9),
        }
    )
    for message in sent:
        page.evaluate("message => window.hear(message)", message)
    assert page.locator(".wb-facts dd").first.inner_text() == HOSTILE[0]
    assert page.locator("circle").get_attribute("cx") == "100.0%"
    assert page.locator("progress").evaluate("bar => bar.value") == 5
    page.evaluate("window.hear({ seq: 99, set: [['facts.items.0.value', 'missed']] })")
    page.wait_for_function("!document.body.textContent.includes('missed')")


def test_hostile_blocks_run_nothing(connect):
    view = View("Panel")
    view.show(
        {
            "passages": look.passages([(text, [(text, text)]) for text in HOSTILE]),
            "facts": look.facts([(text, text, text) for text in HOSTILE]),
            "table": look.table(HOSTILE[0], ("One", "Two"), [(text, text) for text in HOSTILE]),
        }
    )
    page = connect(view, ("title", "css"))
    page.get_by_text(HOSTILE[0], exact=True).first.wait_for()
    assert page.locator("[data-probe], script, iframe, img, object, embed, link").count() == 0
