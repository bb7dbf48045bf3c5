"""A notebook opened in JupyterLab, in a real browser, run to its end without leaving loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import pytest

from machine import ROOT, require
from workbench.core.settings import read_settings
from workbench.store.database import open_store

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
TOKEN = "token-of-this-test"
NOTEBOOK = "01_expand_pairs.ipynb"
PAIRS = 300
START_S, RUN_S = 90, 240
# split in the source, so that only the output says it
SENTINEL_CELL = 'print("all-cells" + "-ran")'
SENTINEL = "all-cells-ran"
STATUS = "jupyterapp.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status"
CONTENTS = "JSON.stringify(jupyterapp.shell.currentWidget.content.model.toJSON())"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project's notebooks, the first one small and with a sentinel at its end."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    (root / "experiments").mkdir()
    file = root / "notebooks" / NOTEBOOK
    notebook = nbformat.read(file, as_version=4)
    (cell,) = (one for one in notebook.cells if "parameters" in one.metadata.get("tags", []))
    lines = cell.source.splitlines()
    edited = [
        f"target_pairs: int = {PAIRS}" if one.startswith("target_pairs") else one for one in lines
    ]
    assert edited != lines
    cell.source = "\n".join(edited)
    notebook.cells.append(nbformat.v4.new_code_cell(SENTINEL_CELL))
    nbformat.write(notebook, file)
    return root


@pytest.fixture
def lab(project: Path, tmp_path: Path) -> Iterator[str]:
    """JupyterLab on loopback with folders of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {
        f"JUPYTER_{name}_DIR": str(tmp_path / "jupyter" / name.lower())
        for name in ("CONFIG", "DATA", "RUNTIME")
    }
    environment = {
        **os.environ,
        **folders,
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "jupyter" / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "jupyter" / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "WORKBENCH_HOME": str(tmp_path / "home"),
    }
    arguments = (
        f"--ServerApp.root_dir={project}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", "--no-browser",
        "--allow-root", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
    )  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *arguments],
            cwd=project,
            env=environment,
            stdout=log,
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "lab.log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "lab.log").read_text()
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()  # takes its kernels with it
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    program = require("chromium", "chromium", "chromium-browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "browser",
            executable_path=program,
            args=list(FLAGS),
            viewport={"width": 1280, "height": 1000},
        )
        yield context.pages[0]
        context.close()


def is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"data", "blob", "about"} or parts.hostname == "127.0.0.1"


def test_a_notebook_runs_and_draws_in_jupyterlab(lab: str, page: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda one: asked.append(one.url))
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(f"{lab}/lab/tree/notebooks/{NOTEBOOK}?token={TOKEN}")
    page.wait_for_function(f"window.jupyterapp && {STATUS} === 'idle'", timeout=START_S * 1000)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_function(
        f"{CONTENTS}.includes('{SENTINEL}') || {CONTENTS}.includes('\"output_type\":\"error\"')",
        timeout=RUN_S * 1000,
    )
    cells = json.loads(page.evaluate(CONTENTS))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [one for one in outputs if one["output_type"] == "error"] == []
    assert SENTINEL in json.dumps(outputs)

    # cells out of sight are not drawn: bring the figure's cell into view first
    (position,) = (
        number
        for number, cell in enumerate(cells)
        for output in cell.get("outputs", [])
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    )
    page.evaluate(f"jupyterapp.shell.currentWidget.content.scrollToItem({position}, 'start')")
    figure = page.locator(".js-plotly-plot .main-svg").first
    figure.wait_for(state="visible", timeout=60_000)
    page.wait_for_function(
        "document.querySelectorAll('.js-plotly-plot .bars path').length > 1", timeout=60_000
    )
    shot = tmp_path / "lab.png"
    page.screenshot(path=shot)
    assert shot.stat().st_size > 20_000

    assert errors == []
    assert [url for url in asked if not is_loopback(url)] == []
    assert any(url.startswith("ws://127.0.0.1") for url in asked)  # the watch does see sockets

    # a notebook by hand is in the run table too
    store = open_store(read_settings({"WORKBENCH_HOME": str(tmp_path / "home")}))
    (run,) = store.runs.find(experiment="by-hand")
    store.engine.dispose()
    assert run.result["kind"] == "pairs"
    assert run.result["pairs"] > 0
