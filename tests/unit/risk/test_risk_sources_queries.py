"""Queries of ServiceNow say what was meant and nothing else; paces and caches keep their word."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risk_server import Clock, asset
from workbench.core.errors import ConfigError
from workbench.core.settings import Secret
from workbench.risk.sources.cache import AnswerCache
from workbench.risk.sources.nvd import Nvd
from workbench.risk.sources.pace import Pace
from workbench.risk.sources.servicenow import Query, ServiceNow, parse_assets
from workbench.risk.sources.web import keys_of

OPERATORS = ["=", "!=", "<", "<=", ">", ">=", "STARTSWITH", "ENDSWITH", "LIKE", "NOT LIKE"]


def sysparm(query):
    return query.parameters(fields=["sys_id"], limit=10, offset=20)["sysparm_query"]


def test_a_query_is_encoded_in_the_order_it_was_made():
    query = Query().where("operational_status", "=", "1").or_("install_status", "IN", ["1", "3"])
    query = query.and_("owned_by.name", "ISNOTEMPTY").order_by("sys_id")
    assert sysparm(query) == (
        "operational_status=1^ORinstall_statusIN1,3^owned_by.nameISNOTEMPTY^ORDERBYsys_id"
    )
    assert sysparm(Query().order_by("name", descending=True)) == "ORDERBYDESCname"


def test_a_query_is_never_changed():
    first = Query().where("name", "=", "a")
    first.and_("name", "=", "b")
    assert sysparm(first) == "name=a"


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(OPERATORS))
def test_a_value_never_becomes_a_second_condition(value, operator):
    try:
        query = Query().where("name", operator, value).and_("x", "=", "1")
    except ConfigError:
        assert "^" in value or not value.isprintable()
        return
    assert sysparm(query).split("^") == [f"name{operator}{value}", "x=1"]
    urlencode({"q": sysparm(query)})  # fits into an address


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("name", "=", "a^ORDERBYsys_id"), ("name", "=", "a^NQactive=true"), ("name", "=", "a\nb"),
        ("name", "=", "javascript:gs.getUserID()"), ("name", "=", " JavaScript:x"),
        ("name", "IN", ["a,b"]), ("name", "IN", ["a", "b^c"]), ("name", "=", ["a", "b"]),
        ("name=1^x", "=", "1"), ("", "=", "1"), ("Name", "=", "1"), ("a..b", "=", "1"),
        ("name", "=1^x", "1"), ("name", "SAMEAS", "1"), ("name", "ISEMPTY", "1"),
        ("name", "=", "x" * 501), ("name", "=", 5), ("name", "IN", []),
    ],
)  # fmt: skip
def test_what_could_be_obeyed_is_refused(field, operator, value):
    with pytest.raises(ConfigError, match="servicenow query: "):
        Query().where(field, operator, value)


def test_a_query_that_begins_with_or_is_refused():
    with pytest.raises(ConfigError, match="begin with where"):
        Query().or_("a", "=", "1")


def test_fields_tables_and_orders_are_names_only():
    for wrong in (
        lambda: Query().order_by("a^b"),
        lambda: Query().parameters(fields=["a,b"], limit=1, offset=0),
        lambda: ServiceNow(None, base_url="https://x.service-now.com", ci_table="../sys_user"),
        lambda: ServiceNow(None, base_url="https://x.service-now.com", fields={"nme": "name"}),
    ):
        with pytest.raises(ConfigError):
            wrong()


@pytest.mark.parametrize(
    ("said", "criticality"),
    [("1 - most critical", 5), ("2 - somewhat critical", 4), ("4 - not critical", 2), ("", None),
     ("12", None), ("high", None), (None, None)],
)  # fmt: skip
def test_criticality_is_turned_round(said, criticality):
    page = json.dumps({"result": [asset(1, busines_criticality=said)]}).encode()
    row = parse_assets(page).to_pylist()[0]
    assert row["criticality"] == criticality
    assert (row["exposure"], row["incident_usd"], row["owner"]) == ("open", 12_000.0, "Ada")


# keys


def test_keys_are_split_and_never_shown():
    keys, note = keys_of(Nvd.service, {"NVD_API_KEYS": "a-key,b-key,a-key"})
    assert [key.reveal() for key in keys] == ["a-key", "b-key"]
    assert note == ""
    keys, note = keys_of(Nvd.service, {})
    assert [key.reveal() for key in keys] == [""]
    assert "NVD_API_KEYS" in note


@pytest.mark.parametrize("wrong", ["a key", ",", "a, b"])
def test_a_wrong_key_is_named_by_its_variable_only(wrong):
    with pytest.raises(ConfigError, match="NVD_API_KEYS") as caught:
        keys_of(Nvd.service, {"NVD_API_KEYS": wrong})
    assert wrong not in str(caught.value) or wrong == ","


def test_servicenow_needs_its_token():
    with pytest.raises(ConfigError, match="SERVICENOW_TOKEN is not set"):
        keys_of(ServiceNow.service, {})


# pace


@settings(deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 6), st.floats(0.5, 40), st.integers(1, 40),
    st.lists(st.floats(0, 20), max_size=40),
)  # fmt: skip
def test_no_key_is_used_more_often_than_allowed(keys, calls, per_s, count, pauses):
    clock = Clock()
    pace = Pace([Secret(f"k{i}") for i in range(keys)], rate=(calls, per_s), timing=clock.timing)
    sent = {}

    async def use():
        for number in range(count):
            key = await pace.acquire()
            sent.setdefault(key.reveal(), []).append(clock.now)
            clock.now += pauses[number] if number < len(pauses) else 0

    asyncio.run(use())
    for times in sent.values():
        assert all(
            late - early >= per_s - 1e-6 for early, late in zip(times, times[calls:], strict=False)
        )
    if not any(pauses):  # and no less: as many as fit
        assert clock.slept <= max(0, -(-count // (calls * keys)) - 1) * per_s + 0.1


def test_a_key_that_rests_leaves_the_turn_to_others():
    clock = Clock()
    first, second = Secret("a"), Secret("b")
    pace = Pace([first, second], rate=(100, 1.0), timing=clock.timing)
    pace.rest(first, seconds=60)

    async def use():
        return [(await pace.acquire()).reveal() for _ in range(3)]

    assert asyncio.run(use()) == ["b", "b", "b"]
    assert clock.slept == 0


# cache


def test_an_answer_is_kept_for_its_time(tmp_path):
    now = [1000.0]
    cache = AnswerCache(tmp_path / "risk" / "answers.db", clock=lambda: now[0])
    cache.put("k", b"body", ttl_s=60)
    assert cache.get("k") == (b"body", 1000.0)
    now[0] = 1060.0
    assert cache.get("k") is None
    assert len(rows_of(tmp_path)) == 1
    AnswerCache(tmp_path / "risk" / "answers.db", clock=lambda: now[0])
    assert rows_of(tmp_path) == []


def rows_of(tmp_path):
    connection = sqlite3.connect(tmp_path / "risk" / "answers.db")
    try:
        return connection.execute("SELECT key FROM answers").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("damage", [b"no database", b""])
def test_a_cache_that_is_damaged_holds_nothing(tmp_path, damage, caplog):
    path = tmp_path / "answers.db"
    path.write_bytes(damage * 500)
    cache = AnswerCache(path)
    cache.put("k", b"body", ttl_s=60)
    cache.get("k")
    assert len(caplog.records) == (1 if damage else 0)
    assert (cache.get("k") is None) == bool(damage)


def test_a_damaged_body_is_a_miss(tmp_path):
    path = tmp_path / "answers.db"
    cache = AnswerCache(path)
    cache.put("k", b"body", ttl_s=60)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE answers SET body = x'00'")
    connection.commit()
    connection.close()
    assert cache.get("k") is None


def _fill(path, name):
    cache = AnswerCache(path)
    for number in range(20):
        cache.put(f"{name}-{number}", b"x" * 1000, ttl_s=1000)


def test_several_processes_share_it(tmp_path):
    path = tmp_path / "risk" / "answers.db"
    spawn = multiprocessing.get_context("fork")
    workers = [spawn.Process(target=_fill, args=(path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert len(rows_of(tmp_path)) == 60
