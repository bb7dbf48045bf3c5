"""An assessment from files to register: offline, resumed, repeated, approved, killed in between."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import date, timedelta

import pytest

from finding_fakes import make_finding
from workbench.core.cluster import open_executor
from workbench.core.errors import ConfigError, DataError
from workbench.risk import assess as room
from workbench.risk import gathered as gathering
from workbench.risk.assess import Assessed, AssessOptions, Pending, assess
from workbench.risk.inputs import sample_inputs
from workbench.risk.register import load_assessment
from workbench.risk.snapshot import write_snapshot
from workbench.risk.snapshot_files import sample_tables
from workbench.store.campaigns import add_outcomes
from workbench.store.database import open_store
from workbench.store.events import events
from workbench.store.findings import add_findings
from workbench.store.risks import counts, decide, risk_log, risks

TODAY = date(2024, 11, 1)
FILES, ASSETS = sample_inputs()
EXECUTION = "e" * 64


def options(**changes) -> AssessOptions:
    usual = {"files": FILES, "assets": ASSETS, "snapshot": "sample", "today": TODAY, "years": 1_000}
    return AssessOptions(**{**usual, **changes})


def run(store, chosen: AssessOptions | None = None, **more) -> Assessed | Pending:
    return asyncio.run(assess(store, chosen or options(), tell=lambda _: None, **more))


def add_campaign(
    store, *, successes: int = 11, attempts: int = 40, execution: str = EXECUTION,
    subject: str = "LLM02:2025", severity: str = "high",
) -> None:  # fmt: skip
    outcome = {
        "target": "bookshop", "plugin": "pii", "strategy": "plain", "successes": successes,
        "attempts": attempts, "severity": severity, "taxonomy": ["AML.T0057", subject],
    }  # fmt: skip
    with store.artifacts.create("execution", execution, {"test_set": "t" * 64}):
        pass
    add_outcomes(store.engine, execution, [outcome])
    changes = {"execution": execution, "target": "bookshop", "plugin": "pii", "strategy": "plain"}
    if execution == EXECUTION:
        found = [make_finding(number, **changes) for number in range(successes)]
        add_findings(store.engine, found)


def rows(store) -> list[dict]:
    left_out = {"updated_at"}
    found = risks(store.engine, limit=10_000)
    return [{k: v for k, v in row.items() if k not in left_out} for row in found]


def test_the_sample_is_assessed_offline_and_nothing_is_low_for_lack_of_data(store):
    done = run(store)
    result = done.result
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["counts"]["open"] == sum(map(sum, result["matrix"])) > 30
    assert result["counts"]["closed"] == len(result["closed"]) >= 2
    table = done.assessment.table.to_pylist()
    assert {row["level"] for row in table if row["kev"]} <= {"high", "critical", "medium"}
    for row in table:
        assert row["score"] >= row["score_known"]
        if not row["missing"]:
            assert row["score"] == row["score_known"]
    lacking = [row for row in table if "exploitation" in row["missing"]]
    assert lacking
    told = load_assessment(store).table.to_pylist()
    assert told == table


def test_a_campaign_and_vulnerabilities_stand_in_one_register(store):
    add_campaign(store)
    done = run(store, options(campaigns=("newest",)))
    (risk,) = [row for row in done.assessment.table.to_pylist() if row["kind"] == "model"]
    assert (risk["subject"], risk["asset"]) == ("LLM02:2025", "bookshop")
    assert (risk["successes"], risk["attempts"]) == (11, 40)
    assert risk["techniques"] == ["AML.T0057"]
    assert any("11 of 40 attempts got through" in why for why in risk["reasons"])
    assert done.result["counts"]["model_risks"] == 1
    kinds = {row["kind"] for row in rows(store)}
    assert kinds == {"cve", "model"}


def test_the_same_assessment_twice_changes_nothing(store):
    first = run(store)
    before, log = rows(store), risk_log(store.engine)
    second = run(store)
    assert second.assessment.id == first.assessment.id
    assert second.recorded.unchanged == len(before)
    assert rows(store) == before
    assert risk_log(store.engine) == log


@pytest.mark.parametrize("broken", ["assemble", "explain_rows", "save_assessment", "load_snapshot"])
def test_killed_in_any_stage_it_goes_on_to_the_same_register(
    store, settings, tmp_path, monkeypatch, broken
):
    def die(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, broken, die)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    assert rows(store) == []
    killed = run(store)
    undisturbed = open_store(
        replace(settings, home=tmp_path, database_url=f"sqlite:///{tmp_path}/x")
    )
    assert run(undisturbed).result["counts"] == killed.result["counts"]
    assert rows(undisturbed) == rows(store) != []
    undisturbed.engine.dispose()
    assert len(events(store.engine, kind="assessment_finished")) == 1


def test_evidence_is_gathered_once(store, monkeypatch):
    run(store)

    def never(*_args, **_more):
        raise AssertionError("gathered again")

    monkeypatch.setattr(gathering, "gather", never)
    run(store, options(label="another", policy="ssvc-deployer"))
    with pytest.raises(AssertionError, match="gathered again"):
        run(store, options(today=TODAY + timedelta(days=1)))


@pytest.mark.parametrize("stage", ["evidence", "scores"])
def test_it_stops_for_a_decision_and_enters_nothing(store, stage):
    seen = run(store, approve=lambda one: one.stage != stage)
    assert isinstance(seen, Pending)
    assert seen.stage == stage
    assert json.loads(json.dumps(seen.summary)) == seen.summary
    assert rows(store) == []
    assert isinstance(run(store), Assessed)


def test_due_dates_count_from_the_first_sight_and_never_move_later(store):
    run(store)
    first = {row["id"]: row["due"] for row in rows(store)}
    run(store, options(today=TODAY + timedelta(days=40)))
    later = {row["id"]: row["due"] for row in rows(store) if row["status"] == "open"}
    assert later
    assert all(due <= first[one] for one, due in later.items() if first[one])
    assert counts(store.engine, TODAY + timedelta(days=40))["overdue"] > 0


def test_what_people_decide_stays_and_what_is_gone_is_closed(store, tmp_path):
    run(store)
    worst, second = (row["id"] for row in risks(store.engine, limit=2))
    said = {"status": "accepted", "due": "2025-06-01", "owner": "anna"}
    decide(store.engine, [worst], said, who="anna", note="isolated")
    run(store, options(today=TODAY + timedelta(days=1)))
    kept = {row["id"]: row for row in rows(store)}
    assert (kept[worst]["status"], kept[worst]["owner"]) == ("accepted", "anna")
    assert kept[second]["status"] == "open"
    lines = (FILES[0]).read_text().splitlines()
    gone = kept[second]["subject"]
    file = tmp_path / "inventory.csv"
    file.write_text("\n".join(line for line in lines if gone not in line))
    done = run(store, options(files=(file, *FILES[1:]), today=TODAY + timedelta(days=2)))
    assert {row["id"]: row["status"] for row in rows(store)}[second] == "closed"
    assert done.result["change_counts"]["gone"] >= 1


def test_a_vex_alone_closes_what_it_speaks_of_and_nothing_else(store):
    run(store)
    before = {row["id"]: row["status"] for row in rows(store)}
    done = run(store, options(files=(FILES[2],), asset="bookshop"))
    assert {row["id"]: row["status"] for row in rows(store)} == before
    assert done.recorded.closed == 0
    assert done.result["change_counts"]["gone"] == 0


def test_without_advisories_no_component_counts_as_looked_at(store):
    tables = {name: one for name, one in sample_tables()[1].items() if name != "osv"}
    made = write_snapshot(store, tables, made_at="2025-10-28")
    run(store)
    before = {row["id"]: row["status"] for row in rows(store)}
    done = run(store, options(snapshot=made))
    assert {row["id"]: row["status"] for row in rows(store)} == before
    assert done.recorded.closed == 0
    assert any("were not compared" in line for line in done.result["problems"])


def test_another_campaign_does_not_close_what_it_did_not_try(store):
    add_campaign(store)
    add_campaign(store, execution="f" * 64, subject="LLM01:2025", successes=0)
    run(store, options(files=(), campaigns=(EXECUTION,)))
    done = run(store, options(files=(), campaigns=("f" * 64,)))
    assert done.recorded.closed == 0
    assert {row["subject"]: row["status"] for row in rows(store)} == {
        "LLM01:2025": "open", "LLM02:2025": "open",
    }  # fmt: skip


def test_campaigns_on_one_target_are_one_risk_of_all_their_attempts(store):
    add_campaign(store)
    add_campaign(store, execution="f" * 64, successes=1, severity="critical")
    for told in ((EXECUTION, "f" * 64), ("f" * 64, "newest", EXECUTION, EXECUTION)):
        done = run(store, options(files=(), campaigns=told))
        (risk,) = done.assessment.table.to_pylist()
        assert (risk["successes"], risk["attempts"]) == (12, 80)
        assert any("severity critical" in why for why in risk["reasons"])
        assert done.result["counts"]["model_risks"] == 1


def test_it_is_compared_with_the_last_assessment_of_the_same_assets(store):
    first = run(store)
    run(store, AssessOptions(cves=("CVE-2021-44228",), asset="elsewhere", snapshot="sample",
                             today=TODAY))  # fmt: skip
    again = run(store, options(label="again"))
    assert again.result["since"] == first.assessment.id
    assert set(again.result["change_counts"].values()) == {0}


@pytest.mark.parametrize("day", [date.max, date.min])
def test_a_day_that_dates_cannot_be_counted_from_is_refused(day):
    with pytest.raises(ConfigError, match="today is"):
        options(today=day)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"years": 0}])
def test_drawings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ConfigError, match="seed is"):
        options(**changes)


@pytest.mark.slow
def test_evidence_gathered_on_a_dask_cluster_is_the_same(store):
    pytest.importorskip("distributed")
    made = write_snapshot(store, sample_tables()[1], made_at="2025-10-28")
    here = run(store, options(snapshot=made))
    store.artifacts.remove("evidence", store.artifacts.newest("evidence"))
    with open_executor("dask", jobs=2) as executor:
        there = run(store, options(snapshot=made, label="dask"), executor=executor)
    columns = ["id", "score", "due", "missing", "stale", "epss", "kev"]
    assert there.assessment.table.select(columns).equals(here.assessment.table.select(columns))


def test_what_one_kind_of_source_told_another_does_not_close(store):
    run(store)
    before = {row["id"] for row in rows(store) if row["status"] == "open"}
    run(store, options(files=FILES[:1], label="the inventory alone"))
    run(store, options(files=FILES[1:2], label="the SBOM alone"))
    assert before <= {row["id"] for row in rows(store) if row["status"] == "open"}


def test_ids_given_by_hand_and_drawn_inventories(store):
    done = run(store, AssessOptions(cves=("cve-2021-44228",), asset="web-1", snapshot="sample",
                                    today=TODAY))  # fmt: skip
    (row,) = done.assessment.table.to_pylist()
    assert (row["subject"], row["asset"], row["likelihood"]) == ("CVE-2021-44228", "web-1", 5)
    assert set(row["missing"]) >= {"criticality", "exposure"}
    another = AssessOptions(cves=("CVE-2014-0160",), asset="web-1", snapshot="sample", today=TODAY)
    assert run(store, another).recorded.closed == 0  # a choice says nothing of the rest
    drawn = run(store, AssessOptions(draw_cves=10, draw_assets=7, snapshot="sample", today=TODAY))
    assert drawn.result["counts"]["open"] == 70


def test_a_cve_that_nobody_knows_is_high_until_somebody_looks(store):
    done = run(store, AssessOptions(cves=("CVE-2099-12345",), asset="x", snapshot="sample"))
    (row,) = done.assessment.table.to_pylist()
    assert (row["score"], row["level"]) == (25, "critical")
    assert row["score_known"] < row["score"]
    assert {"epss", "cvss", "exploitation", "automatable"} <= set(row["missing"])


def test_bad_input_is_named_before_anything_is_written(store, tmp_path):
    with pytest.raises(ConfigError, match="nothing to assess"):
        AssessOptions()
    with pytest.raises(ConfigError, match="policy is 'cvss'"):
        options(policy="cvss")
    with pytest.raises(ConfigError, match="need the asset"):
        AssessOptions(cves=("CVE-2021-44228",))
    with pytest.raises(DataError, match="'log4shell' is no CVE id"):
        run(store, AssessOptions(cves=("log4shell",), asset="x", snapshot="sample"))
    with pytest.raises(DataError, match="no snapshot yet"):
        run(store, options(snapshot=""))
    broken = tmp_path / "half.json"
    broken.write_text('{"bomFormat": "CycloneDX", "components": [')
    with pytest.raises(DataError, match=r"half\.json"):
        run(store, options(files=(broken,)))
    assert rows(store) == []
