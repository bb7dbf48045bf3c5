"""Jobs in processes of their own: limits, cancel, crash, resume; who may do what with which."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.core.errors import ConfigError, DataError, InputError, WorkbenchError
from workbench.server import service as services
from workbench.server.orders import check_request, execute_options
from workbench.server.service import JobService
from workbench.store.database import Store, as_user
from workbench.store.jobs import Job, add_job, job, jobs

PROCESS = """\
import sys, time
from dataclasses import replace
from pathlib import Path
from workbench.core.settings import read_settings
from workbench.store.database import as_user, open_store
from workbench.store.jobs import claim_job, finish_job, tell_job

settings = read_settings()
store = as_user(open_store(settings), settings.user)
job = claim_job(store.engine, sys.argv[1], owner=settings.user)
assert settings.run_id == sys.argv[1]
if job is None:
    sys.exit(0)
go = Path(sys.argv[0]).with_name("go")
while not go.exists():
    if not tell_job(store.engine, job.id, done=1):
        finish_job(store.engine, job.id, state="aborted")
        sys.exit(1)
    time.sleep(0.02)
finish_job(store.engine, job.id, state="succeeded", result={"runs": len(list(go.parent.iterdir()))})
"""
"""Claims a job as the real work does, and waits for a file: nothing heavy is imported."""
GENERATE = {"config": {"max_tests": 5}}


@pytest.fixture
def go(tmp_path: Path) -> Path:
    (tmp_path / "process").mkdir()
    return tmp_path / "process" / "go"


@pytest.fixture
def service(store: Store, go: Path):
    script = go.with_name("work.py")
    script.write_text(PROCESS)
    made = JobService(
        lambda user: as_user(store, user), per_user=1, in_all=2,
        command=(sys.executable, str(script)),
    )  # fmt: skip
    yield made
    made.close(grace_s=0.0)


def until(is_true: Callable[[], object], *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def states(store: Store, owner: str) -> dict[str, str]:
    return {one.id: one.state for one in jobs(store.engine, owner=owner)}


def test_limits_hold_and_whoever_waits_comes_next(service, store, go):
    anna = [service.submit("generate", GENERATE, owner="anna").id for _ in range(3)]
    bert = [service.submit("generate", GENERATE, owner="bert").id for _ in range(2)]
    carl = service.submit("generate", GENERATE, owner="carl").id
    until(lambda: states(store, "bert")[bert[0]] == states(store, "anna")[anna[0]] == "running")
    assert [states(store, "anna")[one] for one in anna[1:]] == ["queued"] * 2
    assert states(store, "bert")[bert[1]] == states(store, "carl")[carl] == "queued"
    go.touch()
    for owner in ("anna", "bert", "carl"):
        until(lambda owner=owner: set(states(store, owner).values()) == {"succeeded"})


def test_a_key_asks_for_one_job_however_often(service, store):
    first = service.submit("generate", GENERATE, owner="anna", key="k")
    assert service.submit("generate", GENERATE, owner="anna", key="k").id == first.id
    assert service.submit("generate", GENERATE, owner="bert", key="k").id != first.id
    with pytest.raises(InputError, match="another request"):
        service.submit("generate", {"config": {"max_tests": 6}}, owner="anna", key="k")
    assert len(jobs(store.engine, owner="anna")) == 1


def test_only_the_owner_cancels_and_resumes(service, store):
    running = service.submit("generate", GENERATE, owner="anna")
    waiting = service.submit("generate", GENERATE, owner="anna")
    until(lambda: states(store, "anna")[running.id] == "running")
    for one in (running, waiting):
        with pytest.raises(DataError):
            service.cancel(one.id, owner="bert")
        with pytest.raises(DataError):
            service.resume(one.id, owner="bert")
    assert service.cancel(waiting.id, owner="anna").state == "aborted"
    assert service.cancel(running.id, owner="anna").cancel
    until(lambda: states(store, "anna")[running.id] == "aborted")


def test_a_killed_process_leaves_a_lost_job_that_goes_on_as_itself(service, store, go):
    made = service.submit("generate", GENERATE, owner="anna")
    until(lambda: states(store, "anna")[made.id] == "running")
    _, pid, _ = job(store.engine, made.id, owner="anna").process.rsplit(":", 2)
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: states(store, "anna")[made.id] == "lost")
    go.touch()
    assert service.resume(made.id, owner="anna").id == made.id
    until(lambda: states(store, "anna")[made.id] == "succeeded")
    assert service.resume(made.id, owner="anna").state == "succeeded"


def test_an_aborted_job_goes_on_as_a_new_one(service, store, go):
    made = service.submit("generate", GENERATE, owner="anna", key="k")
    service.cancel(made.id, owner="anna")
    until(lambda: states(store, "anna")[made.id] == "aborted")
    go.touch()
    again = service.resume(made.id, owner="anna")
    assert again.id != made.id
    assert again.request == made.request
    until(lambda: states(store, "anna")[again.id] == "succeeded")


def test_a_process_that_ends_before_it_begins_leaves_a_failed_job(store):
    broken = JobService(
        lambda user: as_user(store, user), command=(sys.executable, "-c", "raise SystemExit('no')")
    )
    made = broken.submit("generate", GENERATE, owner="anna")
    until(lambda: states(store, "anna")[made.id] == "failed")
    error = job(store.engine, made.id, owner="anna").error
    assert f"jobs/{made.id}.log" in error
    assert (store.home / "jobs" / f"{made.id}.log").read_text() == "no\n"
    broken.close()


def test_what_an_earlier_server_left_waiting_is_started(service, store, go):
    go.touch()
    left = add_job(store.engine, Job(kind="generate", owner="anna", request=GENERATE))
    service.recover("anna")
    until(lambda: states(store, "anna")[left.id] == "succeeded")


def test_a_closed_service_starts_nothing_and_leaves_lost_jobs(service, store):
    made = service.submit("generate", GENERATE, owner="anna")
    until(lambda: states(store, "anna")[made.id] == "running")
    service.close()
    assert states(store, "anna")[made.id] == "lost"
    later = service.submit("generate", GENERATE, owner="anna")
    assert states(store, "anna")[later.id] == "queued"


def test_a_job_that_a_closing_server_stops_before_it_begins_waits_for_the_next(store):
    early = JobService(
        lambda user: as_user(store, user),
        command=(sys.executable, "-c", "import time; time.sleep(60)"),
    )
    made = early.submit("generate", GENERATE, owner="anna")
    early.close()
    assert states(store, "anna")[made.id] == "queued"


def test_a_queue_has_an_end(service, store, monkeypatch):
    monkeypatch.setattr(services, "_MOST_WAITING", 2)
    kept = [service.submit("generate", GENERATE, owner="anna", key=str(n)) for n in range(3)]
    with pytest.raises(InputError, match="wait already"):
        service.submit("generate", GENERATE, owner="anna")
    until(lambda: states(store, "anna")[kept[0].id] == "running")
    for n in (0, 2):  # whether it runs or waits, it is there
        assert service.submit("generate", GENERATE, owner="anna", key=str(n)).id == kept[n].id
    with pytest.raises(InputError, match="wait already"):
        service.submit("generate", GENERATE, owner="anna", key="new")


@pytest.mark.parametrize(
    "provider",
    [
        "python:os:system", " python:os:system", "guarded:python:os:system", "target.yaml", "a.YML",
        "guarded@2: python:os:system", "guarded:x/http://y.yaml", "anthropic:/../x.yaml",
        "openai:m@http://127.0.0.1/x.yml", "bare\n", "", None, 7, ["bare"],
    ],
)  # fmt: skip
def test_a_request_names_no_function_and_no_file(provider):
    with pytest.raises(InputError, match="provider"):
        execute_options({"providers": [provider]})


def test_a_request_names_targets_by_line():
    lines = ["bare", "sanitizer@4", "guarded@2:openai:m@http://127.0.0.1:1/v1", "ws://127.0.0.1/"]
    assert execute_options({"providers": lines}).targets == tuple(lines)


@pytest.mark.parametrize(
    ("kind", "request_"),
    [
        ("shell", {}),
        ("generate", {"config": {"max_tests": 0}}),
        ("generate", {"config": {"max_tests": "many"}}),
        ("generate", {"config": {"folder": "/"}}),
        ("generate", {"config": [1]}),
        ("generate", {"configuration": {}}),
        ("execute", {"providers": ["bare"]}),
        ("execute", {"datasetId": "a", "providers": []}),
        ("execute", {"datasetId": "a", "providers": ["bare"], "options": {"staging": True}}),
        ("execute", {"datasetId": "a", "providers": ["bare"], "options": {"budget_usd": "much"}}),
        ("run", {"config": {}, "providers": "bare"}),
        ("experiment", {"experiment": "../quickstart"}),
        ("experiment", {"experiment": "quickstart.yaml"}),
        ("experiment", {"experiment": "quickstart", "overrides": "a=1"}),
        ("experiment", {}),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_it_waits(service, store, kind, request_):
    with pytest.raises((InputError, ConfigError)) as refused:
        service.submit(kind, request_, owner="anna")
    assert isinstance(refused.value, WorkbenchError)
    assert jobs(store.engine, owner="anna") == []


def test_an_experiment_is_named(monkeypatch, tmp_path):
    for folder in ("experiments", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "experiments" / "small.yaml").write_text("steps: {}")
    monkeypatch.chdir(tmp_path)
    check_request("experiment", {"experiment": "small", "overrides": ["a.b=1"]})
    with pytest.raises(ConfigError, match="no experiment"):
        check_request("experiment", {"experiment": "large"})
