"""Runs one notebook in a kernel of its own and says truthfully how that ended.

Papermill executes; its metadata is never believed, because it calls every cell of a killed kernel
completed. A run succeeded only if no cell raised, the kernel still answered after the last cell,
and ``result.json`` carries the id of this run.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from workbench.core.settings import Settings
from workbench.notebook.result import RESULT_FILE
from workbench.store.artifacts import clear_disk_errors

__all__ = ["KernelUsage", "Outcome", "execute_notebook", "kill_kernel"]

_SAMPLE_EVERY_S = 0.5
_ENGINE = "workbench"


@dataclass(kw_only=True)
class KernelUsage:
    """What a kernel and its children used, as last seen."""

    pid: int = 0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a notebook ended."""

    error: str
    """One line; empty where it succeeded."""
    result: dict[str, Any]
    usage: KernelUsage
    wall_s: float


def execute_notebook(
    notebook: Path,
    *,
    parameters: Mapping[str, Any],
    settings: Settings,
    folder: Path,
    cwd: Path,
    threads: int,
    timeout_s: int,
    heartbeat: Callable[[KernelUsage], None],
    cancelled: threading.Event,
) -> Outcome:
    """Execute a notebook and return how it ended; errors of the notebook are told, not raised.

    The executed notebook is left in ``folder`` as ``notebook.ipynb``, also after a failure.

    Args:
        notebook: File to execute; it is not changed.
        parameters: Values for the parameters cell.
        settings: Handed to the kernel through its environment.
        folder: Folder of the run, where ``result.json`` is looked for.
        cwd: Working folder of the kernel.
        threads: Threads that numeric libraries in the kernel may use; 0 for as many as the
            environment of this process says.
        timeout_s: Seconds after which a cell is stopped.
        heartbeat: Called about twice a second with what the kernel used so far; first with its
            pid, before any cell is executed.
        cancelled: Set to have the kernel killed.

    Raises:
        StoreError: If the disk is full.
    """
    started = time.monotonic()
    watch = _Watch(heartbeat, cancelled)
    with clear_disk_errors(folder), watch:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "kernel.log").open("wb") as log:
            environment = _kernel_environment(settings, threads)
            error = _papermill(
                notebook,
                folder / "notebook.ipynb",
                parameters=dict(parameters),
                execution_timeout=timeout_s,
                kernel={"env": environment, "cwd": str(cwd), "stdout": log, "stderr": log},
                watch=watch,
            )
    usage = watch.usage
    result: dict[str, Any] = {}
    if cancelled.is_set() and error:
        error = "interrupted"
    if not error:
        result, error = _read_result(folder / RESULT_FILE, settings.run_id, notebook.name)
    usage.cpu_s = max(usage.cpu_s, result.get("usage", {}).get("cpu_s", 0.0))
    usage.peak_rss_mb = max(usage.peak_rss_mb, result.get("usage", {}).get("peak_rss_mb", 0.0))
    return Outcome(
        error=error, result={} if error else result, usage=usage, wall_s=time.monotonic() - started
    )


def kill_kernel(pid: int, run_id: str) -> bool:
    """Kill the kernel of a run whose runner died, wait until it is gone, return if there was one.

    The process is killed only if its environment names the run: pids are used again.
    """
    try:
        process = psutil.Process(pid)
        if process.environ().get("WORKBENCH_RUN_ID") != run_id:
            return False
        family = [*process.children(recursive=True), process]
        for member in family:
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                member.kill()
        psutil.wait_procs(family, timeout=10)
    except psutil.Error:
        return False
    return True


def _papermill(notebook: Path, output: Path, *, execution_timeout: int, **options: Any) -> str:
    """Return why papermill failed, in one line; empty where it did not."""
    from jupyter_core.utils import ensure_event_loop
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    try:
        _papermill_with_engine()(
            str(notebook),
            str(output),
            engine_name=_ENGINE,
            kernel_name="python3",  # of this environment, whatever the notebook was saved with
            language="python",
            progress_bar=False,
            execution_timeout=execution_timeout,
            **options,
        )
    except PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {_one_line(error.evalue)}"
    except DeadKernelError:
        return "the kernel died (killed, or out of memory); run again"
    except CellTimeoutError:
        return f"a cell ran longer than {execution_timeout} s; raise timeout_s of the step"
    except RuntimeError as error:  # what jupyter_client says of a kernel that dies while it starts
        return f"the kernel did not start: {_one_line(str(error))}"
    finally:
        ensure_event_loop().close()  # nbclient leaves the loop of each worker thread open
    return ""


