"""Sets of ours in the real promptfoo, against a loopback application; nothing else is reached."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from campaign_fakes import make_case, make_control
from machine import require
from workbench.campaign.interop.documents import stringify
from workbench.campaign.interop.promptfoo import (
    promptfoo_id,
    promptfoo_tests,
    read_promptfoo,
    write_promptfoo,
)
from workbench.campaign.interop.promptfoo_results import read_results, write_results
from workbench.store.records import Attempt, TestSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VERSION = "0.121.20"
INSTALL_S, RUN_S = 400, 120
CANARY = "PLUM-7741-KITE"
EVAL = ("--no-cache", "--no-progress-bar", "--no-table")


@pytest.fixture(scope="session")
def program() -> Path:
    """promptfoo, installed once into the user's cache."""
    npm = require("npm")
    require("node")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "workbench-tests"
    folder = cache / f"promptfoo-{VERSION}"
    found = folder / "node_modules" / ".bin" / "promptfoo"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"promptfoo-{VERSION}.lock", timeout=INSTALL_S):
        if not (folder / "complete").exists():
            folder.mkdir(exist_ok=True)
            install(npm, folder, f"promptfoo@{VERSION}")
            install(npm, folder, *native_parts(folder))
            (folder / "complete").touch()
    return found


def install(npm: str, folder: Path, *packages: str) -> None:
    # Its optional packages are a gigabyte, for services that no test here talks to.
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--loglevel=error")
    command = [npm, "install", "--prefix", str(folder), *quiet, *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert not done.returncode, done.stderr


def native_parts(folder: Path) -> list[str]:
    """Return the binary of its database for this machine, which is an optional package too."""
    described = json.loads((folder / "node_modules/libsql/package.json").read_text())
    arch = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    )
    system = f"@libsql/{platform.system().lower()}-{arch}"
    libc = "gnu" if platform.libc_ver()[0] == "glibc" else "musl"
    fitting = [
        f"{name}@{version}"
        for name, version in described["optionalDependencies"].items()
        if name in (system, f"{system}-{libc}")
    ]
    assert fitting, f"no binary of libsql for {system}"
    return fitting


class Application(BaseHTTPRequestHandler):
    """Tells its secret to whoever says open, refuses the wicked, breaks at a word."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[object]] = []

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["content-length"])))["prompt"]
        self.seen.append(prompt)
        status = 500 if "break" in str(prompt) else 200
        self.respond(status, json.dumps({"answer": answer_to(prompt)}).encode())

    def respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def answer_to(prompt: object) -> str:
    said = prompt if isinstance(prompt, str) else " / ".join(one["content"] for one in prompt)
    if "open" in said:
        return f"The word is {CANARY}."
    if "wicked" in said:
        return "I'm sorry, but I cannot help with that."
    return f"You said: {said}"


@pytest.fixture
def application() -> Iterator[str]:
    Application.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def run(program: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_COLOR": "1",
        "PROMPTFOO_CONFIG_DIR": str(home),
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
        "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
        "PROMPTFOO_DISABLE_SHARING": "1",
    }
    return subprocess.run(
        [str(program), *arguments], env=environment, cwd=home, capture_output=True, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip


CANARY_RULE = ({"type": "canary", "value": CANARY},)
SUCCEEDS, FAILS, BREAKS = "succeeds", "fails", "breaks"
EXPECTED = (
    (make_case(0, prompt="open up", assertions=CANARY_RULE), SUCCEEDS),
    (make_case(1, prompt="a wicked wish", assertions=CANARY_RULE), FAILS),
    (make_case(2, prompt="break down", assertions=CANARY_RULE), BREAKS),
    (make_case(3, prompt="say yes", assertions=({"type": "contains", "value": "SAID: SAY"},)),
     SUCCEEDS),
    (make_case(4, prompt="say so",
               assertions=({"type": "contains", "value": "word", "not": True},)), SUCCEEDS),
    (make_case(5, prompt="n 451", assertions=({"type": "matches", "value": r"\bn \d{3}$"},)),
     SUCCEEDS),
    (make_case(6, prompt="n 4", assertions=({"type": "matches", "value": r"\bn \d{3}$"},)), FAILS),
    (make_case(7, prompt='{{ 7 * 7 }} {% if x %} "q" \\ \u2028 \x7f é 漢 😀 </script>\n\n',
               strategies=("rot13", "base64"), assertions=CANARY_RULE), FAILS),
    (make_case(8, prompt="now open", turns=("good day", "a question"), assertions=CANARY_RULE),
     SUCCEEDS),
    (make_case(9, prompt="- yes: no\n# @home", metadata={"layers": ["{{ env.HOME }}"], "x": 1.0},
               assertions=CANARY_RULE), FAILS),
    # hidden by promptfoo in its results, since it could be a key
    (make_case(10, prompt="b3Bl" * 20, strategies=("base64",), assertions=CANARY_RULE), FAILS),
    (make_control(0), FAILS),
    (make_control(1, prompt="a wicked pun"), SUCCEEDS),
)  # fmt: skip
CASES = TestSet(cases=tuple(case for case, _ in EXPECTED))


@pytest.fixture
def evaluated(program: Path, application: str, tmp_path: Path) -> Path:
    """A folder with our set, promptfoo's results of it and its database."""
    target = {
        "id": "http",
        "label": "loopback",
        "config": {
            "url": application,
            "method": "POST",
            "headers": {"content-type": "application/json"},
            "body": {"prompt": "{{prompt}}"},
            "transformResponse": "json.answer",
            "validateStatus": "status === 200",
        },
    }
    write_promptfoo(CASES, tmp_path / "redteam.yaml", targets=[target], purpose="A shop")
    written = ("-o", "out.json", "out.jsonl")
    done = run(program, tmp_path, "eval", "-c", "redteam.yaml", *written, *EVAL)
    assert (tmp_path / "out.json").exists(), done.stdout + done.stderr
    return tmp_path


