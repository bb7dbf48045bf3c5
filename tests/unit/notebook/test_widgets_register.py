"""The register's panel: rows by page, filters, details with reasons, decisions, what changed."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from hostile_texts import HOSTILE, scripts_in
from risk_fakes import make_risk, make_risks
from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import text_id
from workbench.core.plain import storable
from workbench.notebook.widgets.register import Register, RiskRows, register
from workbench.risk.register import recorded, save_assessment
from workbench.store.risk_search import RiskChoice, risk_count, risk_page
from workbench.store.risks import decide, record, risk_log, risks

DAY = date(2026, 1, 1)
LEVELS = {"critical": 25, "high": 15, "medium": 9, "low": 4}


def fill(store, rows, *, assessment="a" * 64, day=DAY):
    """Keep an assessment and enter it into the register."""
    table = make_risks(*rows)
    save_assessment(store, table, {"assessment": assessment, "today": day.isoformat()})
    record(store.engine, recorded(table), assessment=assessment, today=day, who="anna")


@pytest.fixture
def known(store):
    """Forty risks: a tenth about models, a quarter of each level, on two assets."""
    rows = [
        make_risk(
            n, level=level, score=LEVELS[level], kind="model" if n % 10 == 0 else "cve",
            asset="shop" if n % 2 else "bank", reasons=[f"reason of {n}"], explanation=f"why {n}",
            due="" if n % 5 == 0 else (date(2026, 1, 1) + timedelta(days=n)).isoformat(),
        )
        for n in range(40)
        for level in [list(LEVELS)[n // 10]]
    ]  # fmt: skip
    fill(store, rows)
    return store


@pytest.fixture
def panel(known):
    made = Register(known)
    made.build()
    yield made
    made.close()


def subject(n):
    return f"CVE-2024-{n:05}"


def facts(panel):
    return {one["label"]: one["value"] for one in panel.snapshot()["blocks"]["facts"]["items"]}


def settle(panel, act):
    """Do what makes the panel do something in threads, and wait for them."""
    threads = []
    do, panel.do = panel.do, lambda action: threads.append(do(action))
    act()
    [thread.join() for thread in threads]
    panel.do = do


def test_an_empty_register_says_so(store):
    panel = register(store)
    panel.build()
    assert facts(panel)["open"] == "0"
    assert panel.table.answer({"page": 0})["count"] == 0
    for act in (panel.decide, panel.changes):
        panel.do(act).join()
    assert "fewer than two assessments" in panel.status.value
    assert scripts_in(panel.to_html()) == []
    panel.close()


def test_the_worst_come_first_and_are_counted(panel):
    assert facts(panel) == {
        "open": "40", "critical": "10", "high": "10", "medium": "10", "low": "10",
        "overdue": "32", "accepted": "0",
    }  # fmt: skip
    rows = panel.table.answer({"page": 0})["rows"]
    assert [row[0] for row in rows] == ["critical"] * 10 + ["high"] * 10 + ["medium"] * 10 + [
        "low"
    ] * 10
    assert [row[0] for row in panel.snapshot()["blocks"]["list"]["rows"]] == [r[0] for r in rows]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, range(40)),
        ({"level": "high"}, range(10, 20)),
        ({"kind": "model"}, range(0, 40, 10)),
        ({"asset": "bank"}, range(0, 40, 2)),
        ({"level": "low", "asset": "shop"}, range(31, 40, 2)),
        ({"status": "closed"}, ()),
        ({"overdue_on": date(2026, 1, 9)}, [1, 2, 3, 4, 6, 7]),
        ({"words": "cve-2024-0000"}, range(10)),
        ({"words": "TITLE 39"}, [39]),
        ({"words": "%"}, range(40)),  # of the package's address, not any text
        ({"words": "_"}, range(40)),  # of the decision
        ({"words": "14%days"}, ()),
    ],
)
def test_what_is_chosen_is_what_the_rows_say(known, choice, expected):
    found = risk_page(known.engine, RiskChoice(**choice), limit=100)
    assert sorted(row["subject"] for row in found) == [subject(n) for n in expected]
    assert risk_count(known.engine, RiskChoice(**choice)) == len(found)


@pytest.mark.parametrize("sort", ["", "level", "score", "due", "owner", "annual_loss_usd"])
@pytest.mark.parametrize("descending", [True, False])
def test_pages_hold_every_risk_once_in_order(known, sort, descending):
    source = RiskRows(known, RiskChoice(status="open"))
    pages = [source.page(at, 7, sort, descending, "") for at in range(0, 42, 7)]
    rows = [row for page in pages for row in page]
    assert len({row["id"] for row in rows}) == len(rows) == 40
    if sort == "level":
        weights = [LEVELS[row["level"]] for row in rows]
        assert weights == sorted(weights, reverse=descending)
    if sort == "due":
        days = [row["due"] or "9999" for row in rows]
        assert days == sorted(days, reverse=descending)
    with pytest.raises(ConfigError, match="sort"):
        source.page(0, 7, "id; --", False, "")


def test_filters_of_the_panel_choose(known):
    panel = Register(known, level="high", asset="bank", overdue=True)
    panel.build()
    assert panel.table.answer({"page": 0})["count"] == 4  # 10 is never due
    status, level, kind, asset, late = panel.widget.children[1].children
    assert (status.value, level.value, asset.value, late.value) == ("", "high", "bank", True)
    settle(panel, lambda: setattr(late, "value", False))
    assert panel.table.answer({"page": 0})["count"] == 5
    settle(panel, lambda: setattr(kind, "value", "model"))
    settle(panel, lambda: setattr(level, "value", ""))
    settle(panel, lambda: setattr(asset, "value", " "))
    assert panel.table.answer({"page": 0})["count"] == 4
    assert len(panel.snapshot()["blocks"]["list"]["rows"]) == 4
    panel.close()


def test_a_risk_is_shown_with_its_reasons_and_history(panel):
    sort = {"sort": 2, "descending": False}
    panel.table._handle_custom_msg({"open": 13, **sort}, [])
    page = panel.to_html()
    for text in (subject(13), "reason of 13", "why 13", "CVSS:3.1", "part13@1.2", "anna"):
        assert text in page, text
    panel.table._handle_custom_msg({"open": 14, **sort}, [])
    assert "reason of 13" not in panel.to_html()


def test_a_risk_is_shown_where_its_assessment_is_gone(known, panel):
    known.artifacts.remove("assessment", "a" * 64)
    panel.open(text_id("3"))
    blocks = panel._replied
    assert dict(blocks["risk"]["items"][0]["parts"])["title"] == "Title 3"
    assert "explanation" not in dict(blocks["risk"]["items"][0]["parts"])


def test_chosen_risks_are_accepted_with_a_reason(known, panel):
    panel.table._handle_custom_msg({"choose": 0}, [])
    panel.table._handle_custom_msg({"choose": 1}, [])
    chosen = list(panel.table.selected)
    panel.do(lambda: panel.decide(status="accepted")).join()
    assert "needs a note" in panel.status.value
    assert facts(panel)["accepted"] == "0"
    panel.fields["note"].value = "isolated, ask bob@example.org"
    panel.fields["due"].value = "2030-01-01"
    panel.do(lambda: panel.decide(status="accepted")).join()
    assert "2 risks: due 2030-01-01, status accepted" in panel.status.value
    rows = risks(known.engine, ids=chosen)
    assert {(row["status"], row["due"], row["reason"]) for row in rows} == {
        ("accepted", "2030-01-01", "isolated, ask [email]")
    }
    assert facts(panel)["accepted"] == "2"
    assert panel.table.answer({"page": 0})["count"] == 38
    assert [field.value for field in panel.fields.values()] == ["", "", ""]


def test_the_risk_that_is_shown_is_decided_on_where_none_is_chosen(known, panel):
    with pytest.raises(DataError, match="no risk is chosen"):
        panel.decide(status="open")
    panel.open(text_id("3"))
    with pytest.raises(ConfigError, match="nothing to say"):
        panel.decide()
    panel.fields["owner"].value = "platform"
    panel.decide()
    assert risks(known.engine, ids=[text_id("3")])[0]["owner"] == "platform"
    assert "owner – → platform" in panel.to_html()
    panel.fields["owner"].value = "-"
    panel.decide()
    assert risks(known.engine, ids=[text_id("3")])[0]["owner"] == ""
    panel.fields["due"].value = "tomorrow"
    with pytest.raises(ConfigError, match="YYYY-MM-DD"):
        panel.decide()
    assert panel.fields["due"].value == "tomorrow"
    assert len(risk_log(known.engine, [text_id("3")])) == 3


def test_what_is_closed_is_opened_again(known, panel):
    decide(known.engine, [text_id("1")], {"status": "closed"}, who="bob", note="gone")
    panel.open(text_id("1"))
    panel.decide(status="open")
    assert risks(known.engine, ids=[text_id("1")])[0]["status"] == "open"
    assert [row["who"] for row in risk_log(known.engine, [text_id("1")])] == [
        "anna", "bob", "tester"
    ]  # fmt: skip


def test_what_changed_between_the_two_newest(known, panel):
    rows = [make_risk(0, level="low", score=4), make_risk(99, level="critical", score=25)]
    fill(known, rows, assessment="b" * 64, day=DAY + timedelta(days=1))
    panel.changes()
    counts = {one["label"]: int(one["value"]) for one in panel._replied["counts"]["items"]}
    assert (counts["new"], counts["gone"], counts["better"]) == (1, 39, 1)
    assert ["new", subject(99), "shop", "–", "critical 25"] in panel._replied["changes"]["rows"]
    assert "From assessment aaaaaaaaaaaa to bbbbbbbbbbbb" in panel.to_html()


def test_hostile_texts_are_shown_as_text_everywhere(store):
    rows = [
        make_risk(
            n, title=text, component=text, asset=text[:60] or "-", reasons=[text], reason=text,
            explanation=text, missing=[text], source=text, owner=text[:40], decision=text[:60],
        )
        for n, text in enumerate(map(storable, HOSTILE))
    ]  # fmt: skip
    fill(store, rows)
    panel = Register(store)
    panel.build()
    sent = []
    panel.answer.send = lambda content, buffers=None: sent.append(
        json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    )
    for at in range(len(HOSTILE)):
        panel.open(text_id(str(at)))
        if at % 10 == 0:
            assert scripts_in(panel.to_html()) == []
    whole = [one for one in sent if "set" not in one]
    drawn = [html for one in whole for _, html in one.get("all", [one.get("put")])]
    assert len(drawn) > len(HOSTILE)
    assert [bad for html in drawn for bad in scripts_in(html)] == []
    panel.close()


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"status": "x"}, "status 'x': give one of '', 'open'.*'closed'"),
        ({"level": "hi"}, "level 'hi': .*'critical'.*'low'"),
        ({"kind": "x"}, "kind 'x': .*'cve', 'model'"),
        ({"levle": "high"}, "unknown field 'levle'; did you mean 'level'"),
        ({"ids": "x"}, "unknown field 'ids'; .*asset"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_can(store, choice, told):
    with pytest.raises(ConfigError, match=told):
        register(store, **choice)
