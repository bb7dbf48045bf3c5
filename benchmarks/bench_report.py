"""The report of an experiment in the store: seconds, sizes, requests, figures drawn.

Takes the name of the experiment (default quickstart); it must have run. The same is measured of a
made-up report of all types of pages, filled with a hundred hostile texts: none of them may run.
``--hostile`` measures that one alone; ``--risk`` only the report of an assessment of 25,000 risks,
made up, whose result is as large as results may be. Ends with 1 where a limit is missed.
"""

from __future__ import annotations

import importlib
import math
import re
import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measure import ROOT, publish
from workbench.core.settings import read_settings
from workbench.report.html import render
from workbench.store.database import open_store

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
DRAWN_MS = 60_000
TRIES = 5
RENDERS = 20
LIMIT_S = 1.5
LIMIT_MB, LIMIT_MAIL_MB, LIMIT_FIRST_S = 6, 8, 2.0
RAN = """() => Number(Boolean(window.probe || window.__pwned))
  + document.querySelectorAll("[data-probe]").length"""
"""How many of the hostile texts got their way."""


def main() -> int:
    """Measure and publish; return 1 where a limit is missed."""
    if sys.argv[1:] == ["--risk"]:
        publish("report_risk", [_risk()])
        return 0
    with TemporaryDirectory() as folder:
        rows = [] if sys.argv[1:] == ["--hostile"] else _experiment(Path(folder))
        files = _made("report_hostile").hostile_report(Path(folder) / "hostile")
        rows += _rows(files, "100 hostile texts: ", render_s={})
    publish("report", rows)
    return int(any(_is_missed(row) for row in rows))


def _is_missed(row: dict[str, Any]) -> bool:
    if row["drawn"] == "no browser":
        return bool(row["mb"] > LIMIT_MB)
    late = isinstance(row["first_s_median"], float) and row["first_s_median"] > LIMIT_FIRST_S
    lost = row["drawn"] != row["figures"]
    return bool(late or lost or row["mb"] > LIMIT_MB or row["requests"] or row["scripts_run"])


def _experiment(folder: Path) -> list[dict[str, Any]]:
    experiment = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    store = open_store(read_settings())
    if experiment not in store.runs.experiments():
        raise SystemExit(f"experiment {experiment!r} never ran here; run it first: make run")
    started = time.perf_counter()
    index = render(store, experiment, folder / "pages")
    pages_s = time.perf_counter() - started
    started = time.perf_counter()
    single = render(store, experiment, folder / "single", single_file=True)
    single_s = time.perf_counter() - started
    store.engine.dispose()
    files = sorted(index.parent.glob("*.html"))
    render_s = {**dict.fromkeys(files, pages_s / len(files)), single: single_s}
    return _rows([*files, single], "", render_s=render_s)


def _rows(files: list[Path], prefix: str, *, render_s: dict[Path, float]) -> list[dict[str, Any]]:
    seen, rows = _look(files), []
    for file in files:
        is_single = file.parent.name == "single"
        declared = re.search(r'data-figures="(\d+)"', file.read_text(encoding="utf-8"))
        rows.append(
            {
                "page": prefix + ("all in one file" if is_single else file.name),
                "mb": file.stat().st_size / 1e6,
                "limit_mb": LIMIT_MB,
                "limit_mail_mb": LIMIT_MAIL_MB if is_single else "",
                "render_s": render_s.get(file, ""),
                "figures": int(declared[1]) if declared else 0,
                **seen[file],
            }
        )
    return rows


def _made(name: str) -> Any:
    """Return a module of what tests make up."""
    sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module(name)


def _risk() -> dict[str, Any]:
    """Return how long the report of 25,000 risks takes to write, and what a browser makes of it."""
    made = _made("report_results")
    found = made.assessment(risks=25_000)
    with TemporaryDirectory() as folder:
        store = open_store(read_settings({"WORKBENCH_HOME": folder}))
        made.fill(store, {"assess": [found]}, experiment="risk")
        taken = []
        for at in range(RENDERS):  # into a folder of its own: what is unchanged is not written
            started = time.perf_counter()
            index = render(store, "risk", Path(folder) / str(at))
            taken.append(time.perf_counter() - started)
        store.engine.dispose()
        page = index.with_name("risk.html")
        taken.sort()
        return {
            "page": "25,000 risks: risk.html and index.html",
            "rows": len(found["register"]),
            "mb": page.stat().st_size / 1e6,
            "renders": RENDERS,
            "median_s": taken[RENDERS // 2],
            "p95_s": taken[math.ceil(0.95 * RENDERS) - 1],
            "slowest_s": taken[-1],
            "limit_s": LIMIT_S,
            **_look([page])[page],
        }


def _note(asked: list[str], request: Any) -> None:
    asked.append(request.url)


def _look(files: list[Path]) -> dict[Path, dict[str, Any]]:
    """Return what a browser asks for, draws and runs, per file; empty cells without a browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        cells = ("requests", "scripts_run", "drawn_s", "first_s_median", "first_s_worst")
        return {file: {"drawn": "no browser", **dict.fromkeys(cells, "")} for file in files}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        seen = {file: _tried(browser, file) for file in files}
        browser.close()
    return seen


def _tried(browser: Any, file: Path) -> dict[str, Any]:
    """Return the medians of several tries in a window of its own each; of what is bad the worst."""
    tries = [_opened(browser, file) for _ in range(TRIES)]
    firsts = [one["first_s"] for one in tries if one["first_s"]]
    return {
        "drawn": min(one["drawn"] for one in tries),
        "requests": max(one["requests"] for one in tries),
        "scripts_run": max(one["scripts_run"] for one in tries),
        "drawn_s": statistics.median(one["drawn_s"] for one in tries),
        "first_s_median": statistics.median(firsts) if firsts else "",
        "first_s_worst": max(firsts, default=""),
    }


def _opened(browser: Any, file: Path) -> dict[str, Any]:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", partial(_note, asked))
    started = time.perf_counter()
    page.goto(file.as_uri())
    if int(page.get_attribute("html", "data-figures") or 0):
        page.wait_for_selector("html[data-figures-drawn]", state="attached", timeout=DRAWN_MS)
    drawn_s = time.perf_counter() - started
    found = {
        "drawn": int(page.get_attribute("html", "data-figures-drawn") or 0),
        # neither the page itself nor what it holds in itself is an outside request
        "requests": sum(not one.startswith("data:") for one in asked) - 1,
        "scripts_run": page.evaluate(RAN),
        "drawn_s": drawn_s,
        "first_s": float(page.get_attribute("html", "data-first-figure-ms") or 0) / 1_000,
    }
    page.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
