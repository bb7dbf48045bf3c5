"""The panel of experiments: plan, state of every member, start, cancel, resume."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from hostile_texts import HOSTILE, scripts_in
from notebook_projects import make_project
from workbench.core.errors import ConfigError
from workbench.core.plain import storable
from workbench.notebook.widgets import children
from workbench.notebook.widgets.experiments import Experiments, experiments
from workbench.store.owners import this_process
from workbench.store.records import Run, now

MEMBERS = {"make": 1, "square": 4, "total": 1}


def add_run(store, step, member, state="succeeded", **changes):
    facts = {
        "id": f"{step}-{member}-{state}", "experiment": "trial", "step": step, "member": member,
        "notebook": step, "phase": "training", "fingerprint": "f", "parameters": {},
        "state": state, "owner": "tester", "folder": "", "started_at": now(), "wall_s": 2.0,
        "cpu_s": 1.0,
    }  # fmt: skip
    run = Run(**facts | changes)
    store.runs.add(run)
    return run.id


def set_state(store, file, members, state="running"):
    store.runs.set_experiment("trial", file=str(file), members=members, state=state, owner="tester")


@pytest.fixture
def file(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture
def half(store, file):
    """An experiment that runs: make and one square are done, one runs, one failed."""
    set_state(store, file, {"make": [None], "square": [None] * 4, "total": [None]})
    done = add_run(store, "make", "")
    one = add_run(store, "square", "factor=1")
    add_run(store, "square", "factor=2", "running", wall_s=0.0)
    add_run(store, "square", "factor=3", "failed", error="<b>wrong\u202e")
    set_state(store, file, {"make": [done], "square": [one, None, None, None], "total": [None]})
    return store


def states_of(blocks):
    return [(row[0], row[1], row[2]) for row in blocks["members"]["rows"]]


def wait_for(condition, *, most_s=20.0):
    end = time.monotonic() + most_s
    while not condition() and time.monotonic() < end:
        threading.Event().wait(0.02)
    return condition()


def test_without_any_it_is_empty(store):
    panel = experiments(store)
    assert "never" not in panel.to_html()
    assert panel.snapshot()["blocks"]["all"]["rows"] == []
    panel.build()
    panel.do(panel.start).join()
    assert "give file=" in panel.status.value
    panel.close()


def test_every_member_has_its_state_and_the_graph_its_needs(half):
    panel = Experiments(half)
    blocks = panel.snapshot()["blocks"]
    assert states_of(blocks) == [
        ("make", "–", "succeeded"), ("square", "factor=1", "succeeded"),
        ("square", "factor=2", "running"), ("square", "factor=3", "failed"),
        ("square", "factor=4", "waiting"), ("total", "–", "waiting"),
    ]  # fmt: skip
    nodes = {one["name"]: one for one in blocks["steps"]["items"]}
    assert {name: len(one["edges"]) for name, one in nodes.items()} == {
        "make": 0, "square": 1, "total": 1
    }  # fmt: skip
    assert (nodes["square"]["state"], nodes["square"]["note"]) == ("failed", "1/4")
    assert (blocks["progress"]["done"], blocks["progress"]["total"]) == (2, 6)
    assert "about 8.0" in blocks["progress"]["note"]  # four members of two seconds
    page = panel.to_html()
    assert "&lt;b&gt;wrong⟨U+202E⟩" in page
    assert scripts_in(page) == []


def test_what_is_left_of_an_earlier_run_does_not_count(store, file):
    add_run(store, "square", "factor=1", "failed", started_at="2000-01-01T00:00:00.000000Z")
    add_run(store, "make", "", "succeeded")  # of other parameters: no experiment counts it
    set_state(store, file, {"make": [None], "square": [None] * 4, "total": [None]})
    assert {state for *_, state in states_of(Experiments(store).snapshot()["blocks"])} == {
        "waiting"
    }


def test_an_experiment_whose_file_is_gone_is_shown_all_the_same(half, file):
    file.unlink()
    panel = Experiments(half, name="trial")
    found = states_of(panel.snapshot()["blocks"])
    assert [step for step, *_ in found] == ["make", *["square"] * 4, "total"]
    panel.build()
    panel.do(panel.plan).join()
    assert "not there any more" in panel.status.value
    panel.close()


def test_a_file_that_never_ran_is_planned(store, file):
    panel = Experiments(store, file=file)
    blocks = panel.snapshot()["blocks"]
    assert "never ran" in blocks["progress"]["label"]
    assert len(blocks["members"]["rows"]) == 6
    panel.build()
    panel.do(panel.plan).join()
    page = panel.to_html()
    assert "Plan: 6 of 6 run" in page
    assert page.count("runs after what it needs") == 5
    assert store.runs.experiments() == []  # nothing was started
    panel.close()


def test_a_broken_file_is_told_in_one_line(store, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [<b>\n")
    page = Experiments(store, file=broken).to_html()
    assert "not YAML" in page
    assert scripts_in(page) == []


def test_start_and_resume_run_the_command_on_the_same_store(half, file, monkeypatch):
    started = []
    monkeypatch.setattr(children, "start", lambda *args, **more: started.append((args, more)))
    panel = Experiments(half, file=file)
    panel.build()
    panel.do(panel.start).join()
    ((store, name, arguments), more) = started[0]
    assert store is half
    assert (name, arguments) == ("experiment trial", ["run", str(file.resolve())])
    assert more == {"folder": file.parent.parent}
    assert "is started" in panel.status.value
    panel.do(panel.cancel).join()
    assert "stop its command" in panel.status.value
    panel.close()


def test_a_command_is_started_found_again_told_of_and_stopped(store, tmp_path, monkeypatch):
    settings = replace(store.settings, database_url="sqlite:///:memory:?password=hidden")
    spoken = tmp_path / "spoken.json"
    code = (
        "import json, os, sys, time; told = json.load(sys.stdin);"
        "print('error: at first', flush=True);"
        f"open({str(spoken)!r}, 'w').write(json.dumps(told));"
        "time.sleep(60)"
    )
    monkeypatch.setattr(children, "_CODE", code)
    mine = replace(store, settings=settings)
    name = "experiment ../<b>"
    assert not children.is_running(mine, name)
    assert not children.stop(mine, name)
    children.start(mine, name, ["run", "x.yaml"], folder=tmp_path)
    assert wait_for(lambda: spoken.exists() and spoken.read_text())
    assert "hidden" in spoken.read_text()
    assert '"arguments": ["run", "x.yaml"]' in spoken.read_text()
    assert children.is_running(mine, name)  # nothing but the store is asked
    (noted,) = (store.home / "panels").glob("*.json")
    assert "hidden" not in noted.read_text()
    with pytest.raises(ConfigError, match="running already"):
        children.start(mine, name, ["run", "x.yaml"], folder=tmp_path)
    assert children.complaint(mine, name) == "error: at first"
    assert children.stop(mine, name)
    assert wait_for(lambda: not children.is_running(mine, name))
    assert children.complaint(mine, "another") == ""


def test_what_another_process_noted_and_left_is_not_running(store):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    place = children._place(store, "gone")
    place.parent.mkdir(parents=True)
    host = this_process().rsplit(":", 2)[0]
    place.write_text(f'{{"process": "{host}:{done.pid}:1.00", "at": "{now()}"}}')
    assert not children.is_running(store, "gone")
    place.write_text("{broken")
    assert not children.is_running(store, "gone")


def test_hostile_texts_are_shown_as_text(store, file):
    for number, text in enumerate(map(storable, HOSTILE)):
        name = f"{text[:190]}{number}"
        add_run(
            store, text[:200], text[:200], "failed", id=f"run-{number}", experiment=name, error=text
        )
        store.runs.set_experiment(
            name, file=text, members={text: [f"run-{number}"]}, state=text[:16], owner=text[:200]
        )
        assert scripts_in(Experiments(store, name=name).to_html()) == []
    assert scripts_in(Experiments(store, file=file).to_html()) == []


def test_a_command_that_is_started_often_at_once_runs_once(store, tmp_path, monkeypatch):
    waits = "import sys, time; sys.stdin.read(); time.sleep(60)"
    monkeypatch.setattr(children, "_CODE", waits)
    said = []

    def press():
        try:
            children.start(store, "one", [], folder=tmp_path)
            said.append("")
        except ConfigError as error:
            said.append(str(error))

    threads = [threading.Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(bool(words) for words in said) == [False, True, True, True]
    assert children.stop(store, "one")


@pytest.mark.parametrize(
    "text", ["[]", '"x"', "1", "{}", '{"process": 5, "at": 7}', '{"process": "a:1:2", "at": "b"}']
)
def test_a_damaged_note_of_a_command_is_none(store, text):
    place = children._place(store, "one")
    place.parent.mkdir(parents=True)
    place.write_text(text)
    assert not children.is_running(store, "one")
    assert not children.stop(store, "one")
