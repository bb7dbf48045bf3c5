"""``workbench campaign`` as a user types it: loopback targets, good ones and hostile ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import click
import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner

from campaign_fakes import make_case, make_control
from hostile_target import HostileTarget
from workbench.campaign import testsets
from workbench.campaign.executions import load_execution
from workbench.campaign.rehearsal import Rehearsal
from workbench.cli import main
from workbench.core.settings import read_settings
from workbench.store import database
from workbench.store.database import open_store
from workbench.store.events import events
from workbench.store.records import TestSet

WORKBENCH = str(Path(sys.executable).parent / "workbench")
ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b2J\r\x08\u202e\u2028"
OPEN_S = 60


class Project:
    """A folder with a store of its own, and the commands in it."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._patch = patch

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "ANTHROPIC" not in name}
        own = {"WORKBENCH_HOME": str(self.root / "home"), "WORKBENCH_USER": "tester"}
        return {**kept, **own, "OMP_NUM_THREADS": "1", **more}

    @contextmanager
    def store(self, user: str = "tester"):
        variables = self.variables(WORKBENCH_USER=user)
        store = open_store(read_settings(variables))
        try:
            yield store
        finally:
            store.engine.dispose()

    def save(self, *cases, tag: str = "") -> str:
        with self.store() as store:
            made = testsets.save(store, TestSet(cases=cases))
        if tag:
            self.call("sets", "tag", made, tag)
        return made

    def call(self, *arguments: str, code: int | None = 0, **variables: str):
        """Run a command in this process; return what it wrote, its lines fit for a terminal."""
        opened = []

        def opening(settings):
            opened.append(open_store(settings))
            return opened[-1]

        handler = signal.getsignal(signal.SIGTERM)
        with self._patch.context() as patch:
            patch.setattr(database, "open_store", opening)
            patch.chdir(self.root)
            try:
                done = CliRunner(env=self.variables(**variables)).invoke(
                    main, ["campaign", *arguments], catch_exceptions=False
                )
            finally:
                signal.signal(signal.SIGTERM, handler)
                for store in opened:
                    store.engine.dispose()
        told = (arguments, done.exit_code, done.stdout, done.stderr)
        assert code is None or done.exit_code == code, told
        for line in (done.stdout + done.stderr).split("\n"):
            assert line.lstrip("\t").isprintable(), repr(line)  # click lists choices behind tabs
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, **more):
        return json.loads(self.call(*arguments, "--json", **more).stdout)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [WORKBENCH, "campaign", *arguments], cwd=self.root, text=True,
            env=self.variables(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def target(self, url: str, **fields: object) -> str:
        """Return the path of a target's file."""
        path = self.root / f"target-{len(list(self.root.glob('target-*')))}.yaml"
        told = {"url": url, "timeout_s": 5, "pause_cap_s": 0, "max_attempts": 1, **fields}
        path.write_text(yaml.safe_dump(told))
        return str(path)

    def execute(self, *arguments: str, code: int = 0, **more):
        return self.call("execute", *arguments, "--judges", "rules", code=code, **more)

    def newest(self):
        with self.store() as store:
            done = load_execution(store)
            return done, list(done.attempts())


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "notebooks").mkdir()
    return Project(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def shop():
    with Rehearsal().serve_in_thread() as running:
        yield running


@contextmanager
def hostile(latency_s: float = 0.0):
    server = HostileTarget(latency_s)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.serve()):
        yield server


@pytest.fixture
def server():
    with hostile() as running:
        yield running


def cases(count: int, *, controls: int = 0):
    return (*map(make_case, range(count)), *map(make_control, range(controls)))


def profile_of(project, shop) -> str:
    path = project.root / "shop.md"
    path.write_text(shop.shop.profile().text + "\n")
    return str(path)


def commands_of(command=main.commands["campaign"], *names):
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from commands_of(one, *names, name)
    yield names, command


LEAVES = dict(commands_of())


# ---------------------------------------------------------------- help


def test_the_commands_are_those_that_are_promised():
    assert {
        ("generate",), ("execute",), ("run",), ("catalog",), ("profile",), ("analyze",),
        ("executions",), ("abort",), ("events",), ("import",), ("export",),
        *(("sets", one) for one in ("list", "show", "diff", "tag", "subset", "share", "delete")),
        *(("findings", one) for one in
          ("list", "show", "set", "summarize", "export", "feed-back", "stats")),
    } <= set(LEAVES)  # fmt: skip


@pytest.mark.parametrize("names", sorted(LEAVES))
def test_help_has_examples_and_exit_codes(project, names):
    shown = project.call(*names, "--help").stdout
    assert "Examples:" in shown
    assert "Exit status: 0 ok, 1 failed, 2 bad input" in shown
    examples = [line for line in shown.splitlines() if line.startswith("    workbench campaign ")]
    assert any(" ".join(["workbench campaign", *names]) in line for line in examples)
    for line in examples:
        for option in re.findall(r"--[a-z-]+", line):
            words = line.split("workbench campaign ")[1].split()
            command = main.commands["campaign"]
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            known = {one for parameter in command.params for one in parameter.opts}
            assert option in known, line


