"""The panel of pair sets: the card, a sample, the difference of two versions."""

from __future__ import annotations

import pytest

from hostile_texts import HOSTILE, scripts_in
from workbench.core.settings import read_settings
from workbench.data.build import build_pairs, load_pairs
from workbench.data.card import make_card
from workbench.data.config import BuildConfig
from workbench.notebook.widgets.pair_sets import PairSets, pair_sets
from workbench.store.database import open_store


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store with two pair sets, and their versions, the older first."""
    home = str(tmp_path_factory.mktemp("pairs"))
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "tester"}))
    made = [build_pairs(store, BuildConfig(target_pairs=count)).version for count in (120, 160)]
    yield store, made
    store.engine.dispose()


def press(panel, words):
    """Press a button of a panel and wait for what it does."""
    threads = []
    do, panel.do = panel.do, lambda action: threads.append(do(action))
    rows = [child for row in panel.widget.children[1:3] for child in row.children]
    next(one for one in rows if getattr(one, "description", "") == words).click()
    threads[0].join()
    panel.do = do


def test_without_any_it_says_how_to_make_one(store):
    panel = pair_sets(store)
    assert "There is no pair set here" in panel.to_html()
    panel.build()
    press(panel, "Difference")
    assert "one pair set only" in panel.status.value
    panel.close()


def test_the_card_has_the_figures_of_the_set(built):
    store, (old, new) = built
    panel = PairSets(store)
    blocks = panel.snapshot()["blocks"]
    card = make_card(load_pairs(store, new))
    assert blocks["facts"]["items"][0]["value"] == str(card["pairs"])
    assert {row[0]: int(row[1]) for row in blocks["splits"]["rows"]} == card["splits"]
    assert sum(int(row[1]) for row in blocks["by_category"]["rows"]) == card["pairs"]
    assert [row[0] for row in blocks["versions"]["rows"]] == [new[:12], old[:12]]
    assert PairSets(store, version=old[:10]).snapshot()["version"] == old
    assert scripts_in(panel.to_html()) == []


def test_no_pair_is_shown_before_a_sample_is_asked_for(built):
    store, (_, new) = built
    panel = PairSets(store)
    panel.build()
    text = next(iter(load_pairs(store, new).shards()))["adversarial"].iloc[0]
    assert text[:40] not in panel.to_html()
    panel.sample(count=4, seed=1, split="train", relation="")
    items = panel._replied["sample"]["items"]
    assert len(items) == 4
    assert all("train" in one["heading"] for one in items)
    first = [one["heading"] for one in items]
    panel.sample(count=4, seed=2, split="train")
    assert [
        one["heading"] + str(one["parts"]) for one in panel._replied["sample"]["items"]
    ] != first
    panel.do(lambda: panel.sample(split="nowhere")).join()
    assert "no pair with split nowhere" in panel.status.value
    panel.close()


def test_the_difference_adds_up(built):
    store, (old, new) = built
    panel = PairSets(store)
    panel.build()
    press(panel, "Difference")
    replied = panel._replied
    facts = {one["label"]: int(one["value"]) for one in replied["difference"]["items"]}
    sizes = [load_pairs(store, one).manifest["pairs"] for one in (old, new)]
    assert facts["kept"] + facts["removed"] == sizes[0]
    assert facts["kept"] + facts["added"] == sizes[1]
    rows = replied["by"]["rows"]
    assert sum(int(row[2]) for row in rows if row[0] == "split") == facts["added"]
    assert ["target_pairs", "120", "160"] in replied["config"]["rows"]
    assert "Built otherwise" in panel.to_html()
    panel.close()


def test_another_version_is_chosen_and_the_answer_goes(built):
    store, (old, _) = built
    panel = PairSets(store)
    panel.build()
    press(panel, "Sample")
    assert panel._replied
    panel.widget.children[1].children[0].value = old
    assert panel.snapshot()["version"] == old
    assert panel._replied == {}
    panel.close()


def test_hostile_texts_are_shown_as_text(built, monkeypatch):
    store, (old, _) = built
    panel = PairSets(store)
    panel.build()
    card = dict(make_card(load_pairs(store, "")))
    names = dict.fromkeys(HOSTILE, 1)
    row = {"name": HOSTILE[0], "revision": HOSTILE[1], "license": HOSTILE[2], "pairs": 1}
    card |= dict.fromkeys(("by_category", "by_relation", "by_language", "splits", "leaks"), names)
    card |= {"sources": [row | {"error": text} for text in HOSTILE], "shortfall": HOSTILE[20]}
    monkeypatch.setattr("workbench.data.card.make_card", lambda _: card)
    panel._cards.clear()
    labels = ("relation", "category", "language", "split", "wrapper_family", "source")
    rows = [dict.fromkeys((*labels, "adversarial", "clean"), text) for text in HOSTILE]
    monkeypatch.setattr("workbench.data.export.sample", lambda *_, **__: rows)
    panel.sample()
    assert scripts_in(panel.to_html()) == []
    sums = {"kept": 1, "added": 1, "removed": 1, "relabelled": 0, "old": "a", "new": "b"}
    by = dict.fromkeys(HOSTILE[:9], names)
    settings = {text: (text, None) for text in HOSTILE}
    found = sums | {"added_by": by, "removed_by": {}, "moved": names, "config": settings}
    monkeypatch.setattr("workbench.data.compare.compare", lambda *_: found)
    panel.diff(old)
    assert scripts_in(panel.to_html()) == []
    panel.close()
