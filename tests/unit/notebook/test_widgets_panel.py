"""The base of panels: what is drawn, what is sent when something changed, and what never is."""

from __future__ import annotations

import gc
import json
import re
import threading
import time
from xml.etree import ElementTree as ET

import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_texts import HOSTILE, scripts_in
from workbench.core.errors import DataError, StoreError
from workbench.notebook import widgets
from workbench.notebook.widgets import look
from workbench.notebook.widgets.panel import Panel

RATE = st.floats(0, 1).map(lambda p: {"value": p, "low": p / 2, "high": (1 + p) / 2})
WORDS = st.sampled_from(HOSTILE)
NAMES = st.sampled_from(["train", "laws", "a", "b"])


class Counter(Panel):
    """Shows what a test put into it."""

    title = "Counter <b>"

    def __init__(self, blocks):
        super().__init__(store=object())
        self.blocks = blocks
        self.reads = 0

    def snapshot(self):
        self.reads += 1
        if isinstance(self.blocks, Exception):
            raise self.blocks
        return {"blocks": self.blocks}


def listen(view):
    """Return the list that everything sent from now on is put into, as it goes over the wire."""
    sent = []
    view.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    )
    return sent


@st.composite
def blocks_of(draw, kind=None):
    """One block of a kind, with hostile texts."""
    kind = kind or draw(st.sampled_from(["facts", "table", "bars", "progress", "text", "passages"]))
    few = draw(st.integers(0, 3))
    if kind == "facts":
        return look.facts([(draw(NAMES), draw(WORDS), draw(WORDS)) for _ in range(few)])
    if kind == "table":
        return look.table(
            "Rows", ("One", "Two | s"), [(draw(WORDS), draw(WORDS)) for _ in range(few)]
        )
    if kind == "bars":
        return look.bars("Rates", [(draw(WORDS), draw(RATE), draw(WORDS)) for _ in range(few)])
    if kind == "progress":
        numbers = {"done": draw(st.integers(0, 9)), "total": draw(st.integers(0, 9))}
        return look.progress(draw(WORDS), note=draw(WORDS), **numbers)
    if kind == "text":
        return look.text(draw(WORDS), is_note=draw(st.booleans()))
    return look.passages([(draw(WORDS), [(draw(NAMES), draw(WORDS))]) for _ in range(few)])


def tree(html):
    """Return drawn blocks as a tree; refuse what is not well-formed."""
    return ET.fromstring(f"<root>{html}</root>")


def shape(node):
    """Return a tree as nested tuples, empty text and none alike."""
    return node.tag, sorted(node.attrib.items()), node.text or "", [
        (shape(child), (child.tail or "").strip()) for child in node
    ]  # fmt: skip


def apply(html, changes):
    """Do to drawn blocks what the page does with a list of changes."""
    root = tree(html)
    for path, value in changes:
        parent, _, key = path.rpartition(".")
        touched = 0
        for node in root.iter():
            for pair in node.get("data-set", "").split() if node.get("data-p") == parent else ():
                name, _, attribute = pair.partition(":")
                if name != key:
                    continue
                touched += 1
                if attribute:
                    node.set(attribute, str(value))
                else:
                    node.text = str(value)
        assert touched, path
    return root


@pytest.mark.parametrize("kind", ["facts", "bars", "progress", "table", "text"])
@settings(deadline=None)
@given(st.data())
def test_new_values_of_the_same_things_are_set_in_place(kind, data):
    def draw():
        return [(data.draw(RATE), data.draw(WORDS), data.draw(WORDS)) for _ in range(2)]

    def block(values):
        made = {
            "facts": lambda: look.facts([("<b>", word, note) for _, word, note in values]),
            "bars": lambda: look.bars("Rates", [("<b>", rate, note) for rate, _, note in values]),
            "progress": lambda: look.progress(
                "Run", done=int(100 * values[0][0]["value"]), total=100, note=values[0][1]
            ),
            "table": lambda: look.table("Rows", ("A", "B"), [row[1:] for row in values]),
            "text": lambda: look.text(values[0][1]),
        }
        return made[kind]()

    old, new = block(draw()), block(draw())
    found = look.changes("one", old, new)
    assert not isinstance(found, str)
    after = apply(look.block_html("one", old), found)
    assert shape(after) == shape(tree(look.block_html("one", new)))


@settings(deadline=None)
@given(st.data())
def test_changes_bring_the_page_to_the_new_block(data):
    old = data.draw(blocks_of())
    new = data.draw(blocks_of(data.draw(st.sampled_from([None, old["kind"]]))))
    found = look.changes("one", old, new)
    after = tree(found) if isinstance(found, str) else apply(look.block_html("one", old), found)
    assert shape(after) == shape(tree(look.block_html("one", new)))
    assert (found == []) == (look.safe(old) == look.safe(new))


