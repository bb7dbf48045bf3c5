"""Components meet advisories as the OSV schema says; what cannot be compared stays open."""

from __future__ import annotations

import json
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version as PythonVersion

from risk_documents import LODASH, cyclonedx, openvex, vulnerability, written
from shared_data import shared
from workbench.risk.intake.read import read_all
from workbench.risk.match import match, matched
from workbench.risk.osv import ECOSYSTEMS, Advisory, Version

CVE = "CVE-2021-23337"


def advisory(*events, package="lodash", ecosystem="npm", name="GHSA-1", aliases=(CVE,),
             versions=(), kind="SEMVER"):  # fmt: skip
    ranges = [{"type": kind, "events": list(events)}] if events else []
    return {
        "id": name, "aliases": list(aliases), "ecosystem": ecosystem, "package": package,
        "ranges": json.dumps(ranges), "versions": list(versions),
    }  # fmt: skip


def osv(*rows):
    schema = pa.schema(
        [(name, pa.list_(pa.string()) if name in {"aliases", "versions"} else pa.string())
         for name in advisory()]
    )  # fmt: skip
    return pa.Table.from_pylist(list(rows), schema=schema)


def components(*purls, asset="shop"):
    rows = [
        {"purl": one, "name": "n", "version": "", "asset": asset, "source": "sbom"} for one in purls
    ]
    return pa.Table.from_pylist(rows)


def found(purls, *rows):
    """Return component → state, reason and fix of what is found in package URLs."""
    occurrences, _ = match(components(*purls), osv(*rows))
    return {one.component: (one.state, one.reason, one.fixed_in) for one in occurrences}


FIXED = ({"introduced": "0"}, {"fixed": "4.17.21"})


@pytest.mark.parametrize(
    ("events", "inside", "outside"),
    [
        (FIXED, ["0.0.1", "4.17.20", "4.17.21-rc.1", "v4.17.20"], ["4.17.21", "5.0.0"]),
        (({"introduced": "2.0.0"}, {"last_affected": "2.1.0"}),
         ["2.0.0", "2.1.0", "2.1.0+build.7"], ["1.9.9", "2.0.0-rc.1", "2.1.1", "3.0.0"]),
        (({"introduced": "0"}, {"fixed": "1.0.0"}, {"introduced": "2.0.0"}, {"fixed": "2.3.0"}),
         ["0.9.0", "2.2.9"], ["1.0.0", "1.9.9", "2.3.0"]),
        (({"fixed": "2.3.0"}, {"introduced": "2.0.0"}), ["2.1.0"], ["1.0.0", "2.3.0"]),
        (({"introduced": "0"}, {"limit": "2.0.0"}), ["1.9.9"], ["2.0.0", "3.0.0"]),
        (({"introduced": "0"}, {"limit": "*"}), ["1.9.9", "3.0.0"], []),
        (({"introduced": "0"},), ["0.0.0-a", "99.0.0"], []),
        (({"introduced": "0", "fixed": "1.0.0"},), ["0.1.0"], ["1.0.0"]),
        (({"last_affected": "2.0.0"}, {"introduced": "2.0.0"}), ["2.0.0"], ["1.9.9", "2.0.1"]),
    ],
)  # fmt: skip
def test_ranges_are_evaluated_as_the_schema_says(events, inside, outside):
    for version in (*inside, *outside):
        purl = f"pkg:npm/lodash@{version.replace('+', '%2B')}"
        assert (purl in found([purl], advisory(*events))) == (version in inside), version


NUMBER = st.integers(0, 3)
RELEASE = st.builds("{}.{}.{}".format, NUMBER, NUMBER, NUMBER)
PYTHON = st.builds(
    lambda release, suffix: release + suffix,
    st.one_of(RELEASE, st.builds("{}.{}".format, NUMBER, NUMBER)),
    st.sampled_from(["", "", "a1", "b2", "rc1", ".post1", ".dev3"]),
)  # fmt: skip


