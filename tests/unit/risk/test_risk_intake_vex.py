"""VEX closes what was found, in any order of files, and never more than it speaks of."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from risk_documents import DOCUMENTS, LODASH, REQUESTS, cyclonedx, openvex, vulnerability, written
from workbench.risk.intake.purls import covers, parse_purl, with_version
from workbench.risk.intake.read import read_all
from workbench.risk.records import STATES

CVE = "CVE-2021-23337"
SBOM = cyclonedx(LODASH, REQUESTS)
GRYPE = DOCUMENTS["grype"] | {"ignoredMatches": []}


def states(intake) -> dict[tuple[str, str, str], str]:
    return {(one.subject, one.asset, one.component): one.state for one in intake.occurrences}


def read(folder, *documents, **more):
    return read_all([written(folder, f"f{n}", one) for n, one in enumerate(documents)], **more)


@pytest.mark.parametrize(
    ("vex", "is_closed"),
    [
        (openvex((CVE, LODASH, "not_affected")), True),
        (openvex((CVE, LODASH, "fixed")), True),
        (openvex((CVE, "pkg:npm/lodash", "fixed")), True),
        (openvex((CVE, "pkg:npm/lodash@4.17.19", "fixed")), False),
        (openvex((CVE, "pkg:npm/lodas", "fixed")), False),
        (openvex((CVE, REQUESTS, "not_affected")), False),
        (openvex(("CVE-2021-23338", LODASH, "not_affected")), False),
        (openvex((CVE, "pkg:oci/shop@1", "not_affected")), True),
        (openvex((CVE, "pkg:oci/shop", "not_affected")), True),
        (openvex((CVE, "pkg:oci/mall", "not_affected")), False),
        (openvex((CVE, "shop", "not_affected")), True),
        (openvex((CVE, LODASH, "affected")), False),
        (openvex((CVE, LODASH, "odd")), False),
        (openvex(("GHSA-35jh-r3h4-6jhm", LODASH, "not_affected")), True),
        (DOCUMENTS["csaf"], True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, "root", state="not_affected")]), True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, state="false_positive")]), True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, LODASH, state="resolved")]), True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, "r0", state="resolved")]), True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, "r1", state="resolved")]), False),
        (cyclonedx(name="other",
                   vulnerabilities=[vulnerability(CVE, "r0", state="resolved")]), False),
        (cyclonedx(name="other", serialNumber="urn:uuid:0", vulnerabilities=[vulnerability(
            CVE, "urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#r0", state="resolved")]), True),
        (cyclonedx(vulnerabilities=[vulnerability(CVE, "r0", state="exploitable")]), False),
        (cyclonedx(vulnerabilities=[
            vulnerability(CVE, state="not_affected") | {"affects": [{"ref": 5}]}]), False),
        (cyclonedx(vulnerabilities=[
            vulnerability(CVE, state="not_affected") | {"affects": [5]}]), False),
        ("cve,asset,component,state\n" + f"{CVE},shop,{LODASH},not_affected\n", True),
        ("cve,asset,state\n" + f"{CVE},shop,fixed\n", True),
        ("cve,asset,state\n" + f"{CVE},other,fixed\n", False),
    ],
)  # fmt: skip
def test_what_closes_a_finding_and_what_does_not(tmp_path, vex, is_closed):
    for documents in itertools.permutations([SBOM, GRYPE, vex]):
        intake = read(tmp_path, *documents)
        state = states(intake)[CVE, "shop", LODASH]
        assert (state in {"fixed", "not_affected"}) == is_closed
        (one,) = [
            one for one in intake.occurrences if (one.subject, one.component) == (CVE, LODASH)
        ]
        assert one.fixed_in == "4.17.21"


def test_a_closed_one_says_who_says_why(tmp_path):
    intake = read(
        tmp_path,
        GRYPE,
        openvex(
            (CVE, LODASH, "not_affected"),
        ),
    )
    (one,) = [one for one in intake.occurrences if one.asset == "shop"]
    assert one.reason == "vulnerable_code_not_present"
    assert one.source == "f0 (Grype); f1 (OpenVEX)"


@settings(deadline=None)
@given(said=st.lists(st.sampled_from(STATES), min_size=1, max_size=4), data=st.data())
def test_the_most_careful_of_contradicting_statements_counts(tmp_path_factory, said, data):
    folder = tmp_path_factory.mktemp("vex")
    documents = [openvex((CVE, data.draw(st.sampled_from([LODASH, "pkg:npm/lodash", "shop"])), one))
                 for one in said]  # fmt: skip
    intake = read(folder, *data.draw(st.permutations([SBOM, GRYPE, *documents])))
    assert states(intake)[CVE, "shop", LODASH] == min(said, key=STATES.index)
    is_contradiction = len(set(said)) > 1
    told = [one for one in intake.problems if "the more careful counts" in one]
    assert bool(told) == is_contradiction
    assert all(CVE in one and "OpenVEX" in one for one in told)


def test_a_later_statement_of_one_document_takes_the_place_of_an_earlier_one(tmp_path):
    document = openvex((CVE, LODASH, "not_affected"), (CVE, LODASH, "affected"))
    for at, statement in zip(("2025-02-01", "2025-01-01"), document["statements"], strict=True):
        statement["timestamp"] = f"{at}T00:00:00Z"
    intake = read(tmp_path, GRYPE, document, asset="shop")
    assert states(intake) == {(CVE, "shop", LODASH): "not_affected"}
    assert intake.problems == ()


def test_parts_of_a_product_are_meant_there_only(tmp_path):
    document = openvex((CVE, "pkg:oci/shop@1", "not_affected"))
    document["statements"][0]["products"][0]["subcomponents"] = [{"@id": REQUESTS}]
    intake = read(tmp_path, SBOM, GRYPE, document)
    assert states(intake) == {
        (CVE, "shop", LODASH): "affected",
        (CVE, "shop", REQUESTS): "not_affected",
    }
    document["statements"][0]["products"][0]["@id"] = "pkg:oci/mall@1"
    intake = read(tmp_path, SBOM, GRYPE, document)
    assert states(intake)[CVE, "pkg:oci/mall@1", REQUESTS] == "not_affected"
    assert any("no file has, e.g. 'pkg:oci/mall@1'" in one for one in intake.problems)
    document["statements"][0]["products"][0]["subcomponents"] = [{"@id": 5}]
    intake = read(tmp_path, SBOM, GRYPE, document)
    assert set(states(intake).values()) == {"affected"}


def test_a_component_on_two_assets_is_closed_on_both_unless_the_file_is_of_one(tmp_path):
    other = cyclonedx(LODASH, name="mall")
    rows = f"cve,asset,component\n{CVE},shop,{LODASH}\n{CVE},mall,{LODASH}\n"
    vex = openvex((CVE, LODASH, "fixed"))
    intake = read(tmp_path, SBOM, other, rows, vex)
    assert set(states(intake).values()) == {"fixed"}
    mine = cyclonedx(name="mall", vulnerabilities=[vulnerability(CVE, "r9", state="resolved")],
                     components=[{"bom-ref": "r9", "name": "lodash", "purl": LODASH}])  # fmt: skip
    intake = read(tmp_path, SBOM, mine, rows)
    assert states(intake) == {
        (CVE, "shop", LODASH): "affected", (CVE, "mall", LODASH): "fixed",
    }  # fmt: skip


def test_what_nobody_found_is_kept(tmp_path):
    vex = openvex((CVE, LODASH, "not_affected"), ("CVE-2021-0001", REQUESTS, "affected"))
    intake = read(tmp_path, SBOM, vex)
    assert states(intake) == {
        (CVE, "shop", LODASH): "not_affected", ("CVE-2021-0001", "shop", REQUESTS): "affected",
    }  # fmt: skip


PARTS = st.text("abcXYZ-_.@ %é:+~", min_size=1, max_size=6).filter(
    lambda text: text.strip() == text
)


@settings(deadline=None)
@given(
    kind=st.sampled_from(["npm", "pypi", "maven", "golang", "deb", "cargo", "nuget"]),
    space=st.none() | PARTS, name=PARTS, version=st.none() | PARTS,
    more=st.none() | st.just({"arch": "amd64", "distro": "debian-12"}),
)  # fmt: skip
def test_package_urls_are_taken_apart_as_by_the_library(kind, space, name, version, more):
    space = None if kind == "pypi" else space
    purl = PackageURL(kind, space, name, version, more)
    text = purl.to_string()
    found = parse_purl(text)
    want = "/".join(filter(None, (purl.namespace, purl.name)))
    assert (found.type, found.version) == (kind, purl.version or "")
    if kind == "pypi":  # the library leaves points as they are, pip does not
        want = canonicalize_name(name)
    assert found.name.casefold() == want.casefold()
    bare = PackageURL(kind, space, name, None, more).to_string()
    assert parse_purl(with_version(bare, "1.0+b:1"))[:3] == (*found[:2], "1.0+b:1")
    assert covers(bare, text)
    assert covers(text, bare) == (not purl.version)
    assert covers(PackageURL(kind, space, name, version).to_string(), text)


@pytest.mark.parametrize(
    ("said", "is_covered"),
    [("pkg:maven/g/m@1.0?classifier=tests", True), ("pkg:maven/g/m?classifier=tests", True),
     ("pkg:maven/g/m@1.0?type=jar", True), ("pkg:maven/g/m@1.0?classifier=%74ests", True),
     ("pkg:maven/g/m@1.0?classifier=sources", False), ("pkg:maven/g/m@1.0?arch=x", False)],
)  # fmt: skip
def test_what_was_said_of_another_build_closes_nothing(said, is_covered):
    assert covers(said, "pkg:maven/g/m@1.0?classifier=tests") == is_covered


def test_the_asset_that_the_caller_names_is_meant_by_its_name(tmp_path):
    intake = read(tmp_path, f"{CVE}\n", openvex((CVE, "mall", "not_affected")), asset="mall")
    assert states(intake) == {(CVE, "mall", ""): "not_affected"}
    assert intake.problems == ()


def test_names_without_url_cover_with_or_without_version():
    assert covers("lodash", "lodash 4.17")
    assert covers("lodash 4.17", "lodash 4.17")
    assert not covers("lodash 4.18", "lodash 4.17")
    assert not covers("Apache", "Apache Tomcat")
    assert not covers("lodash", LODASH)
    for text in ("", "pkg:", "pkg:npm", "pkg:npm/", "pkg:/a", "npm/a", "lodash 1"):
        assert parse_purl(text) is None
    assert parse_purl("pkg:npm/@scope/a@1")[:3] == ("npm", "@scope/a", "1")
    assert parse_purl("pkg:npm/@scope/a")[:3] == ("npm", "@scope/a", "")