# ---------------------------------------------------------------- generate, sets, catalog, profile


def test_catalog_names_what_generate_takes(project):
    told = project.json("catalog")
    text = project.call("catalog").stdout
    for one in (*told["plugins"], *told["strategies"]):
        assert one["name"] in text
    plugin = next(one for one in told["plugins"] if one["name"] == "system-prompt-leak")
    assert plugin["for"] == ["model"]
    assert "LLM07:2025" in plugin["taxonomy"]
    assert {one["kind"] for one in told["strategies"]} >= {"encoding", "wrapper", "model"}


def test_a_dry_run_shows_and_keeps_nothing(project, shop):
    wanted = ("generate", "--for", "model", "--profile", profile_of(project, shop),
              "--plugin", "system-prompt-leak", "--plugin", "over-refusal", "--max-tests", "12",
              "--tag", "nightly")  # fmt: skip
    shown = project.call(*wanted, "--dry-run").stdout
    assert "would be 12 cases" in shown
    assert "left out: over-refusal: no pair set" in shown
    assert project.json("sets", "list") == []
    planned = project.json(*wanted, "--dry-run")
    made = project.json(*wanted)
    assert made["test_set"] == planned["test_set"]
    assert made["usd"] == 0
    (row,) = project.json("sets", "list")
    assert (row["id"], row["tests"], row["tags"]) == (made["test_set"], 12, ["nightly"])
    assert project.json(*wanted)["test_set"] == made["test_set"]  # the same again is one copy
    assert len(project.json("sets", "list")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plugin", "pi"), "unknown plugin 'pi'; known: "),
        (("--strategy", "base65"), "unknown strategy 'base65'; known: "),
        (("--strategy", "base64+"), "empty or plain layer"),
        (("--strategy", "rot13+paraphrase"), "what a model writes comes first"),
        (("--max-tests", "0"), "max_tests is 0"),
        (("--mutations", "-1"), "mutations_per_prompt is -1"),
        (("--explore", "2"), "explore is 2"),
        (("--plugin", "pii", "--plugin", "pii"), "given twice"),
        (("--profile", "nowhere.md"), "nowhere.md"),
        (("--plugin", "harm-violence"), "no pair set"),
        (("--for", "cat"), "'cat' is not one of 'guard', 'model'"),
        (("--max-tests", "x"), "'x' is not a valid integer"),
        (("--budgt", "3"), "No such option"),
        (("--plugin", f"x{ESCAPES}"), "unknown plugin"),
    ],
)
def test_bad_choices_exit_2(project, arguments, message):
    done = project.call("generate", *arguments, code=2)
    assert message in done.stderr
    assert project.json("sets", "list") == []


def test_the_life_of_test_sets(project):
    whole = project.save(*cases(6, controls=2), tag="nightly")
    assert [one["id"] for one in project.json("sets", "list", "--tag", "nightly")] == [whole]
    assert project.json("sets", "list", "--tag", "weekly") == []
    shown = project.call("sets", "show", "nightly", "--limit", "2").stdout
    assert shown.count("harm-violence · plain · high") == 2
    assert shown.endswith(f"8 cases in test set {whole[:12]}\n")
    rows = [json.loads(line) for line in
            project.call("sets", "show", whole[:6], "--json").stdout.splitlines()]  # fmt: skip
    assert len(rows) == 8
    part = project.call("sets", "subset", whole, "--plugin", "over-refusal").stdout.strip()
    two = project.call("sets", "subset", whole, "--case", rows[0]["id"][:12], "--case",
                       rows[1]["id"]).stdout.strip()  # fmt: skip
    told = project.json("sets", "diff", part, two)
    assert (len(told["added"]), len(told["removed"]), told["common"]) == (2, 2, 0)
    lines = project.call("sets", "diff", whole, two).stdout.splitlines()
    assert lines[-1] == "2 in both, 6 removed, 0 added"
    assert sum(line.startswith("- ") for line in lines) == 6
    project.call("sets", "share", part, "ana")
    assert [one["id"] for one in project.json("sets", "list", WORKBENCH_USER="ana")] == [part]
    assert "owns no test set" in project.call("sets", "show", whole, code=2,
                                              WORKBENCH_USER="ana").stderr  # fmt: skip
    assert "in use" in project.call("sets", "delete", whole, code=2).stderr
    assert "others still have it" in project.call("sets", "delete", part).stdout
    assert "is removed" in project.call("sets", "delete", part, WORKBENCH_USER="ana").stdout
    project.call("sets", "tag", "nightly", "nightly", "--remove")
    project.call("sets", "show", "nightly", code=2)
    for arguments in (
        ("subset", whole), ("subset", whole, "--plugin", "none"), ("tag", whole, "a\x1b[2Jb"),
        ("tag", whole, "x" * 65), ("share", whole, " "), ("show", "ffff"), ("diff", whole, "zz"),
        ("show", f"x{ESCAPES}"),
    ):  # fmt: skip
        project.call("sets", *arguments, code=2)