@settings(deadline=None)
@given(
    bounds=st.lists(RELEASE, min_size=2, max_size=4, unique=True),
    version=RELEASE,
    last=st.booleans(),
)
def test_ranges_of_python_packages_are_those_of_pip(bounds, version, last):
    bounds.sort(key=PythonVersion)
    pairs = list(zip(bounds[::2], bounds[1::2], strict=False))
    end, sign = ("last_affected", "<=") if last else ("fixed", "<")
    events = [event for low, high in pairs for event in ({"introduced": low}, {end: high})]
    verdict = Advisory(json.dumps([{"type": "ECOSYSTEM", "events": events}]), (), kind="pypi")
    want = any(version in SpecifierSet(f">={low},{sign}{high}") for low, high in pairs)
    told = verdict.verdict(Version(version, kind="pypi"))
    assert bool(told) == want
    if told and not last:
        later = [high for _, high in pairs if PythonVersion(high) > PythonVersion(version)]
        assert told.fixed_in == later[0]


@settings(deadline=None)
@given(PYTHON, PYTHON)
def test_python_versions_are_ordered_as_by_packaging(one, other):
    less = Version(one, kind="pypi") < Version(other, kind="pypi")
    assert less == (PythonVersion(one) < PythonVersion(other))


def precedence(text: str):
    """Return the key of semver 2.0, section 11."""
    release, _, before = text.partition("+")[0].partition("-")
    parts = [
        (0, int(one), "") if one.isdigit() else (1, 0, one) for one in before.split(".") if one
    ]
    return [int(one) for one in release.split(".")], not parts, parts


SEMVER = st.builds(
    lambda release, before, build: release + before + build, RELEASE,
    st.sampled_from(["", "", "-alpha", "-alpha.1", "-alpha.beta", "-2", "-11", "-rc.1", "-rc.11"]),
    st.sampled_from(["", "+a", "+5"]),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["npm", "cargo", "golang"])
@settings(deadline=None)
@given(one=SEMVER, other=SEMVER)
def test_semantic_versions_have_the_precedence_of_the_standard(kind, one, other):
    less = Version(one, kind=kind) < Version(other, kind=kind)
    assert less == (precedence(one) < precedence(other))


@pytest.mark.parametrize(
    ("kind", "ordered"),
    [
        ("maven", ["1.0-alpha-1", "1.0-SNAPSHOT", "1.0", "1.0.1", "1.10", "2-1"]),
        ("gem", ["1.0.0.pre", "1.0.0", "1.0.0.1", "1.0.10", "1.1"]),
        ("nuget", ["1.0.0-beta", "1.0.0", "1.0.0.5", "1.0.0.10", "1.2"]),
        ("composer", ["1.0.0-beta1", "v1.0.0", "1.0.0.4", "1.0.0.10", "1.3"]),
        ("golang", ["v0.0.0-20200101000000-abcdefabcdef", "v1.0.0", "v1.2.0+incompatible"]),
        ("deb", ["1.0~rc1-1", "1.0-1", "1.0-1+deb11u1", "1.0-2", "1:0.5-1"]),
        ("apk", ["1.2.3_rc1-r0", "1.2.3-r0", "1.2.3-r10", "1.2.10-r0"]),
    ],
)
def test_each_ecosystem_orders_versions_in_its_own_way(kind, ordered):
    versions = [Version(one, kind=kind) for one in ordered]
    for at, one in enumerate(versions):
        for later in versions[at + 1 :]:
            assert one < later
            assert not later < one


@settings(deadline=None)
@given(
    st.sampled_from(sorted(ECOSYSTEMS)), st.text(max_size=12), st.text("0.-+~:_rcv", max_size=12)
)
def test_a_version_compares_or_is_refused(kind, one, other):
    for text in (one, other):
        try:
            made = Version(text, kind=kind)
            _ = made < Version("1.0", kind=kind), Version("1.0-1", kind=kind) < made
        except ValueError:
            continue


