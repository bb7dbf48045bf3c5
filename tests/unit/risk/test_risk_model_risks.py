"""What campaigns found becomes risks; what reviewers took back does not count."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaign_fakes import make_case, make_control
from finding_fakes import make_finding
from workbench.campaign.executions import compact
from workbench.core.errors import DataError
from workbench.core.settings import read_settings
from workbench.risk.model_risks import model_risks
from workbench.store.campaigns import add_attempts, add_outcomes, outcomes_of
from workbench.store.database import open_store
from workbench.store.findings import add_findings, triage
from workbench.store.records import Attempt
from workbench.store.test_sets import add_test_set_owner

ONE = "e" * 64


def cell(plugin="harm-violence", successes=3, attempts=10, **more):
    return {
        "target": "guard", "plugin": plugin, "strategy": "plain", "successes": successes,
        "attempts": attempts, "severity": "high", "taxonomy": ["AML.T0054", "LLM01:2025"], **more,
    }  # fmt: skip


def execute(store, *cells, execution=ONE, tries=(), test_set="t" * 64):
    """Write an execution; ``tries`` are (target, case, success)."""
    with store.artifacts.create("execution", execution, {"test_set": test_set}) as folder:
        names = ("target", "case_id", "success")
        columns = {name: [one[at] for one in tries] for at, name in enumerate(names)}
        types = (pa.string(), pa.string(), pa.bool_())
        table = pa.table({name: pa.array(columns[name], kind) for name, kind in
                          zip(names, types, strict=True)})  # fmt: skip
        table = table.append_column("error", pa.array([""] * len(tries), pa.string()))
        pq.write_table(table, folder / "attempts.parquet")
    add_outcomes(store.engine, execution, list(cells))


def told(risks):
    return {(one.subject, one.target): (one.successes, one.attempts) for one in risks}


def test_one_risk_per_target_and_id(store):
    execute(
        store, cell(), cell("pii", 2, 20, taxonomy=["AML.T0057", "LLM01:2025", "LLM02:2025"]),
        cell("odd", 1, 5, taxonomy=[], severity="low"),
        cell("art", 1, 6, taxonomy=["AML.T0068", "x"]),
        cell(target="bare", successes=9),
    )  # fmt: skip
    risks = model_risks(store, asset_of={"guard": "shop"})
    assert told(risks) == {
        ("LLM01:2025", "guard"): (5, 30), ("LLM02:2025", "guard"): (2, 20),
        ("unmapped", "guard"): (1, 5), ("AML.T0068", "guard"): (1, 6),
        ("LLM01:2025", "bare"): (9, 10),
    }  # fmt: skip
    by_subject = {(one.subject, one.target): one for one in risks}
    first = by_subject["LLM01:2025", "guard"]
    assert (first.asset, first.techniques) == ("shop", ("AML.T0054", "AML.T0057"))
    assert (first.execution, first.severity) == (ONE, "high")
    assert by_subject["LLM01:2025", "bare"].asset == "bare"
    assert by_subject["unmapped", "guard"].severity == "low"
    assert len({one.id for one in risks}) == len(risks)


def test_what_reviewers_took_back_or_fixed_is_no_success(store):
    tries = [("guard", f"case-{n % 4}", True) for n in range(8)]
    tries += [("guard", "case-0", False), ("bare", "case-0", True)]
    execute(store, cell(successes=8, attempts=20), cell(target="bare", successes=1), tries=tries)
    add_findings(store.engine, [make_finding(n) for n in range(4)])
    before = model_risks(store)
    assert told(before) == {("LLM01:2025", "guard"): (8, 20), ("LLM01:2025", "bare"): (1, 10)}
    for number, status in enumerate(("false_positive", "fixed", "confirmed")):
        triage(store.engine, [make_finding(number).id], {"status": status}, who="anna")
    after = model_risks(store)
    assert told(after) == {("LLM01:2025", "guard"): (4, 20), ("LLM01:2025", "bare"): (1, 10)}
    guard = after[1]
    assert (guard.findings, guard.confirmed) == (2, 1)
    assert guard.source == f"execution {ONE[:12]}; 1 false positive; 1 fixed"
    assert [one.id for one in after] == [one.id for one in before]


def test_where_attempts_are_gone_each_finding_is_one_success(store):
    execute(store, cell(successes=8, attempts=20))
    add_findings(store.engine, [make_finding(0)])
    triage(store.engine, [make_finding(0).id], {"status": "false_positive"}, who="anna")
    assert told(model_risks(store)) == {("LLM01:2025", "guard"): (7, 20)}


@pytest.mark.parametrize(
    ("successes", "severities", "want"),
    [
        (3, {}, "high"), (3, {0: "low", 1: "medium"}, "medium"), (0, {}, "high"),
        (3, {0: "critical"}, "critical"), (3, {0: "low"}, "low"),
    ],
)  # fmt: skip
def test_the_severity_is_the_worst_that_got_through(store, successes, severities, want):
    execute(store, cell(successes=successes))
    add_findings(store.engine, [make_finding(n, severity=one) for n, one in severities.items()])
    (risk,) = model_risks(store)
    assert risk.severity == want


def test_a_finding_that_was_taken_back_does_not_make_it_severe(store):
    execute(store, cell(successes=3), cell("pii", 1, severity="critical"))
    add_findings(store.engine, [
        make_finding(0, severity="low"), make_finding(1, severity="critical", plugin="pii"),
    ])  # fmt: skip
    assert model_risks(store)[0].severity == "critical"
    triage(store.engine, [make_finding(1).id], {"status": "false_positive"}, who="anna")
    assert model_risks(store)[0].severity == "low"


def test_outcomes_of_older_schemas_are_unmapped_and_of_unknown_severity(store):
    old = {name: value for name, value in cell().items() if name not in {"severity", "taxonomy"}}
    execute(store, old)
    (risk,) = model_risks(store)
    assert (risk.subject, risk.severity, risk.techniques) == ("unmapped", "", ())


def test_the_newest_that_has_outcomes_and_may_be_seen(store):
    with pytest.raises(DataError, match="no execution has outcomes"):
        model_risks(store)
    execute(store, cell(successes=1), execution="a" * 64)
    execute(store, cell(successes=2), execution="b" * 64)
    execute(store, execution="c" * 64)
    execute(store, cell(successes=4), execution="d" * 64, test_set="s" * 64)
    add_test_set_owner(store.engine, "s" * 64, owner="somebody", metadata={})
    assert {one.successes for one in model_risks(store)} == {2}
    assert {one.successes for one in model_risks(store, "aaa")} == {1}
    assert model_risks(store, "c" * 64) == ()
    with pytest.raises(DataError, match=r"dddddddddddd.*'tester' does not own"):
        model_risks(store, "d" * 64)
    with pytest.raises(DataError, match="no execution 'f'"):
        model_risks(store, "f")
    add_test_set_owner(store.engine, "s" * 64, owner="tester", metadata={})
    assert {one.successes for one in model_risks(store)} == {4}


def test_an_execution_keeps_the_worst_severity_and_all_ids_of_each_attack(store):
    cases = [
        make_case(0, severity="low"), make_case(1, severity="high", taxonomy=("AML.T0054",)),
        make_case(2, severity="medium", taxonomy=()), make_case(3, severity="critical"),
        make_control(4), make_case(5, severity="dire", plugin="odd", taxonomy=()),
    ]  # fmt: skip
    add_attempts(store.engine, [
        Attempt(execution=ONE, case_id=one.id, target="guard", sent="s", received="r",
                decision="pass", scores={}, success=True, latency_ms=1.0, error="no" * (n == 3))
        for n, one in enumerate(cases)
    ])  # fmt: skip
    compact(store, {"execution": ONE, "test_set": "t" * 64, "targets": ["guard"]}, cases=cases)
    rows = outcomes_of(store.engine, ONE)
    assert [(one["plugin"], one["severity"], one["taxonomy"]) for one in rows] == [
        ("harm-violence", "high", ["AML.T0054", "LLM01:2025"]), ("odd", "dire", []),
    ]  # fmt: skip
    assert told(model_risks(store)) == {
        ("LLM01:2025", "guard"): (3, 3),
        ("unmapped", "guard"): (1, 1),
    }


STATES = st.sampled_from(["needs_review", "confirmed", "false_positive", "fixed"])


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(said=st.lists(st.tuples(STATES, st.integers(1, 3)), max_size=6), extra=st.integers(0, 3))
def test_successes_are_those_of_what_still_stands(tmp_path_factory, said, extra):
    home = str(tmp_path_factory.mktemp("store"))
    store = open_store(read_settings({"WORKBENCH_HOME": home, "WORKBENCH_USER": "tester"}))
    tries = [
        ("guard", f"case-{n}", True) for n, (_, count) in enumerate(said) for _ in range(count)
    ]
    execute(store, cell(successes=len(tries) + extra, attempts=40), tries=tries)
    add_findings(
        store.engine, [replace(make_finding(n), status=one) for n, (one, _) in enumerate(said)]
    )
    (risk,) = model_risks(store)
    live = [(one, count) for one, count in said if one not in {"false_positive", "fixed"}]
    assert risk.successes == extra + sum(count for _, count in live)
    assert risk.findings == len(live)
    assert 0 <= risk.successes <= risk.attempts
    assert not {"sent 0", "received 0"} & {str(value) for value in (risk.source, risk.severity)}
    store.engine.dispose()
