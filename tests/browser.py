"""Chromium and JupyterLab for tests: what was asked and went wrong, and pictures of what was seen.

``WORKBENCH_SCREENSHOTS`` names a folder that keeps the pictures; else they go where the test says.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat

from machine import require
from workbench.core.settings import read_settings
from workbench.store.database import Store, open_store

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
TOKEN = "token-of-this-test"
START_S = 120
SOURCE = Path(__file__).resolve().parents[1] / "src"
_CODE = "from workbench.cli import main; main(prog_name='workbench')"
_NOTEBOOK = "jupyterapp.shell.currentWidget"
_STATUS = f"{_NOTEBOOK}?.context?.sessionContext?.session?.kernel?.status"


@dataclass
class Watch:
    """What pages of a browser asked for and complained of, from the first of them on."""

    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def outside(self) -> list[str]:
        """Return the addresses that are not on this machine."""
        return [url for url in self.asked if not _is_here(url)]

    def follow(self, context: Any) -> None:
        """Note what every page of a context does."""
        context.on("request", lambda one: self.asked.append(one.url))
        context.on("weberror", lambda one: self.errors.append(str(one.error)))
        context.on("page", self._sockets)
        for page in context.pages:
            self._sockets(page)

    def _sockets(self, page: Any) -> None:
        page.on("websocket", lambda one: self.asked.append(one.url))


def _is_here(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in {"data", "blob", "about", "file"} or parts.hostname == "127.0.0.1"


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser; skip where there is none."""
    program = require("chromium", "chromium", "chromium-browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield opened
        opened.close()


@contextmanager
def visit(browser: Any, watch: Watch, **look: Any) -> Iterator[Any]:
    """Give an empty page in a context of its own."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 1000}} | look)
    watch.follow(context)
    yield context.new_page()
    context.close()


def picture(page: Any, name: str, folder: Path, **options: Any) -> Path:
    """Keep a picture of a page and return its file; one without anything on it is an error."""
    kept = os.environ.get("WORKBENCH_SCREENSHOTS")
    file = (Path(kept) if kept else folder) / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=file, **options)
    assert file.stat().st_size > 8_000, file
    return file


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A JupyterLab of its own process, on loopback, with the folders and the store of a test."""

    url: str
    project: Path
    store: Store

    def write(self, name: str, sources: list[str]) -> str:
        """Write a notebook of code cells; return its path below the project."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        file = self.project / "notebooks" / f"{name}.ipynb"
        nbformat.write(made, file)
        return file.name

    def read(self, page: Any, path: str) -> str:
        """Return what the server exports of a notebook, as Lab's menu asks for it."""
        address = f"{self.url}/nbconvert/html/{path}?download=true"
        answer = page.request.get(address, headers={"Referer": page.url})
        assert answer.ok, answer.text()[:2_000]
        return answer.text()


@contextmanager
def lab(root: Path) -> Iterator[Lab]:
    """Give a Lab as ``workbench lab`` starts it: with the extension and its identity provider.

    Args:
        root: A folder with ``project/``, which has ``notebooks/`` and ``experiments/``.
    """
    settings = read_settings({"WORKBENCH_HOME": str(root / "home"), "WORKBENCH_USER": "owner"})
    names = ("CONFIG", "DATA", "RUNTIME")
    variables = {
        **os.environ, **settings.to_environment(), "OMP_NUM_THREADS": "1",
        **{f"JUPYTER_{name}_DIR": str(root / "jupyter" / name.lower()) for name in names},
        "JUPYTERLAB_SETTINGS_DIR": str(root / "jupyter" / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(root / "jupyter" / "workspaces"),
        "IPYTHONDIR": str(root / "ipython"), "PYTHONPATH": str(SOURCE),
    }  # fmt: skip
    _decline_news(root / "jupyter" / "settings")
    port = _free_port()
    arguments = (
        "lab", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={TOKEN}", "--no-browser",
        "--allow-root", "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
    )  # fmt: skip
    store, log = open_store(settings), root / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", _CODE, *arguments],
            cwd=root / "project", env=variables, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(server, f"{url}/api", log)
        yield Lab(url=url, project=root / "project", store=store)
    finally:
        server.terminate()  # takes its kernels with it
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        store.engine.dispose()


def _decline_news(settings: Path) -> None:
    """Answer Lab's question about news beforehand: it would stand before what is looked at."""
    file = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")


def _wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Notebook:
    """A notebook that is open in Lab, as a person sees it."""

    def __init__(self, page: Any, lab: Lab, path: str) -> None:
        self.page = page
        page.goto(f"{lab.url}/lab/tree/{path}?token={TOKEN}")
        page.wait_for_function(f"window.jupyterapp && {_STATUS} === 'idle'", timeout=START_S * 1e3)

    def command(self, name: str) -> None:
        """Do what an entry of Lab's menus does."""
        self.page.evaluate("name => jupyterapp.commands.execute(name)", name)

    def cells(self) -> list[dict[str, Any]]:
        """Return the cells with their outputs as they are now."""
        told = self.page.evaluate(f"JSON.stringify({_NOTEBOOK}.content.model.toJSON())")
        found: list[dict[str, Any]] = json.loads(told)["cells"]
        return found

    def run_all(self, sentinel: str, *, most_s: float = 240) -> None:
        """Run all cells until one prints the sentinel; an error of any cell ends it at once."""
        self.command("notebook:run-all-cells")
        said = f"JSON.stringify({_NOTEBOOK}.content.model.toJSON())"
        over = f"({said}).includes('{sentinel}') || ({said}).includes('\"output_type\":\"error\"')"
        self.page.wait_for_function(over, timeout=most_s * 1e3)
        outputs = [one for cell in self.cells() for one in cell.get("outputs", [])]
        failed = [one["traceback"] for one in outputs if one["output_type"] == "error"]
        assert not failed, "\n".join(failed[0])
        assert sentinel in json.dumps(outputs)

    def run_again(self, at: int) -> None:
        """Run one cell again."""
        self.show(at)
        self.command("notebook:run-cell")
        self.page.wait_for_function(f"{_STATUS} === 'idle'", timeout=60_000)

    def show(self, at: int) -> Any:
        """Bring a cell into view, make it the active one and return it; others are not drawn."""
        self.page.evaluate(
            f"async at => {{ const all = {_NOTEBOOK}.content; all.activeCellIndex = at;"
            " await all.scrollToItem(at, 'start'); }",
            at,
        )
        cell = self.page.locator(f'.jp-Cell[data-windowed-list-index="{at}"]')
        cell.wait_for(state="visible", timeout=30_000)
        return cell
