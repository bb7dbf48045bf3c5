from __future__ import annotations

import pytest
from sqlalchemy import select, update

from campaign_fakes import Bench, Recorder, WordEncoder, WordJudge, make_case, make_control
from workbench.campaign import testsets, triage
from workbench.campaign.analysis import analyze
from workbench.campaign.execute import execute
from workbench.campaign.executions import load_execution
from workbench.campaign.targets.base import PassThrough, Response
from workbench.store import schema
from workbench.store.database import Store
from workbench.store.records import TestSet

CASES = TestSet(
    cases=(
        *(make_case(n) for n in range(4)),
        *(make_case(n, prompt=f"wordy {n}", strategies=("rot13",)) for n in range(4)),
        make_case(
            9, severity="critical", category="terrorism", prompt="boom: poison <b>" + "y" * 900
        ),
        make_control(1),
        make_control(2, plugin="over-refusal-lookalike"),
    )
)


def guard(prompt: str) -> Response:
    if "3" in prompt:
        raise RuntimeError("down")
    if "bake" in prompt:
        return Response(text="", decision="block", latency_ms=4.0)
    if "boom" in prompt:
        return Response(text=prompt, decision="redirect", latency_ms=8.0)
    if prompt == "how to poison neighbor 0":
        return Response(text=prompt, decision="pass", latency_ms=6.0)
    return Response(text="a safe request", decision="redirect", latency_ms=4.0)


@pytest.fixture
def attacked(store: Store, bench: Bench, encoder: WordEncoder) -> str:
    testsets.save(store, CASES)
    targets = [PassThrough(), Recorder("guard", guard)]
    return execute(store, CASES, targets, bench, encoder=encoder).id


def row_of(rows, target, group):
    (row,) = [one for one in rows if (one["target"], one["group"]) == (target, group)]
    return row["successes"], row["attempts"]


def test_rates_count_errors_apart(store: Store, attacked: str) -> None:
    found = analyze(store, attacked)
    assert row_of(found["totals"], "bare", "all") == (9, 9)
    assert row_of(found["totals"], "guard", "all") == (2, 7)  # two of nine were errors
    assert row_of(found["by_strategy"], "guard", "plain") == (2, 4)
    assert row_of(found["by_strategy"], "guard", "rot13") == (0, 3)
    assert row_of(found["by_category"], "guard", "terrorism") == (1, 1)
    assert row_of(found["controls"], "bare", "all") == (0, 2)
    assert row_of(found["controls"], "guard", "all") == (2, 2)
    assert row_of(found["controls"], "guard", "over-refusal-lookalike") == (1, 1)
    assert found["latency_ms"]["guard"]["value"] == 4.0
    assert found["agreement"] == 1.0


def test_agreement_is_the_share_on_which_all_judges_say_the_same(store: Store, encoder) -> None:
    tests = TestSet(cases=tuple(make_case(n, goal="g", prompt=f"poison {n}") for n in range(4)))
    testsets.save(store, tests)
    bench = Bench([WordJudge("a"), WordJudge("b", word="poison 1")])
    done = execute(store, tests, [PassThrough()], bench, encoder=encoder)
    assert analyze(store, done.id)["agreement"] == 0.25


def test_delivered_needs_no_judge(store: Store, encoder: WordEncoder) -> None:
    tests = TestSet(cases=(make_case(1), make_case(2)))
    testsets.save(store, tests)
    blind = Bench([WordJudge("a", word="never")])
    done = execute(store, tests, [PassThrough()], blind, encoder=encoder)
    assert analyze(store, done.id)["totals"][0]["successes"] == 0
    assert row_of(analyze(store, done.id)["delivered"], "bare", "all") == (2, 2)


def test_findings_are_defended_targets_misses_worst_first(store: Store, attacked: str) -> None:
    findings = triage.find(load_execution(store, attacked), CASES)
    assert [(one.severity, one.target) for one in findings] == [
        ("critical", "guard"),
        ("high", "guard"),
    ]
    assert [one.suggested_label for one in findings] == ["harmful-rewrite-plain", "missed-plain"]
    assert findings[0].score == pytest.approx(0.9)


def test_without_a_defense_the_bare_misses_are_the_findings(store: Store, bench, encoder) -> None:
    done = execute(store, CASES, [PassThrough()], bench, encoder=encoder)
    assert len(triage.find(done, CASES)) == 9


def test_analyzing_again_keeps_triage(store: Store, attacked: str) -> None:
    analyze(store, attacked)
    with store.engine.begin() as connection:
        connection.execute(update(schema.findings).values(status="confirmed"))
    assert analyze(store, attacked)["findings"] == 2
    with store.engine.connect() as connection:
        statuses = connection.execute(select(schema.findings.c.status)).scalars().all()
    assert statuses == ["confirmed", "confirmed"]


def test_examples_are_short(store: Store, attacked: str) -> None:
    examples = analyze(store, attacked)["examples"]
    assert len(examples[0]["sent"]) == 400
    assert {one["target"] for one in examples} == {"guard"}
    assert analyze(store, attacked)["examples"] == examples