@settings(deadline=None)
@given(blocks_of())
def test_what_is_drawn_holds_nothing_that_runs_or_hides(block):
    page = look.page_html(HOSTILE[0], {"one": block})
    assert scripts_in(page) == []
    tree(page.replace(str(look.style()), ""))


def test_the_search_for_scripts_finds_them():
    for text in (
        "<script>x</script>",
        "<img src=x>",
        '<p onclick="x">',
        "a\u202eb",
        "\ud800",
        "\x1b",
    ):
        assert scripts_in(f"<section>{text}</section>"), text
    assert scripts_in('<section><bdi class="n">&lt;script&gt; onclick=1</bdi></section>') == []


@pytest.mark.parametrize("text", HOSTILE)
def test_every_text_is_shown_whole_and_can_be_sent(text):
    told = look.shown(text)
    assert told.encode("utf-8")
    assert look.shown(told) == told
    assert all(char.isprintable() or char in "\n\t" or char.isspace() for char in told)
    spelt = re.sub(r"⟨U\+([0-9A-F]{4,6})⟩", lambda match: chr(int(match[1], 16)), told)
    assert spelt == text


def test_a_graph_puts_each_step_behind_what_it_needs():
    nodes = [
        {"name": "a", "needs": [], "state": "succeeded", "note": "1/1"},
        {"name": "b", "needs": ["a"], "state": "running", "note": "0/4"},
        {"name": "c", "needs": ["a", "b"], "state": "<img onerror=1>", "note": ""},
        {"name": "d", "needs": [], "state": "waiting", "note": ""},
    ]
    block = look.graph("Steps", nodes)
    place = {one["name"]: (one["x"], one["y"]) for one in block["items"]}
    assert place == {"a": (0, 0), "b": (1, 0), "c": (2, 0), "d": (0, 1)}
    drawn = look.block_html("g", block)
    assert drawn.count('class="edge"') == 3
    assert "c &lt;img onerror=1&gt; needs a, b" in drawn
    assert scripts_in(drawn) == []
    tree(drawn)


def test_the_twin_needs_nothing_from_outside_and_says_when_it_was_read():
    page = Counter({"one": look.text("hello")}).to_html()
    assert "hello" in page
    assert "Counter &lt;b&gt;" in page
    assert "UTC" in page
    assert not any(word in page for word in ("http", "src=", "<script", "url(", "@import"))
    assert "prefers-color-scheme: dark" in page
    assert '[data-jp-theme-light="false"]' in page


def test_a_panel_gives_its_widget_and_its_twin():
    panel = Counter({"one": look.text("hello")})
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "hello" in bundle["text/html"]
    assert panel.build() is panel.widget
    assert isinstance(panel.build(), ipywidgets.VBox)
    panel.close()


def test_only_what_changed_is_sent_and_in_order():
    facts = look.facts([("done", 1, ""), ("spent", "$0.00", "")])
    panel = Counter({"facts": facts, "words": look.text("x" * 5_000)})
    panel.build()
    sent = listen(panel.view)
    panel.update()
    assert sent == []
    panel.blocks = {**panel.blocks, "facts": look.facts([("done", 2, ""), ("spent", "$0.00", "")])}
    panel.update()
    panel.blocks = {**panel.blocks, "facts": look.facts([("done", 3, "")])}
    panel.update()
    assert sent[0]["set"] == [["facts.items.0.value", "2"]]
    assert len(json.dumps(sent[0])) < 100
    assert sent[1]["put"][0] == "facts"
    assert sent[1]["seq"] == sent[0]["seq"] + 1
    panel.close()


def test_what_was_read_first_is_never_shown_last():
    panel = Counter({"one": look.text("before")})
    panel.build()
    reads, may_go_on = panel.snapshot, threading.Event()

    def slow():
        read = reads()
        assert may_go_on.wait(10)
        return read

    panel.snapshot = slow
    first = panel.do(lambda: None)
    while panel.reads < 2:
        time.sleep(0.001)
    panel.snapshot, panel.blocks = reads, {"one": look.text("after")}
    second = panel.do(lambda: None)
    second.join(0.3)  # where nothing holds it, it is done by then
    may_go_on.set()
    first.join()
    second.join()
    assert panel.view._blocks["one"]["text"] == "after"
    panel.close()


def test_a_page_that_asks_gets_all_and_what_follows_fits():
    panel = Counter({"one": look.text("first")})
    panel.build()
    sent = listen(panel.view)
    panel.view._handle_custom_msg({"hello": 1}, [])
    panel.view._handle_custom_msg(["no", "object"], [])
    panel.blocks = {"one": look.text("second"), "two": look.text("third")}
    panel.update()
    assert [name for name, _ in sent[0]["all"]] == ["one"]
    assert [name for name, _ in sent[1]["all"]] == ["one", "two"]
    assert [one["seq"] for one in sent] == [sent[0]["seq"], sent[0]["seq"] + 1]
    panel.close()


