"""``workbench campaign findings`` as a user types it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from click.testing import CliRunner

from campaign_fakes import WordEncoder
from finding_fakes import make_finding
from workbench.campaign import learning, testsets, triage
from workbench.campaign.summarize import Evidence
from workbench.cli import findings as commands
from workbench.core.errors import ConfigError, DataError
from workbench.embedding import vectors
from workbench.store.findings import add_findings, findings
from workbench.store.records import FINDING_STATES, TestSet

HOSTILE = "\x1b[2J\nsecond line ```"


@pytest.fixture
def found(store, monkeypatch):
    monkeypatch.setattr(commands, "open_here", lambda: store)
    made = [make_finding(n, risk=1 - n / 10, received=HOSTILE, sent=HOSTILE) for n in range(4)]
    made[1] = make_finding(1, risk=0.9, cluster=made[0].id, summary=HOSTILE)
    return add_findings(store.engine, made)


def call(*arguments, fails=None):
    done = CliRunner().invoke(commands.findings, [*arguments])
    if fails:
        assert isinstance(done.exception, fails), done.output
    else:
        assert done.exception is None, done.exception
    return done.output


def test_the_states_offered_are_those_of_the_store():
    assert commands._STATES == FINDING_STATES


def test_the_list_shows_one_of_each_cluster_the_riskiest_first(found):
    lines = call("list").splitlines()
    shown = [line.split()[0] for line in lines[2:-1]]
    assert shown == [found[n].id[:12] for n in (0, 2, 3)]
    assert lines[-1] == "4 findings, 3 clusters"
    assert call("list", "--all").count(found[1].id[:12]) == 1
    assert "2 more" in call("list", "--limit", "1")
    assert all(line.isprintable() for line in call("list", "--all").splitlines())


def test_filters_and_json(found):
    rows = [json.loads(line) for line in call("list", "--json").splitlines()]
    assert [row["alike"] for row in rows] == [2, 1, 1]
    rows = call("list", "--cluster", found[1].id[:12], "--json").splitlines()
    assert [json.loads(row)["id"] for row in rows] == [found[0].id, found[1].id]
    assert call("list", "--status", "fixed") == "0 findings, 0 clusters\n"
    call("list", "--execution", "nope", fails=DataError)


def test_a_decision_shows_in_the_history(store, found):
    short = found[0].id[:12]
    told = call("set", short, "--status", "confirmed", "--note", "a\x1b[2J b", "--minutes", "6",
                "--cluster", "--owner", "anna")  # fmt: skip
    assert told == "2 changed\n"
    assert [one.id for one in findings(store.engine, status="confirmed", owner="anna")] == [
        found[0].id, found[1].id
    ]  # fmt: skip
    text = call("show", short)
    assert "status needs_review → confirmed" in text
    assert "3 min" in text
    assert "\x1b" not in text
    assert json.loads(call("show", short, "--json"))["history"][0]["who"] == "tester"
    call("set", short, fails=ConfigError)


def test_summaries_are_told_anew(store, found, monkeypatch):
    known = {one.id: Evidence("second", "names it") for one in found}
    monkeypatch.setattr(triage, "evidence_of", lambda *_: known)
    monkeypatch.setattr(vectors, "open_encoder", lambda _: WordEncoder())
    assert call("summarize") == "3 of 3 told anew\n"
    (one,) = findings(store.engine, ids=[found[0].id])
    assert one.summary == "plain · “second line ```” · names it"
    assert call("summarize", found[0].id) == "0 of 1 told anew\n"
    call("summarize", "--status", "fixed", fails=DataError)


def test_an_estimate_spends_and_writes_nothing(store, found, monkeypatch):
    monkeypatch.setattr(triage, "evidence_of", lambda *_: {})
    assert call("summarize", "--dry-run").startswith("1 calls, 0 at hand")
    assert findings(store.engine) == found
    assert store.ledger.rows() == []


def test_exports_hold_one_of_each_cluster_or_all(found, tmp_path):
    rows = list(csv.DictReader(io.StringIO(call("export", "--format", "csv"))))
    assert [row["id"] for row in rows] == [found[n].id for n in (0, 2, 3)]
    path = tmp_path / "issues.json"
    call("export", "--format", "jira", "--project", "SEC", "--all", "--out", str(path))
    assert len(json.loads(path.read_text())) == 4
    call("export", "--format", "jira", fails=ConfigError)
    call("export", "--format", "csv", "--out", str(path / "x"), fails=ConfigError)


def test_feeding_back_tells_what_became_of_each(store, found, monkeypatch):
    tests = TestSet(cases=())
    monkeypatch.setattr(learning, "feed_back", lambda *_: {"inbox": {"added": 2}, "requests": 1})
    monkeypatch.setattr(learning, "regression_set", lambda _: tests)
    monkeypatch.setattr(testsets, "save", lambda *_: "a" * 64)
    text = call("feed-back")
    assert "     2  added" in text
    assert "test set aaaaaaaaaaaa" in text
    told = json.loads(call("feed-back", "--json"))
    assert (told["regression_set"], told["regression_cases"]) == ("a" * 64, 0)


def test_stats_tell_states_time_and_how_good_the_guesses_were(found):
    assert "precision –, of 0 decided" in call("stats")
    call("set", found[2].id, "--status", "confirmed", "--minutes", "5")
    call("set", found[3].id, "--status", "false_positive")
    text = call("stats")
    assert "     5  minutes spent" in text
    assert "precision 0.50" in text
    assert "recall 1.00" in text
    facts = json.loads(call("stats", "--json"))
    assert facts["states"] == {"needs_review": 2, "confirmed": 1, "false_positive": 1}
    assert facts["prefill"]["n"] == 2
