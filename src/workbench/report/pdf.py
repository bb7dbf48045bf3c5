"""A report on paper: the single file, printed by a Chromium that is cut off from the network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from workbench.core.errors import ConfigError, StoreError
from workbench.report.html import render
from workbench.store.artifacts import write_atomic
from workbench.store.database import Store

__all__ = ["find_chromium", "print_pdf", "render_pdf"]

_PROGRAMS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
    "microsoft-edge",
)  # fmt: skip
_FLAGS = (
    "--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-dev-shm-usage", "--no-pdf-header-footer",
    # no name is resolved and no address reached: whatever asks is refused here
    "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9",
    "--blink-settings=preferredColorScheme=1",
)  # fmt: skip
_DRAWING_MS = 30_000
"""Time of the page, not of the clock: it ends early where nothing is left to do."""
_HEAD = b"%PDF-"


def render_pdf(store: Store, experiment: str, file: Path, *, timeout_s: float = 120.0) -> Path:
    """Return the report of an experiment as a PDF file, with all of its pages.

    Raises:
        ConfigError: If the experiment never ran, or there is no Chromium.
        StoreError: If Chromium fails, takes too long, or the file cannot be written.
    """
    program = find_chromium()
    with TemporaryDirectory(prefix="report-") as folder:
        page = render(store, experiment, Path(folder), single_file=True)
        return print_pdf(page, file, program=program, timeout_s=timeout_s)


def find_chromium() -> str:
    """Return the program that prints.

    Raises:
        ConfigError: If there is none on the path.
    """
    for name in _PROGRAMS:
        if program := shutil.which(name):
            return program
    raise ConfigError(
        f"no Chromium to print with: looked for {', '.join(_PROGRAMS)}; install one, e.g. "
        "`apt-get install chromium`, or print the page of --single-file from a browser"
    )


def print_pdf(page: Path, file: Path, *, program: str, timeout_s: float) -> Path:
    """Return the PDF ``file`` of a page, printed by ``program``.

    Raises:
        StoreError: If it fails, takes too long, or the file cannot be written.
    """
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        made = Path(folder) / "made.pdf"
        command = [
            program, *_FLAGS, *_rights(), f"--user-data-dir={folder}/profile",
            f"--virtual-time-budget={_DRAWING_MS}", f"--print-to-pdf={made}",
            page.resolve().as_uri(),
        ]  # fmt: skip
        said = _run(command, timeout_s=timeout_s)
        try:
            content = made.read_bytes()
        except OSError:
            raise StoreError(f"{program} printed nothing of {page.name}: {said}") from None
    if not content.startswith(_HEAD):
        raise StoreError(f"{program} printed no PDF of {page.name}: {said}")
    try:
        write_atomic(file, content)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror}; name another place") from error
    return file


def _rights() -> tuple[str, ...]:
    """Return the flag without which Chromium refuses to run as root, as in a container."""
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return ("--no-sandbox",) if is_root else ()


def _run(command: list[str], *, timeout_s: float) -> str:
    """Run Chromium and all that it starts, to the end or not at all; return its last line."""
    started = subprocess.Popen(  # noqa: S603 - a program found by name, arguments of our own
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = started.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise StoreError(
            f"{command[0]} did not print within {timeout_s:g} s; raise --timeout, or print the "
            "page of --single-file from a browser"
        ) from None
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {started.returncode}"
