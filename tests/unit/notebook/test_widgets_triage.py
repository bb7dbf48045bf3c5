"""The triage board: worst first, decided by keys, taken back, of one's own findings only."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from campaign_fakes import make_set
from finding_fakes import make_finding
from hostile_texts import HOSTILE, scripts_in
from workbench.campaign import testsets
from workbench.campaign.triage import decide, history
from workbench.core.errors import ConfigError, DataError
from workbench.core.plain import storable
from workbench.notebook.widgets.triage import Triage, triage
from workbench.store import findings as store_findings
from workbench.store.findings import add_findings, findings


class Clock:
    """Time as a test says."""

    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def found(store):
    """Five findings, the riskiest first; the first three are one cluster."""
    made = [make_finding(n, risk=0.9 - n / 10) for n in range(5)]
    made[1] = make_finding(1, risk=0.8, cluster=made[0].id)
    made[2] = make_finding(2, risk=0.7, cluster=made[0].id)
    return add_findings(store.engine, made)


@pytest.fixture
def panel(store, found):
    made = Triage(store, clock=Clock())
    made.build()
    yield made
    made.close()


def listen(widget):
    sent = []
    widget.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    )
    return sent


def press(panel, key, *, at=0, note="", **order):
    """Press a key as the page does: of the rows that it was given last."""
    marks = dict(enumerate(panel.table.answer({"page": 0, **order})["marks"]))
    said = {"press": at, "key": key, "note": note, "mark": marks.get(at, ""), **order}
    panel.table._handle_custom_msg(said, [])


def states(store):
    return {int(one.id[:8], 16): one.status for one in findings(store.engine)}


def test_without_findings_the_board_is_empty(store):
    board = triage(store)
    board.build()
    sent = listen(board.table)
    press(board, "c")
    press(board, "u")
    assert [list(one) for one in sent] == [["error"], ["error"]]
    assert "nothing was decided here" in sent[1]["error"]
    assert "Reviewed" in board.to_html()
    board.close()


def test_one_of_each_cluster_is_listed_the_worst_first(panel):
    answer = panel.table.answer({"page": 0})
    assert [row[0] for row in answer["rows"]] == ["0.9", "0.6", "0.5"]
    assert answer["rows"][0][5:8] == ["confirmed 50%", "3", "needs review"]
    blocks = panel.snapshot()["blocks"]
    assert [row[6] for row in blocks["list"]["rows"]] == ["3", "1", "1"]
    facts = {one["label"]: one["value"] for one in blocks["facts"]["items"]}
    assert (facts["to review"], facts["guesses right"]) == ("5", "–")
    assert (blocks["progress"]["done"], blocks["progress"]["total"]) == (0, 5)


@pytest.mark.parametrize(
    ("key", "status"), [("c", "confirmed"), ("f", "false_positive"), ("x", "fixed")]
)
def test_a_key_says_what_a_finding_is_and_its_minutes_are_counted(store, panel, key, status):
    panel._clock.now += 90
    press(panel, key, at=1, note="told by bob@example.org")
    assert states(store) == {0: "needs_review", 1: "needs_review", 2: "needs_review",
                             3: status, 4: "needs_review"}  # fmt: skip
    (row,) = history(store, make_finding(3).id)
    assert (row["who"], row["note"], row["minutes"]) == ("tester", "told by [email]", 1.5)
    assert sum(one.quantity for one in store.ledger.rows()) == 1.5
    assert panel.table.answer({"page": 0})["count"] == 2
    assert panel.snapshot()["blocks"]["progress"]["done"] == 1


def test_a_pause_is_no_work(store, panel):
    panel._clock.now += 8 * 3600
    press(panel, "c", at=1)
    press(panel, "c", at=1)
    assert [one.minutes for one in findings(store.engine)] == [0, 0, 0, 10, 0]


def test_rows_are_those_that_were_seen(store, panel):
    """A key that was pressed before the page had the new rows decides on none of them."""
    sent = listen(panel.table)
    said = {
        "press": 0,
        "key": "c",
        "note": "",
        "mark": panel.table.answer({"page": 0})["marks"][0],
    }
    panel.table._handle_custom_msg(said, [])
    panel.table._handle_custom_msg(said, [])
    assert states(store)[0] == "confirmed"
    assert list(states(store).values()).count("confirmed") == 1
    assert "changed meanwhile" in sent[-1]["error"]
    press(panel, "q")
    assert "does nothing" in sent[-1]["error"]
    press(panel, "c", at=10_000)
    assert "no finding to decide on" in sent[-1]["error"]


def test_the_order_that_is_seen_counts(store, panel):
    press(panel, "c", at=0, sort=0, descending=False)
    assert [n for n, status in states(store).items() if status == "confirmed"] == [4]


def test_the_next_row_is_gone_to_where_the_decided_one_stays(store, panel):
    sent = listen(panel.table)
    press(panel, "c", at=1)
    assert sent[0] == {"stale": 1}  # it left the list: the next is where it was
    assert sent[1] == {"pressed": "c"}
    board = Triage(store, status="")
    board.build()
    sent = listen(board.table)
    press(board, "f", at=0)
    assert sent[0] == {"stale": 1, "step": 1}
    board.close()


def test_a_whole_cluster_is_decided_and_taken_back(store, found, panel):
    decide(store, [found[2].id], status="fixed")
    before = states(store)
    press(panel, "w")
    assert panel.whole_cluster.value
    press(panel, "f", at=0)
    assert [states(store)[n] for n in range(3)] == ["false_positive"] * 3
    press(panel, "u")
    assert states(store) == before
    log = history(store, found[0].id)
    assert [row["changed"]["status"][1] for row in log] == ["false_positive", "needs_review"]
    assert log[1]["note"] == "undone"
    assert len(history(store, found[2].id)) == 3


def test_decisions_are_taken_back_one_by_one(store, panel):
    press(panel, "c", at=1)
    press(panel, "f", at=1)
    press(panel, "u")
    assert (states(store)[3], states(store)[4]) == ("confirmed", "needs_review")
    press(panel, "u")
    assert set(states(store).values()) == {"needs_review"}
    with pytest.raises(DataError, match="nothing was decided"):
        panel.undo()


def test_what_somebody_decided_since_is_left_alone(store, found, panel):
    press(panel, "c", at=1)
    decide(store, [found[3].id], status="fixed")
    with pytest.raises(DataError, match="somebody decided again"):
        panel.undo()
    assert states(store)[3] == "fixed"


def test_a_note_changes_no_state_and_an_empty_one_is_refused(store, found, panel):
    press(panel, "n", at=0, note="call +1 555 123 4567")
    assert states(store)[0] == "needs_review"
    assert [row["note"] for row in history(store, found[0].id)] == ["call [phone]"]
    with pytest.raises(ConfigError, match="nothing to decide"):
        panel.press("n", found[0].id)


def test_a_finding_is_shown_whole_when_it_is_come_to(store, found, panel):
    assert "sent 3" not in panel.to_html()
    decide(store, [found[3].id], note="looked at <b>twice</b>", minutes=2)
    panel.table._handle_custom_msg({"open": 1}, [])
    page = panel.to_html()
    for text in ("sent 3", "received 3", "missed-plain", "looked at &lt;b&gt;twice&lt;/b&gt;"):
        assert text in page
    panel.open(found[1].id[:8])
    assert "3 findings in its cluster" in panel.to_html()


def test_others_are_chosen_by_state_and_execution(store, found, panel):
    add_findings(store.engine, [make_finding(9, execution="f" * 64, risk=0.1)])
    decide(store, [found[0].id], status="confirmed")
    board = Triage(store, execution="fff")
    board.build()
    state, execution = board.widget.children[1].children[:2]
    assert execution.value == "f" * 64
    assert board.table.answer({"page": 0})["count"] == 1
    threads = []
    do, board.do = board.do, lambda action: threads.append(do(action))
    state.value = "confirmed"
    execution.value = ""
    [thread.join() for thread in threads]
    rows = board.table.answer({"page": 0})["rows"]
    assert [row[7] for row in rows] == ["confirmed"]
    board.close()


def test_a_decision_reads_what_it_changed(store, found, panel, monkeypatch):
    add_findings(store.engine, [make_finding(n, risk=0.01) for n in range(20, 90)])
    panel.update()
    assert panel.table.answer({"page": 0})["count"] == 73
    reads = []
    made = store_findings.Finding

    def read(**row):
        reads.append(row["id"])
        return made(**row)

    monkeypatch.setattr(store_findings, "Finding", read)
    press(panel, "f", at=1)
    press(panel, "n", at=1, note="why")
    press(panel, "u")
    panel.table._handle_custom_msg({"open": 0}, [])
    assert set(reads) == {found[0].id, found[3].id, found[4].id}
    facts = panel.view._blocks["facts"]["items"]
    assert facts[0]["value"] == "75"
    assert panel.table.answer({"page": 0})["count"] == 73


def test_what_others_decide_comes_with_the_next_reading(store, found, panel):
    sent = listen(panel.table)
    panel.update()
    assert sent == []
    decide(store, [found[3].id], status="fixed")
    panel.update()
    assert sent == [{"stale": 1}]
    assert panel.table.answer({"page": 0})["count"] == 2
    assert panel.view._blocks["progress"]["done"] == 1


def test_what_cannot_be_chosen_is_refused_with_what_can(store):
    with pytest.raises(ConfigError, match=r"status 'x': give one of '', 'needs_review'.*'fixed'"):
        triage(store, status="x")
    page = triage(store, execution="abc").to_html()
    assert "no finding is of execution &#39;abc&#39;; those with some: none" in page


def test_findings_of_another_are_neither_seen_nor_decided_on(store):
    other = replace(store, settings=replace(store.settings, user="other"))
    own = testsets.save(other, make_set(3))
    (one,) = add_findings(store.engine, [make_finding(1, test_set=own)])
    board = Triage(store)
    board.build()
    assert board.table.answer({"page": 0})["count"] == 0
    for act in (lambda: board.open(one.id), lambda: board.press("c", one.id)):
        with pytest.raises(DataError, match="no findings"):
            act()
    assert Triage(other).snapshot()["blocks"]["progress"]["total"] == 1
    board.close()


def test_hostile_texts_are_shown_as_text_everywhere(store):
    texts = [storable(text) for text in HOSTILE]
    made = [
        make_finding(
            n, plugin=text[:60], strategy=text[:60], target=text[:60], summary=text, sent=text,
            received=text, suggested_label=text[:30], owner=text[:20],
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    add_findings(store.engine, made)
    board = Triage(store)
    board.build()
    seen, answered = listen(board.view), listen(board.answer)
    for at, (one, text) in enumerate(zip(made, texts, strict=True)):
        if at % 7 == 0:
            decide(store, [one.id], note=text or "-", owner="")
        board.open(one.id)
        if at % 7 == 0:
            assert scripts_in(board.to_html()) == []
    board.view._handle_custom_msg({"hello": 1}, [])
    drawn = [html for one in [*seen, *answered] for _, html in one.get("all", [one.get("put")])]
    assert len(drawn) > len(HOSTILE)
    assert [bad for html in drawn for bad in scripts_in(html)] == []
    board.close()
