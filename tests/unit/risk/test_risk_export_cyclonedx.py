"""CycloneDX and OpenVEX of the register: valid by the official schema, true to the rows."""

from __future__ import annotations

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from risk_fakes import HOSTILE, make_assessment, make_risk
from workbench.risk.export import ENDINGS, export
from workbench.risk.export.cyclonedx import JUSTIFICATIONS, to_cyclonedx
from workbench.risk.export.openvex import to_openvex
from workbench.risk.intake.read import read_all
from workbench.risk.records import STATES, Asset

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.just(HOSTILE)
MODEL = make_risk(
    7, kind="model", subject="LLM01:2025", component="bot", cvss=None, cvss_vector=None, epss=None,
    weakness=[], techniques=["AML.T0051"], execution="e" * 64, attempts=40, successes=7,
    fixed_in="",
)  # fmt: skip


def test_the_validator_refuses_what_is_wrong():
    bom = to_cyclonedx(make_assessment(make_risk()))
    bom["vulnerabilities"][0]["ratings"][2]["method"] = "EPSS"
    assert VALIDATOR.validate_str(json.dumps(bom)) is not None


def assets_of(bom):
    root = bom["metadata"].get("component")
    return bom["components"] + ([root] if root else [])


def valid(bom):
    error = VALIDATOR.validate_str(json.dumps(bom, allow_nan=False))
    assert error is None, error
    refs = [one["bom-ref"] for one in assets_of(bom)]
    refs += [one["bom-ref"] for asset in assets_of(bom) for one in asset.get("components", ())]
    assert len(set(refs)) == len(refs)
    assert all(one.isascii() and one.isprintable() for one in refs)
    for one in bom["vulnerabilities"]:
        assert {at["ref"] for at in one["affects"]} <= set(refs)
    return bom


@pytest.mark.parametrize("states_only", [True, False])
@given(
    texts=st.tuples(*[TEXT] * 9), state=st.sampled_from(STATES), status=st.sampled_from(
        ["open", "accepted", "closed"]
    ), reason=TEXT | st.sampled_from(sorted(JUSTIFICATIONS)),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_valid_whatever_the_texts_are(states_only, texts, state, status, reason):
    names = ("title", "asset", "component", "owner", "fixed_in", "cvss_vector", "explanation",
             "source", "kev_added")  # fmt: skip
    told = dict(zip(names, texts, strict=True))
    row = make_risk(1, **told, state=state, status=status, reason=reason, kev=True)
    lists = {name: list(texts) for name in ("weakness", "missing", "techniques")}
    rows = (row, make_risk(2, **lists, subject=texts[0] or "x"), MODEL)
    valid(to_cyclonedx(make_assessment(*rows), states_only=states_only))


def test_a_disclosure_report_says_what_is_known():
    row = make_risk(1, kev=True, kev_added="2025-12-01", asset="a b", explanation="Do it.")
    bom = valid(to_cyclonedx(make_assessment(row, MODEL)))
    first, second = bom["vulnerabilities"]
    assert first["id"] == "CVE-2024-00001"
    assert first["source"]["url"].endswith("?id=CVE-2024-00001")
    assert [(one.get("source", {}).get("name"), one["method"], one.get("score"))
            for one in first["ratings"]] == [
        ("prompt-safety-workbench", "other", 15), (None, "CVSSv31", 9.8),
        ("FIRST EPSS", "other", 0.05), ("CISA KEV", "other", None),
    ]  # fmt: skip
    assert [one["severity"] for one in first["ratings"][:2]] == ["high", "critical"]
    assert first["analysis"] == {"state": "exploitable", "response": ["update"]}
    assert (first["cwes"], first["detail"]) == ([79], "Do it.")
    properties = [(one["name"], one["value"]) for one in first["properties"]]
    expected = {"kev": "true", "missing": "kev", "due": "2026-01-15", "epss": "0.05"}
    assert {(f"workbench:{name}", value) for name, value in expected.items()} <= set(properties)
    assert (second["id"], len(second["ratings"])) == ("LLM01:2025", 1)
    assets = {one["name"]: one["components"] for one in assets_of(bom)}
    assert assets["a b"][0] | {"bom-ref": ""} == {
        "type": "library", "bom-ref": "", "group": "@x", "name": "part1", "version": "1.2",
        "purl": "pkg:npm/%40x/part1@1.2",
    }  # fmt: skip
    assert assets["shop"][0]["type"] == "machine-learning-model"
    assert bom["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("vector", "method"),
    [
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", "CVSSv4"),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", "CVSSv3"),
        ("AV:N/AC:L/Au:N/C:P/I:P/A:P", "CVSSv2"),
        (None, "other"),
    ],
)
def test_the_vector_tells_the_version(vector, method):
    bom = valid(to_cyclonedx(make_assessment(make_risk(cvss_vector=vector))))
    assert bom["vulnerabilities"][0]["ratings"][1]["method"] == method