@cache
def _papermill_with_engine() -> Callable[..., Any]:
    """Return papermill's execute function, with an engine that hands env and cwd to the kernel.

    Papermill's own ``cwd`` changes the folder of the whole process, which breaks parallel runs.
    """
    from papermill import execute_notebook as execute
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    for name in ("papermill", "traitlets"):  # what they would log comes back as the outcome
        logging.getLogger(name).setLevel(logging.CRITICAL)

    class WatchedClient(PapermillNotebookClient):  # type: ignore[misc]
        watch: _Watch
        socket_folder: str

        def create_kernel_manager(self) -> Any:
            # sockets in a folder of our own: no ports to race for, no other user can connect
            manager = super().create_kernel_manager()
            manager.transport = "ipc"
            manager.connection_file = str(Path(self.socket_folder) / "kernel.json")
            return manager

        def start_new_kernel(self, **kwargs: Any) -> None:
            super().start_new_kernel(**kwargs)
            self.watch.follow(self.km.provisioner.pid)

    class Engine(NBClientEngine):  # type: ignore[misc]
        @classmethod
        def execute_managed_notebook(
            cls, nb_man: Any, kernel_name: str, *, kernel: Any, watch: _Watch, **options: Any
        ) -> None:
            timeout = options["execution_timeout"]
            # with the state of widgets, an export shows those, from a CDN, and not their twins
            client = WatchedClient(
                nb_man, kernel_name=kernel_name, timeout=timeout, store_widget_state=False
            )
            client.on_cell_executed = watch.sample
            client.watch = watch
            with TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True) as folder:
                client.socket_folder = folder
                client.execute(**kernel)

    papermill_engines.register(_ENGINE, Engine)
    return execute  # type: ignore[no-any-return]


class _Watch:
    """Samples a kernel's use from a thread of its own, and kills a kernel that is cancelled."""

    def __init__(
        self, heartbeat: Callable[[KernelUsage], None], cancelled: threading.Event
    ) -> None:
        self.usage = KernelUsage()
        self._heartbeat = heartbeat
        self._cancelled = cancelled
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def follow(self, pid: int) -> None:
        """Start sampling the kernel with this pid."""
        self.usage.pid = pid
        self._thread.start()
        self._heartbeat(self.usage)

    def sample(self, **_: Any) -> None:
        """Note what the kernel used so far; also called after every cell."""
        cpu_s = rss = 0.0
        for process in self._family():
            try:
                times = process.cpu_times()
                rss += process.memory_info().rss
            except psutil.Error:  # it ended meanwhile: what was last seen stands
                continue
            cpu_s += times.user + times.system + times.children_user + times.children_system
        self.usage.cpu_s = max(self.usage.cpu_s, cpu_s)
        self.usage.peak_rss_mb = max(self.usage.peak_rss_mb, rss / 2**20)

    def _follow(self) -> None:
        while not self._ended.wait(_SAMPLE_EVERY_S):
            self.sample()
            self._heartbeat(self.usage)
            if self._cancelled.is_set():
                for process in self._family():
                    with suppress(psutil.Error):  # gone already
                        process.kill()

    def _family(self) -> list[psutil.Process]:
        try:
            kernel = psutil.Process(self.usage.pid)
            return [kernel, *kernel.children(recursive=True)]
        except psutil.Error:  # the kernel is gone
            return []


def _kernel_environment(settings: Settings, threads: int) -> dict[str, str]:
    # JupyterLab draws plotly's own type itself; other renderers would put plotly.js, 4.8 MB, into
    # every executed notebook
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "PLOTLY_RENDERER": "plotly_mimetype"}
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    width = dict.fromkeys(pools, str(threads)) if threads else {}
    return {**os.environ, **quiet, **width, **settings.to_environment()}


def _read_result(file: Path, run_id: str, notebook: str) -> tuple[dict[str, Any], str]:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{notebook} left no {RESULT_FILE}; end it with session.finish(...)"
    except ValueError as error:
        return {}, f"{file} is not JSON ({error}); run again"
    if result.get("run_id") != run_id:
        return {}, f"{file} belongs to another run, {result.get('run_id')!r}; run again"
    return result, ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:500]
