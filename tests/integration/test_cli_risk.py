"""``workbench risk`` as people type it."""

from __future__ import annotations

import csv
import json

import pytest
from click.testing import CliRunner

from workbench.cli import main
from workbench.cli.risk import _Sentences
from workbench.core.settings import seeds_folder

DAY = ("--today", "2024-11-01")


@pytest.fixture
def say(tmp_path, monkeypatch):
    """A command line in a project of its own."""
    for name in ("experiments", "notebooks"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_USER", "tester")
    monkeypatch.delenv("WORKBENCH_HOME", raising=False)

    def run(*words: str, code: int = 0):
        done = CliRunner().invoke(main, ["risk", *words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return run


def test_the_sample_from_assessment_to_decision_and_export(say, tmp_path):
    told = say("assess", "--sample", *DAY)
    assert "open risks" in told.stdout
    assert "snapshot sample" in told.stdout
    assert "days old" in told.stdout
    worst = json.loads(say("list", "--limit", "1", "--json").stdout)
    assert worst["level"] == "critical"
    shown = json.loads(say("show", worst["id"][:12], "--json").stdout)
    assert shown["reasons"]
    assert len(shown["history"]) == 1  # that it was first seen
    say("decide", worst["id"][:12], "--accept", "--due", "2025-06-01", code=2)
    say("decide", worst["id"][:12], "--accept", "--due", "2025-06-01", "--note", "isolated")
    assert json.loads(say("list", "--status", "accepted", "--json").stdout)["id"] == worst["id"]
    assert "isolated" in say("show", worst["id"][:12]).stdout
    for name in ("a.csv", "a.docx", "a.cdx.json", "a.vex.json", "a.openvex.json"):
        say("export", name)
        assert (tmp_path / name).stat().st_size > 500
    with (tmp_path / "a.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) > 40
    say("export", "a.xyz", code=2)


def test_json_is_the_result_and_nothing_else(say):
    told = json.loads(say("assess", "--sample", *DAY, "--json").stdout)
    assert told["kind"] == "assessment"
    assert told["counts"]["open"] > 30


def test_dry_run_writes_nothing(say):
    told = say("assess", "--sample", *DAY, "--dry-run").stdout
    assert "46 vulnerabilities" in told
    assert say("list", "--json").stdout == ""
    figures = json.loads(
        say("assess", "--sample", *DAY, "--explain", "routed", "--dry-run", "--json").stdout
    )
    assert figures["estimate"]["calls"] == 2  # one for all vulnerabilities, one for the narrative


def test_it_stops_where_nobody_can_approve_and_goes_on_when_told(say):
    assert "stopped after evidence" in say("assess", "--sample", *DAY, "--approve").stdout
    command = ("assess", "--sample", *DAY, "--approve", "--approved")
    assert "stopped after scores" in say(*command, "evidence").stdout
    assert say("list", "--json").stdout == ""
    assert "open risks" in say(*command, "scores").stdout


def test_what_changed_between_two_assessments(say, tmp_path):
    first = json.loads(say("assess", "--sample", *DAY, "--json").stdout)["assessment"]
    inventory = (seeds_folder() / "risk" / "inventory.csv").read_text().splitlines()
    (tmp_path / "less.csv").write_text("\n".join(inventory[:3]) + "\n")
    assets = str(seeds_folder() / "risk" / "assets.csv")
    say("assess", "less.csv", "--assets", assets, "--snapshot", "sample", *DAY)
    changed = json.loads(say("diff", first[:12], "--json").stdout)
    assert changed["counts"]["gone"] > 10


def test_snapshots_of_files_need_no_network(say, tmp_path):
    folder = seeds_folder() / "risk"
    files = [f"{name}={folder / name}.csv" for name in ("kev", "epss")]
    told = say("sync", "--file", files[0], "--file", files[1], "--as-of", "kev=2025-08-25",
               "--as-of", "epss=2024-10-27").stdout  # fmt: skip
    assert "kev        stale" in told
    assert "2025-08-25" in told
    say("snapshots")
    listed = json.loads(say("snapshots", "--json").stdout)
    assert listed["rows"]["kev"] == 16


def test_where_there_is_no_snapshot_it_says_so(say):
    told = say("snapshots")
    assert told.stdout == ""
    assert "workbench risk sync" in told.stderr
    assert say("snapshots", "--json").output == ""


def test_a_narrative_in_pieces_is_shown_in_whole_sentences():
    told = []
    show = _Sentences(told.append)
    for piece in ("Up", "date to 2.", "17.1. Th", "en go on.\n\n", "\x1b[2J", "End"):
        show(piece)
    assert told == ["Update to 2.17.1.", "Then go on."]
    show("\n")
    assert told[2:] == ["\x1b[2JEnd"]


def test_offline_nothing_is_asked(say):
    told = say("sync", "CVE-2021-44228", code=2).output
    assert "WORKBENCH_OFFLINE=0" in told
    plan = say("sync", "CVE-2021-44228", "--dry-run").stdout
    assert "cve_records" in plan


def test_documents_are_kept_and_found(say, tmp_path):
    folder = str(seeds_folder() / "risk" / "documents")
    assert "added" in say("documents", "add", folder, "--tag", "policy").stdout
    hit = json.loads(say("documents", "search", "how fast to patch", "--top", "1", "--json").stdout)
    assert hit["text"]
    (tmp_path / "odd.xyz").write_text("x")
    assert "unknown kind" in say("documents", "add", "odd.xyz", code=1).stderr
    files = json.loads(say("documents", "list", "--json").stdout)["files"]
    say("documents", "remove", files[0])
    say("documents", "search", "x", "--name", "absent", code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("assess",), "nothing to assess"),
        (("assess", "CVE-2021-44228", "--snapshot", "sample"), "asset"),
        (("assess", "--sample", "--today", "soon"), "--today 'soon' is no date"),
        (("assess", "absent.json", "--snapshot", "sample"), "absent.json"),
        (("assess", "--sample", "--target-asset", "x"), "TARGET=ASSET"),
        (("assess", "--campaign", "newest", "--snapshot", "sample"), "campaign"),
        (("show", "3f9a"), "3f9a"),
        (("decide", "3f9a"), "nothing to say"),
        (("sync", "--file", "kev"), "NAME=VALUE"),
        (("sync", "--file", "kev=absent.csv", "--dry-run"), "give nothing else"),
        (("sync", "absent.json", "--dry-run"), "'absent.json' is neither a file nor a CVE id"),
        (("sync", "--as-of", "kev=2026-01-01"), "--file"),
        (("sync", "--file", "kev=x", "--as-of", "epss=2026-01-01"), "--as-of: unknown"),
        (("sync", "--file", "kev=x", "--as-of", "kev=2999-01-01"), "no day up to today"),
        (("sync", "--file", "kev=x", "--as-of", "kev=soon"), "no day up to today"),
        (("sync", "--source", "kev", "--base-url", "kev=https://["), "--base-url kev=https://"),
        (("sync", "--source", "servicenow"), "--base-url servicenow=https://"),
        (("documents", "list"), "workbench risk documents add"),
        (("export", "x.csv"), "no assessment yet"),
    ],
)
def test_bad_input_is_one_line_with_the_fix(say, words, said):
    told = say(*words, code=2).output
    assert said in told
    assert "Traceback" not in told