def test_a_profile_is_kept_under_its_content(project, shop):
    template = project.call("profile").stdout
    assert "# Purpose" in template
    path = profile_of(project, shop)
    first, again = (project.call("profile", path).stdout.strip() for _ in range(2))
    assert first == again
    made = project.json("generate", "--profile", first[:10], "--plugin", "pii", "--max-tests", "4")
    assert made["tests"] == 4
    Path(path).write_bytes(b"\xff\xfe\x00 no text")
    project.call("profile", path, code=2)
    project.call("profile", str(project.root), code=2)


def test_a_model_writes_only_within_a_budget(project):
    from workbench.llm.loopback import LoopbackServer

    with LoopbackServer(seed=1).serve_in_thread() as server:
        wanted = ("generate", "--plugin", "hallucinated-policy", "--strategy", "paraphrase",
                  "--max-tests", "6", "--base-url", server.base_url)  # fmt: skip
        key = {"ANTHROPIC_API_KEY": "sk-ant-for-tests-0123456789"}
        told = project.json(*wanted, "--dry-run")
        assert told["expected"]["calls"] > 0
        assert (told["unwritten"], told["tests"], server.requests) == (6, 0, 0)
        done = project.call(*wanted, "--budget", "0.0000001", code=3, **key)
        assert "--budget is" in done.stderr
        assert server.requests == 0
        assert "'-1'; write dollars >= 0" in project.call(*wanted, "--budget", "-1", code=2).stderr
        assert project.json("sets", "list") == []


# ---------------------------------------------------------------- execute


def test_generate_execute_analyze_and_look(project, shop):
    made = project.json("generate", "--for", "model", "--profile", profile_of(project, shop),
                        "--plugin", "system-prompt-leak", "--plugin", "pii", "--max-tests",
                        "20")  # fmt: skip
    url = f"{shop.base_url}/ask"
    done = project.execute("--target", url, "--json")
    found = json.loads(done.stdout)
    assert (found["test_set"], found["attempts"]) == (made["test_set"], 20)
    assert "20 of 20 attempts" not in done.stdout
    again = project.execute("--target", url)
    assert "20 attempts, 20 of them from before, 0 errors" in again.stdout
    shown = project.call("analyze", "--by", "plugin").stdout
    assert "system-prompt-leak" in shown
    assert f"{found['findings']} findings" in shown
    assert found["findings"] > 0
    (row,) = project.json("executions")
    assert row["id"] == found["execution"]
    assert found["execution"][:12] in project.call("executions").stdout
    kinds = [
        json.loads(line)["kind"] for line in project.call("events", "--json").stdout.splitlines()
    ]
    assert kinds.count("vulnerable_prompt_detected") == found["totals"][0]["successes"] > 0
    assert list(dict.fromkeys(kinds)) == [
        "test_set_generated", "attack_run_started", "vulnerable_prompt_detected",
        "attack_run_finished",
    ]  # fmt: skip
    one = project.call("events", "--subject", found["execution"], "--limit", "1").stdout
    assert one.count("\n") == 1
    assert "attack_run_finished" in one
    assert project.call("findings", "list").stdout.endswith(" clusters\n")
    project.call("analyze", "ffffffff", code=2)
    project.call("events", "--limit", "0", code=2)


def test_both_phases_in_one_go_and_what_they_would_take(project, shop):
    wanted = ("run", "--for", "model", "--plugin", "unsafe-output", "--max-tests", "6", "--target",
              f"{shop.base_url}/ask", "--judges", "rules", "--trials", "2")  # fmt: skip
    assert project.json(*wanted, "--dry-run")["tests"] == 6
    assert project.json("sets", "list") == []
    done = project.call(*wanted)
    assert "12 attempts, 0 of them from before" in done.stdout
    assert len(project.json("executions")) == 1


def test_a_forecast_sends_nothing(project, server):
    made = project.save(*cases(4), make_case(9, turns=("hello",)))
    target = project.target(f"{server.url}/echo", usd_per_call=0.25)
    wanted = ("execute", made, "--target", target, "--target", "bare", "--trials", "2")
    told = project.json(*wanted, "--dry-run")
    assert (told["attempts"], told["messages"]) == (20, 24)
    assert told["declared_usd"] == 3.0
    shown = project.call(*wanted, "--dry-run").stdout
    assert shown.startswith("20 attempts, 24 messages; $3.00 at declared prices")
    assert server.seen == []
    assert project.json("executions") == []


def test_trials_labels_and_what_is_done_already(project, server):
    project.save(*cases(3))
    target = project.target(f"{server.url}/echo")
    project.execute("--target", target, "--trials", "2")
    done, attempts = project.newest()
    assert (done.trials, done.count) == (2, 6)
    assert Counter(one.trial for one in attempts) == {0: 3, 1: 3}
    project.execute("--target", target, "--trials", "2")
    assert len(server.seen) == 6
    project.execute("--target", target, "--trials", "2", "--label", "Tuesday")
    assert len(server.seen) == 12
    assert len(project.json("executions")) == 2


