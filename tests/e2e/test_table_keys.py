"""A table with actions in a real browser: walked, noted, decided on and taken back by keyboard."""

from __future__ import annotations

import json

import pytest
from test_panel_scripts import CONNECT

from browser import chromium
from finding_fakes import make_finding
from workbench.notebook.widgets.triage import Triage
from workbench.store.findings import add_findings, findings

STATE = ("label", "heads", "widths", "height", "page_size", "actions", "note_key")


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def board(store):
    add_findings(store.engine, [make_finding(n, risk=0.9 - n / 10) for n in range(6)])
    panel = Triage(store)
    panel.build()
    yield panel
    panel.close()


class Seen:
    """The table of a board on a page, and what came of keys."""

    def __init__(self, browser, board):
        table, answers, self.errors = board.table, [], []
        self.board = board
        self.page = browser.new_context(viewport={"width": 1200, "height": 800}).new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        table.send = lambda content, buffers=None: answers.append(json.loads(json.dumps(content)))

        def kernel(content):
            answers.clear()
            table._handle_custom_msg(content, [])
            return list(answers)

        self.page.expose_function("kernel", kernel)
        state = {name: getattr(table, name) for name in STATE}
        self.page.evaluate(CONNECT, [str(table._esm), state])

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def tells(self, text):
        self.page.get_by_text(text).first.wait_for()

    def comes_to(self, text):
        """Wait until what a finding sent is shown."""
        for _ in range(250):
            shown = self.board._replied.get("finding")
            if shown and shown["items"][0]["parts"][0][1] == text:
                return
            self.page.wait_for_timeout(20)
        pytest.fail(f"{text!r} is not shown")

    def states(self):
        return [one.status for one in findings(self.board.store.engine)]


@pytest.fixture
def seen(browser, board):
    made = Seen(browser, board)
    made.tells("1–6 of 6 rows")
    made.page.get_by_role("grid").focus()
    yield made
    assert made.errors == []


def test_findings_are_decided_and_taken_back_by_keyboard(seen):
    seen.comes_to("sent 0")  # the first is opened without a key
    seen.press("j")
    seen.comes_to("sent 1")
    seen.press("k", "Enter", "Enter")
    seen.comes_to("sent 2")
    seen.press("Control+c", "c")
    seen.tells("1–5 of 5 rows")
    seen.comes_to("sent 3")
    seen.press("f")
    seen.tells("1–4 of 4 rows")
    new = "needs_review"
    assert seen.states() == [new, new, "confirmed", "false_positive", new, new]
    seen.press("u")
    seen.tells("1–5 of 5 rows")
    assert seen.states() == [new, new, "confirmed", new, new, new]
    seen.press("u")
    seen.tells("1–6 of 6 rows")
    assert set(seen.states()) == {new}
    seen.press("u")
    seen.tells("nothing was decided here")


def test_keys_in_a_note_are_letters(seen):
    seen.comes_to("sent 0")
    seen.press("n")
    seen.page.keyboard.type("cfx u, told by bob@example.org")
    seen.press("Enter")
    seen.page.wait_for_function("document.querySelector('input[type=text]').value === ''")
    assert set(seen.states()) == {"needs_review"}
    seen.press("j", "k")
    seen.comes_to("sent 0")
    seen.board.open(findings(seen.board.store.engine)[0].id)
    notes = [row[3] for row in seen.board._replied["history"]["rows"]]
    assert notes == ["cfx u, told by [email]"]


def test_the_last_row_and_buttons(seen):
    seen.press("End")
    seen.comes_to("sent 5")
    seen.page.get_by_role("button", name="Fixed (x)").click()
    seen.tells("1–5 of 5 rows")
    seen.comes_to("sent 4")  # the last one left the list
    assert seen.states()[5] == "fixed"
    seen.press("w")
    seen.page.wait_for_timeout(100)
    assert seen.board.whole_cluster.value
