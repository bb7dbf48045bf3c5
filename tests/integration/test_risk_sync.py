"""A sync against publishers on loopback: what they say, what they fail at, and what is kept."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs, urlsplit

import pytest

from risk_server import CVES, KEV, Clock, RiskServer, asset, cve_record, epss_answer, osv_advisory
from workbench.core.errors import ConfigError, DataError
from workbench.core.settings import read_settings
from workbench.risk.snapshot import load_snapshot
from workbench.risk.sources import servicenow, web
from workbench.risk.sources.base import SOURCES
from workbench.risk.sources.nvd import Nvd
from workbench.risk.sources.servicenow import Query, ServiceNow
from workbench.risk.sources.web import Web
from workbench.risk.sync import DEFAULT_SOURCES, plan, sync

PURLS = ("pkg:pypi/demo@1.0",)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(web, "Timing", lambda: clock.timing)
    monkeypatch.delenv("NVD_API_KEYS", raising=False)
    plan()  # registers
    return clock


def synced(store, server, *, sources=DEFAULT_SOURCES, **arguments):
    """Return the snapshot of one sync; the server serves in the same loop."""

    async def work():
        async with server.serve():
            urls = {name: url for name, url in server.base_urls.items() if name in sources}
            return await sync(store, sources=sources, base_urls=urls, **arguments)

    return load_snapshot(store, asyncio.run(work()))


def using(tmp_path, call, *, clock=None, environment=None, server=None, **arguments):
    """Return what a coroutine gives that is called with a client and a server."""
    settings = read_settings({"WORKBENCH_HOME": str(tmp_path)})

    async def work():
        async with (server or RiskServer()).serve() as serving:
            timing = (clock or Clock()).timing
            async with Web(
                settings, environment=environment or {}, timing=timing, **arguments
            ) as client:
                return await call(client, serving)

    return asyncio.run(work())


def rows(snapshot, name):
    return {row.get("cve") or row.get("id"): row for row in snapshot.table(name).to_pylist()}


def test_everything_is_asked_and_frozen(store):
    told = []
    snapshot = synced(
        store, RiskServer(), cves=CVES, purls=PURLS, progress=lambda *step: told.append(step)
    )
    assert set(rows(snapshot, "cve")) == set(CVES)
    assert rows(snapshot, "kev")[CVES[0]]["ransomware"] is True
    assert rows(snapshot, "epss")[CVES[0]]["epss"] == 0.12345
    assert snapshot.table("osv").num_rows == 1
    assert snapshot.table("techniques").num_rows == 2
    assert {source.error for source in snapshot.sources} == {""}
    assert {source for _, _, source in told} == set(DEFAULT_SOURCES) - {"nvd"}
    assert told[-1][:2] == (7, 7)
    assert all(done <= total for done, total, _ in told)


def test_nvd_is_asked_about_what_is_open_only(store):
    server = RiskServer()
    server.records[CVES[1]] = cve_record(CVES[1], metrics=[], adps=[])
    del server.records[CVES[2]]
    snapshot = synced(store, server, cves=CVES)
    asked = [parse_qs(urlsplit(path).query)["cveId"][0] for path in server.requests("nvd")]
    assert sorted(asked) == sorted(CVES[1:])
    found = rows(snapshot, "cve")
    assert [found[cve]["cvss_source"] for cve in CVES] == ["cna", "nvd", "nvd"]
    assert found[CVES[1]]["description"] == "A flaw in Example."
    assert found[CVES[2]]["description"] == "NVD says: a flaw."


def test_advisories_name_cves_to_ask_about(store):
    snapshot = synced(store, RiskServer(), purls=PURLS)
    assert set(rows(snapshot, "cve")) == {CVES[0]}


def test_pages_of_advisories_are_all_read(store):
    server = RiskServer()
    server.advisories = {f"GHSA-{n}": osv_advisory(f"GHSA-{n}") for n in range(4)}
    snapshot = synced(store, server, sources=("osv",), purls=(*PURLS, "pkg:npm/none@1", "bad"))
    assert "1 are no package URLs, e.g. 'bad'" in snapshot.source("osv").error
    assert snapshot.table("osv")["id"].to_pylist() == [f"GHSA-{n}" for n in range(4)]
    sent = [body for _, path, _, body in server.seen if path.endswith("querybatch")]
    assert sent[0] == {
        "queries": [{"package": {"purl": "pkg:pypi/demo"}}, {"package": {"purl": "pkg:npm/none"}}]
    }
    assert sent[1] == {"queries": [{"package": {"purl": "pkg:pypi/demo"}, "page_token": "1"}]}


def test_what_is_of_a_day_to_come_is_of_today(store, monkeypatch):
    monkeypatch.setattr(RiskServer, "say_kev", lambda *_: KEV | {"dateReleased": "2999-01-01"})
    monkeypatch.setattr(RiskServer, "say_epss", lambda *_: epss_answer(CVES[0], day="2999-01-01"))
    snapshot = synced(store, RiskServer(), sources=("kev", "epss"), cves=CVES[:1])
    assert {source.as_of for source in snapshot.sources} == {"2024-08-04"}
    assert snapshot.table("epss")["as_of"].to_pylist() == ["2024-08-04"]


def test_an_advisory_that_is_listed_and_not_there_is_missed(store):
    server = RiskServer()
    server.advisories = {"GHSA-1": osv_advisory("GHSA-1"), "GHSA-gone": None}
    snapshot = synced(store, server, sources=("osv",), purls=PURLS)
    assert snapshot.table("osv")["id"].to_pylist() == ["GHSA-1"]
    assert "1 requests failed" in snapshot.source("osv").error
    assert "GHSA-gone" in snapshot.source("osv").error


def test_one_source_that_fails_fails_no_other_and_loses_nothing(store, quick):
    first = synced(store, RiskServer(), cves=CVES)
    quick.now += 2 * 86_400
    server = RiskServer()
    server.fail("kev", "half*")
    server.fail("epss", "500*")
    server.fail("cve_records", "drop*")
    second = synced(store, server, cves=CVES)
    assert second.id != first.id
    assert "source kev: " in second.source("kev").error
    assert "HTTP 500" in second.source("epss").error
    assert "cve_records" in second.source("cve").error  # NVD went on alone
    for name in ("kev", "epss"):
        assert second.table(name).equals(first.table(name))
        assert second.source(name).as_of == first.source(name).as_of
    assert second.source("techniques").error == ""


def test_what_never_answered_is_missing(store):
    server = RiskServer()
    server.fail("kev", "renamed*")
    snapshot = synced(store, server, sources=("kev", "epss"), cves=CVES)
    assert snapshot.source("kev").status == "missing"
    assert "vulnerabilities is missing" in snapshot.source("kev").error
    assert snapshot.table("kev") is None


def test_no_answer_at_all_writes_no_snapshot(store):
    server = RiskServer()
    server.fail("kev", "html*")
    with pytest.raises(DataError, match=r"no source gave anything .*the last snapshot stays"):
        synced(store, server, sources=("kev",))
    assert store.artifacts.newest("snapshot") == ""


def test_some_records_that_fail_are_counted(store):
    server = RiskServer()
    server.fail("cve_records", "html")
    snapshot = synced(store, server, sources=("cve_records",), cves=CVES)
    assert len(rows(snapshot, "cve")) == 2
    assert "1 of 3 failed, the first: source cve_records: " in snapshot.source("cve").error


def test_offline_nothing_is_sent_or_written(store):
    with pytest.raises(ConfigError, match="WORKBENCH_OFFLINE=0"):
        asyncio.run(sync(store, cves=CVES))
    assert store.artifacts.newest("snapshot") == ""


@pytest.mark.parametrize("wrong", ["CVE-24-1", "CVE-2024-1001 OR 1=1", "../x", ""])
def test_an_id_that_is_none_is_refused_before_anything_is_sent(store, wrong):
    with pytest.raises(DataError, match="is no CVE id"):
        asyncio.run(sync(store, sources=("kev",), cves=[CVES[0], wrong]))


def test_a_misspelt_source_or_address_is_refused(store):
    with pytest.raises(ConfigError, match="unknown risk_source 'kve'"):
        asyncio.run(sync(store, sources=("kve",)))
    with pytest.raises(ConfigError, match="unknown field 'nvd'"):
        asyncio.run(sync(store, sources=("kev",), base_urls={"nvd": "http://127.0.0.1"}))


def test_a_second_sync_asks_for_nothing(store, monkeypatch):
    server = RiskServer()

    async def work():
        async with server.serve():
            urls = {name: server.base_urls[name] for name in DEFAULT_SOURCES}
            one = await sync(store, cves=CVES, purls=PURLS, base_urls=urls)
            count = len(server.seen)
            two = await sync(store, cves=CVES, purls=PURLS, base_urls=urls)
            return one, two, count

    one, two, count = asyncio.run(work())
    assert count == len(server.seen) > 8
    assert load_snapshot(store, one).table("cve").equals(load_snapshot(store, two).table("cve"))


# the client


def test_a_publisher_that_is_out_of_order_is_not_asked_for_ever(tmp_path):
    server = RiskServer()
    server.fail("cve_records", "500*")
    many = [f"CVE-2024-{number}" for number in range(10_000, 10_500)]

    async def call(client, serving):
        url = serving.base_urls["cve_records"]
        with pytest.raises(DataError, match="HTTP 500"):
            await SOURCES.get("cve_records")(client, base_url=url).fetch(many)

    using(tmp_path, call, server=server, attempts=2)
    assert len(server.seen) < 50


def test_retry_after_is_waited_for(tmp_path):
    clock, server = Clock(), RiskServer()
    server.fail("kev", "429")

    async def call(client, serving):
        return await SOURCES.get("kev")(client, base_url=serving.base_urls["kev"]).fetch()

    assert using(tmp_path, call, clock=clock, server=server).table.num_rows == 2
    assert 7 <= clock.slept < 10


def test_nvd_is_asked_no_faster_without_a_key_and_keys_take_turns(tmp_path):
    cves = [f"CVE-2024-{number}" for number in range(30_000, 30_012)]

    async def call(client, serving):
        serving.nvd = set(cves)
        found = await Nvd(client, base_url=serving.base_urls["nvd"]).fetch(cves)
        assert found.table.num_rows == 12
        return [headers.get("apikey", "") for _, _, headers, _ in serving.seen]

    slow, fast = Clock(), Clock()
    assert set(using(tmp_path / "a", call, clock=slow)) == {""}
    assert slow.slept >= 60
    keys = using(tmp_path / "b", call, clock=fast, environment={"NVD_API_KEYS": "k1,k2"})
    assert (keys.count("k1"), keys.count("k2")) == (6, 6)
    assert fast.slept == 0


def test_epss_asks_for_lists_that_fit(tmp_path):
    many = [f"CVE-2024-{number}" for number in range(1_000_000, 1_000_250)]

    async def call(client, serving):
        serving.records |= dict.fromkeys(many)
        found = await SOURCES.get("epss")(client, base_url=serving.base_urls["epss"]).fetch(many)
        assert sorted(found.table["cve"].to_pylist()) == many
        return [parse_qs(urlsplit(path).query)["cve"][0] for path in serving.requests("epss")]

    lists = using(tmp_path, call)
    assert [len(one.split(",")) for one in lists] == [100, 100, 50]
    assert max(map(len, lists)) <= 2_000


def test_the_daily_file_of_epss_is_one_request(tmp_path):
    async def call(client, serving):
        url = serving.base_urls["epss"] + "/current.csv.gz"
        return await SOURCES.get("epss")(client, base_url=url).fetch(CVES)

    found = using(tmp_path, call)
    assert (found.as_of, found.table.num_rows) == ("2024-08-04", 2)


def test_assets_come_in_pages_and_by_query(tmp_path, monkeypatch):
    monkeypatch.setattr(servicenow, "_PAGE", 2)

    async def call(client, serving):
        serving.assets = [asset(number) for number in range(5)]
        whole = serving.say_servicenow
        serving.say_servicenow = lambda *asked: {  # its user may not see all
            "result": [one for one in whole(*asked)["result"] if one != serving.assets[1]]
        }
        query = Query().where("name", "LIKE", "a & b=c")
        source = ServiceNow(client, base_url=serving.base_urls["servicenow"], query=query)
        found = await source.fetch()
        return found, [parse_qs(urlsplit(path).query) for path in serving.requests("servicenow")]

    found, queries = using(tmp_path, call, environment={"SERVICENOW_TOKEN": "snow-secret"})
    assert found.table.num_rows == 4
    assert [query["sysparm_offset"] for query in queries] == [["0"], ["2"], ["4"], ["6"]]
    assert {query["sysparm_query"][0] for query in queries} == {"nameLIKEa & b=c^ORDERBYsys_id"}


def test_a_service_that_ignores_the_offset_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(servicenow, "_PAGE", 2)

    async def call(client, serving):
        serving.say_servicenow = lambda request, sent: {"result": [asset(1), asset(2)]}
        with pytest.raises(DataError, match="sysparm_offset is ignored"):
            await ServiceNow(client, base_url=serving.base_urls["servicenow"]).fetch()

    using(tmp_path, call, environment={"SERVICENOW_TOKEN": "snow-secret"})


def test_a_wrong_token_is_named_by_its_variable(tmp_path):
    async def call(client, serving):
        with pytest.raises(DataError, match=r"HTTP 401 .*check SERVICENOW_TOKEN") as caught:
            await ServiceNow(client, base_url=serving.base_urls["servicenow"]).fetch()
        assert "wr0ng" not in str(caught.value)

    using(tmp_path, call, environment={"SERVICENOW_TOKEN": "wr0ng"})


def test_answers_for_one_token_are_not_given_to_another(tmp_path):
    async def call(client, serving):
        source = ServiceNow(client, base_url=serving.base_urls["servicenow"])
        await source.fetch()
        client.environment = {"SERVICENOW_TOKEN": "wr0ng"}
        client._paces.clear()
        with pytest.raises(DataError, match="HTTP 401"):
            await source.fetch()

    using(tmp_path, call, environment={"SERVICENOW_TOKEN": "snow-secret"})


@pytest.mark.parametrize(("name", "faults"), [("kev", ("half",)), ("attack", ("", "half"))])
def test_an_answer_of_no_use_is_not_kept(tmp_path, name, faults):
    server = RiskServer()
    server.fail(name, *faults)

    async def call(client, serving):
        source = SOURCES.get(name)(client, base_url=serving.base_urls[name])
        with pytest.raises(DataError, match="not JSON"):
            await source.fetch()
        return await source.fetch()

    assert using(tmp_path, call, server=server).table.num_rows == 2


# plan


def test_a_plan_counts_requests_and_minutes_without_asking():
    found = {row.source: row for row in plan(cves=500, purls=20, environment={})}
    assert list(found) == list(DEFAULT_SOURCES)
    assert [found[name].requests for name in ("cve_records", "nvd", "epss")] == [500, 500, 5]
    assert (found["kev"].requests, found["attack"].requests, found["osv"].requests) == (1, 2, 61)
    assert 50 < found["nvd"].minutes < 53  # 100 periods of 31 s
    assert "NVD_API_KEYS" in found["nvd"].note
    keyed = plan(sources=["nvd"], cves=500, environment={"NVD_API_KEYS": "a,b"})[0]
    assert keyed.minutes < 3
    assert keyed.note == ""
    assert plan(sources=["servicenow"], environment={})[0].note.endswith("set it to the secret")
    assert {row.requests for row in plan(sources=["nvd", "osv", "cve_records"])} == {0}
