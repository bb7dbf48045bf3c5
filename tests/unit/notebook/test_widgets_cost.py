"""The panel of cost: bills apart from estimates, thresholds, credits and quotas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hostile_texts import HOSTILE, scripts_in
from ledger_rows import model_row
from workbench.core.errors import ConfigError
from workbench.core.plain import storable
from workbench.notebook.widgets.cost import Cost, cost
from workbench.store.usage import window_start

ALERTS = """
alerts:
  - {metric: dollars, window: day, limit: 1, action: warn}
  - {metric: calls, window: week, limit: 100, action: abort}
quotas:
  credit_usd: 0.05
  window: month
  users: {tester: 40, bo: 5}
"""


@pytest.fixture
def paid(store, tmp_path):
    """Bills of two people in two experiments, a rehearsal, CPU time, and an old bill."""
    cpu = replace(
        model_row(usd="0.5"), resource="cpu", unit="core_s", estimated=True, phase="training"
    )
    store.ledger.add([
        model_row(usd="1.25", phase="execution"),
        model_row(usd="0.25", phase="generation", resource="large"),
        model_row(usd="0.50", who="bo", experiment="other"),
        model_row(usd="7", who="rehearsal:tester"),
        replace(model_row(usd="3"), at="2020-01-01T00:00:00.000000Z"),
        cpu,
    ])  # fmt: skip
    (tmp_path / "alerts.yaml").write_text(ALERTS, encoding="utf-8")
    return store


def blocks_of(store, root, **options):
    return Cost(store, root=root, **options).snapshot()["blocks"]


def facts(blocks):
    return {one["label"]: one["value"] for one in blocks["facts"]["items"]}


def column(blocks, name, at=1):
    return {row[0]: row[at] for row in blocks[name]["rows"]}


def test_an_empty_store_cost_nothing(store):
    panel = cost(store)
    panel.build()
    assert facts(panel.snapshot()["blocks"])["billed"] == "$0.00"
    assert scripts_in(panel.to_html()) == []
    panel.close()


def test_bills_stand_apart_from_estimates_and_rehearsals(paid, tmp_path):
    blocks = blocks_of(paid, tmp_path)
    assert facts(blocks) == {
        "billed": "$5.00", "credits": "100", "estimated": "$0.50", "rehearsed": "$7.00"
    }  # fmt: skip
    assert column(blocks, "phase") == {
        "execution": "$4.75", "generation": "$0.25", "training": "$0.00"
    }  # fmt: skip
    assert column(blocks, "resource")["large"] == "$0.25"
    assert column(blocks, "who") == {"tester": "$4.50", "bo": "$0.50"}
    assert column(blocks, "experiment", 4) == {"sweep": "90.0\u00a0%", "other": "10.0\u00a0%"}
    assert column(blocks, "phase", 2)["training"] == "$0.50"


def test_a_period_and_an_experiment_choose(paid, tmp_path):
    assert facts(blocks_of(paid, tmp_path, period="this month"))["billed"] == "$2.00"
    assert facts(blocks_of(paid, tmp_path, experiment="other"))["billed"] == "$0.50"
    panel = Cost(paid, root=tmp_path)
    panel.build()
    period, experiment, refresh = panel.widget.children[1].children
    threads = []
    do, panel.do = panel.do, lambda action: threads.append(do(action))
    assert [value for _, value in experiment.options] == ["", "other", "sweep"]
    experiment.value = "sweep"
    period.value = "today"
    paid.ledger.add([model_row(usd="0.10")])
    refresh.click()
    [thread.join() for thread in threads]
    assert facts(panel.view._blocks)["billed"] == "$1.60"
    panel.close()


def test_what_is_exceeded_comes_first(paid, tmp_path):
    rows = blocks_of(paid, tmp_path)["alerts"]["rows"]
    assert [(row[0], row[4]) for row in rows] == [("dollars", "exceeded: warns"), ("calls", "ok")]
    assert [row[2] for row in rows] == ["2.00", "3"]


def test_credits_are_counted_by_person_and_phase_beside_their_quotas(paid, tmp_path):
    blocks = blocks_of(paid, tmp_path)
    rows = {row[0]: row[1:] for row in blocks["credits"]["rows"]}
    assert next(iter(rows)) == "tester"
    assert rows["tester"] == ["30", "40", "75.0\u00a0%", "execution 25, generation 5"]
    assert rows["bo"][:3] == ["10", "5", "200.0\u00a0%"]
    assert (blocks["quota"]["done"], blocks["quota"]["total"]) == (30, 40)
    assert window_start("month")[:10] in blocks["credits"]["note"]
    (tmp_path / "alerts.yaml").unlink()
    blocks = blocks_of(paid, tmp_path)
    assert "quota" not in blocks
    assert {row[2] for row in blocks["credits"]["rows"]} == {"no limit"}
    assert column(blocks, "credits")["tester"] == "150"


def test_a_quota_of_nothing_is_a_quota(paid, tmp_path):
    (tmp_path / "alerts.yaml").write_text("quotas: {default: 0}", encoding="utf-8")
    blocks = blocks_of(paid, tmp_path)
    assert [row[2:4] for row in blocks["credits"]["rows"]] == [["0", "–"]] * 2
    assert blocks["quota"]["note"] == "the quota is used up"


def test_estimates_stand_beside_bills(paid, tmp_path):
    figures = {"calls": 2, "usd": ["1", "2", "9"]}
    paid.calls.add_estimate(
        figures, work="later", job="run-1", experiment="sweep", phase="execution"
    )
    paid.ledger.add([model_row(usd="4", work="later")])
    (row,) = blocks_of(paid, tmp_path)["estimates"]["rows"]
    assert row == ["sweep", "later", "execution", "$1.00", "$2.00", "$9.00", "$4.00", "within"]


def test_a_file_that_makes_no_sense_is_told_in_one_line(paid, tmp_path):
    (tmp_path / "alerts.yaml").write_text("quotas: [1]", encoding="utf-8")
    panel = Cost(paid, root=tmp_path)
    panel.build()
    page = panel.to_html()
    assert "write a mapping of" in page
    assert 'role="alert"' in page
    panel.close()


def test_hostile_texts_are_shown_as_text(store, tmp_path):
    names = [storable(text)[:190] for text in HOSTILE]
    store.ledger.add(
        model_row(usd=f"{at + 1}", experiment=name, resource=name, who=name or "x", work=name)
        for at, name in enumerate(names)
    )
    for name in ("", *names[::20]):
        panel = Cost(store, root=tmp_path, experiment=name)
        panel.build()
        assert scripts_in(panel.to_html()) == []
        assert len(panel.view._blocks) > 5
        panel.close()


def test_what_is_asked_for_is_chosen_and_a_period_that_is_none_refused(store):
    panel = cost(store, experiment="of no cost")
    panel.build()
    assert panel.widget.children[1].children[1].value == "of no cost"  # it is what is shown
    panel.close()
    with pytest.raises(ConfigError, match=r"period 'x': give one of 'all time', .*'today'"):
        cost(store, period="x")