@pytest.mark.parametrize(
    ("changes", "analysis"),
    [
        ({"state": "under_investigation"}, {"state": "in_triage", "response": ["update"]}),
        ({"state": "fixed", "status": "closed", "reason": "in 2.0"},
         {"state": "resolved", "detail": "in 2.0"}),
        ({"state": "not_affected", "status": "closed", "reason": "code_not_reachable"},
         {"state": "not_affected", "justification": "code_not_reachable"}),
        ({"state": "not_affected", "status": "closed", "reason": "component_not_present"},
         {"state": "not_affected", "justification": "code_not_present",
          "detail": "component_not_present"}),
        ({"status": "accepted", "reason": "budget"},
         {"state": "exploitable", "response": ["will_not_fix"], "detail": "budget"}),
        ({"status": "closed", "reason": "no way in"},
         {"state": "exploitable", "detail": "no way in"}),
    ],
)  # fmt: skip
def test_states(changes, analysis):
    bom = valid(to_cyclonedx(make_assessment(make_risk(**changes), MODEL), states_only=True))
    (only,) = bom["vulnerabilities"]
    assert only["analysis"] == analysis
    assert not only.keys() & {"ratings", "properties", "description"}


def test_the_same_component_on_two_assets_has_two_references():
    rows = [make_risk(1, asset="a", component="b"), make_risk(2, asset="a#b", component="")]
    bom = valid(to_cyclonedx(make_assessment(*rows)))
    assert len({one["affects"][0]["ref"] for one in bom["vulnerabilities"]}) == 2


def test_openvex_groups_what_is_said_alike():
    said = {"subject": "CVE-2024-00001", "fixed_in": "2"}
    rows = [
        make_risk(1, **said, asset="a", component="pkg:npm/x@1"),
        make_risk(2, **said, asset="a", component="pkg:npm/y@1"),
        make_risk(3, **said, asset="b c", component=""),
        make_risk(4, **said, asset="a", component=""),
        make_risk(5, state="not_affected", status="closed", reason="code_not_reachable"),
        make_risk(6, state="not_affected", status="closed", reason="we checked"),
        make_risk(8, state="fixed", status="closed", reason="in 2.0", component="part 1"),
        MODEL,
    ]  # fmt: skip
    document = to_openvex(make_assessment(*rows))
    by_name = {one["vulnerability"]["name"][-1]: one for one in document["statements"]}
    assert by_name["1"]["products"] == [
        {"@id": "a"},
        {"@id": "a", "subcomponents": [{"@id": "pkg:npm/x@1"}, {"@id": "pkg:npm/y@1"}]},
        {"@id": "b%20c"},
    ]  # fmt: skip
    assert by_name["1"]["action_statement"] == "Update to 2 or later by 2026-01-15."
    assert by_name["5"]["justification"] == "vulnerable_code_not_in_execute_path"
    assert by_name["6"]["impact_statement"] == "we checked"
    assert by_name["8"]["status_notes"] == "in 2.0"
    assert by_name["8"]["products"][0]["subcomponents"] == [{"@id": "part%201"}]
    assert len(document["statements"]) == 4
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"


@given(
    state=st.sampled_from(STATES), status=st.sampled_from(["open", "accepted", "closed"]),
    reason=TEXT | st.sampled_from(sorted(JUSTIFICATIONS)), fixed_in=TEXT,
)  # fmt: skip
def test_openvex_has_what_each_status_needs(state, status, reason, fixed_in):
    row = make_risk(state=state, status=status, reason=reason, fixed_in=fixed_in)
    (said,) = to_openvex(make_assessment(row))["statements"]
    assert said["status"] == state
    assert ("action_statement" in said) == (state == "affected")
    assert (bool(said.keys() & {"justification", "impact_statement"})) == (state == "not_affected")
    assert all(said.values())


@pytest.mark.parametrize(
    ("form", "assets"),
    [("vex", ["shop"]), ("cyclonedx", ["shop"]), ("openvex", ["shop"]), ("openvex", ["shop", "b"])],
)
def test_intake_reads_what_was_exported(tmp_path, form, assets):
    rows = [
        make_risk(
            10 * at + n, asset=asset, state=state, reason="code_not_reachable",
            component="" if n == 2 else f"pkg:npm/x{n}@1",
            status="closed" if state in {"fixed", "not_affected"} else "open",
        )
        for at, asset in enumerate(assets)
        for n, state in enumerate(STATES)
    ]  # fmt: skip
    ending = ENDINGS[form][0]
    export(make_assessment(*rows), tmp_path / f"told{ending}")
    known = {asset: Asset(id=asset) for asset in assets}
    read = read_all([tmp_path / f"told{ending}"], known=known)
    found = {(one.subject, one.asset, one.component, one.state) for one in read.occurrences}
    names = ("subject", "asset", "component", "state")
    assert found == {tuple(row[name] for name in names) for row in rows}
