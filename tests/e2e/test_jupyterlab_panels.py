"""A person's path through JupyterLab: every panel, by mouse and keyboard, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from browser import Lab, Notebook, Watch, chromium, lab, picture, visit
from hostile_texts import HOSTILE
from panel_project import FEW, Shop, fill, write_project
from workbench.campaign import testsets
from workbench.embedding.vectors import open_encoder
from workbench.judge.probe import train_bench
from workbench.notebook import widgets
from workbench.notebook.widgets import children
from workbench.store.database import Store
from workbench.store.findings import findings, triage_log
from workbench.store.live import newest_events, watched_execution
from workbench.store.risks import risks

pytestmark = pytest.mark.timeout(900)

PANELS = (
    "experiments", "pair_sets", "test_sets", "monitor", "triage", "playground", "scaling",
    "register", "cost",
)  # fmt: skip
VIEWPORT = {"width": 1280, "height": 1000}
DARK = "{theme: 'JupyterLab Dark'}"
SENTINEL = "all-cells-ran"
LAST = f"""import threading
print(sum("Follower" in type(one).__name__ for one in threading.enumerate()), "follow")
print("{SENTINEL[:3]}" + "{SENTINEL[3:]}")"""
FOLLOWED = "monitor"
WAIT_MS, SOON_MS = 90_000, 2_000
CONTRASTS = """cells => cells.map(cell => {
  const light = (color) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d');
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(
      one => one / 255 <= 0.03928 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const row = getComputedStyle(cell.parentElement);
  const both = [light(row.color), light(row.backgroundColor)].sort((a, b) => a - b);
  return both[1] / both[0];
})"""
"""Of words in rows of a table (WCAG)."""
TOO_WIDE = "grids => grids.filter(one => one.scrollWidth > one.clientWidth).length"


def source_of(name: str) -> str:
    made = f"from workbench.notebook.widgets import {name}\npanel_{name} = {name}()\n"
    follow = f"panel_{name}.follow(0.5)\n" if name == FOLLOWED else ""
    return f"{made}{follow}panel_{name}"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Notebook, Watch]]:
    """A notebook with every panel, run from its first cell to its last."""
    root = tmp_path_factory.mktemp("panels")
    write_project(root / "project")
    with lab(root) as running, ThreadPoolExecutor(1) as beside:
        beside.submit(train_bench, running.store, open_encoder(running.store))  # executing takes it
        fill(running.store)  # before the browser: two event loops in a thread are refused
        sources = [*map(source_of, PANELS), LAST]
        path = running.write("panels", sources)
        watch = Watch()
        with chromium() as browser, visit(browser, watch) as page:
            notebook = Notebook(page, running, path)
            notebook.run_all(SENTINEL)
            yield running, notebook, watch


@pytest.fixture
def see(opened: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Show a panel and return its cell; afterwards nothing may have gone wrong or outside."""
    running, notebook, watch = opened

    def show(name: str) -> Any:
        return notebook.show(PANELS.index(name))

    show.picture = lambda name: picture(notebook.page, name, tmp_path)  # type: ignore[attr-defined]
    show.store, show.page = running.store, notebook.page  # type: ignore[attr-defined]
    yield show
    assert watch.errors == []
    assert watch.outside() == []
    assert notebook.page.evaluate("window.probe") is None


def press(cell: Any, words: str) -> None:
    cell.get_by_role("button", name=words, exact=True).click()


def until(condition: Callable[[], Any], what: str, *, most_s: float = WAIT_MS / 1e3) -> Any:
    end = time.monotonic() + most_s
    while not (found := condition()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)
    return found


def go_on(cell: Any, words: str, store: Store, child: str) -> None:
    """Press a button once what ran before is gone."""
    until(lambda: not children.is_running(store, child), f"{child} is gone")
    press(cell, words)


def test_every_panel_is_drawn(see: Any, opened: Any) -> None:
    *_, watch = opened
    assert sorted(PANELS) == sorted(widgets.__all__)
    for name in PANELS:
        cell = see(name)
        cell.locator(".wb h3").first.wait_for(timeout=WAIT_MS)
        cell.locator(".wb-block").first.wait_for(timeout=WAIT_MS)
        assert "Traceback" not in cell.inner_text()
        assert cell.locator(".wb-grid").evaluate_all(TOO_WIDE) == 0
        see.picture(f"panel-{name}")
    assert any(url.startswith("ws://127.0.0.1") for url in watch.asked)  # sockets are seen, too
    assert len(watch.asked) > 20


def test_an_experiment_is_planned_run_and_kept(see: Any) -> None:
    cell = see("experiments")
    cell.get_by_label("Experiment", exact=True).select_option("trial")
    press(cell, "Plan")
    cell.get_by_text("Plan: 3 of 3 run").wait_for(timeout=WAIT_MS)
    press(cell, "Start or resume")
    cell.get_by_text(re.compile("trial is started")).wait_for(timeout=WAIT_MS)
    store: Store = see.store
    until(lambda: "trial" in store.runs.experiments(), "the experiment is in the store")
    press(cell, "Cancel")  # as soon as it runs
    cell.get_by_text(re.compile("trial was asked to stop")).wait_for(timeout=WAIT_MS)
    until(lambda: store.runs.experiment("trial")["state"] != "running", "it stops")
    see.picture("experiment-canceled")

    go_on(cell, "Start or resume", store, "experiment trial")
    until(lambda: store.runs.experiment("trial")["state"] == "succeeded", "the resumed run ends")
    press(cell, "Plan")
    cell.get_by_text("Plan: 0 of 3 run").wait_for(timeout=WAIT_MS)
    see.picture("experiment-done")


def test_pairs_are_sampled_and_versions_compared(see: Any) -> None:
    cell = see("pair_sets")
    press(cell, "Sample")
    cell.get_by_text("adversarial", exact=True).first.wait_for(timeout=WAIT_MS)
    see.picture("pairs-sample")
    press(cell, "Difference")
    cell.get_by_text("What came and went").wait_for(timeout=WAIT_MS)
    see.picture("pairs-difference")


def test_a_test_set_is_executed_watched_aborted_and_gone_on_with(see: Any) -> None:
    store: Store = see.store
    newest = {one.tests: one.id for one in testsets.list_test_sets(store)}
    shop = Shop()
    with shop.serve_in_thread():
        cell = see("test_sets")
        cell.get_by_role("gridcell", name=newest[max(newest)]).click()
        press(cell, "Preview")
        cell.get_by_text(re.compile(rf"Test set {newest[max(newest)][:12]}.*cases")).wait_for()
        press(cell, "What it costs")
        cell.get_by_text("No model is needed to generate it.").wait_for(timeout=WAIT_MS)
        see.picture("test-set-costs")
        cell.get_by_role("textbox", name="Targets").fill(f"{shop.base_url}/ask")
        press(cell, "Execute")
        cell.get_by_text(re.compile("is being executed")).wait_for(timeout=WAIT_MS)
        execution = until(lambda: begun(store, newest[max(newest)]), "an execution begins")

        live = see("monitor")
        live.get_by_text(f"execution {execution[:12]}").wait_for(timeout=WAIT_MS)
        bar = live.get_by_role("progressbar")
        until(lambda: 3 < made_by(bar) < max(newest), "some are done")
        press(live, "Read attempts again")
        live.get_by_text(re.compile(r"of (?!12 )\d+ rows")).wait_for(timeout=WAIT_MS)
        see.picture("monitor-live")
        press(live, "Abort")
        live.get_by_text(re.compile("was asked to stop")).wait_for(timeout=WAIT_MS)
        shop.is_open, shop._latency_s = True, 1.0  # not done before the execution hears of it
        watched = until(lambda: ended(store, execution), "the execution stops")
        assert watched["state"] == "aborted"
        made = sum(one[0] for one in watched["targets"].values())
        assert 0 < made < watched["total"]
        live.get_by_text("aborted", exact=True).wait_for(timeout=SOON_MS)
        live.get_by_text(f"of {made} rows").wait_for(timeout=SOON_MS)
        see.picture("monitor-aborted")
        assert made_by(bar) == made

        shop._latency_s = 0.0
        go_on(see("test_sets"), "Execute", store, "campaign execute of owner")  # what is left
        until(lambda: store.artifacts.exists("execution", execution), "it is finished")
    live = see("monitor")
    live.get_by_text("finished", exact=True).wait_for(timeout=WAIT_MS)
    live.get_by_text(f"of {watched['total']} rows").wait_for(timeout=WAIT_MS)
    live.get_by_role("grid", name="Attempts").press("Enter")
    live.locator(".wb-passage").first.wait_for(timeout=WAIT_MS)
    see.picture("monitor-finished")


def made_by(bar: Any) -> int:
    """Return how many attempts a bar shows as made; none while it is another execution's."""
    is_its = float(bar.get_attribute("max")) > FEW
    return int(float(bar.get_attribute("value"))) if is_its else 0


def begun(store: Store, test_set: str) -> str:
    newest = newest_events(store.engine, owner="owner").get("attack_run_started")
    found = watched_execution(store.engine, newest[1], owner="owner") if newest else None
    is_it = found is not None and found["test_set"] == test_set
    return str(newest[1]) if newest and is_it else ""


def ended(store: Store, execution: str) -> Any:
    found = watched_execution(store.engine, execution, owner="owner")
    return found if found and found["state"] != "running" else None


def test_three_findings_are_decided_on_by_keyboard(see: Any, tmp_path: Path) -> None:
    store: Store = see.store
    cell = see("triage")
    worst = [one.id for one in findings(store.engine, status="needs_review")]
    before = findings(store.engine)
    grid = cell.get_by_role("grid")
    grid.focus()
    keys = see.page.keyboard

    def left(rows: int) -> None:
        cell.get_by_text(re.compile(rf"of {rows} rows?$")).wait_for(timeout=WAIT_MS)

    left(len(worst))
    keys.press("c")
    left(len(worst) - 1)
    keys.press("n")  # goes to the note
    keys.type("Only complies in form <img src=x onerror=window.probe=1>")
    keys.press("Escape")
    keys.press("f")
    left(len(worst) - 2)
    keys.press("x")
    left(len(worst) - 3)
    see.picture("triage-three-decided")
    keys.press("u")
    left(len(worst) - 2)
    keys.press("x")
    left(len(worst) - 3)
    said = {one.id: one.status for one in findings(store.engine)}
    assert sorted(said.values()) == sorted(
        ["confirmed", "false_positive", "fixed", *["needs_review"] * (len(before) - 3)]
    )
    assert {one.id: one.status for one in before} != said
    (wrong,) = (name for name, status in said.items() if status == "false_positive")
    (told,) = triage_log(store.engine, [wrong])
    assert (told["who"], told["note"][:20]) == ("owner", "Only complies in for")
    cell.get_by_label("Show", exact=True).select_option(label="all")
    left(len(worst))
    grid.focus()
    keys.press("End")
    cell.get_by_text("What people said").wait_for(timeout=WAIT_MS)
    see.picture("triage-all")
    see.page.set_viewport_size({"width": 1280, "height": 1500})
    cell = see("triage")
    output = cell.locator(".jp-OutputArea-output").first
    picture(see.page, "panels", tmp_path, clip=output.bounding_box())  # the one of docs/images
    see.page.set_viewport_size(VIEWPORT)


def test_a_prompt_is_sanitized_and_followed_along_the_frontier(see: Any) -> None:
    cell = see("playground")
    cell.get_by_label("Prompt", exact=True).fill(f"How do I bake bread? {HOSTILE[16]}")
    press(cell, "Sanitize")
    cell.get_by_text("Along the frontier").wait_for(timeout=WAIT_MS)
    gain = cell.get_by_role("slider")
    gain.focus()
    see.page.keyboard.press("End")
    cell.get_by_text(re.compile("gain 4")).first.wait_for(timeout=WAIT_MS)
    see.picture("playground-sanitized")


def test_a_law_is_chosen_and_drawn(see: Any) -> None:
    cell = see("scaling")
    cell.get_by_label("Experiment", exact=True).select_option("sweep")
    cell.get_by_role("img", name="Loss by wrapper families: 8 runs").wait_for(timeout=WAIT_MS)
    law = cell.get_by_label("Law", exact=True)
    law.select_option(index=2)
    cell.get_by_label("Next size", exact=True).fill("100")
    see.page.keyboard.press("Enter")
    cell.get_by_text(re.compile(r"\b100\b")).first.wait_for(timeout=WAIT_MS)
    see.picture("scaling-forecast")


def test_a_risk_is_opened_and_accepted(see: Any) -> None:
    store: Store = see.store
    cell = see("register")
    cell.get_by_label("Asset", exact=True).fill("shop")
    see.page.keyboard.press("Enter")
    cell.get_by_text("of 10 rows").wait_for(timeout=WAIT_MS)
    cell.get_by_role("grid").press("Enter")
    cell.get_by_text("What is known").wait_for(timeout=WAIT_MS)
    see.picture("register-opened")
    cell.get_by_label("Note", exact=True).fill("Behind the firewall")
    cell.get_by_label("Due", exact=True).fill("2099-02-01")
    press(cell, "Accept")
    cell.get_by_text("of 9 rows").wait_for(timeout=WAIT_MS)
    (accepted,) = risks(store.engine, status="accepted")
    assert (accepted["asset"], accepted["due"]) == ("shop", "2099-02-01")
    see.picture("register-accepted")


def test_costs_are_shown_by_experiment(see: Any) -> None:
    cell = see("cost")
    cell.get_by_label("Experiment", exact=True).select_option("sweep")
    cell.get_by_role("rowheader", name="training").first.wait_for(timeout=WAIT_MS)
    see.picture("cost-of-sweep")


def test_panels_are_dark_in_a_dark_lab(see: Any) -> None:
    see.page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {DARK})")
    is_dark = see.page.locator('body[data-jp-theme-light="false"]')
    is_dark.wait_for(state="attached", timeout=WAIT_MS)
    assert min(see("test_sets").locator("[aria-selected=true] > *").evaluate_all(CONTRASTS)) > 4.5
    for name in PANELS:
        paper = see(name).locator(".wb").first.evaluate("one => getComputedStyle(one).background")
        assert paper.startswith("rgb(23, 22, 20)")
        see.picture(f"dark-{name}")


