from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import DataError
from workbench.risk import evidence as evidence_module
from workbench.risk.evidence import (
    KINDS,
    freshness,
    gather,
    threat_evidence,
    vulnerability_evidence,
)
from workbench.risk.snapshot import Snapshot, in_memory, load_snapshot
from workbench.risk.sources.base import Fetched
from workbench.risk.tables import SCHEMAS

TODAY = date(2025, 1, 10)
EMPTY = dict.fromkeys(SCHEMAS["cve"].names)
RECORDS = [
    {
        **EMPTY, "cve": "CVE-2024-0001", "title": "One", "description": "First.",
        "cvss_vector": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "cvss_source": "cna",
        "automatable": "yes", "technical_impact": "total", "exploitation": "poc",
        "cwes": ["CWE-1", "CWE-2"],
    },
    {**EMPTY, "cve": "CVE-2024-0002", "cvss_vector": "CVSS:3.1/AV:X", "cwes": []},
    {
        **EMPTY, "cve": "CVE-2024-0003", "cvss_vector": "AV:N/AC:L/Au:N/C:P/I:P/A:P",
        "cwes": ["CWE-9"],
    },
]  # fmt: skip


def said(name: str, rows: list[dict], *, as_of: str = "2025-01-09") -> Fetched:
    table = pa.Table.from_pylist(rows, schema=SCHEMAS[name])
    return Fetched(source=name, url="", as_of=as_of, table=table)


def tables(**other: Fetched) -> dict[str, Fetched]:
    return {
        "cve": said("cve", RECORDS),
        "kev": said("kev", [
            {"cve": "CVE-2024-0002", "added": "2024-02-02", "due": "2024-02-23",
             "ransomware": True},
            {"cve": "CVE-2024-0009", "added": "2024-03-03", "due": "2024-03-24",
             "ransomware": False},
        ]),
        "epss": said("epss", [{"cve": "CVE-2024-0001", "epss": 0.25, "percentile": 0.9}]),
        "techniques": said("techniques", [
            {"cwe": "CWE-1", "capec": "CAPEC-1", "technique": "T1001", "name": "A"},
            {"cwe": "CWE-1", "capec": "CAPEC-2", "technique": "T1002", "name": "B"},
            {"cwe": "CWE-2", "capec": "CAPEC-3", "technique": "T1001", "name": "A"},
        ]),
    } | other  # fmt: skip


SNAPSHOT = in_memory("test", tables(), made_at="2025-01-09")


def row_of(cve: str, *, snapshot: Snapshot = SNAPSHOT, today: date = TODAY) -> dict:
    return gather([cve], snapshot, today=today).to_pylist()[0]


def test_everything_known() -> None:
    row = row_of("CVE-2024-0001")
    assert {kind: row[kind] for kind in KINDS} == {
        "cvss": 9.8, "automatable": "yes", "technical_impact": "total",
        "weakness": ["CWE-1", "CWE-2"], "kev": False, "epss": 0.25, "exploitation": "poc",
        "techniques": ["T1001", "T1002"],
    }  # fmt: skip
    assert {row[f"{kind}_status"] for kind in KINDS} == {"checked"}
    assert {row[f"{kind}_as_of"] for kind in KINDS} == {"2025-01-09"}
    assert row["cvss_source"] == "CVE record, CNA"
    assert (row["title"], row["kev_added"], row["ransomware"]) == ("One", "", None)


def test_what_is_missing_is_said_to_be() -> None:
    row = row_of("CVE-2024-0002")
    assert row["kev"] is True
    assert row["kev_due"] == "2024-02-23"
    assert row["ransomware"] is True
    missing = {kind for kind in KINDS if row[f"{kind}_status"] == "missing"}
    assert missing == set(KINDS) - {"kev"}
    assert all(row[kind] is None and row[f"{kind}_as_of"] == "" for kind in missing)
    assert row["cvss_source"] == "CVE record: not a CVSS vector"


def test_checked_and_unmapped_is_not_missing() -> None:
    row = row_of("CVE-2024-0003")
    assert (row["cvss"], row["techniques"], row["techniques_status"]) == (7.5, [], "checked")


@pytest.mark.parametrize("cve", ["CVE-2099-00001", "GHSA-xxxx", "", "CVE-2024-0001; DROP", "é"])
def test_unknown_id_is_missing_in_everything(cve: str) -> None:
    row = row_of(cve)
    assert {row[f"{kind}_status"] for kind in KINDS} == {"missing"}
    assert all(row[kind] is None for kind in KINDS)


def test_losing_the_other_tables_does_not_turn_not_known_into_not_listed() -> None:
    snapshot = in_memory("kev", {"kev": tables()["kev"]}, made_at="2025-01-09")
    rows = gather(["CVE-2024-0009", "CVE-2024-0100", "GHSA-1"], snapshot, today=TODAY)
    assert rows["kev"].to_pylist() == [True, None, None]


@pytest.mark.parametrize(
    ("published", "as_of", "today", "expected"),
    [
        ("2025-01-07", "2025-01-20", TODAY, False),  # the list is fresh
        ("2025-01-09T08:00:00Z", "2025-03-01", date(2025, 3, 1), False),
        ("2025-01-10", "2025-03-01", date(2025, 3, 1), None),  # newer than the list
        (None, "2025-03-01", date(2025, 3, 1), None),  # may be
        (None, "2025-01-09", date(2025, 3, 1), False),  # a record of that day was there
    ],
)
def test_a_stale_list_says_nothing_of_what_came_after_it(published, as_of, today, expected) -> None:
    rows = [{**EMPTY, "cve": "CVE-2025-0001", "published": published}]
    snapshot = in_memory("x", tables(cve=said("cve", rows, as_of=as_of)), made_at="2025-03-01")
    found = gather(["CVE-2025-0001", "CVE-2024-0009"], snapshot, today=today)
    assert found["kev"].to_pylist() == [expected, True]