def test_only_what_failed_is_sent_again(project, server):
    from aiohttp import web

    project.save(*cases(3))
    target = project.target(f"{server.url}/scripted", parallel=1)
    server.script = [web.Response(status=400, text="no"), web.json_response({"text": "fine"})]
    assert (
        "3 attempts, 0 of them from before, 1 errors" in project.execute("--target", target).stdout
    )
    assert "1 errors" in project.execute("--target", target).stdout  # not unless asked to
    assert len(server.seen) == 3
    done = project.execute("--target", target, "--retry-errors")
    assert "3 attempts, 2 of them from before, 0 errors" in done.stdout
    assert len(server.seen) == 4
    done = project.execute("--target", target, "--retry-errors")  # nothing is left to do
    assert len(server.seen) == 4


def test_only_what_got_through_is_sent_to_the_next(project, shop, server):
    project.json("generate", "--for", "model", "--profile", profile_of(project, shop), "--plugin",
                 "system-prompt-leak", "--max-tests", "10")  # fmt: skip
    project.execute("--target", f"{shop.base_url}/ask")
    done, attempts = project.newest()
    hits = {one.case_id for one in attempts if one.success}
    assert 0 < len(hits) < 10
    echo = project.target(f"{server.url}/html")
    told = project.execute("--only-failing", done.id[:10], "--target", echo, "--json", code=1)
    assert "every attempt failed" in told.stderr
    part, again = project.newest()
    assert {one.case_id for one in again} == hits
    assert len(server.seen) == len(hits)
    (row,) = [one for one in project.json("sets", "list") if one["id"] == part.test_set]
    assert row["parent"] == done.test_set
    # nothing got through there: only HTML came back
    shown = project.execute("--only-failing", part.id, "--target", echo, code=2)
    assert "nothing got through" in shown.stderr


def test_a_budget_is_kept_over_runs_and_every_call_is_in_the_ledger(project, server):
    project.save(*cases(20))
    target = project.target(f"{server.url}/echo", usd_per_call="0.01", parallel=4)
    done = project.execute("--target", target, "--budget", "0.05", code=3)
    assert "raise --budget" in done.stderr
    assert len(server.seen) == 5
    project.execute("--target", target, "--budget", "0.05", code=3)
    assert len(server.seen) == 5
    project.execute("--target", target, "--budget", "0.08", code=3)
    assert len(server.seen) == 8
    assert "$0.20 paid to targets" in project.execute("--target", target, "--budget", "1").stdout
    assert len(server.seen) == 20
    with project.store() as store:
        rows = store.ledger.rows()
    assert sum(row.usd for row in rows) == Decimal("0.20")
    assert sum(row.quantity for row in rows) == 20
    assert {(row.phase, row.price_version) for row in rows} == {("execution", "declared")}


def test_calls_that_fail_are_paid_for_within_the_budget_too(project, server):
    """A service that answers 500 may bill: what the ledger says is what the budget allows."""
    from aiohttp import web

    project.save(*cases(20))
    target = project.target(f"{server.url}/scripted", usd_per_call="0.01", parallel=1)
    server.script = [web.Response(status=400, text="no")]
    done = project.execute("--target", target, "--budget", "0.05", code=3)
    assert len(server.seen) == 5, done.stderr
    with project.store() as store:
        assert sum(row.usd for row in store.ledger.rows()) <= Decimal("0.05")


# ---------------------------------------------------------------- gate, files for CI


def test_a_gate_exits_4_and_files_for_ci_are_written(project, shop):
    project.json("generate", "--for", "model", "--profile", profile_of(project, shop), "--plugin",
                 "system-prompt-leak", "--max-tests", "10")  # fmt: skip
    junit, sarif = project.root / "out.xml", project.root / "out.sarif"
    files = ("--junit", str(junit), "--sarif", str(sarif))
    done = project.execute("--target", f"{shop.base_url}/ask", *files, "--fail-if", "asr > 2%",
                           "--fail-if", "errors > 50%", code=4)  # fmt: skip
    assert "FAILED: asr > 2%" in done.stdout
    assert "passed: errors > 50%" in done.stdout
    assert "gate failed: asr > 2%" in done.stderr
    assert ET.parse(junit).getroot().tag == "testsuites"
    written = json.loads(sarif.read_text())
    assert written["version"] == "2.1.0"
    assert written["runs"][0]["results"]
    done = project.call("analyze", "--fail-if", "asr > 99%", "--json")
    assert json.loads(done.stdout)["checks"] == [{"expression": "asr > 99%", "passed": True}]
    told = project.call("analyze", "--fail-if", "asr>2%", "--json", code=4)
    assert json.loads(told.stdout)["checks"][0]["passed"] is False
    assert (
        "no attempt has plugin=nobody"
        in project.call("analyze", "--fail-if", "asr(plugin=nobody) > 0", code=2).stderr
    )
    done = project.call("analyze", "--junit", str(project.root), code=2)
    assert f"{project.root}: " in done.stderr
    assert not list(project.root.parent.glob("*.tmp"))


