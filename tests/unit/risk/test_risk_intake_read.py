"""Files of every format become one intake; nothing that is wrong with them is silent."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from risk_documents import DOCUMENTS, LODASH, cyclonedx, vulnerability, written
from shared_data import shared
from workbench.core.errors import DataError
from workbench.risk.intake.cyclonedx import read_cyclonedx
from workbench.risk.intake.read import read_all
from workbench.risk.intake.reading import Reading, advisory_of, cve_of
from workbench.risk.match import matched
from workbench.risk.records import Asset

FUZZ = settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
FORMATS = {
    "cyclonedx": "CycloneDX 1.5", "spdx": "SPDX SPDX 2.3", "spdx3": "SPDX 3", "openvex": "OpenVEX",
    "csaf": "CSAF VEX", "grype": "Grype", "trivy": "Trivy", "list": "CVE list",
    "lines": "CVE list", "table": "CVE table", "inventory": "inventory",
}  # fmt: skip


def found(intake) -> set[tuple[str, str, str, str]]:
    return {(one.subject, one.asset, one.component, one.state) for one in intake.occurrences}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_format_is_known_by_content(tmp_path, name):
    misleading = written(tmp_path, "shop.csv", DOCUMENTS[name])
    packed = tmp_path / "shop.gz"
    packed.write_bytes(gzip.compress(misleading.read_bytes()))
    for path in (misleading, packed):
        (row,) = read_all([path]).files
        assert row["format"] == FORMATS[name].replace("SPDX SPDX", "SPDX")
        assert row["occurrences"] + row["components"] + row["assets"] > 0


@pytest.mark.parametrize("name", sorted(set(DOCUMENTS) - {"inventory", "openvex", "csaf"}))
def test_the_asset_is_given_or_told_or_the_name_of_the_file(tmp_path, name):
    intake = read_all([written(tmp_path, "shop.x.json", DOCUMENTS[name])])
    assert set(intake.assets) == {"shop"}
    assert intake.assets["shop"].criticality is intake.assets["shop"].exposure is None
    if name != "table":
        intake = read_all([written(tmp_path, "shop.x.json", DOCUMENTS[name])], asset="web")
        assert set(intake.assets) == {"web"}
        assert set(intake.components["asset"].to_pylist()) <= {"web"}


def test_what_each_format_says_of_one_vulnerability(tmp_path):
    cve, fix = "CVE-2021-23337", {}
    for name in ("cyclonedx", "spdx", "openvex", "csaf", "grype", "trivy", "table"):
        intake = read_all([written(tmp_path, "shop", DOCUMENTS[name])], asset="")
        said = {one.component: one.state for one in intake.occurrences if one.subject == cve}
        fix[name] = {one.fixed_in for one in intake.occurrences if one.subject == cve}
        state = "affected" if name in {"grype", "trivy", "table"} else "not_affected"
        component = "lodash 4.17.20" if name == "table" else LODASH
        assert said == ({} if name == "spdx" else {component: state}), name
    assert fix["grype"] == fix["trivy"] == fix["table"] == {"4.17.21"}
    intake = read_all([written(tmp_path, "shop", DOCUMENTS["cyclonedx"])])
    assert ("CVE-2023-32681", "shop", "pkg:pypi/requests@2.25.0", "affected") in found(intake)
    intake = read_all([written(tmp_path, "shop", DOCUMENTS["grype"])])
    assert ("CVE-2020-8203", "shop", LODASH, "fixed") in found(intake)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("CVE-2021-44228", "CVE-2021-44228"),
        ("  cve-2021-44228\t", "CVE-2021-44228"),
        ("CVE 2021 44228", "CVE-2021-44228"),
        ("CVE‑2021–44228", "CVE-2021-44228"),
        ("CVE\u00a0-\u00a02021-44228", "CVE-2021-44228"),
        ("CVE-2021-123", ""),
        ("CVE-2021-４４２２８", ""),
        ("CVE-2021-44228x", ""),
        ("CVE-21-44228", ""),
        ("CVE202144228", ""),
        ("ⅭVE-2021-44228", ""),
        (44228, ""),
        ("CVE-2021-" + "4" * 90, ""),
    ],
)  # fmt: skip
def test_an_id_is_repaired_where_it_can_mean_one_thing_only(tmp_path, text, want):
    assert cve_of(text) == want
    if isinstance(text, str):
        intake = read_all([written(tmp_path, "ids.txt", f"CVE-2020-0001\n{text}\n")])
        subjects = {one.subject for one in intake.occurrences} - {"CVE-2020-0001"}
        assert subjects == ({want} if want else set())
        assert len(intake.problems) == (not want)
        assert all("ids.txt: line 2" in one and "CVE-YYYY-NNNN" in one for one in intake.problems)


@given(st.from_regex(r"CVE-[0-9]{4}-[0-9]{4,7}", fullmatch=True), st.data())
def test_case_blanks_and_dashes_do_not_matter(cve, data):
    dash = st.sampled_from(["-", " ", "–", "—", "−", " - ", "\u2011"])
    parts = cve.split("-")
    said = parts[0].lower() + data.draw(dash) + parts[1] + data.draw(dash) + parts[2]
    assert cve_of(f" {said}\n") == cve == advisory_of(said)


def test_ids_of_advisories_stay_as_they_are():
    for one in ("GHSA-35jh-r3h4-6jhm", "PYSEC-2021-9", "RHSA-2021:5", "openSUSE-SU-2021:1-1"):
        assert advisory_of(one) == one
    for other in ("", "lodash", "log4j-core-2.14", "CVE-2021-1", "-", "A" * 90, None):
        assert advisory_of(other) == ""


def test_what_cannot_be_read_is_named(tmp_path):
    for name, content, words in (
        ("half.json", json.dumps(DOCUMENTS["grype"])[:80], "not JSON"),
        ("other.json", {"hello": 1}, "no known format.*hello.*CycloneDX"),
        ("list.json", [{"a": 1}], "no known format"),
        ("bom.xml", "<bom/>", "XML.*JSON"),
        ("bom.spdx", "SPDXVersion: SPDX-2.3\n", "tag-value.*JSON"),
        ("prose.txt", "hello\nworld\n", "no known format"),
        ("empty.txt", "", "empty"),
        ("short.csv", "cve,asset\nCVE-2021-44228\n", "line 2 has 1 fields"),
        ("deep.json", '{"components":[' * 10_000, "deep.json.*JSON"),
    ):
        with pytest.raises(DataError, match=words):
            read_all([written(tmp_path, name, content)])
    with pytest.raises(DataError, match="no such file"):
        read_all([tmp_path / "gone.json"])
    with pytest.raises(DataError, match="is no inventory"):
        read_all([], assets=written(tmp_path, "ids.txt", "CVE-2021-44228\n"))


def test_components_without_version_or_url_are_kept_and_named(tmp_path):
    document = cyclonedx("pkg:npm/a", "pkg:npm/b@1")
    document["components"] += [
        {"name": "plain", "version": "2"}, {"name": "odd", "version": 1.0, "purl": "npm:odd"},
        {"version": "3"}, "text", {"name": "twin", "bom-ref": "r0", "purl": "pkg:npm/twin@1"},
    ]  # fmt: skip
    intake = read_all([written(tmp_path, "sbom.json", document)])
    assert intake.components["name"].to_pylist() == ["a", "b", "plain", "odd", "twin"]
    assert intake.components["version"].to_pylist() == ["", "1", "2", "", "1"]
    told = "\n".join(intake.problems)
    for words in ("'a', component 4 'odd': has no version", "'odd': has no package URL",
                  "URL not understood", "component 5 '': has no name",
                  "components[5]: is str", "'twin': has the reference of another"):  # fmt: skip
        assert words in told


def test_nesting_is_no_matter_and_nothing_calls_itself():
    one: dict[str, Any] = {"name": "last", "purl": "pkg:npm/last@1"}
    for n in range(10_000):
        one = {"name": f"n{n}", "purl": f"pkg:npm/n{n}@1", "components": [one]}
    reading = Reading(Path("deep.json"))
    read_cyclonedx(cyclonedx() | {"components": [one]}, reading)
    assert len(reading.components) == 10_001


def test_a_file_that_is_wrong_everywhere_tells_a_hundred_kinds_of_problems(tmp_path):
    rows = "".join(f"CVE-{n}\n" for n in range(1_000, 3_000))
    intake = read_all([written(tmp_path, "ids.txt", "CVE-2021-44228\n" + rows)])
    assert len(intake.occurrences) == 1
    assert len(intake.problems) == 101
    assert "1,900 more problems" in intake.problems[-1]
    document = cyclonedx(*(f"pkg:npm/n{n}" for n in range(1_000)))
    (told,) = read_all([written(tmp_path, "sbom.json", document)]).problems
    assert "and 995 more: has no version" in told


def test_texts_are_cut_and_clean(tmp_path):
    long = "x" * 100_000
    document = cyclonedx(name=f"sh\u202eop\n{long}")
    document["components"] = [{"name": f"a\x00\ud800\t{long}", "version": long}]
    document["vulnerabilities"] = [
        vulnerability("CVE-2021-44228", "root", state="in_triage")
        | {"analysis": {"state": "in_triage", "detail": f"\x1b[2J\n{long}"}}
    ]
    intake = read_all([written(tmp_path, "sbom.json", document)])
    (one,) = intake.occurrences
    (row,) = intake.components.to_pylist()
    for text in (one.asset, one.reason, *row.values(), *intake.problems):
        assert text.isprintable()
        assert len(text) <= 700
    assert len(one.reason) <= 300
    assert len(one.asset) <= 200


def test_tables_say_asset_component_and_state_for_each_row(tmp_path):
    table = (
        "CVE ID;Host;purl;version;Status;Justification;fixed_in\n"
        "cve-2021-0001;web;pkg:npm/a;1.0;;;1.1\n"
        "CVE-2021-0001;db;pkg:npm/a@1.0;;Not Affected;unused;\n"
        "CVE-2021-0002, CVE-2021-0003;db;;;in triage;;\n"
        ";db;;;;;\n"
        "CVE-2021-0004;db;;;odd;;\n"
    )
    intake = read_all([written(tmp_path, "t", table)], asset="rest")
    assert found(intake) == {
        ("CVE-2021-0001", "web", "pkg:npm/a@1.0", "affected"),
        ("CVE-2021-0001", "db", "pkg:npm/a@1.0", "not_affected"),
        ("CVE-2021-0002", "db", "", "under_investigation"),
        ("CVE-2021-0003", "db", "", "under_investigation"),
        ("CVE-2021-0004", "db", "", "affected"),
    }
    assert [one.reason for one in intake.occurrences if one.state == "not_affected"] == ["unused"]
    assert any("row 4: has no CVE id" in one for one in intake.problems)
    assert any("state 'odd' is unknown" in one for one in intake.problems)


def test_inventories_know_assets_by_id_or_name(tmp_path):
    inventory = written(tmp_path, "assets.csv", DOCUMENTS["inventory"])
    sbom = written(tmp_path, "sbom.json", cyclonedx(LODASH, name="SHOP"))
    ids = written(tmp_path, "Srv-1.txt", "CVE-2021-44228\n")
    intake = read_all([sbom, ids], assets=inventory)
    assert set(intake.assets) == {"srv-1"}
    assert {one.asset for one in intake.occurrences} == {"srv-1"}
    assert intake.components["asset"].to_pylist() == ["srv-1"]
    known = {"srv-1": Asset(id="srv-1", criticality=5, exposure="small", owner="anna")}
    (one,) = read_all([sbom], assets=inventory, known=known).assets.values()
    assert (one.criticality, one.exposure, one.owner, one.name) == (5, "open", "anna", "shop")


def test_a_hundred_thousand_components_take_seconds(tmp_path):
    document = cyclonedx(*(f"pkg:npm/package-{n}@1.{n % 50}.0" for n in range(100_000)))
    path = written(tmp_path, "big.json", document)
    began = time.process_time()
    assert read_all([path]).components.num_rows == 100_000
    assert time.process_time() - began < 6  # 0.7 s; machines differ


def paths(value: Any, path: tuple = ()) -> list[tuple]:
    inside = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [path, *(deeper for key, one in inside for deeper in paths(one, (*path, key)))]


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
    st.sampled_from(
        ["\ud800", "pkg:", "pkg:npm/a@", "root", "r0", LODASH, "urn:cdx:a/1#r0", "x" * 900]
    ),
    st.lists(st.none() | st.text(max_size=3), max_size=2),
    st.dictionaries(
        st.sampled_from(["id", "ref", "name", "state"]), st.text(max_size=3), max_size=2
    ),
)  # fmt: skip


@st.composite
def broken(draw) -> tuple[str, Any]:
    """Return a format and a document of it with a few values of any type in the wrong places."""
    name = draw(st.sampled_from([one for one in DOCUMENTS if not isinstance(DOCUMENTS[one], str)]))
    document = json.loads(json.dumps(DOCUMENTS[name]))
    for _ in range(draw(st.integers(1, 3))):
        if not (places := paths(document)[1:]):
            break
        *above, last = draw(st.sampled_from(places))
        inside = document
        for key in above:
            inside = inside[key]
        if draw(st.booleans()) and (isinstance(inside, dict) or last < len(inside)):
            del inside[last]
        elif inside:
            inside[last] = draw(ODD)
    return name, document


@FUZZ
@given(documents=st.lists(broken(), min_size=1, max_size=3), asset=st.sampled_from(["", "web"]))
def test_whatever_is_broken_is_an_error_of_data_or_a_problem(tmp_path, documents, asset):
    files = [written(tmp_path, f"{n}-{name}", one) for n, (name, one) in enumerate(documents)]
    try:
        intake = read_all(files, asset=asset)
    except DataError:
        return
    for one in intake.occurrences:
        texts = (one.subject, one.asset, one.component, one.reason, one.fixed_in, one.source)
        assert all(text.isprintable() and len(text) <= 510 for text in texts)
        assert one.asset in intake.assets
    assert all(problem.isprintable() for problem in intake.problems)
    assert matched(intake, None).components == intake.components


@FUZZ
@given(text=st.text(st.sampled_from('CVE-20214,;\t|"\n# \x00é４'), max_size=60))
def test_whatever_a_text_holds_is_an_error_of_data_or_a_problem(tmp_path, text):
    for head in ("", "cve,asset\n", "id,criticality\n"):
        path = tmp_path / "t"
        path.write_text(head + text, encoding="utf-8")
        try:
            intake = read_all([path])
        except DataError:
            continue
        assert all(advisory_of(one.subject) for one in intake.occurrences)


def test_real_boms_are_read_without_a_problem():
    names = ("juice-shop-11.1.2.cdx.json", "laravel-7.12.0.cdx14.json", "vex-not_affected.json")
    intake = read_all([shared(f"risk/sbom/{name}") for name in names])
    assert intake.problems == ()
    assert intake.components.num_rows == 840 + 62
    (one,) = intake.occurrences
    assert (one.subject, one.asset, one.state) == ("CVE-2021-44228", "ABC", "not_affected")
    assert one.reason.startswith("code_not_present: This version")
