"""The campaign monitor: an execution live and finished, of its user only, texts on demand."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from decimal import Decimal

import pytest

from campaign_fakes import Bench, Recorder, WordEncoder, WordJudge, graders, make_set
from hostile_texts import HOSTILE, scripts_in
from workbench.campaign.execute import execute
from workbench.campaign.testsets import save
from workbench.core.errors import DataError
from workbench.core.plain import storable
from workbench.notebook.widgets.monitor import Monitor, Turns, monitor
from workbench.store.campaigns import add_attempts, why_stop
from workbench.store.events import tell
from workbench.store.records import Attempt, LedgerRow

LIVE = "a" * 64


def attempt(number, **changes):
    facts = {
        "execution": LIVE, "case_id": f"{number:064x}", "target": "bare", "sent": f"sent {number}",
        "received": f"received {number}", "decision": "pass", "scores": {}, "success": False,
        "latency_ms": 1.0,
    }  # fmt: skip
    return Attempt(**facts | changes)


def begin(store, execution=LIVE, *, total=100):
    told = {"test_set": "t" * 64, "targets": ["bare", "guard"], "total": total}
    tell(store, "attack_run_started", execution, told)


@pytest.fixture
def live(store):
    """A store in which 30 of 100 attempts are made, of which 10 got through and 5 failed."""
    running = replace(store, settings=replace(store.settings, run_id="job-1"))
    begin(running)
    made = [attempt(n, success=n < 10, error="away" * (n >= 25)) for n in range(30)]
    add_attempts(store.engine, made)
    row = LedgerRow(
        who="tester", job="job-1", experiment="", phase="execution", resource="m", quantity=1.0,
        unit="call", usd=Decimal("0.25"), price_version="declared", work="w",
    )  # fmt: skip
    store.ledger.add([row, replace(row, job="another")])
    return store


def finish(store):
    """Return the id of an execution that went to its end."""
    tests = make_set(6, 2)
    save(store, tests)
    judged = graders(Bench([WordJudge("one"), WordJudge("two")]), WordEncoder())
    targets = [Recorder("open", defends=False), Recorder("<b>shut", lambda _: "away")]
    return asyncio.run(execute(store, tests, targets, judged)).id


def listen(view):
    sent = []
    view.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    )
    return sent


def values_of(block):
    return {one["label"]: one["value"] for one in block["items"]}


def test_without_an_execution_it_says_how_to_start_one(store):
    page = monitor(store).to_html()
    assert "No execution was started here" in page
    panel = Monitor(store)
    panel.build()
    panel.do(panel.abort).join()
    assert "nothing runs" in panel.status.value
    panel.close()


def test_a_running_execution_is_shown_with_spend_and_intervals(live):
    blocks = Monitor(live).snapshot()["blocks"]
    facts = values_of(blocks["facts"])
    assert facts == {"state": "running", "attempts": "30", "errors": "5", "spent": "$0.25"}
    assert (blocks["progress"]["done"], blocks["progress"]["total"]) == (30, 100)
    (rate,) = blocks["rates"]["items"]
    assert rate["shown"].startswith("40.0")  # 10 of the 25 that were answered
    assert float(rate["low"][:-1]) < 40 < float(rate["high"][:-1])
    assert len(blocks["latest"]["rows"]) == 5
    assert blocks["latest"]["rows"][0][1] == f"{29:064x}"[:12]
    assert "sent 29" not in Monitor(live).to_html()  # texts are had on demand


def test_what_comes_while_it_is_watched_is_a_small_difference(live):
    panel = Monitor(live)
    panel.build()
    sent = listen(panel.view)
    for number in range(30, 60):
        add_attempts(live.engine, [attempt(number, success=number % 3 == 0)])
        panel.update()
    sizes = sorted(len(json.dumps(one)) for one in sent)
    assert sizes[len(sizes) // 2] <= 200
    assert not any("all" in one for one in sent)
    panel.close()


def test_rows_are_paged_sorted_and_filtered_in_the_store(live):
    turns = Turns(live, LIVE)
    assert turns.count("") == 30
    assert turns.count("AWAY") == 5
    assert turns.count("sent 1") == 11
    assert turns.count("%") == 0
    page = turns.page(0, 7, "case_id", True, "")
    assert [row["case_id"] for row in page] == [f"{n:064x}" for n in range(29, 22, -1)]
    ids = [
        row["case_id"] for at in range(0, 30, 7) for row in turns.page(at, 7, "success", False, "")
    ]
    assert len(set(ids)) == 30
    with pytest.raises(DataError, match="sort by"):
        turns.page(0, 7, "execution; --", False, "")


def test_the_whole_of_an_attempt_comes_when_it_is_opened(live):
    long = "word " * 200
    add_attempts(live.engine, [attempt(99, sent=long, received="<b>back")])
    panel = Monitor(live)
    panel.build()
    order = {"sort": 1, "descending": True}
    cells = panel.attempts.answer({"page": 0, **order})["rows"][0]
    assert len(cells[6]) <= 230
    panel.attempts._handle_custom_msg({"open": 0, **order}, [])
    page = panel.to_html()
    assert long.strip() in page
    assert "&lt;b&gt;back" in page
    with pytest.raises(DataError, match="no attempt"):
        panel.open(json.dumps(["bare", "c" * 64, 0]))
    panel.close()


def test_a_finished_execution_has_the_rates_of_its_artifact(store):
    execution = finish(store)
    panel = Monitor(store, execution=execution[:10])
    blocks = panel.snapshot()["blocks"]
    facts = values_of(blocks["facts"])
    assert (facts["state"], facts["attempts"], facts["errors"]) == ("finished", "16", "8")
    assert [one["label"] for one in blocks["rates"]["items"]] == ["open"]
    assert blocks["rates"]["items"][0]["shown"].startswith("100.0")
    panel.build()
    answer = panel.attempts.answer({"page": 0})
    assert answer["count"] == 16
    panel.attempts._handle_custom_msg({"open": 3}, [])
    assert "how to" in panel.to_html()
    assert scripts_in(panel.to_html()) == []
    panel.close()


def test_nobody_watches_what_another_started(live):
    other = replace(live, settings=replace(live.settings, user="other"))
    for wanted in ("", LIVE):
        panel = Monitor(other, execution=wanted)
        assert "No execution was started" in panel.to_html()
        assert panel.attempts.answer({"page": 0})["count"] == 0
        with pytest.raises(DataError):
            panel.open(json.dumps(["bare", f"{1:064x}", 0]))
        panel.attempts.close()
    begin(other, "b" * 64)
    unknown = Monitor(other, execution="aaa")
    unknown.build()
    assert "begin with" in unknown.status.value
    assert "begin with" in unknown.to_html()
    unknown.close()


def test_abort_asks_the_process_that_runs_it(live):
    panel = Monitor(live)
    panel.build()
    panel.do(panel.abort).join()
    assert "asked to stop" in panel.status.value
    assert why_stop(live.engine, LIVE, token="") == "aborted"
    panel.close()


def test_who_aborts_sees_that_it_stopped_and_all_that_was_made(live):
    (live.home / "locks").mkdir()
    panel = Monitor(live)
    panel.build()
    panel.do(panel.abort).join()
    seen = threading.Event()
    replace_, shown = panel.attempts.replace, []
    panel.attempts.replace = lambda rows: (replace_(rows), shown.append(rows), seen.set())
    add_attempts(live.engine, [attempt(31)])
    running = replace(live, settings=replace(live.settings, run_id="job-1"))
    tell(running, "attack_run_aborted", LIVE, {"total": 100, "done": 31, "errors": 5})
    assert seen.wait(1.0), "the table is stale a second after"
    assert values_of(panel.view._blocks["facts"])["state"] == "aborted"
    assert panel.attempts.answer({"page": 0})["count"] == 31
    panel.update()
    assert len(shown) == 1  # once
    panel.close()


def test_a_finished_execution_is_read_from_its_artifact(store):
    panel = Monitor(store)
    panel.build()
    assert panel.attempts.answer({"page": 0})["count"] == 0
    finish(store)
    panel.update()
    assert panel.attempts.answer({"page": 0})["count"] == 16
    panel.close()


def test_the_choice_lists_what_the_user_started(live):
    begin(live, "b" * 64)
    panel = Monitor(live)
    panel.build()
    choice = panel.widget.children[1].children[0]
    assert [value for _, value in choice.options] == ["", "b" * 64, LIVE]
    threads = []
    do, panel.do = panel.do, lambda action: threads.append(do(action))
    choice.value = LIVE
    threads[0].join()
    assert panel.attempts.answer({"page": 0})["count"] == 30
    assert panel._execution() == LIVE
    panel.close()


def test_hostile_texts_are_shown_as_text_everywhere(store):
    begin(store, total=len(HOSTILE))
    made = [
        attempt(
            number, sent=storable(text), received=storable(text), decision=storable(text)[:30],
            error=storable(text) if number % 5 == 0 else "", target=storable(text)[:200],
        )
        for number, text in enumerate(HOSTILE)
    ]  # fmt: skip
    add_attempts(store.engine, made)
    panel = Monitor(store)
    panel.build()
    seen, answered = listen(panel.view), listen(panel.answer)
    for row in Turns(store, LIVE).page(0, 200, "", False, ""):
        panel.open(json.dumps([row["target"], row["case_id"], row["trial"]]))
        assert scripts_in(panel.to_html()) == []
    panel.view._handle_custom_msg({"hello": 1}, [])
    drawn = [html for one in [*seen, *answered] for _, html in one.get("all", [one.get("put")])]
    assert len(drawn) > len(HOSTILE)
    assert [found for html in drawn for found in scripts_in(html)] == []
    panel.close()