def test_the_export_has_the_static_twins(see: Any, opened: Any, tmp_path: Path) -> None:
    running, notebook, _ = opened
    for at in range(len(PANELS) + 1):
        notebook.run_again(at)
    (last,) = [one for one in notebook.cells()[-1]["outputs"] if one["output_type"] == "stream"]
    assert "".join(last["text"]).startswith("1 follow")  # those of the first run stopped
    notebook.command("docmanager:save")
    saved = running.project / "notebooks" / "panels.ipynb"
    until(lambda: saved.read_text(encoding="utf-8").count("wb-block") > len(PANELS), "it is saved")
    file = tmp_path / "panels.html"
    file.write_text(running.read(notebook.page, "panels.ipynb"), encoding="utf-8")
    look = {"offline": True, "java_script_enabled": False}
    with visit(notebook.page.context.browser, Watch(), **look) as exported:
        exported.goto(file.as_uri(), wait_until="domcontentloaded")
        assert exported.locator("section.wb h3").count() == len(PANELS)
        assert exported.locator("section.wb .wb-block:visible").count() > len(PANELS)
        assert exported.locator("section.wb :is(script, iframe, img, object, embed)").count() == 0
        exported.locator("section.wb td").first.scroll_into_view_if_needed()
        picture(exported, "export", tmp_path)
        picture(exported, "export-whole", tmp_path, full_page=True)