def test_what_is_unknown_or_not_understood_stays_open():
    purls = ["pkg:npm/lodash", "pkg:npm/lodash@latest", "pkg:npm/lodash@4.17.21"]
    occurrences, problems = match(components(*purls), osv(advisory(*FIXED)))
    told = {one.component: (one.state, one.reason) for one in occurrences}
    assert told == {
        purls[0]: ("under_investigation", "version unknown"),
        purls[1]: ("under_investigation", "version 'latest' not understood"),
    }
    (problem,) = problems
    assert problem.startswith("pkg:npm/lodash@latest: version 'latest' not understood; taken as")
    broken = advisory({"introduced": "0"}, {"fixed": "banana"})
    for row, words in (
        (broken, "ranges of the advisory not understood"),
        ({**broken, "ranges": "[[[["}, "ranges of the advisory not understood"),
        ({**broken, "ranges": '{"a": 1}'}, "ranges of the advisory not understood"),
        (advisory({"fixed": "9.0.0"}), "ranges of the advisory not understood"),
        (advisory({"introduced": "abc"}, kind="GIT"), "the advisory names commits only"),
        (advisory(), "no versions named"),
    ):
        assert found([LODASH], row) == {LODASH: ("under_investigation", words, "")}


def test_versions_that_are_listed_are_affected():
    row = advisory({"introduced": "1.0.0"}, {"fixed": "1.1.0"}, versions=["4.17.20", "v2.0.0"])
    assert set(found(["pkg:npm/lodash@2.0.0", LODASH, "pkg:npm/lodash@2.0.1"], row)) == {
        "pkg:npm/lodash@2.0.0", LODASH,
    }  # fmt: skip
    same = advisory(
        {"introduced": "a"}, kind="GIT", package="x", ecosystem="PyPI", versions=["1.0"]
    )
    both = ["pkg:pypi/x@1.0.0", "pkg:pypi/x@1.0"]
    assert set(found([*both, "pkg:pypi/x@1.0.1", "pkg:pypi/x@10"], same)) == set(both)
    only_commits = advisory({"introduced": "a"}, kind="GIT", versions=["4.17.20"])
    assert set(found([LODASH, "pkg:npm/lodash@1.0.0"], only_commits)) == {LODASH}


@pytest.mark.parametrize(
    ("purl", "ecosystem", "package"),
    [
        ("pkg:npm/%40scope/name@1.0", "npm", "@scope/name"),
        ("pkg:npm/@scope/name@1.0", "npm", "@scope/name"),
        ("pkg:pypi/Ruamel_Yaml@1.0", "PyPI", "ruamel.yaml"),
        ("pkg:composer/Laravel/Framework@1.0", "Packagist", "laravel/framework"),
        ("pkg:maven/org.apache/log4j-core@1.0", "Maven", "org.apache:log4j-core"),
        ("pkg:golang/github.com/masterminds/semver@v1.0.0", "Go", "github.com/Masterminds/semver"),
        ("pkg:cargo/serde_json@1.0", "crates.io", "serde_json"),
        ("pkg:gem/rails@1.0", "RubyGems", "rails"),
        ("pkg:nuget/newtonsoft.json@1.0", "NuGet", "Newtonsoft.Json"),
        ("pkg:deb/debian/curl@1.0-1?distro=debian-11.6", "Debian:11", "curl"),
        ("pkg:deb/debian/libssl1.1@1.0-1?upstream=openssl&distro=bullseye", "Debian:11", "openssl"),
        ("pkg:deb/ubuntu/curl@1.0-1?distro=ubuntu-22.04", "Ubuntu:22.04:LTS", "curl"),
        ("pkg:apk/alpine/curl@1.0-r0?arch=x&distro=alpine-3.15.4", "Alpine:v3.15", "curl"),
    ],
)  # fmt: skip
def test_package_urls_find_the_names_of_each_ecosystem(purl, ecosystem, package):
    row = advisory({"introduced": "0"}, package=package, ecosystem=ecosystem, kind="ECOSYSTEM")
    assert [state for state, _, _ in found([purl], row).values()] == ["affected"]
    assert found([purl], {**row, "package": package + "x"}) == {}
    assert found([purl], {**row, "ecosystem": "Hackage"}) == {}


