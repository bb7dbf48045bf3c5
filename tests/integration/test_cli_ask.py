"""``workbench ask`` as a user types it, against the loopback server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from workbench.core.settings import read_settings
from workbench.llm.loopback import Faults, LoopbackServer
from workbench.store.database import open_store

WORKBENCH = str(Path(sys.executable).parent / "workbench")
KEY = "sk-ant-for-tests-0123456789"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "notebooks").mkdir()
    return tmp_path


@pytest.fixture
def server():
    with LoopbackServer(seed=3).serve_in_thread() as running:
        yield running


def environment(root, **variables):
    kept = {name: value for name, value in os.environ.items() if "ANTHROPIC" not in name}
    return {**kept, "WORKBENCH_HOME": str(root / "home"), "ANTHROPIC_API_KEY": KEY, **variables}


def ask(root, *arguments, given="", **variables):
    done = subprocess.run(
        [WORKBENCH, "ask", *arguments], cwd=root, env=environment(root, **variables), input=given,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert KEY not in done.stderr + done.stdout
    return done


@contextmanager
def store_of(root):
    store = open_store(read_settings({"WORKBENCH_HOME": str(root / "home")}))
    try:
        yield store
    finally:
        store.engine.dispose()


def rows_of(root):
    with store_of(root) as store:
        return store.ledger.rows()


def show(root, *arguments):
    done = subprocess.run(
        [WORKBENCH, "cost", "show", *arguments, "--json"],
        cwd=root, env=environment(root), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_answers_in_order_metered_and_at_hand_the_second_time(project, server):
    prompts = [f"What is number {n}?" for n in range(5)]
    arguments = ("--base-url", server.base_url, "--max-tokens", "40", "--json")
    done = ask(project, *arguments, *prompts)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["number"] for one in answers] == [1, 2, 3, 4, 5]
    assert {one["outcome"] for one in answers} == {"sent"}
    assert Decimal(str(sum(one["usd"] for one in answers))).quantize(
        Decimal("1e-9")
    ) == server.ledger.total_usd().quantize(Decimal("1e-9"))
    assert all(one["text"] and one["stop_reason"] and one["latency_s"] > 0 for one in answers)
    assert "estimated: 5 calls, 0 at hand" in done.stderr
    assert "5 calls, 0 at hand, $" in done.stderr.splitlines()[-1]

    again = ask(project, *arguments[:-1], given="\n".join([*prompts, ""]))
    assert again.stdout.splitlines() == [one["text"] for one in answers]
    assert server.requests == 5
    last = again.stderr.splitlines()[-1]
    assert last.startswith("0 calls, 5 at hand, $0.00 billed, $0.0")
    assert last.endswith(" kept from before")  # it bought them itself: nothing is saved
    shown = show(project, "rehearsal")
    assert [row["verdict"] for row in shown["estimates"]] == ["within", "within"]
    assert [row["calls"] for row in shown["estimates"]] == [5, 0]
    assert shown["groups"][0]["group"] == "generation"


def test_a_dry_run_needs_no_key_spends_nothing_and_is_not_kept(project, server):
    variables = {"ANTHROPIC_API_KEY": "", "WORKBENCH_OFFLINE": "1"}
    done = ask(project, "--dry-run", "--json", "one", "two", "one", **variables)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    low, expected, worst = map(Decimal, figures["usd"])
    assert (figures["calls"], figures["hits"]) == (2, 1)
    assert 0 < low < expected < worst
    shown = ask(project, "--dry-run", "--base-url", server.base_url, "one", **variables)
    assert shown.stdout.startswith("1 calls, 0 at hand, 0 by rule; about ")
    assert server.requests == 0
    with store_of(project) as store:
        assert store.ledger.rows() == store.calls.estimates("by-hand") == []


def test_objects_say_more_than_prompts(project, server):
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    lines = [
        {"prompt": "Sum up: x", "task": "summary", "system": "Be brief.", "max_tokens": 20},
        {"prompt": "Sum up: x", "task": "summary", "system": "Be brief.", "max_tokens": 20,
         "variant": 1},
        {"prompt": "Hard one", "difficulty": "complex", "schema": schema},
    ]  # fmt: skip
    given = "\n".join(map(json.dumps, lines))
    done = ask(project, "--jsonl", "--json", "--base-url", server.base_url, given=given)
    assert done.returncode == 0, done.stderr
    brief, other, hard = (json.loads(line) for line in done.stdout.splitlines())
    assert server.requests == 3
    assert brief["model"] == other["model"] != hard["model"]
    assert set(json.loads(hard["text"])) == {"a"}
    named = ask(project, "x", "--model", "claude-opus-5-5", "--json", "--base-url", server.base_url)
    assert json.loads(named.stdout)["model"] == "claude-opus-5-5"


def test_a_batch_costs_half(project, server):
    arguments = ("--base-url", server.base_url, "--max-tokens", "30", "--json")
    done = ask(project, "--batch", *arguments, "one", "two")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["outcome"] for line in done.stdout.splitlines()] == ["batch"] * 2
    assert {row.path for row in server.ledger.rows} == {"/v1/messages/batches"}


def test_what_failed_is_told_and_the_rest_is_kept(project):
    faults = Faults(script=("", "400"))
    with LoopbackServer(faults=faults).serve_in_thread() as server:
        config = json.dumps({"savings": {"parallel": 1}})
        arguments = ("--base-url", server.base_url, "one", "two", "three")
        done = ask(project, *arguments, WORKBENCH_LLM=config)
        assert done.returncode == 1
        first, second, third = done.stdout.splitlines()
        assert first
        assert not second
        assert third
        (told,) = [line for line in done.stderr.splitlines() if line.startswith("prompt ")]
        assert told.startswith("prompt 2: ")
        again = ask(project, *arguments, WORKBENCH_LLM=config)
        assert (again.returncode, server.requests) == (0, 4)


def test_a_budget_is_never_exceeded_and_what_was_bought_is_printed(project, server):
    prompts = [f"What is number {n}?" for n in range(40)]
    arguments = ("--base-url", server.base_url, "--max-tokens", "40", *prompts)
    done = ask(project, "--budget", "0.004", *arguments)
    assert done.returncode == 3
    assert "$0.004" in done.stderr
    assert "error: --budget is $0.004: " in done.stderr
    assert "raise --budget and run again" in done.stderr
    bought = sum(map(bool, done.stdout.splitlines()))
    assert 0 < bought == server.requests < 40
    assert 0 < server.ledger.total_usd() <= Decimal("0.004")
    more = ask(project, "--budget", "1", *arguments)
    assert more.returncode == 0, more.stderr
    assert server.requests == 40


def test_the_budget_is_of_these_prompts_alone(project, server):
    arguments = ("--base-url", server.base_url, "--max-tokens", "40", "--budget", "0.001")
    for prompt in ("one", "two", "three"):
        assert ask(project, *arguments, prompt).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ([], "", "no prompts"),
        ([" "], "", "prompt 1: a request's prompt is empty"),
        (["--budget", "-1", "x"], "", "--budget: '-1'; write dollars >= 0"),
        (["--budget", "much", "x"], "", "dollars >= 0"),
        (["--task", "sumary", "x"], "", "did you mean 'summary'"),
        (["--difficulty", "compex", "x"], "", "--difficulty 'compex'; did you mean 'complex'"),
        (["--max-tokens", "0", "x"], "", "--max-tokens 0"),
        (["--model", "gpt-none", "x"], "", "gpt-none"),
        (["--base-url", "http://127.0.0.1:1@x", "x"], "", "error: --base-url: write"),
        (["--jsonl"], "{", "prompt 1 is not JSON"),
        (["--jsonl"], '{"prompt": "a"}\n[1]', "prompt 2 is no object"),
        (["--jsonl"], "{}", "without a prompt"),
        (["--jsonl"], '{"promt": "a"}', "did you mean 'prompt'"),
        (["--jsonl"], '{"prompt": "a", "max_tokens": 0}', "prompt 1: max_tokens=0"),
        (["--jsonl"], '{"prompt": "a", "variant": true}', "prompt 1: variant True is no int"),
        (["--jsonl"], '{"prompt": "\\ud800"}', "lone surrogate"),
    ],
)
def test_bad_input_exits_2_before_anything_is_sent(project, server, arguments, given, message):
    if "--base-url" not in arguments:
        arguments = [*arguments, "--base-url", server.base_url]
    done = ask(project, *arguments, given=given)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.requests == 0


def test_a_threshold_that_aborts_stops_it_before_anything_is_sent(project, server):
    file = project / "alerts.yaml"
    file.write_text("alerts: [{metric: storage_growth_mb, window: day, limit: 0, action: abort}]")
    done = ask(project, "x", "--base-url", server.base_url)
    assert done.returncode == 3
    assert "storage_growth_mb of the last day" in done.stderr
    assert server.requests == 0
    assert ask(project, "x", "--dry-run").returncode == 0
    file.write_text(file.read_text().replace("abort", "warn"))
    done = ask(project, "x", "--base-url", server.base_url)
    assert done.returncode == 0
    assert "warning: storage_growth_mb of the last day" in done.stderr


def test_answers_come_one_by_one_in_order(project):
    prompts = [f"What is number {n}?" for n in range(30)]
    with LoopbackServer(latency_s=0.03).serve_in_thread() as server:
        config = json.dumps({"savings": {"parallel": 1}})
        command = ("ask", "--base-url", server.base_url, "--max-tokens", "20", "--json", *prompts)
        process = subprocess.Popen(
            [WORKBENCH, *command], cwd=project, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env=environment(project, WORKBENCH_LLM=config),
        )  # fmt: skip
        with process:
            first = json.loads(process.stdout.readline())
            assert server.requests < 30
            rest = [json.loads(line) for line in process.stdout]
    assert [one["number"] for one in (first, *rest)] == list(range(1, 31))


def test_an_answer_cannot_command_a_terminal(project):
    hostile = "one\x1b]0;title\x07\x9b2J\ntwo"
    with LoopbackServer(answer=lambda body: hostile).serve_in_thread() as server:
        done = ask(project, "x", "--base-url", server.base_url)
        assert done.stdout == "one\ufffd]0;title\ufffd\ufffd2J\ntwo\n"
        as_json = ask(project, "x", "--base-url", server.base_url, "--json")
        assert json.loads(as_json.stdout)["text"] == hostile


def test_after_a_kill_the_same_command_buys_only_what_is_missing(project):
    prompts = [f"What is number {n}?" for n in range(40)]
    # what another command bought would be bought again: only this one's own answers are at hand
    config = json.dumps({"savings": {"parallel": 2, "response_cache": False}})
    with LoopbackServer(latency_s=0.02).serve_in_thread() as server:
        command = ("--base-url", server.base_url, "--max-tokens", "20", "--json", *prompts)
        first = subprocess.Popen(
            [WORKBENCH, "ask", *command], cwd=project, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=environment(project, WORKBENCH_LLM=config),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while server.requests < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        kept = sum(row.details["outcome"] == "sent" for row in rows_of(project))
        assert 0 < kept < 40
        looked = ask(project, "--dry-run", *command, WORKBENCH_LLM=config)
        (told,) = looked.stderr.splitlines()  # of what was in flight, and of no bill
        assert "charged to the run that lost them" in told
        done = ask(project, *command, WORKBENCH_LLM=config)
        assert done.returncode == 0, done.stderr
        assert "lost" not in done.stderr
        outcomes = Counter(json.loads(line)["outcome"] for line in done.stdout.splitlines())
        assert outcomes == {"hit": kept, "sent": 40 - kept}
        sent = Counter(row.prompt_sha256 for row in server.ledger.rows)
        assert len(sent) == 40
        # twice: at most what was reserved, in flight or answered and not yet durable
        lost = sum(row.details["outcome"] == "lost" for row in rows_of(project))
        assert sent.total() <= 40 + lost
        assert lost <= 10  # 2 in flight, and 8 about to be or just back
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"{40 - kept} calls, {kept} at hand, $")
        assert last.endswith(" kept from before")
    billed = sum(row.usd for row in rows_of(project))
    assert billed >= server.ledger.total_usd()