@pytest.mark.parametrize("error", [StoreError("locked\nby <b>\u202e"), PermissionError(13, "no")])
def test_errors_of_the_store_are_one_line(error):
    panel = Counter(error)
    panel.build()
    page = panel.to_html()
    assert "Traceback" not in page
    assert scripts_in(page) == []
    sent = listen(panel.view)
    panel.view._handle_custom_msg({"hello": 1}, [])
    assert 'role="alert"' in sent[0]["all"][0][1]
    panel.close()


def test_faults_of_our_own_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        Counter(ZeroDivisionError()).to_html()


def test_actions_tell_their_error_in_one_line_and_read_again():
    panel = Counter({"one": look.text("hello")})
    panel.build()
    before = panel.reads

    def fail():
        raise DataError("no <b>such\n\x1b[2Jthing")

    panel.do(fail).join()
    assert "\n" not in panel.status.value
    assert "\x1b" not in panel.status.value
    assert "such" in panel.status.value
    assert panel.reads == before + 1
    panel.close()


def test_an_answer_stays_in_the_twin():
    panel = Counter({"one": look.text("hello")})
    panel.reply({"more": look.text("<i>answer")})
    assert "&lt;i&gt;answer" in panel.to_html()
    panel.reply({})
    assert "answer" not in panel.to_html().replace(str(look.style()), "")


def test_what_only_the_twin_shows_is_not_sent():
    panel = Counter({"one": look.text("live"), "list": look.text("static")})
    panel.only_static = ("list",)
    panel.build()
    sent = listen(panel.view)
    panel.view._handle_custom_msg({"hello": 1}, [])
    assert [name for name, _ in sent[0]["all"]] == ["one"]
    assert "static" in panel.to_html()
    panel.close()


def wait_for(condition, *, most_s=10.0):
    end = time.monotonic() + most_s
    while not condition() and time.monotonic() < end:
        threading.Event().wait(0.005)
    return condition()


def test_following_reads_once_a_tick_and_ends_with_stop():
    panel = Counter({"one": look.text("hello")})
    panel.build()
    before = panel.reads
    panel.follow(every_s=0.01)
    assert wait_for(lambda: panel.reads > before + 2)
    thread = panel._thread
    panel.follow(every_s=0.01)  # the first thread ends
    assert not thread.is_alive()
    panel.stop()
    reads = panel.reads
    threading.Event().wait(0.05)
    assert panel.reads == reads
    panel.close()


def test_following_ends_when_the_widget_is_closed():
    panel = Counter({"one": look.text("hello")})
    panel.follow(every_s=0.01)
    thread = panel._thread
    panel.view.comm = None
    thread.join(timeout=10)
    assert not thread.is_alive()
    panel.close()


class Shell:
    """What a kernel says of the cell that runs."""

    def __init__(self, cell, run):
        self.parent = {"metadata": {"cellId": cell}, "header": {"msg_id": run}}

    def get_parent(self):
        return self.parent


def test_a_cell_that_runs_again_leaves_no_thread(monkeypatch):
    def run(cell, at):
        monkeypatch.setattr("IPython.get_ipython", lambda: Shell(cell, at))
        made = [Counter({"one": look.text("hello")}) for _ in range(2)]  # in a cell may be several
        for panel in made:
            panel.follow(every_s=60)
        return made

    before = threading.active_count()
    other = run("b", "0")
    made = [*run("a", "1"), *run("a", "2"), *run("a", "3")]
    assert threading.active_count() - before == 4
    assert [panel._thread is None for panel in made] == [True] * 4 + [False] * 2
    monkeypatch.setattr("IPython.get_ipython", lambda: None)  # outside of notebooks nothing stops
    outside = [Counter({"one": look.text("hello")}) for _ in range(2)]
    for panel in outside:
        panel.follow(every_s=60)
    assert threading.active_count() - before == 6
    for panel in (*other, *made, *outside):
        panel.close()
    assert threading.active_count() == before


def test_following_survives_a_store_that_is_away():
    panel = Counter(StoreError("away"))
    panel.follow(every_s=0.01)
    assert wait_for(lambda: panel.reads > 2)
    panel.blocks = {"one": look.text("back")}
    assert wait_for(lambda: "one" in panel.view._blocks)
    panel.close()


def test_panels_are_functions_whatever_was_imported_before():
    import workbench.notebook.widgets.monitor

    assert callable(widgets.monitor)
    from workbench.notebook.widgets import experiments, monitor, pair_sets
    from workbench.notebook.widgets import test_sets as mine

    assert all(type(one).__name__ == "function" for one in (experiments, monitor, pair_sets, mine))
    with pytest.raises(AttributeError, match="no attribute"):
        _ = workbench.notebook.widgets.nothing
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_pressed_hears_of_any_error():
    panel = Counter({"one": look.text("x")})
    panel.build()
    panel.do(lambda: {}["not there"]).join()
    assert panel.status.value == "KeyError: 'not there'"
    panel.close()