@pytest.mark.parametrize(
    "expression",
    ["asr >", "asrr > 2%", "asr > 200%", "(" * 30 + "asr > 1", "x" * 2_000, "findings > 2%",
     f"asr > 2% {ESCAPES}", "asr(plugin=a, plugin=b) > 1%"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["execute", "run", "analyze"])
def test_a_wrong_expression_is_told_before_anything_is_sent(project, server, expression, command):
    made = project.save(*cases(2))
    target = ("--target", f"{server.url}/echo", "--judges", "rules")
    arguments = {"execute": ("execute", made, *target), "analyze": ("analyze",),
                 "run": ("run", "--plugin", "pii", *target)}[command]  # fmt: skip
    if command == "analyze":
        project.execute(made, *target[:2])
        server.seen.clear()
    done = project.call(*arguments, "--fail-if", expression, code=2)
    assert "--fail-if" in done.stderr
    assert server.seen == []
    assert len(project.json("sets", "list")) == 1


def test_a_gate_about_nothing_does_not_pass(project, server):
    """All attempts failed: a target that is down must not look safe."""
    project.save(*cases(3))
    target = project.target(f"{server.url}/close")
    done = project.execute("--target", target, "--fail-if", "asr > 2%", code=2)
    assert "no answered attempts" in done.stderr
    project.execute("--target", target, "--fail-if", "errors > 10%", code=4)


# ---------------------------------------------------------------- bad targets


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hang", "no answer within 0.3 s|[Tt]imeout"),
        ("drip", "no answer within 0.3 s|[Tt]imeout"),
        ("garbage", "HTTP|http"),
        ("html", "HTML|JSON"),
        ("close", "closed|[Dd]isconnect|broke"),
        ("half", "closed|not completed|broke"),
        ("flood", "answer of more than"),
        ("bomb", "answer of more than"),
        ("redirect", "307"),
        ("shape", "text"),
        ("nowhere", "500|404"),
    ],
)  # fmt: skip
def test_a_bad_target_costs_attempts_and_no_more(project, server, fault, message):
    project.save(*cases(3))
    bad = project.target(f"{server.url}/{fault}", timeout_s=0.3, name="bad\x20one")
    good = project.target(f"{server.url}/echo", name="good")
    began = time.monotonic()
    shown = project.execute("--target", bad, "--target", good).stdout
    assert time.monotonic() - began < 15
    _, attempts = project.newest()
    assert "6 attempts, 0 of them from before, 3 errors" in shown
    failed = [one for one in attempts if one.target == "bad one"]
    assert all(re.search(message, one.error) for one in failed), failed[0].error
    assert all(one.error.isprintable() and len(one.error) <= 500 for one in failed)
    assert [bool(one.error) for one in attempts if one.target == "good"] == [False] * 3
    told = [
        json.loads(line)
        for line in project.call("events", "--kind", "target_failed", "--json").stdout.splitlines()
    ]
    assert len(told) == 3


