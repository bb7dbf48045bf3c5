"""A Jupyter server of its own process with the extension, three people and a store of its own."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from workbench.core.settings import Settings, read_settings
from workbench.store.database import Store, as_user, open_store

OWNER_TOKEN = "owner-" + "0" * 32
TOKENS = {"anna": "anna-" + "1" * 32, "ben": "ben-" + "2" * 32}
_START_S = 90
SOURCE = str(Path(__file__).resolve().parents[1] / "src")


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """Where it listens, and the store that it works on."""

    url: str
    home: Path
    store: Store
    """Of everybody."""
    pid: int

    def client(self, user: str = "anna", **headers: str) -> httpx.Client:
        """Return a client that sends a user's token; ``owner`` runs the server, empty is nobody."""
        token = OWNER_TOKEN if user == "owner" else TOKENS.get(user, user)
        auth = {"Authorization": f"token {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers={**auth, **headers}, timeout=60)

    def store_of(self, user: str) -> Store:
        """Return the same store as one of the users has it."""
        return as_user(self.store, user)


def settings_of(root: Path) -> Settings:
    """Return the settings of the store below a folder."""
    return read_settings({"WORKBENCH_HOME": str(root / "home"), "WORKBENCH_USER": "owner"})


@contextmanager
def serve(
    root: Path, *, people: bool = True, extension: str = "workbench.server"
) -> Iterator[RunningServer]:
    """Give a server that answers; it is gone when the block ends.

    Args:
        root: An empty folder for everything.
        extension: The module that Jupyter loads.
        people: Whether the extension's identity provider names them; else Jupyter's own is used.
    """
    settings = settings_of(root)
    store = open_store(settings)
    port = _free_port()
    tokens = root / "tokens.json"
    names = {f"sha256:{hashlib.sha256(one.encode()).hexdigest()}": n for n, one in TOKENS.items()}
    tokens.write_text(json.dumps(names))
    command = [
        sys.executable, "-m", "jupyter_server", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1", "--ServerApp.open_browser=False",
        f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={OWNER_TOKEN}",
        f"--ServerApp.jpserver_extensions={extension}=True", "--allow-root",
    ]  # fmt: skip
    if people:
        provider = "workbench.server.identity.WorkbenchIdentity"
        command += [
            f"--ServerApp.identity_provider_class={provider}",
            f"--WorkbenchIdentity.tokens_file={tokens}",
        ]
    folders = {f"JUPYTER_{n}_DIR": str(root / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
    variables = {**os.environ, **settings.to_environment(), **folders, "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] = os.pathsep.join((SOURCE, str(Path(__file__).parent)))
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=root, env=variables, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, root / "server.log")
        yield RunningServer(url=url, home=settings.home, store=store, pid=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        store.engine.dispose()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            answer = httpx.get(f"{url}/workbench/api/openapi.json", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == HTTPStatus.FORBIDDEN:
            return
        break
    raise AssertionError(f"the server does not answer: {log.read_text()[-3000:]}")
