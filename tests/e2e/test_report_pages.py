"""Pages in a real browser: nothing requested, everything drawn, nothing hostile executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import report_assessment
import report_results as made
from browser import chromium, picture
from workbench.core.settings import read_settings
from workbench.report.html import render
from workbench.serving.capacity import hardware, plan
from workbench.serving.capacity_page import render_page
from workbench.store.database import Store, open_store

pytestmark = pytest.mark.slow

PAGES = ("index", "data", "scaling", "frontier", "campaign", "risk", "cost")
LOOKS = {
    "desktop-light": {"color_scheme": "light", "viewport": {"width": 1180, "height": 900}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}
DRAWN = "html[data-figures-drawn]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pages of a finished experiment; nobody may change them."""
    folder = tmp_path_factory.mktemp("report")
    store = open_store(read_settings({"WORKBENCH_HOME": str(folder / "home")}))
    made.fill(store, made.results())
    render(store, "quickstart", folder)
    store.engine.dispose()
    return folder


def visit(browser: Any, file: Path, **look: Any) -> tuple[Any, list[str], list[str]]:
    """Open a file; return the page, its requests and its errors, once its figures are drawn."""
    page = browser.new_context(**look).new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda line: errors.append(line.text) if line.type in ("error", "warning") else None,
    )
    page.goto(file.as_uri())
    if look.get("java_script_enabled", True) and int(
        page.get_attribute("html", "data-figures") or 0
    ):
        page.wait_for_selector(DRAWN, state="attached")
    return page, requests, errors


def check(page: Any, requests: list[str], errors: list[str], file: Path) -> None:
    assert requests == [file.as_uri()]
    assert errors == []
    figures = int(page.get_attribute("html", "data-figures"))
    assert page.locator(".js-plotly-plot .main-svg").count() >= figures
    assert page.locator(".js-plotly-plot").count() == figures
    assert page.locator(".fallback:visible").count() == 0
    assert page.evaluate("window.__pwned") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("look", LOOKS)
def test_a_capacity_plan_is_drawn_without_a_request(
    browser: Any, tmp_path: Path, look: str
) -> None:
    file = tmp_path / "capacity.html"
    file.write_bytes(render_page(plan(hardware("cpu"), days=2, given={"prompts_per_day": 1e6})))
    page, requests, errors = visit(browser, file, **LOOKS[look])
    check(page, requests, errors, file)
    picture(page, f"capacity-{look}", tmp_path)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_drawn_without_a_request(
    browser: Any, report: Path, tmp_path: Path, name: str
) -> None:
    file = report / f"{name}.html"
    page, requests, errors = visit(browser, file, **LOOKS["desktop-light"])
    for look, words in LOOKS.items():
        if look != "desktop-light":  # all of it is drawn anew
            page.evaluate("delete document.documentElement.dataset.figuresDrawn")
            page.set_viewport_size(words["viewport"])
            page.emulate_media(color_scheme=words["color_scheme"])
            if name != "index":
                page.wait_for_selector(DRAWN, state="attached")
        check(page, requests, errors, file)
        shot = picture(page, f"report-{name}-{look}", tmp_path, full_page=True)
        assert shot.stat().st_size > 10_000
    page.context.close()


def test_single_file_is_drawn_and_hostile_text_is_text(
    browser: Any, store: Store, tmp_path: Path
) -> None:
    steps = {step: [made.hostile(one) for one in found] for step, found in made.results().items()}
    made.fill(store, steps)
    file = render(store, "quickstart", tmp_path, single_file=True)
    page, requests, errors = visit(browser, file, **LOOKS["phone-dark"])
    check(page, requests, errors, file)
    assert page.get_attribute("html", "data-figures-drawn") == "20"
    assert page.locator("main img, svg a").count() == 0
    links = page.eval_on_selector_all("main a", "all => all.map(one => one.getAttribute('href'))")
    assert set(links) <= {f"#{name}" for name in PAGES}
    assert "</script><script>window.__pwned=1</script>" in page.inner_text("main")
    drawn = page.evaluate(
        "[...document.querySelectorAll('.js-plotly-plot text')].map(one => one.textContent).join()"
    )
    assert "</script>" in drawn
    page.context.close()


def column(page: Any, at: int) -> list[str]:
    """Return the first lines of a column of the register, of the rows that are shown."""
    return page.evaluate(
        "at => [...document.querySelectorAll('.sortable tbody tr:not([hidden])')].map("
        "row => (row.cells[at].querySelector('bdi:not(.detail)') ?? row.cells[at]).textContent)",
        at,
    )


