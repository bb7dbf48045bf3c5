"""The panel of test sets: one's own, what is in one, both costs, executing and aborting."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from campaign_fakes import make_case, make_set
from hostile_texts import HOSTILE, scripts_in
from workbench.campaign import testsets
from workbench.campaign.generate import GenerateConfig, preview
from workbench.core.errors import ConfigError, DataError, StoreError
from workbench.core.plain import storable
from workbench.core.settings import project_root, read_settings
from workbench.data.build import build_pairs
from workbench.data.config import BuildConfig
from workbench.notebook.widgets import children
from workbench.notebook.widgets.test_sets import TestSets, test_sets
from workbench.store.campaigns import why_stop
from workbench.store.database import open_store
from workbench.store.events import tell
from workbench.store.records import TestSet
from workbench.store.test_sets import add_tag

MODEL = "openai:gpt-4o-mini@http://127.0.0.1:9/v1"


@pytest.fixture
def two(store):
    """A store with two test sets, and their ids, the older first."""
    first = testsets.save(store, make_set(4, 1), cost_usd="1.25")
    second = testsets.save(store, make_set(7))
    add_tag(store.engine, first, "nightly", owner="tester")
    return store, first, second


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("sets"))
    opened = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "tester"}))
    build_pairs(opened, BuildConfig(target_pairs=120))
    yield opened
    opened.engine.dispose()


@pytest.fixture
def started(monkeypatch):
    """What would have been started, instead of starting it."""
    found = []
    monkeypatch.setattr(children, "start", lambda *args, **more: found.append((args, more)))
    return found


def cells(panel):
    table = panel._replied["costs"]
    return {row[0]: row[1:] for row in table["rows"]}, table["note"]


def test_the_list_is_the_users_own(two):
    store, first, second = two
    rows = test_sets(store).snapshot()["blocks"]["list"]["rows"]
    assert [row[0] for row in rows] == [second[:12], first[:12]]
    assert rows[1][2:5] == ["5", "$1.25", "nightly"]
    assert len(TestSets(store, tag="nightly").snapshot()["blocks"]["list"]["rows"]) == 1
    other = replace(store, settings=replace(store.settings, user="other"))
    panel = TestSets(other)
    assert panel.snapshot()["blocks"]["list"]["rows"] == []
    with pytest.raises(DataError, match="owns no test set"):
        panel.preview(first)
    with pytest.raises(DataError, match="own no test set"):
        panel.execute()
    panel.table.close()


def test_the_table_follows_the_list(two):
    store, *_ = two
    panel = TestSets(store)
    panel.build()
    assert panel.table.answer({"page": 0})["count"] == 2
    testsets.save(store, make_set(9))
    panel.update()
    answer = panel.table.answer({"page": 0, "sort": 2, "descending": True})
    assert [row[2] for row in answer["rows"]] == ["9", "7", "5"]
    assert "list" not in panel.view._blocks  # the table shows it
    panel.close()


def test_the_preview_shows_the_first_cases_of_what_is_chosen(two):
    store, first, second = two
    panel = TestSets(store)
    panel.build()
    panel.preview()
    assert second[:12] in panel._replied["what"]["text"]
    panel.table._handle_custom_msg({"choose": 1}, [])
    panel.preview()
    replied = panel._replied
    assert first[:12] in replied["what"]["text"]
    assert len(replied["cases"]["items"]) == 5
    assert {row[0]: int(row[1]) for row in replied["plugin"]["rows"]} == {
        "harm-violence": 4, "over-refusal": 1
    }  # fmt: skip
    panel.table._handle_custom_msg({"open": 0}, [])
    assert second[:12] in panel._replied["what"]["text"]
    panel.close()


def test_costs_of_both_steps_stand_side_by_side(seeded):
    config = GenerateConfig(plugins=("pii",), strategies=("plain", "base64"), max_tests=6)
    made = preview(seeded, config).test_set
    testsets.save(seeded, made)
    panel = TestSets(seeded)
    panel.build()
    panel.targets.value, panel.trials.value = f"bare\n\n {MODEL} ", 2
    panel.costs()
    found, note = cells(panel)
    assert found["cases, attempts"] == [str(len(made)), str(4 * len(made))]
    assert found["calls of models"] == ["0", str(2 * len(made))]
    assert note == "No model is needed to generate it."
    assert seeded.ledger.rows() == []  # nothing was sent or spent
    panel.close()


def test_generating_with_a_model_has_a_price(seeded, monkeypatch):
    config = GenerateConfig(plugins=("pii",), strategies=("crescendo",), max_tests=3)
    plan = preview(seeded, config)
    assert plan.pending
    recipe = plan.recipe
    testsets.save(seeded, TestSet(cases=(make_case(1),), recipe=recipe), cost_usd="0.5")
    panel = TestSets(seeded)
    panel.costs()
    found, note = cells(panel)
    assert note == f"A model writes {len(plan.pending)} cases."
    assert int(found["calls of models"][0]) > 0
    assert found["expected"][0] != "$0.00"
    assert found["billed for it so far"][0] == "$0.50"
    low, expected, worst = (
        Decimal(found[name][0][1:]) for name in ("at least", "expected", "at most")
    )
    assert low <= expected <= worst
    panel.table.close()


def test_a_set_from_elsewhere_has_no_price_of_generating(two):
    store, *_ = two
    panel = TestSets(store)
    panel.costs()
    assert "not generated here" in cells(panel)[1]
    panel.table.close()


def test_execute_starts_the_command_with_what_is_chosen(two, started):
    store, first, _ = two
    panel = TestSets(store)
    panel.build()
    panel.table.selected = [first]
    panel.targets.value = "bare\n--help\n"
    with pytest.raises(ConfigError):
        panel.execute()
    panel.targets.value = f"bare\n{MODEL}"
    panel.trials.value, panel.budget.value, panel.staging.value = 3, "1.50", True
    panel.do(panel.execute).join()
    ((used, name, arguments), more) = started[0]
    assert used is store
    assert name == "campaign execute of tester"
    assert arguments == [
        "campaign", "execute", first, "--trials=3", "--target=bare", f"--target={MODEL}",
        "--budget=1.50", "--staging",
    ]  # fmt: skip
    assert more == {"folder": project_root()}
    assert "is being executed" in panel.status.value
    for value in ("cheap", "-1", "nan"):
        panel.budget.value = value
        panel.do(panel.execute).join()
    panel.budget.value, panel.targets.value = "", "\n".join(["bare"] * 21)
    with pytest.raises(ConfigError, match="at most"):
        panel.execute()
    assert len(started) == 1
    panel.close()


def test_what_runs_is_shown_and_aborted(two):
    store, first, _ = two
    panel = TestSets(store)
    panel.build()
    panel.do(panel.abort).join()
    assert "no execution of yours runs" in panel.status.value
    told = {"test_set": first, "targets": ["bare"], "total": 5}
    tell(store, "attack_run_started", "e" * 64, told)
    assert panel.snapshot()["blocks"]["running"]["total"] == 5
    panel.do(panel.abort).join()
    assert why_stop(store.engine, "e" * 64, token="") == "aborted"
    tell(store, "attack_run_aborted", "e" * 64, told)
    assert "running" not in panel.snapshot()["blocks"]
    panel.close()


def test_the_error_of_a_command_is_told(two, monkeypatch):
    store, *_ = two
    monkeypatch.setattr(children, "complaint", lambda *_: "error: no <b>such\u202e")
    page = TestSets(store).to_html()
    assert "no &lt;b&gt;such⟨U+202E⟩" in page


def test_hostile_texts_are_shown_as_text(store):
    cases = tuple(
        make_case(
            number, prompt=text, goal=text, turns=(text,), plugin=storable(text)[:150] or "x",
            category=text,
        )
        for number, text in enumerate(HOSTILE)
    )  # fmt: skip
    for at in range(0, len(cases), 5):
        made = testsets.save(store, TestSet(cases=cases[at : at + 5]))
        add_tag(store.engine, made, storable(HOSTILE[at])[:64], owner="tester")
    panel = TestSets(store)
    panel.build()
    for row in panel._rows():
        panel.preview(row["id"])
        assert scripts_in(panel.to_html()) == []
    for answer in map(panel.table.answer, ({"page": 0}, {"page": 0, "filter": HOSTILE[0]})):
        assert all(
            char.isprintable() or char in "\n\t" for row in answer["rows"] for char in str(row)
        )
    panel.close()


def test_a_store_that_is_gone_is_said_and_watched_on(two, monkeypatch):
    store, *_ = two
    panel = TestSets(store)
    panel.build()

    def gone(*_args, **_more):
        raise StoreError("the store is away")

    monkeypatch.setattr(testsets, "list_test_sets", gone)
    panel.update()
    assert panel.view._blocks["error"]["text"] == "the store is away"
    monkeypatch.undo()
    assert len(panel.update()["rows"]) == 2
    assert "error" not in panel.view._blocks
    panel.close()
