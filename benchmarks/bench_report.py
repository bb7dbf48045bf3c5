"""The report of an experiment in the store: seconds, sizes, requests, figures drawn.

Takes the name of the experiment (default quickstart); it must have run. ``--risk`` measures only
the report of an assessment of 25,000 risks, made up, whose result is as large as results may be.
"""

from __future__ import annotations

import importlib
import math
import re
import shutil
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
RENDERS = 20
LIMIT_S = 1.5


def main() -> None:
    """Measure and publish."""
    if sys.argv[1:] == ["--risk"]:
        publish("report_risk", [_risk()])
        return
    experiment = sys.argv[1] if len(sys.argv) > 1 else "quickstart"
    store = open_store(read_settings())
    if experiment not in store.runs.experiments():
        raise SystemExit(f"experiment {experiment!r} never ran here; run it first: make run")
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        index = render(store, experiment, Path(folder) / "pages")
        pages_s = time.perf_counter() - started
        started = time.perf_counter()
        single = render(store, experiment, Path(folder) / "single", single_file=True)
        single_s = time.perf_counter() - started
        files = [*sorted(index.parent.glob("*.html")), single]
        seen = _look(files)
        rows = []
        for file in files:
            is_single = file == single
            declared = re.search(r'data-figures="(\d+)"', file.read_text(encoding="utf-8"))
            rows.append(
                {
                    "page": "all in one file" if is_single else file.name,
                    "mb": file.stat().st_size / 1e6,
                    "limit_mb": 8 if is_single else 6,
                    "render_s": single_s if is_single else pages_s / (len(files) - 1),
                    "figures": int(declared[1]) if declared else 0,
                    **seen[file],
                }
            )
    store.engine.dispose()
    publish("report", rows)


def _risk() -> dict[str, Any]:
    """Return how long the report of 25,000 risks takes to write, and what a browser makes of it."""
    sys.path.insert(0, str(ROOT / "tests"))
    made = importlib.import_module("report_results")
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
    """Return what a browser asks for and draws, per file; empty cells without a browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        return {file: {"drawn": "no browser", "requests": "", "drawn_s": ""} for file in files}
    from playwright.sync_api import sync_playwright

    seen = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        for file in files:
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", partial(_note, asked))
            started = time.perf_counter()
            page.goto(file.as_uri())
            if int(page.get_attribute("html", "data-figures") or 0):
                page.wait_for_selector(
                    "html[data-figures-drawn]", state="attached", timeout=DRAWN_MS
                )
            drawn_s = time.perf_counter() - started
            seen[file] = {
                "drawn": int(page.get_attribute("html", "data-figures-drawn") or 0),
                "requests": len(asked) - 1,  # the page itself is no outside request
                "drawn_s": drawn_s,
            }
            page.close()
        browser.close()
    return seen


if __name__ == "__main__":
    main()
