"""``workbench serve`` as a process: drained, killed, told to load again, and its keys."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from served_models import add_model
from workbench.store.database import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = "What is the capital of the moon, and who wrote its anthem?"


def workbench(store: Store) -> tuple[list[str], dict[str, str]]:
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = os.environ | store.settings.to_environment() | {"PYTHONPATH": source}
    return [sys.executable, "-c", "from workbench.cli import main; main()"], environment


@contextmanager
def serving(store: Store, log: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command, environment = workbench(store)
    command += ["serve", "--port", str(port), "--precision", "float32", *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: ready(url) or process.poll() is not None, 90)
        yield url, process
    finally:
        process.kill()
        process.wait()


def ended(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def until(check, seconds: float = 30) -> None:
    ends_at = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends_at, "it did not happen"
        time.sleep(0.02)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def ask(url: str, *texts: str, **options) -> httpx.Response:
    return httpx.post(f"{url}/v1/sanitize", json={"texts": texts or [TEXT]}, timeout=60, **options)


def texts_paid(store: Store) -> int:
    return sum(row.details.get("texts", 0) for row in store.ledger.rows())


def test_sigterm_answers_what_was_begun_refuses_the_rest_and_ends_well(store, tmp_path) -> None:
    add_model(store)
    log = tmp_path / "log"
    with serving(store, log, "--open", "--max-texts", "2000", "--max-tokens", "99999") as (
        url, process,
    ):  # fmt: skip
        answers: list[httpx.Response] = []
        many = [f"{TEXT} {number}" for number in range(400)]
        begun = threading.Thread(target=lambda: answers.append(ask(url, *many)))
        with httpx.Client() as kept:
            kept.get(f"{url}/healthz")
            begun.start()
            until(lambda: "queue_texts 0.0" not in kept.get(f"{url}/metrics").text)
            process.send_signal(signal.SIGTERM)
            until(lambda: kept.get(f"{url}/readyz").status_code == 503)
            refused = ask(url)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
        begun.join()
        assert [len(one.json()["results"]) for one in answers] == [400]
        assert process.wait(30) == 0
    assert texts_paid(store) == 400
    assert "capital of the moon" not in log.read_text()


def test_a_kill_loses_a_second_of_the_ledger_at_most(store, tmp_path) -> None:
    add_model(store)
    with serving(store, tmp_path / "log", "--open") as (url, process):
        for _ in range(5):
            assert ask(url).status_code == 200
        time.sleep(2.5)  # the promise is about time
        assert ask(url).status_code == 200
        process.kill()
        process.wait()
    assert texts_paid(store) in (5, 6)


def test_sighup_loads_the_newest_model_and_a_bad_one_changes_nothing(store, tmp_path) -> None:
    add_model(store, risk=-9)
    log = tmp_path / "log"
    with serving(store, log, "--open") as (url, process):

        def decision() -> str:
            return ask(url).json()["results"][0]["decision"]

        assert decision() != "redirect"
        add_model(store, seed=1, risk=9)
        process.send_signal(signal.SIGHUP)
        until(lambda: decision() == "redirect")
        newest = add_model(store, seed=2, risk=-9)
        config = store.artifacts.path("model", newest) / "config.json"
        config.write_text("{}")
        process.send_signal(signal.SIGHUP)
        until(lambda: "the model stays" in log.read_text())
        assert decision() == "redirect"


def test_keys_are_shown_once_used_and_revoked(store, tmp_path) -> None:
    add_model(store)
    command, environment = workbench(store)

    def keys(*arguments: str) -> str:
        done = ended([*command, "serve", "keys", *arguments], environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(keys("add", "--name", "gateway", "--per-minute", "100", "--json"))
    with serving(store, tmp_path / "log") as (url, _):
        auth = {"Authorization": f"Bearer {made['key']}"}
        assert ask(url).status_code == 401
        assert ask(url, headers=auth).status_code == 200
        assert made["id"] in keys("list")
        assert made["key"] not in keys("list", "--json")
        keys("revoke", made["id"])
        until(lambda: ask(url, headers=auth).status_code == 401, 10)
    for file in (*store.home.rglob("*"), tmp_path / "log"):
        if file.is_file():
            assert made["key"].encode() not in file.read_bytes()


def test_without_a_model_or_a_free_port_it_says_so_and_ends(store, tmp_path) -> None:
    with serving(store, tmp_path / "log", "--open") as (_, process):
        assert process.wait(60) == 2
    assert "no model in the store yet" in (tmp_path / "log").read_text()
    add_model(store)
    with serving(store, tmp_path / "one", "--open") as (url, first):
        command, environment = workbench(store)
        command += ["serve", "--open", "--port", url.rpartition(":")[2]]
        done = ended(command, environment)
        assert done.returncode == 1
        assert "choose another --port" in done.stderr
        assert first.poll() is None
    done = ended([*command, "--host", "0.0.0.0"], environment)
    assert done.returncode == 2
    assert "--open serves without keys" in done.stderr