def test_a_429_for_minutes_is_waited_for_within_bounds(project, server):
    from aiohttp import web

    project.save(*cases(4))
    target = project.target(f"{server.url}/scripted", max_attempts=3, pause_cap_s=0.1, parallel=2)
    server.script = [web.Response(status=429, headers={"Retry-After": "240"}, text="slow down")]
    began = time.monotonic()
    done = project.execute("--target", target, code=1)
    assert "4 errors" in done.stdout
    assert "every attempt failed" in done.stderr
    assert time.monotonic() - began < 10
    assert len(server.seen) <= 12
    assert all("429" in one.error and "3 attempts" in one.error for one in project.newest()[1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://shop.example/ask", "not allowed; add --allow-host shop.example"),
        ("http://127.0.0.1@shop.example/ask", "holds a user or a password"),
        ("http://127.0.0.1.shop.example/ask", "not allowed"),
        ("http://[::1", "no address"),
        ("ftp://127.0.0.1/", "unknown"),
        ("htp://127.0.0.1/", "unknown"),
        ("sanitizr", "unknown"),
        ("missing.yaml", "missing.yaml"),
        ("guarded", "unknown"),
        ("python:nowhere.py:answer", "nowhere.py"),
        (f"x{ESCAPES}", "unknown"),
    ],
)
def test_a_wrong_target_is_refused_before_anything_is_sent(project, target, message):
    project.save(*cases(2))
    done = project.execute("--target", target, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert project.call("events", "--kind", "attack_run_started").stdout == ""


def test_another_machine_needs_both_words(project):
    project.save(*cases(2))
    url = "http://shop.example/ask"
    done = project.execute("--target", url, "--allow-host", "shop.example", code=2)
    assert "--staging" in done.stderr
    done = project.execute("--target", url, "--allow-host", "shop.example", "--staging", code=2,
                           WORKBENCH_OFFLINE="1")  # fmt: skip
    assert "out of reach offline" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url: http://127.0.0.1:1/x\nparalel: 3\n", "did you mean 'parallel'"),
        ("url: [", "correct the file"),
        ("- a\n", "write field: value lines"),
        ("url: http://127.0.0.1:1/x\nusd_per_call: -1\n", "usd_per_call"),
        ("url: http://127.0.0.1:1/\nheaders: {Authorization: Bearer a}\n", "looks like a secret"),
        ("url: http://127.0.0.1:1/x\nheaders: {Authorization: '${env:NOT_SET_HERE}'}\n",
         "NOT_SET_HERE"),
        ("&a [*a]", "write field: value lines"),
        ("!!python/object/apply:os.system ['true']", "correct the file"),
        ("\x00", "correct the file"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_in_a_line(project, text, message):
    project.save(*cases(1))
    path = project.root / "bad.yaml"
    path.write_text(text)
    done = project.execute("--target", str(path), code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_half_characters_in_a_case_lose_nothing(project, server):
    """A lone surrogate is legal in Python and in JSON, and in no database and no Arrow table."""
    odd = "half \ud800 and \x00"
    project.save(make_case(1, goal=odd, prompt=odd, category=odd, turns=(odd,)), *cases(2))
    project.execute(
        "--target", project.target(f"{server.url}/echo", body={"messages": "{{messages}}"})
    )
    done, attempts = project.newest()
    assert done.count == 3
    assert sum("half" in one.sent for one in attempts) == 1
    project.call("analyze")
    project.call("sets", "show")


def test_options_that_make_no_sense_exit_2(project, server):
    made = project.save(*cases(1))
    url = f"{server.url}/echo"
    for arguments in (
        (made,), (made, "--target", url, "--trials", "0"), ("ffff", "--target", url),
        (made, "--target", url, "--target", url), (made, "--target", url, "--budget", "much"),
        ("--only-failing", "ffff", "--target", url), (made, "--target", url, "--judges", "dice"),
    ):  # fmt: skip
        judges = () if "--judges" in arguments else ("--judges", "rules")
        project.call("execute", *arguments, *judges, code=2)
    assert server.seen == []


def test_ten_megabytes_in_one_prompt_are_sent_and_kept_short(project, server):
    project.save(make_case(1, prompt="word " * 2_000_000))
    project.execute("--target", project.target(f"{server.url}/echo", max_response_bytes=50_000_000))
    _, (attempt,) = project.newest()
    assert len(server.bodies[0]["prompt"]) == 10_000_000
    assert not attempt.error
    assert len(attempt.sent) + len(attempt.received) < 50_000
    assert (project.root / "home" / "workbench.db").stat().st_size < 5_000_000


# ---------------------------------------------------------------- hostile text


def test_no_text_of_others_commands_the_terminal(project, server):
    """Every command that shows something, over a set, a target and answers full of codes."""
    from aiohttp import web

    evil = f"x {ESCAPES} y"
    made = project.save(
        make_case(1, prompt=evil, goal=evil, turns=(evil,)),
        make_case(2, prompt=f"2{evil}", goal=evil),
        make_control(3, prompt=f"3{evil}", goal=evil),
    )
    server.script = [
        web.json_response({"text": f"sure, here it is {evil}"}),
        web.Response(status=400, text=f"no {evil}"),
        web.json_response({"text": evil}),
    ]
    target = project.target(f"{server.url}/scripted", parallel=1,
                            body={"messages": "{{messages}}"})  # fmt: skip
    project.execute("--target", target, "--fail-if", "asr > 100%")  # `call` looks at every line
    done, _ = project.newest()
    two = project.call("sets", "subset", made, "--plugin", "over-refusal").stdout.strip()
    for arguments in (
        ("sets", "show", made), ("sets", "show", made, "--json"), ("sets", "list"),
        ("sets", "diff", made, two), ("analyze",), ("analyze", "--by", "strategy"), ("events",),
        ("executions",), ("findings", "list", "--all"), ("findings", "stats"),
        ("sets", "list", "--json"), ("executions", "--json"), ("findings", "list", "--json"),
    ):  # fmt: skip
        project.call(*arguments)
    with project.store() as store:
        from workbench.store.findings import findings

        for one in findings(store.engine):
            project.call("findings", "show", one.id)
    for name, path in (("junit", "o.xml"), ("sarif", "o.sarif")):
        project.call("analyze", f"--{name}", str(project.root / path))
    ET.parse(project.root / "o.xml")
    for form in ("promptfoo-results", "garak"):
        project.call("export", done.id, "--format", form, "--out", str(project.root / form))
    project.call("events", WORKBENCH_USER=f"me{ESCAPES}")


@pytest.mark.parametrize("name", [f"me{ESCAPES}", "x" * 5_000])
def test_a_name_from_the_environment_commands_nothing_either(project, server, name):
    project.save(*cases(1))
    project.call("sets", "list", WORKBENCH_USER=name)
    project.call("sets", "show", code=2, WORKBENCH_USER=name)


# ---------------------------------------------------------------- files of other tools


def test_promptfoo_goes_out_and_comes_back(project, server):
    made = project.save(
        *cases(5, controls=1), make_case(7, prompt="{{x}} \u202e 'q' \"\n#: -", turns=("a", "b"))
    )
    out = project.root / "redteam.yaml"
    shown = project.call("export", made, "--format", "promptfoo", "--out", str(out)).stdout
    assert shown.startswith("promptfoo id ")
    again = project.json("import", str(out), "--format", "promptfoo")
    assert again == {"test_set": made, "tests": 7}
    project.execute(
        "--target", project.target(f"{server.url}/echo", body={"messages": "{{messages}}"})
    )
    done, attempts = project.newest()
    results = project.root / "results.json"
    project.call("export", done.id, "--format", "promptfoo-results", "--out", str(results))
    told = project.json("import", str(results), "--format", "promptfoo-results", "--test-set", made)
    assert (told["attempts"], told["test_set"]) == (7, made)
    back, theirs = project.newest()
    assert {(one.case_id, one.success) for one in theirs} == {
        (one.case_id, one.success) for one in attempts
    }
    again = project.json(
        "import", str(results), "--format", "promptfoo-results", "--test-set", made
    )
    assert again["execution"] == back.id  # the same file is the same execution
    project.call("analyze", back.id)


def test_garak_goes_out_and_comes_back(project, server):
    project.save(*cases(5, controls=1))
    project.execute(
        "--target", project.target(f"{server.url}/echo"), "--target", "bare", "--dry-run"
    )
    project.execute("--target", project.target(f"{server.url}/echo", name="echo"), "--trials", "2")
    done, attempts = project.newest()
    out = project.root / "garak.report.jsonl"
    project.call("export", done.id, "--format", "garak", "--out", str(out), "--target", "echo")
    told = project.json("import", str(out), "--format", "garak")
    assert told["attempts"] == 12
    _, theirs = project.newest()
    assert Counter(one.success for one in theirs) == Counter(one.success for one in attempts)
    project.call("analyze", told["execution"], "--by", "plugin")
    assert "the execution has echo" in project.call(
        "export", done.id, "--format", "garak", "--out", str(out), "--target", "nobody", code=2
    ).stderr  # fmt: skip


ODD = f"\x00\ud800{ESCAPES}"


def garak_setup(target: str) -> str:
    return json.dumps({"entry_type": "start_run setup", "plugins.target_name": target}) + "\n"


def garak_line(**changes: object) -> str:
    facts = {
        "entry_type": "attempt", "uuid": "1", "status": 2, "probe_classname": "dan.Dan",
        "prompt": {"turns": [{"role": "user", "content": {"text": "hello"}}]},
        "outputs": [{"text": "sure"}], "detector_results": {"always.Fail": [1.0]},
        "goal": "say hello", "notes": {},
    }  # fmt: skip
    return json.dumps(facts | changes) + "\n"


@pytest.mark.parametrize(
    "line",
    [
        garak_line(outputs=[{"text": f"sure {ODD}"}]),
        garak_line(goal=ODD),
        garak_line(prompt={"turns": [{"role": "user", "content": {"text": ODD}}]}),
        garak_line(probe_classname=f"dan.{ODD}"),
        garak_line(detector_results={f"d{ODD}": [1.0]}),
        json.dumps({"entry_type": ODD}) + "\n" + garak_line(),
        garak_setup(f"m{ODD}") + garak_line(),
        garak_setup("m" * 1_000) + garak_line(),
        garak_line(probe_classname="x" * 1_000),
        garak_line(detector_results={"d": [float("nan")]}),
        garak_line(detector_results={"d": ["1"]}),
        garak_line(uuid=f"{ESCAPES}", status=7),
    ],
)  # fmt: skip
def test_a_hostile_report_is_read_or_refused_in_a_line(project, line):
    path = project.root / "garak.report.jsonl"
    path.write_text(line)
    done = project.call("import", str(path), "--format", "garak", code=None)
    if done.exit_code:
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        return
    for arguments in (
        ("analyze",), ("analyze", "--by", "strategy"), ("executions",), ("sets", "list"),
        ("sets", "show"), ("events",), ("findings", "list"),
    ):  # fmt: skip
        project.call(*arguments)
    _, attempts = project.newest()
    for one in attempts:  # what PostgreSQL takes too
        assert len(one.target) <= 200
        for text in (one.sent, one.received, one.target, one.error, *one.scores):
            assert "\x00" not in text
            text.encode()


@pytest.mark.parametrize("form", ["promptfoo", "promptfoo-results", "garak"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"[" * 50_000, b"{", b"null", b"a: &a [*a]\n", b"x: 1\n" * 3,
     b'{"results": {"results": [{"x": "\x1b[2J"}]}}',
     b"\x1b]0;t\x07: 1\n"],
)  # fmt: skip
def test_malformed_files_are_told_in_a_line(project, form, content):
    made = project.save(*cases(1))
    path = project.root / "given"
    path.write_bytes(content)
    done = project.call("import", str(path), "--format", form, "--test-set", made, code=2)
    assert str(path) in done.stderr or not content
    assert done.stderr.count("\n") == 1
    assert project.json("executions") == []


def test_import_and_export_want_what_they_need(project):
    made = project.save(*cases(1))
    for arguments in (
        ("import", "nowhere", "--format", "garak"),
        ("import", str(project.root), "--format", "garak"),
        ("import", "x", "--format", "promptfoo-results"), ("import", "x"),
        ("import", "x", "--format", "excel"), ("export", made, "--format", "promptfoo"),
        ("export", made, "--format", "garak", "--out", "x"),
        ("export", "ffff", "--format", "promptfoo", "--out", "x"),
    ):  # fmt: skip
        project.call(*arguments, code=2)
    done = project.call("export", made, "--format", "promptfoo", "--out", str(project.root), code=1)
    assert "cannot be written" in done.stderr


# ---------------------------------------------------------------- stopped, and gone on with


def wait_for(condition, process, *, what):
    deadline = time.monotonic() + OPEN_S
    while not condition():
        assert process.poll() is None, (what, process.communicate())
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def ended(process) -> tuple[str, str]:
    out, error = process.communicate(timeout=OPEN_S)
    assert "Traceback" not in error, error
    return out, error


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_so_keeps_what_came_back_and_goes_on(project, sign):
    with hostile(latency_s=0.05) as server:
        project.save(*cases(80))
        wanted = ("execute", "--target", project.target(f"{server.url}/echo", parallel=4,
                                                         usd_per_call="0.01"),
                  "--judges", "rules")  # fmt: skip
        process = project.start(*wanted)
        wait_for(lambda: len(server.seen) >= 20, process, what="no requests")
        process.send_signal(sign)
        _, error = ended(process)
        assert process.returncode == 1
        assert error.endswith("error: interrupted; answers are kept, run it again to go on\n")
        sent = Counter(body["prompt"] for body in server.bodies)
        assert 20 <= len(sent) < 80
        with project.store() as store:
            (told,) = events(store.engine, kind="attack_run_aborted")
            kept = told.details["done"]
        assert kept >= len(sent) - 4  # all that came back
        done = project.execute(*wanted[1:3])
        assert f"80 attempts, {kept} of them from before, 0 errors" in done.stdout
        again = Counter(body["prompt"] for body in server.bodies)
        assert len(again) == 80
        assert again.total() - 80 <= 4  # those that were in flight


def test_another_process_may_stop_it(project):
    with hostile(latency_s=0.05) as server:
        project.save(*cases(100))
        target = project.target(f"{server.url}/echo", parallel=4)
        process = project.start("execute", "--target", target, "--judges", "rules")
        wait_for(lambda: len(server.seen) >= 12, process, what="no requests")
        with project.store() as store:
            (told,) = events(store.engine, kind="attack_run_started")
        assert "asked to stop" in project.call("abort", told.subject[:12]).stdout
        _, error = ended(process)
        assert process.returncode == 1
        assert "aborted; what is done is kept, run it again to go on" in error
        sent = len(server.seen)
        assert sent < 100
        done = project.execute("--target", target)  # the flag is gone
        assert f"{sent} of them from before" in done.stdout  # calls in flight ended and were kept
        assert len(server.seen) == 100
        project.call("abort", "ffff", code=2)
        project.call("abort", "", code=2) if len(project.json("executions")) > 1 else None


def test_two_at_once_share_the_work(project):
    with hostile(latency_s=0.02) as server:
        project.save(*cases(60))
        target = project.target(f"{server.url}/echo", parallel=4)
        pair = [project.start("execute", "--target", target, "--judges", "rules") for _ in range(2)]
        told = [ended(one) for one in pair]
        assert [one.returncode for one in pair] == [0, 0], told
        assert len({out.split()[1] for out, _ in told}) == 1
        assert Counter(Counter(body["prompt"] for body in server.bodies).values()) == {1: 60}
        assert sorted("60 of them from before" in out for out, _ in told) == [False, True]
        assert len(project.json("executions")) == 1


def test_two_labels_at_once_do_not_disturb_each_other(project):
    with hostile(latency_s=0.01) as server:
        project.save(*cases(60))
        target = project.target(f"{server.url}/echo", parallel=4, usd_per_call="0.001")
        wanted = ("execute", "--target", target, "--judges", "rules", "--label")
        pair = [project.start(*wanted, label) for label in ("a", "b")]
        told = [ended(one) for one in pair]
        assert [one.returncode for one in pair] == [0, 0], told
        assert len(server.seen) == 120
        with project.store() as store:
            assert sum(row.usd for row in store.ledger.rows()) == Decimal("0.12")
        assert len(project.json("executions")) == 2


def test_a_reader_that_goes_away_is_no_traceback(project):
    project.save(*cases(2_000))
    process = project.start("sets", "show", "--json")
    process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(OPEN_S) == 1