def test_the_register_is_sorted_by_pressing_heads(browser: Any, report: Path) -> None:
    page, _, errors = visit(browser, report / "risk.html")
    first = column(page, 0)
    levels = ["critical", "high", "medium", "low"]
    dollars = "text => Number(text.replace(/[^0-9.]/g, '')) * (text.endsWith('M') ? 1e6 : 1)"
    for name, at, number in (
        ("Level", 1, lambda text: -levels.index(text)),
        ("Score", 2, float),
        ("Chance", 5, lambda text: float(text.removesuffix("\u00a0%").removeprefix("< "))),
        ("Loss", 6, lambda text: page.evaluate(f"({dollars})", text)),
        ("Due", 4, lambda text: text if text.startswith("2") else "9999"),
    ):
        press = page.locator(".sortable thead button", has_text=name)
        head = page.locator(".sortable thead th", has_text=name)
        is_date = name == "Due"
        for direction in ("ascending", "descending") if is_date else ("descending", "ascending"):
            press.focus()
            page.keyboard.press("Enter")
            assert head.get_attribute("aria-sort") == direction
            assert page.locator("[aria-sort]").count() == 1
            shown = [number(text) for text in column(page, at)]
            assert shown == sorted(shown, reverse=direction == "descending"), name
        press.click()  # the third press brings the order of the assessment back
        assert head.get_attribute("aria-sort") is None
        assert column(page, 0) == first
    assert errors == []
    page.context.close()


def test_the_register_is_filtered_by_words(browser: Any, report: Path) -> None:
    page, _, errors = visit(browser, report / "risk.html")
    every = len(column(page, 0))
    box = page.get_by_role("searchbox")
    box.fill("MODEL risk  high")
    assert set(column(page, 0)) <= {one for one, _, _ in report_assessment.MODELS}
    assert set(column(page, 1)) == {"high"}
    shown = len(column(page, 0))
    assert f"{shown} of {every} shown." in page.inner_text(".filter output")
    box.fill("<img src=x onerror=window.__pwned=1>")
    assert column(page, 0) == []
    box.fill("")
    assert len(column(page, 0)) == every
    assert errors == []
    assert page.evaluate("window.__pwned") is None
    page.context.close()


def test_without_javascript_the_register_is_a_table(browser: Any, report: Path) -> None:
    page, _, _ = visit(browser, report / "risk.html", java_script_enabled=False)
    assert page.locator(".sortable tbody tr").count() == 300
    assert page.locator(".filter:visible").count() == 0
    assert page.locator(".sortable button").count() == 0
    assert page.locator(".grid.matrix td:visible").count() == 26
    page.context.close()


def test_the_matrix_is_read_by_ear(browser: Any, report: Path) -> None:
    page, _, _ = visit(browser, report / "risk.html")
    worst = page.locator(".grid.matrix tbody tr").first.locator("td").last
    many = made.assessment()["matrix"][4][4]
    assert worst.get_attribute("title") == f"{many} critical risks: likelihood 5, impact 5"
    assert "critical" in worst.inner_text()
    page.context.close()


def test_without_javascript_figures_are_words(browser: Any, report: Path) -> None:
    page, _, _ = visit(browser, report / "frontier.html", java_script_enabled=False)
    assert page.locator("noscript").count() == 1
    told = page.locator(".fallback:visible").all_inner_texts()
    assert len(told) == 2
    assert all("numbers are in the tables" in text for text in told)
    page.context.close()


def test_figure_that_cannot_be_drawn_says_so(browser: Any, report: Path, tmp_path: Path) -> None:
    html = (report / "frontier.html").read_text(encoding="utf-8")
    file = tmp_path / "frontier.html"
    file.write_text(html.replace('"layout":{', '"layout":null,"lost":{', 1), encoding="utf-8")
    page, _, _ = visit(browser, file)
    assert page.get_attribute("html", "data-figures-drawn") == "1"
    assert page.locator(".fallback:visible").count() == 1
    page.context.close()


def test_paper_is_light_and_whole(browser: Any, report: Path) -> None:
    page, _, errors = visit(browser, report / "campaign.html", color_scheme="dark")
    assert len(page.pdf()) > 20_000
    assert errors == []
    page.context.close()