def test_releases_of_distributions_are_kept_apart():
    row = advisory({"introduced": "0"}, {"fixed": "2-1"}, package="curl", ecosystem="Debian:11")
    assert found(["pkg:deb/debian/curl@1-1?distro=debian-12"], row) == {}
    (told,) = found(["pkg:deb/debian/curl@1-1"], row).values()
    assert told == ("under_investigation", "release of the distribution unknown", "2-1")


def test_two_advisories_on_one_cve_are_one_occurrence():
    rows = [
        advisory(*FIXED), advisory(*FIXED, name="NPM-7"),
        advisory(*FIXED, name="GHSA-2", aliases=("GHSA-3",)),
        advisory(*FIXED, name="DEBIAN-CVE-2024-1234", aliases=()),
        advisory(*FIXED, name="GHSA-4", aliases=("CVE-2020-0002", "CVE-2020-0001")),
    ]  # fmt: skip
    occurrences, problems = match(components(LODASH), osv(*rows))
    assert {one.subject for one in occurrences} == {
        CVE, "GHSA-2", "CVE-2024-1234", "CVE-2020-0001", "CVE-2020-0002",
    }  # fmt: skip
    (one,) = [one for one in occurrences if one.subject == CVE]
    assert (one.fixed_in, one.source) == ("4.17.21", "sbom; OSV GHSA-1; OSV NPM-7")
    assert problems == []


def test_go_itself_is_compared_however_its_version_is_written():
    row = advisory({"introduced": "0"}, {"fixed": "1.21.5"}, package="stdlib", ecosystem="Go")
    purls = ["pkg:golang/stdlib@go1.21.0", "pkg:golang/stdlib@1.21.5", "pkg:golang/stdlib@1.20"]
    assert [state for state, _, _ in found(purls, row).values()] == ["affected", "affected"]


def test_packages_without_an_advisory_are_not_called_safe():
    purls = [LODASH, "pkg:npm/other@1.0", "pkg:pypi/lodash@1.0"]
    occurrences, (problem,) = match(components(*purls), osv(advisory(*FIXED)))
    assert len(occurrences) == 1
    assert problem.startswith("2 components of packages that the snapshot was not asked about")
    assert "workbench risk sync" in problem
    asked = frozenset({"npm/other", "pypi/lodash"})  # then silence is an answer
    assert match(components(*purls), osv(advisory(*FIXED)), asked=asked) == (occurrences, [])


def test_types_without_advisories_are_named():
    purls = ["pkg:rpm/redhat/curl@1", "pkg:rpm/redhat/wget@1", "pkg:deb/mint/curl@1", "", "odd"]
    occurrences, problems = match(components(*purls), osv(advisory(*FIXED)))
    assert occurrences == []
    assert [one.partition(" were")[0] for one in problems] == [
        "1 components of type 'deb'", "2 components of type 'rpm'",
    ]  # fmt: skip


def states(intake):
    return {(one.subject, one.asset, one.component): one.state for one in intake.occurrences}


def read(folder, *documents):
    return read_all([written(folder, f"f{n}", one) for n, one in enumerate(documents)])


REACT = "pkg:npm/react@1.0.0"
TWO = (advisory(*FIXED), advisory(*FIXED, package="react"))


@pytest.mark.parametrize(
    ("vex", "want"),
    [
        (openvex((CVE, LODASH, "fixed")), {LODASH: "fixed", REACT: "affected"}),
        (openvex((CVE, "pkg:npm/lodash", "fixed")), {LODASH: "fixed", REACT: "affected"}),
        (openvex((CVE, "shop", "not_affected")), {LODASH: "not_affected", REACT: "not_affected"}),
        (openvex(("GHSA-1", LODASH, "fixed")), {LODASH: "fixed", REACT: "affected"}),
        (openvex((CVE, "shop", "not_affected"), (CVE, REACT, "affected")),
         {LODASH: "not_affected", REACT: "affected"}),
        (openvex((CVE, "pkg:npm/lodash@1", "fixed")), {LODASH: "affected", REACT: "affected"}),
        (f"{CVE}\n", {LODASH: "affected", REACT: "affected"}),
    ],
)  # fmt: skip
def test_vex_closes_what_is_only_found_by_matching(tmp_path, vex, want):
    for documents in ((cyclonedx(LODASH, REACT), vex), (vex, cyclonedx(LODASH, REACT))):
        told = states(matched(read(tmp_path, *documents), osv(*TWO)))
        assert {key[2]: state for key, state in told.items() if key[1] == "shop"} == want


