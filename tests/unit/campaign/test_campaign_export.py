"""Findings for other programs: nothing in them becomes a formula, markup or another field."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields
from unicodedata import category

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from finding_fakes import make_finding
from workbench.campaign.export import export, github_issue, jira_issue, to_csv
from workbench.core.errors import ConfigError
from workbench.core.plain import storable
from workbench.store.records import Finding

hostile = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.text("`~\n \t=+-@|<>#*[]()!\r", max_size=60),
)
STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")


def is_control(char: str) -> bool:
    return category(char) == "Cc" and char not in "\t\r\n"


@given(text=hostile)
@example('=HYPERLINK("http://x","y")')
@example("  @SUM(1)")
@example("\t=1")
@example('",=1,"')
@example("\xa0=1")
@example("\u2009=cmd")
@example("\u200e=1")
@example("\u2060@x")
@example("\u202e\u3000－1")
@example("\x1b[2J=1")
@example("\ud800=1")
def test_no_cell_is_a_formula_and_none_is_lost(text):
    one = make_finding(1, sent=text, received=text, owner=text, strategy=text)
    rows = list(csv.DictReader(io.StringIO(to_csv([one]), newline="")))
    assert len(rows) == 1
    for field in fields(Finding):
        cell, value = rows[0][field.name], storable(str(getattr(one, field.name)))
        value = "".join("\ufffd" if is_control(char) else char for char in value)
        seen = "".join(char for char in cell if category(char)[0] not in "ZC")
        assert not cell.startswith(STARTS)
        assert not seen.startswith(STARTS)
        assert cell in {value, f"'{value}"}


def test_json_is_all_of_it():
    found = [make_finding(n, sent="\ud800 “é”") for n in range(3)]
    assert json.loads(export(found, "json")) == [asdict(one) for one in found]


@given(text=hostile, name=hostile)
@example("```\n# heading\n````\n<script>", "`a` <b> [x](y)")
@example("~~~\n\r```", "|")
def test_what_was_sent_stays_inside_its_fence(text, name):
    one = make_finding(1, sent=text, received=f"{text}`", summary=text, target=name)
    issue = github_issue(one, alike=7)
    assert issue["title"].isprintable()
    tokens = MarkdownIt("commonmark").parse(issue["body"])
    allowed = {"bullet_list_open", "list_item_open", "paragraph_open", "inline", "fence"}
    assert {token.type for token in tokens if not token.type.endswith("_close")} <= allowed
    inside = {"text", "strong_open", "strong_close", "code_inline"}
    for token in tokens:
        if token.type == "inline":
            assert {child.type for child in token.children} <= inside
    fences = [token.content for token in tokens if token.type == "fence"]
    assert len(fences) == (3 if text.strip() else 1)
    assert not set("".join(fences)) & set("\r\x00\x1b")


@given(text=hostile)
def test_jira_gets_text_as_text(text):
    issue = jira_issue(make_finding(1, sent=text, received=text, severity="critical"), project="S")
    told = issue["fields"]
    assert told["project"] == {"key": "S"}
    assert told["priority"] == {"name": "Highest"}
    assert len(told["summary"]) <= 255
    assert all(" " not in label for label in told["labels"])
    nodes = told["description"]["content"]
    assert {node["type"] for node in nodes} == {"paragraph"} | (
        {"codeBlock"} if text.strip() else set()
    )
    assert all(leaf["text"] for node in nodes for leaf in node["content"])


def test_long_texts_are_cut_so_that_services_take_them():
    one = make_finding(1, sent="`" * 100_000, received="x" * 100_000, plugin="p" * 999)
    assert len(github_issue(one)["body"]) < 65_536
    assert len(json.dumps(jira_issue(one, project="S")["fields"]["description"])) < 32_767


def test_how_many_are_alike_is_told():
    one = make_finding(1)
    (issue,) = json.loads(export([one], "github", alike={one.cluster: 12}))
    assert "alike: ` 12 `" in issue["body"]


def test_sarif_is_made_elsewhere(monkeypatch):
    sarif = pytest.importorskip("workbench.campaign.sarif")
    monkeypatch.setattr(sarif, "sarif", lambda found, *, tool_version: {"n": len(found)})
    assert json.loads(export([make_finding(1)], "sarif")) == {"n": 1}


@pytest.mark.parametrize(("form", "told"), [("jira", "project"), ("xml", "format 'xml'")])
def test_what_cannot_be_written_is_said(form, told):
    with pytest.raises(ConfigError, match=told):
        export([make_finding(1)], form)