def test_listed_cve_is_listed_where_no_other_table_knows_it() -> None:
    assert row_of("CVE-2024-0009")["kev"] is True


def test_without_the_list_nothing_is_known_of_exploitation() -> None:
    snapshot = in_memory(
        "x", tables(kev=Fetched(source="kev", url="", as_of="", table=None, error="403")),
        made_at="2025-01-09",
    )  # fmt: skip
    row = row_of("CVE-2024-0001", snapshot=snapshot)
    assert (row["kev"], row["kev_status"]) == (None, "missing")


@pytest.mark.parametrize(
    ("today", "stale"),
    [
        (date(2025, 1, 16), set()),
        (date(2025, 1, 17), {"kev", "epss"}),
        (date(2025, 2, 8), {"kev", "epss"}),
        (date(2025, 2, 9), set(KINDS) - {"techniques"}),
        (date(2025, 7, 9), set(KINDS)),
        (date(2024, 1, 1), set()),
    ],
)
def test_staleness_by_time_to_live(today: date, stale: set[str]) -> None:
    row = row_of("CVE-2024-0001", today=today)
    assert {kind for kind in KINDS if row[f"{kind}_status"] == "stale"} == stale
    assert row["epss"] == 0.25  # counts all the same


def test_each_row_has_the_date_of_its_own() -> None:
    rows = pa.table(
        {"cve": ["CVE-2024-0001", "CVE-2024-0002"], "epss": [0.1, 0.2], "percentile": [0.1, 0.2],
         "as_of": ["2024-01-01", None]}
    )  # fmt: skip
    fetched = Fetched(source="epss", url="", as_of="2025-01-09", table=rows)
    snapshot = in_memory("x", tables(epss=fetched), made_at="2025-01-09")
    found = gather(["CVE-2024-0001", "CVE-2024-0002"], snapshot, today=TODAY)
    assert found["epss_status"].to_pylist() == ["stale", "checked"]


def test_freshness() -> None:
    table = gather([f"CVE-2024-000{n}" for n in (1, 2, 3)], SNAPSHOT, today=date(2025, 1, 20))
    counts = {row["kind"]: row for row in freshness(table)}
    assert counts["epss"] == {
        "kind": "epss", "checked": 0, "missing": 2, "stale": 1,
        "oldest": "2025-01-09", "newest": "2025-01-09",
    }  # fmt: skip
    assert counts["weakness"]["checked"] == 2


def test_empty_list_and_empty_snapshot() -> None:
    nothing = in_memory("none", {}, made_at="2025-01-09")
    table = gather([], SNAPSHOT, today=TODAY)
    assert table.num_rows == 0
    assert table.schema == gather(["CVE-2024-0001"], nothing, today=TODAY).schema
    assert [row["missing"] for row in freshness(table)] == [0] * len(KINDS)
    assert {row["missing"] for row in freshness(gather(["x"], nothing, today=TODAY))} == {1}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.sampled_from([f"CVE-2024-000{n}" for n in range(1, 10)])
        | st.text(st.characters(codec="utf-8"), max_size=20),
        max_size=30,
    ),
    st.integers(1, 7),
)
def test_order_and_duplicates_are_kept_whatever_the_chunks(cves: list[str], size: int) -> None:
    table = gather(cves, SNAPSHOT, today=TODAY)
    assert table["cve"].to_pylist() == cves
    alone = {cve: gather([cve], SNAPSHOT, today=TODAY).to_pylist()[0] for cve in set(cves)}
    assert table.to_pylist() == [alone[cve] for cve in cves]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_module, "_CHUNK", size)
        assert gather(cves, SNAPSHOT, today=TODAY).equals(table)


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=8) | st.text(st.characters(categories=["Cs"]), max_size=2))
def test_an_id_that_is_no_text_is_refused_or_missing(cve: str) -> None:
    if cve.isascii() or cve == cve.encode("utf-8", "ignore").decode():
        assert gather([cve], SNAPSHOT, today=TODAY).num_rows == 1
    else:
        with pytest.raises(DataError, match="no text"):
            gather([cve], SNAPSHOT, today=TODAY)


def test_the_two_workers_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def at_once(worker):
        def work(cves, snapshot, today):
            both.wait()  # breaks if one waits for the other
            return worker(cves, snapshot, today)

        return work

    workers = (at_once(vulnerability_evidence), at_once(threat_evidence))
    table = gather(["CVE-2024-0001"], SNAPSHOT, today=TODAY, workers=workers)
    assert table.equals(gather(["CVE-2024-0001"], SNAPSHOT, today=TODAY))


@pytest.mark.parametrize("worker", [vulnerability_evidence, threat_evidence])
def test_workers_travel(worker) -> None:
    sample = load_snapshot(None, "sample")
    task = pickle.dumps((worker, ["CVE-2021-44228"], sample, TODAY))
    assert len(task) < 500
    function, *arguments = pickle.loads(task)
    assert function(*arguments).equals(worker(["CVE-2021-44228"], sample, TODAY))


def test_an_executor_of_the_caller_is_used_and_left_open() -> None:
    with ThreadPoolExecutor(1) as executor:
        table = gather(["CVE-2024-0001"], SNAPSHOT, today=TODAY, executor=executor)
        assert executor.submit(int, 1).result() == 1
    assert table.equals(gather(["CVE-2024-0001"], SNAPSHOT, today=TODAY))