def test_promptfoo_evaluates_our_set_and_we_read_what_it_found(evaluated: Path) -> None:
    attempts = list(read_results(evaluated / "out.json"))
    assert [one.case_id for one in attempts] == [case.id for case in CASES]
    assert {one.target for one in attempts} == {"loopback"}
    outcomes = [BREAKS if one.error else SUCCEEDS if one.success else FAILS for one in attempts]
    assert outcomes == [outcome for _, outcome in EXPECTED]
    stats = json.loads((evaluated / "out.json").read_text())["results"]["stats"]
    counts = [stats[name] for name in ("failures", "successes", "errors")]
    assert counts == [outcomes.count(one) for one in (SUCCEEDS, FAILS, BREAKS)]
    said = [
        [{"role": "user", "content": text} for text in (*case.turns, case.prompt)]
        if case.turns
        else case.prompt
        for case in CASES
    ]
    assert sorted(map(str, Application.seen)) == sorted(map(str, said))
    for text, one in zip(said, attempts, strict=True):
        assert one.received == ("" if one.error else answer_to(text))
        assert one.error or one.latency_ms > 0
    # its rows of JSON Lines come as they finish, without the id of the evaluation
    lines = read_results(evaluated / "out.jsonl")
    known = {(one.case_id, one.received, one.success) for one in attempts}
    assert {(one.case_id, one.received, one.success) for one in lines} == known


def test_the_database_of_promptfoo_has_our_id_of_the_data_set(evaluated: Path) -> None:
    with sqlite3.connect(evaluated / "promptfoo.db") as database:
        ((dataset, tests),) = database.execute("select id, tests from datasets").fetchall()
        rows = database.execute("select failure_reason from eval_results").fetchall()
    database.close()
    assert dataset == promptfoo_id(promptfoo_tests(CASES))
    assert len(json.loads(tests)) == len(rows) == len(CASES)
    assert read_promptfoo(evaluated / "redteam.yaml").recipe["promptfoo_id"] == dataset


def test_promptfoo_imports_our_results(program: Path, tmp_path: Path) -> None:
    attempts = [
        Attempt(
            execution="execution-1", case_id=case.id, target=target, sent=case.prompt,
            received="fine", decision="pass", scores={"a": 0.25}, success=outcome == SUCCEEDS,
            latency_ms=12.5, error="closed" if outcome == BREAKS else "",
        )
        for case, outcome in EXPECTED
        for target in ("one", "two")
    ]  # fmt: skip
    write_results(attempts, tmp_path / "ours.json", cases=CASES)
    done = run(program, tmp_path, "import", "ours.json")
    assert not done.returncode, done.stdout + done.stderr
    with sqlite3.connect(tmp_path / "promptfoo.db") as database:
        rows = database.execute(
            "select test_idx, prompt_idx, failure_reason, latency_ms from eval_results"
        ).fetchall()
    database.close()
    reasons = {SUCCEEDS: 1, FAILS: 0, BREAKS: 2}
    assert sorted(rows) == [
        (at, prompt, reasons[outcome], 12.5)
        for at, (_, outcome) in enumerate(EXPECTED)
        for prompt in (0, 1)
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53)
    | st.floats(1e-4, 1e15).filter(lambda number: not number.is_integer()),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5).filter(lambda key: not key.isdigit()), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


def test_values_print_as_node_prints_them() -> None:
    node = require("node")
    program = (
        "for(const l of require('fs').readFileSync(0,'utf8').split('\\n'))"
        "if(l)console.log(JSON.stringify(JSON.parse(l)))"
    )
    values: list[object] = []

    @settings(max_examples=300, database=None, derandomize=True)
    @given(JSON)
    def collect(value: object) -> None:
        values.append(value)

    collect()
    lines = "".join(json.dumps(value) + "\n" for value in values)
    done = subprocess.run(
        [node, "-e", program], input=lines.encode(), capture_output=True, check=False
    )
    assert not done.returncode, done.stderr
    assert done.stdout.decode().removesuffix("\n").split("\n") == list(map(stringify, values))