def test_several_versions_of_a_component_are_one_risk_as_open_as_the_worst(tmp_path):
    versions = [f"pkg:npm/lodash@{one}" for one in ("1.0.0", "2.0.0", "3.0.0", "5.0.0")]
    vex = openvex((CVE, versions[0], "not_affected"))
    intake = matched(read(tmp_path, cyclonedx(*versions), vex), osv(advisory(*FIXED)))
    (one,) = [one for one in intake.occurrences if one.asset == "shop"]
    assert (one.component, one.state, one.reason) == (versions[1], "affected", "also found: 3.0.0")
    assert len({one.id for one in intake.occurrences}) == len(intake.occurrences)


def test_an_entry_for_the_whole_asset_stays_while_it_is_more_open(tmp_path):
    lines = f"cve,asset\n{CVE},shop\nCVE-2020-0001,shop\n"
    vex = openvex((CVE, LODASH, "fixed"))
    told = states(matched(read(tmp_path, cyclonedx(LODASH), lines, vex), osv(advisory(*FIXED))))
    assert told == {
        (CVE, "shop", ""): "affected", (CVE, "shop", LODASH): "fixed",
        ("CVE-2020-0001", "shop", ""): "affected",
    }  # fmt: skip


def test_without_advisories_components_are_said_to_be_unchecked(tmp_path):
    sbom = cyclonedx(LODASH, vulnerabilities=[vulnerability(CVE, "r0")])
    for table in (None, osv()):
        intake = matched(read(tmp_path, sbom), table)
        assert states(intake) == {(CVE, "shop", LODASH): "affected"}
        assert "1 components were not compared" in intake.problems[-1]


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_rows_does_not_matter(order):
    purls = ["pkg:npm/a@1", "pkg:npm/a@2", "pkg:npm/b", "pkg:npm/b@1", "pkg:npm/b@x", "pkg:npm/c@1"]
    rows = [
        advisory(
            {"introduced": "0"}, {"fixed": f"{n % 3}.5"}, package="abc"[n % 3], name=f"GHSA-{n}"
        )
        for n in range(6)
    ]  # fmt: skip

    def told(at):
        occurrences, _ = match(
            components(*(purls[n] for n in at)), osv(*(rows[n] for n in reversed(at)))
        )
        return {(one.subject, one.component, one.state) for one in occurrences}

    assert told(list(order)) == told(range(6))


def test_a_hundred_thousand_components_take_seconds():
    purls = [f"pkg:npm/package-{n % 5_000}@1.{n // 5_000}.3" for n in range(100_000)]
    rows = [
        advisory({"introduced": "0"}, {"fixed": "1.10.0"}, package=f"package-{n}", name=f"GHSA-{n}",
                 aliases=[f"CVE-2021-{n + 10_000}"])
        for n in range(5_000)
    ]  # fmt: skip
    began = time.process_time()
    occurrences, _ = match(components(*purls), osv(*rows))
    assert len(occurrences) == 50_000
    assert time.process_time() - began < 6  # 0.8 s; machines differ


def test_real_boms_are_matched():
    intake = read_all([shared(f"risk/sbom/{name}") for name in
                       ("juice-shop-11.1.2.cdx.json", "laravel-7.12.0.cdx14.json")])  # fmt: skip
    rows = [
        advisory(*FIXED),
        advisory({"introduced": "7.0.0"}, {"fixed": "7.30.7"}, package="laravel/framework",
                 ecosystem="Packagist", name="GHSA-9", aliases=["CVE-2021-21263"]),
    ]  # fmt: skip
    found = matched(intake, osv(*rows)).occurrences
    assert {(one.subject, one.asset) for one in found} == {
        (CVE, "juice-shop"), ("CVE-2021-21263", "cyclonedx-php-composer-demo"),
    }  # fmt: skip
