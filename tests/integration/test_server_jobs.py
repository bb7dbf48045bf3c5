"""Jobs as they are: a campaign in a process of its own, killed, stopped and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from campaign_fakes import make_set
from notebook_projects import write_experiment, write_notebook
from workbench.campaign import testsets
from workbench.server.service import JobService
from workbench.store.database import Store, as_user
from workbench.store.events import events
from workbench.store.jobs import Job, add_job, job
from workbench.store.live import watched_execution

CASES = 120
WAIT = "import time; time.sleep(seconds)"


class Bot(ThreadingHTTPServer):
    """A target that counts what it was asked; slow, so that there is time to stop."""

    daemon_threads = True

    def __init__(self, delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[bytes] = Counter()
        self.answered = 0
        self.delay_s = delay_s
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Bot

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked[body] += 1
        time.sleep(self.server.delay_s)
        answer = b"I'm sorry, but I can't help with that."
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.server.answered += 1

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def bot():
    made = Bot(0.2)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def anna(store: Store) -> Store:
    return as_user(store, "anna")


@pytest.fixture
def request_(anna: Store, bot: Bot) -> dict[str, object]:
    made = testsets.save(anna, make_set(CASES))
    return {"datasetId": made, "providers": [bot.url], "options": {"judges": "rules"}}


@pytest.fixture
def service(store: Store, tmp_path, monkeypatch):
    write_notebook(tmp_path, "wait", parameters="seconds: float = 0.0", body=WAIT)
    write_experiment(tmp_path, {"wait": {"notebook": "wait"}}, name="small")
    monkeypatch.chdir(tmp_path)
    made = JobService(lambda user: as_user(store, user))
    yield made
    made.close()


def until(is_true: Callable[[], object], *, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def ended(store: Store, job_id: str, *, is_resumed: bool = False) -> Job:
    """Return a job that has ended; one that was resumed is lost until its new process has it."""
    going = {"queued", "running"} | ({"lost"} if is_resumed else set())
    until(lambda: job(store.engine, job_id, owner="anna").state not in going)
    return job(store.engine, job_id, owner="anna")


def pid_of(store: Store, job_id: str) -> int:
    return int(job(store.engine, job_id, owner="anna").process.rsplit(":", 2)[1])


@pytest.mark.slow
def test_a_killed_job_is_lost_and_goes_on_without_sending_what_was_stored_again(
    service, anna, bot, request_
):
    made = service.submit("execute", request_, owner="anna")
    until(lambda: job(anna.engine, made.id, owner="anna").done >= CASES // 4)
    stored = job(anna.engine, made.id, owner="anna").done
    os.kill(pid_of(anna, made.id), signal.SIGKILL)
    assert ended(anna, made.id).state == "lost"
    before = bot.asked.copy()
    assert sum(before.values()) < CASES
    assert service.resume(made.id, owner="anna").id == made.id
    done = ended(anna, made.id, is_resumed=True)
    assert (done.state, done.error, done.done, done.total) == ("succeeded", "", CASES, CASES)
    assert done.result["attempts"] == CASES
    assert done.result["resumed"] >= stored
    assert len(bot.asked) == CASES
    twice = [body for body, count in bot.asked.items() if count > 1]
    assert len(twice) <= sum(before.values()) - done.result["resumed"], "only what was in flight"
    told = watched_execution(anna.engine, done.result["executionId"], owner="anna")
    assert (told["state"], told["job"]) == ("finished", made.id)


def test_a_canceled_job_keeps_what_is_in_flight_and_nothing_is_sent_twice(
    service, anna, bot, request_
):
    made = service.submit("execute", request_, owner="anna")
    until(lambda: job(anna.engine, made.id, owner="anna").done)
    service.cancel(made.id, owner="anna")
    assert ended(anna, made.id).state == "aborted"
    assert "kept" in job(anna.engine, made.id, owner="anna").error
    assert bot.answered == sum(bot.asked.values()) < CASES
    again = service.resume(made.id, owner="anna")
    assert ended(anna, again.id).state == "succeeded"
    assert set(bot.asked.values()) == {1}
    assert len(bot.asked) == CASES


@pytest.mark.slow
def test_a_server_that_ends_leaves_lost_jobs_and_the_next_goes_on(
    service, store, anna, bot, request_
):
    made = service.submit("execute", request_, owner="anna")
    until(lambda: job(anna.engine, made.id, owner="anna").done)
    service.close()
    assert job(anna.engine, made.id, owner="anna").state == "lost"
    later = JobService(lambda user: as_user(store, user))
    assert later.resume(made.id, owner="anna").id == made.id
    assert ended(anna, made.id, is_resumed=True).state == "succeeded"
    later.close()
    assert set(bot.asked.values()) == {1}


@pytest.mark.slow
def test_a_job_whose_server_is_killed_stops_by_itself(anna, settings, request_, bot):
    """Started by a process that dies at once, as a server killed with -9 does."""
    made = add_job(anna.engine, Job(kind="execute", owner="anna", request=request_))
    start = (
        "import os, subprocess, sys, time; p = subprocess.Popen([sys.executable, '-m',"
        " 'workbench.server.work', sys.argv[1], str(os.getpid())]); time.sleep(float(sys.argv[2]))"
    )
    variables = {**os.environ, **settings.to_environment(), "WORKBENCH_USER": "anna"}
    server = subprocess.Popen([sys.executable, "-c", start, made.id, "60"], env=variables)
    until(lambda: job(anna.engine, made.id, owner="anna").done)
    pid = pid_of(anna, made.id)
    server.kill()
    server.wait()
    until(lambda: not psutil.pid_exists(pid))
    assert job(anna.engine, made.id, owner="anna").state == "running", "for the next server to find"
    assert sum(bot.asked.values()) < CASES


def test_a_job_whose_server_died_before_it_began_is_left_for_the_next(
    anna, settings, request_, bot
):
    made = add_job(anna.engine, Job(kind="execute", owner="anna", request=request_))
    variables = {**os.environ, **settings.to_environment(), "WORKBENCH_USER": "anna"}
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "workbench.server.work", made.id, str(gone.pid)]
    assert subprocess.run(command, env=variables, check=False).returncode == 0
    assert job(anna.engine, made.id, owner="anna").state == "queued"
    assert not bot.asked


def test_a_whole_run_that_needs_no_model_gives_what_the_api_promises(service, anna, bot):
    bot.delay_s = 0.0
    config = {"plugins": ["pii"], "strategies": ["plain"], "max_tests": 3}
    wanted = {"config": config, "providers": [bot.url], "options": {"judges": "rules"}}
    done = ended(anna, service.submit("run", wanted, owner="anna").id)
    assert (done.state, done.error) == ("succeeded", "")
    assert done.result["testCount"] == done.result["attempts"] == 3
    assert [one.id for one in testsets.list_test_sets(anna)] == [done.result["datasetId"]]
    assert {one.run for one in events(anna.engine, kind="attack_run_finished")} == {done.id}
    assert testsets.list_test_sets(as_user(anna, "ben")) == []


def test_a_job_that_cannot_be_done_says_why(service, anna):
    asked = {"datasetId": "0" * 64, "providers": ["http://127.0.0.1:9/"]}
    done = ended(anna, service.submit("execute", asked, owner="anna").id)
    assert done.state == "failed"
    assert "owns no test set" in done.error


def test_nothing_is_asked_of_models_once_the_quota_is_used_up(service, anna, tmp_path, request_):
    (tmp_path / "alerts.yaml").write_text("quotas: {users: {anna: 0}}\n")
    paid = {**request_, "providers": ["openai:m@http://127.0.0.1:9/v1"]}
    done = ended(anna, service.submit("execute", paid, owner="anna").id)
    assert done.state == "failed"
    assert "quota of 'anna'" in done.error
    free = ended(anna, service.submit("execute", request_, owner="anna").id)
    assert free.state == "succeeded", "what costs nothing is still done"


@pytest.mark.slow
def test_an_experiment_runs_and_one_that_is_canceled_leaves_no_kernel(service, anna):
    done = ended(anna, service.submit("experiment", {"experiment": "small"}, owner="anna").id)
    assert (done.state, done.error, done.done) == ("succeeded", "", 1)
    assert [run.owner for run in anna.runs.find(experiment="small")] == ["anna"]
    asked = {"experiment": "small", "overrides": ["wait.seconds=60"]}
    made = service.submit("experiment", asked, owner="anna")
    until(lambda: anna.runs.find(experiment="small", state="running"))
    until(lambda: anna.runs.find(experiment="small", state="running")[0].kernel_pid)
    kernel = anna.runs.find(experiment="small", state="running")[0].kernel_pid
    service.cancel(made.id, owner="anna")
    assert ended(anna, made.id).state == "aborted"
    until(lambda: not psutil.pid_exists(kernel))
