"""What publishers say becomes rows, or one error that names source and field."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
import re

import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risk_server import (
    ATLAS,
    CAPEC,
    CVES,
    ENTERPRISE,
    EPSS_CSV,
    KEV,
    V31,
    V40,
    adp,
    asset,
    cve_record,
    epss_answer,
    nvd_page,
    osv_advisory,
    ssvc,
)
from shared_data import shared
from workbench.core.errors import DataError
from workbench.risk.cvss import cvss_score
from workbench.risk.sources.atlas import parse_atlas
from workbench.risk.sources.attack import parse_capec, parse_techniques
from workbench.risk.sources.base import batches, unpacked
from workbench.risk.sources.cve_records import cve_row, parse_cve_record
from workbench.risk.sources.cve_rows import best_vector, is_complete, merge
from workbench.risk.sources.epss import parse_epss, parse_epss_csv
from workbench.risk.sources.kev import kev_catalog, parse_kev
from workbench.risk.sources.nvd import nvd_rows, parse_nvd
from workbench.risk.sources.osv import osv_page, package_of, parse_osv
from workbench.risk.sources.servicenow import parse_assets
from workbench.risk.tables import REJECTED
from workbench.risk.taxonomy import owasp_llm

V30 = V31.replace("3.1", "3.0")
V2 = "AV:N/AC:L/Au:N/C:P/I:P/A:P"
REJECTED_RECORD = {
    "cveMetadata": {"cveId": CVES[0], "state": "REJECTED"},
    "containers": {"cna": {"rejectedReasons": [{"lang": "en", "value": "Not a flaw."}]}},
}
PARSERS = {
    "cve_records": (parse_cve_record, cve_record()),
    "cve_records rejected": (parse_cve_record, REJECTED_RECORD),
    "nvd": (parse_nvd, nvd_page(*CVES)),
    "kev": (parse_kev, KEV),
    "epss": (parse_epss, epss_answer(*CVES)),
    "osv": (parse_osv, osv_advisory()),
    "osv page": (
        lambda data: osv_page(data, count=1),
        {"results": [{"vulns": [{"id": "GHSA-1", "modified": "x"}], "next_page_token": "a"}]},
    ),
    "attack": (parse_capec, CAPEC),
    "attack techniques": (parse_techniques, ENTERPRISE),
    "servicenow": (parse_assets, {"result": [asset(1)]}),
}


def dumped(payload):
    return json.dumps(payload).encode()


def error_of(parse, data):
    """Return how a parser refuses, or ``rows`` where it does not."""
    try:
        parse(data)
    except DataError as error:
        return str(error)
    return "rows"


def only(table):
    assert table.num_rows == 1
    return table.to_pylist()[0]


def paths_of(value, path=()):
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from paths_of(below, (*path, key))


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        ["\ud800", "CVE-2024-0", "9" * 5000, "2024-13-45", "\x00", "CVSS:3.1/", "T1", "CWE-79",
         "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:", "NaN", "1e400"]
    ),
    st.sampled_from([[], {}, [[]], [{}], {"a": {}}, [None], ["a"], [1]]),
)  # fmt: skip


@st.composite
def mutants(draw, payload):
    """Draw a payload with a few values replaced, dropped, renamed or doubled."""
    payload = copy.deepcopy(payload)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_of(payload))))
        if not path:
            payload = copy.deepcopy(draw(JUNK)) if draw(st.integers(0, 9)) == 0 else payload
            continue
        *way, key = path
        parent = payload
        for step in way:
            parent = parent[step]
        action = draw(st.sampled_from(["replace", "replace", "drop", "rename", "wrap"]))
        if action == "replace":
            parent[key] = copy.deepcopy(draw(JUNK))
        elif action == "wrap":
            parent[key] = [parent[key]]
        else:
            value = parent.pop(key)
            if action == "rename" and isinstance(parent, dict):
                parent[f"new_{key}"] = value
    return payload


@pytest.mark.parametrize("name", PARSERS)
@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_an_answer_gives_rows_or_a_named_error(name, data):
    parse, payload = PARSERS[name]
    mutant = data.draw(mutants(payload))
    error = error_of(parse, dumped(mutant))
    assert error.startswith((f"source {name.split()[0]}: ", "rows"))
    assert "\n" not in error
    assert len(error) < 500


@pytest.mark.parametrize(
    "parse", [one for one, _ in PARSERS.values()] + [parse_epss_csv, parse_atlas]
)
@settings(deadline=None)
@given(data=st.data())
def test_bytes_of_any_kind_give_rows_or_an_error(parse, data):
    whole = data.draw(st.sampled_from(
        [dumped(KEV), dumped(cve_record()), EPSS_CSV.encode(), ATLAS.encode(),
         gzip.compress(EPSS_CSV.encode())]
    ))  # fmt: skip
    at = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=20))
    end = data.draw(st.sampled_from([at, min(at + 5, len(whole)), len(whole)]))
    assert error_of(parse, whole[:at] + noise + whole[end:]).startswith(("source ", "rows"))


@pytest.mark.parametrize(
    ("name", "path", "field"),
    [
        ("kev", ("vulnerabilities", 0, "cveID"), r"vulnerabilities\[0\]\.cveID"),
        ("kev", ("vulnerabilities", 1, "dateAdded"), r"vulnerabilities\[1\]\.dateAdded"),
        ("kev", ("vulnerabilities",), "vulnerabilities"),
        ("cve_records", ("cveMetadata", "cveId"), "cveMetadata.cveId"),
        ("cve_records", ("containers", "cna"), "containers.cna"),
        ("nvd", ("totalResults",), "totalResults"),
        ("nvd", ("vulnerabilities", 0, "cve", "id"), r"vulnerabilities\[0\]\.cve\.id"),
        ("epss", ("data", 2, "epss"), r"data\[2\]\.epss"),
        ("osv", ("affected", 0, "package", "name"), r"affected\[0\]\.package\.name"),
        ("servicenow", ("result", 0, "sys_id"), r"result\[0\]\.sys_id"),
        ("attack", ("objects",), "objects"),
    ],
)
def test_a_renamed_field_is_named(name, path, field):
    parse, payload = PARSERS[name]
    payload = copy.deepcopy(payload)
    parent = payload
    for step in path[:-1]:
        parent = parent[step]
    parent["renamed"] = parent.pop(path[-1])
    with pytest.raises(DataError, match=f"^source {name}: {field} is missing"):
        parse(dumped(payload))


def test_a_list_where_an_object_was_is_named():
    payload = cve_record()
    payload["containers"] = [payload["containers"]]
    with pytest.raises(DataError, match="containers is list, not an object"):
        parse_cve_record(dumped(payload))


@pytest.mark.parametrize("name", PARSERS)
def test_deep_nesting_is_an_error(name):
    with pytest.raises(DataError, match=f"source {name.split()[0]}: .*nested too deep"):
        PARSERS[name][0](b"[" * 200_000)


# CVE records


def test_a_record_is_read_whole():
    row = only(parse_cve_record(dumped(cve_record())))
    assert row == {
        "cve": CVES[0], "published": "2024-07-01", "modified": "2024-08-02",
        "title": "Overflow in Example", "description": "A flaw in Example.",
        "cvss_vector": V31, "cvss_version": "3.1", "cvss_source": "cna", "cwes": ["CWE-787"],
        "vendor": "Example", "product": "Server", "exploitation": "poc", "automatable": "yes",
        "technical_impact": "total", "ssvc_as_of": "2024-08-01", "as_of": None,
    }  # fmt: skip


def test_cisas_container_fills_what_the_cna_leaves_open():
    metric = {"cvssV3_1": {"vectorString": V31}}
    record = cve_record(metrics=[], cwe="", adps=[adp(name="other", cwe="CWE-1"), adp(metric)])
    row = only(parse_cve_record(dumped(record)))
    assert (row["cvss_vector"], row["cvss_source"], row["cwes"]) == (V31, "adp", ["CWE-79"])
    assert row["exploitation"] is None


def test_only_cisa_is_believed_about_ssvc():
    record = cve_record(adps=[adp(ssvc("active"), name="somebody")])
    assert only(parse_cve_record(dumped(record)))["exploitation"] is None


def test_an_unknown_value_of_a_decision_point_is_missing():
    record = cve_record(adps=[adp(ssvc("rampant"))])
    row = only(parse_cve_record(dumped(record)))
    assert (row["exploitation"], row["automatable"]) == (None, "yes")


def test_a_rejected_record_says_so():
    row = only(parse_cve_record(dumped(REJECTED_RECORD)))
    assert (row["title"], row["description"]) == (REJECTED, "Not a flaw.")
    assert row["cvss_vector"] is None
    assert is_complete(row)


def test_another_record_than_asked_for_is_refused():
    with pytest.raises(DataError, match=r"cveMetadata\.cveId"):
        cve_row(dumped(cve_record()), cve=CVES[1])


VECTORS = {"3.1": V31, "3.0": V30, "4.0": V40, "2.0": V2}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cna", "adp", "nvd"]),
            st.sampled_from([*VECTORS.values(), V31 + "X", "", "CVSS:9.9/A:B", "AV:N"]),
        )
    )
)
def test_the_best_version_counts_and_a_wrong_vector_never(candidates):
    found = best_vector(candidates)
    valid = [one for one in candidates if one[1] in VECTORS.values()]
    if not valid:
        assert set(found.values()) == {None}
        return
    cvss_score(found["cvss_vector"])
    best = next(v for v in ("3.1", "3.0", "4.0", "2.0") if VECTORS[v] in [x for _, x in valid])
    first = next(origin for origin, vector in valid if vector == VECTORS[best])
    assert found == {
        "cvss_vector": VECTORS[best], "cvss_version": best, "cvss_source": first,
    }  # fmt: skip


def row_of(**fields):
    record = cve_record(metrics=[], cwe="", adps=[])
    record["containers"]["cna"]["affected"] = []
    return {**cve_row(dumped(record)), "as_of": "2024-08-05", **fields}


def test_nvd_completes_a_record_and_overrules_nothing():
    nvd = nvd_rows(dumped(nvd_page(CVES[0])))[0][0]
    merged = merge(row_of(), nvd)
    assert merged["cvss_vector"] == V31
    assert merged["cvss_source"] == "nvd"
    assert merged["cwes"] == ["CWE-20"]
    assert (merged["vendor"], merged["product"]) == ("example", "server")
    assert merged["description"] == "A flaw in Example."
    given = {"cvss_vector": V30, "cvss_version": "3.0", "cvss_source": "cna", "cwes": ["CWE-1"]}
    assert merge(row_of(**given), {**nvd, "cvss_vector": None})["cvss_vector"] == V30
    assert merge(row_of(**given), nvd)["cwes"] == ["CWE-1"]


def test_a_comparable_version_goes_before_the_source():
    nvd = nvd_rows(dumped(nvd_page(CVES[0])))[0][0]
    given = {"cvss_vector": V40, "cvss_version": "4.0", "cvss_source": "cna"}
    assert merge(row_of(**given), nvd)["cvss_source"] == "nvd"


# NVD


def test_nvds_own_vector_goes_before_the_one_it_repeats():
    page = nvd_page(CVES[0])
    metrics = page["vulnerabilities"][0]["cve"]["metrics"]["cvssMetricV31"]
    other = V31.replace("/A:H", "/A:N")
    metrics.insert(0, {"source": "x@cna", "type": "Secondary", "cvssData": {"vectorString": other}})
    assert only(parse_nvd(dumped(page)))["cvss_vector"] == V31
    del metrics[1]
    assert only(parse_nvd(dumped(page)))["cvss_source"] == "cna"


# KEV


def test_json_and_csv_of_kev_say_the_same():
    lines = [",".join(KEV["vulnerabilities"][0])]
    for entry in KEV["vulnerabilities"]:
        cells = [", ".join(v) if isinstance(v, list) else v for v in entry.values()]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    table, released = kev_catalog(dumped(KEV))
    assert released == "2024-08-04"
    assert parse_kev("\r\n".join(lines).encode()).equals(table)
    assert table.to_pylist()[0] == {
        "cve": CVES[0], "added": "2024-07-10", "due": "2024-07-31", "ransomware": True,
    }  # fmt: skip


def test_an_empty_catalog_is_no_catalog():
    with pytest.raises(DataError, match="vulnerabilities is empty"):
        parse_kev(dumped({**KEV, "vulnerabilities": []}))


def test_half_a_catalog_is_no_catalog():
    whole = json.loads(dumped(KEV))
    kev_catalog(dumped(whole | {"count": len(whole["vulnerabilities"])}))
    told = error_of(kev_catalog, dumped(whole | {"count": 1_400}))
    assert "where count says otherwise" in told


def test_the_real_catalog_has_as_many_rows_as_its_sources_say():
    path = shared("risk/kev/kev_2025-08-25.csv")
    table = parse_kev(path.read_bytes())
    assert table.num_rows == 1404
    rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    known = sum(row["knownRansomwareCampaignUse"] == "Known" for row in rows)
    assert pc.sum(table["ransomware"]).as_py() == known > 100
    assert table["added"].to_pylist() == [row["dateAdded"] for row in rows]


# EPSS


def test_api_and_file_of_epss_give_the_same_columns():
    api = parse_epss(dumped(epss_answer(*CVES)))
    file = parse_epss_csv(EPSS_CSV.encode())
    assert api.schema == file.schema
    assert file.to_pylist()[1] == {
        "cve": "CVE-2024-1002", "epss": 0.00043, "percentile": 0.08, "as_of": "2024-08-04",
    }  # fmt: skip
    assert parse_epss_csv(gzip.compress(EPSS_CSV.encode())).equals(file)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("0.9,", "1.9,"), "epss"), (("0.9,", "nan,"), "epss"), (("0.9,", ","), "epss"),
        (("0.99", "-0.1"), "percentile"), (("CVE-2024-1001", "=cmd()"), "cve"),
        (("0.9,", "high,"), "answer"), (("epss,percentile", "score,rank"), "answer"),
    ],
)  # fmt: skip
def test_a_forecast_that_is_none_is_refused(change, field):
    with pytest.raises(DataError, match=rf"source epss: .*{field}"):
        parse_epss_csv(EPSS_CSV.replace(*change).encode())


def test_the_real_file_of_forecasts_has_as_many_rows_as_its_sources_say():
    table = parse_epss_csv(shared("risk/epss/epss_2024-10-27.csv.gz").read_bytes())
    assert table.num_rows == 263_619
    assert pc.max(table["epss"]).as_py() > 0.9


# OSV


def test_an_advisory_gives_a_row_per_package():
    row = only(parse_osv(dumped(osv_advisory())))
    events = [{"introduced": "0"}, {"fixed": "1.2"}]
    assert json.loads(row.pop("ranges")) == [{"type": "ECOSYSTEM", "events": events}]
    assert row == {
        "id": "GHSA-aaaa-bbbb-cccc", "aliases": [CVES[0]], "ecosystem": "PyPI", "package": "demo",
        "versions": ["1.0", "1.1"], "summary": "Flaw in demo", "severity": V31, "as_of": None,
    }  # fmt: skip


def test_a_withdrawn_advisory_gives_nothing():
    advisory = osv_advisory() | {"withdrawn": "2024-08-02T00:00:00Z"}
    assert parse_osv(dumped(advisory)).num_rows == 0


def test_packages_are_asked_about_without_version():
    assert package_of("pkg:pypi/Demo@1.0?x=y#z") == "pkg:pypi/demo"
    assert package_of("pkg:maven/org.a/b@1") == "pkg:maven/org.a/b"
    assert package_of("demo 1.0") == ""
    binary = "pkg:deb/debian/libssl1.1@1.1?arch=x&upstream=openssl%401.1.1&distro=debian-11"
    assert package_of(binary) == "pkg:deb/debian/openssl"  # advisories are for sources
    assert package_of("pkg:npm/a@1?upstream=b") == "pkg:npm/a"


# ATT&CK, CAPEC, ATLAS, OWASP


def test_weaknesses_lead_to_techniques_that_exist():
    techniques = parse_techniques(dumped(ENTERPRISE))
    assert techniques == {"T1574.010": "Hijack Flow"}
    rows = parse_capec(dumped(CAPEC), techniques=techniques).to_pylist()
    assert [(row["cwe"], row["capec"], row["technique"], row["name"]) for row in rows] == [
        ("CWE-276", "CAPEC-1", "T1574.010", "Hijack Flow"),
        ("CWE-79", "CAPEC-1", "T1574.010", "Hijack Flow"),
    ]


def test_the_real_patterns_are_joined_like_their_flat_file():
    text = shared("risk/attack/capec_cwe_attack.csv").read_text()
    flat = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(flat) == 615
    objects = []
    expected = set()
    for row in flat:
        cwes, attacks = (list(filter(None, row[name].split(";"))) for name in ("cwes", "attack"))
        said = [("capec", row["capec"]), *(("cwe", one) for one in cwes)]
        said += [("ATTACK", one) for one in attacks]
        references = [{"source_name": name, "external_id": one} for name, one in said]
        objects.append(
            {"type": "attack-pattern", "name": row["name"], "external_references": references}
        )
        expected |= {(cwe, row["capec"], one) for cwe in cwes for one in attacks}
    table = parse_capec(dumped({"objects": objects}))
    rows = zip(*(table[name].to_pylist() for name in ("cwe", "capec", "technique")), strict=True)
    assert set(rows) == expected
    assert len(expected) == table.num_rows > 200


def test_atlas_is_read_as_text_alone():
    rows = parse_atlas(ATLAS.encode()).to_pylist()
    assert rows[0] == {
        "id": "AML.T0000", "name": "Search", "tactics": ["AML.TA0002"], "attack": "T1596",
    }  # fmt: skip
    assert rows[1]["tactics"] == []


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x]\nb: *a", "[" * 100 + "]" * 100, "matrices: !!python/object:os.system x",
        "a: b: c", "\x00", "- 1",
    ],
)  # fmt: skip
def test_yaml_that_does_more_than_say_is_refused(text):
    with pytest.raises(DataError, match=r"^source atlas: "):
        parse_atlas(text.encode())


def test_the_real_atlas_has_as_many_techniques_as_its_sources_say():
    table = parse_atlas(shared("risk/atlas/ATLAS.yaml").read_bytes())
    assert table.num_rows == 170
    assert "" not in table["name"].to_pylist()


def test_owasps_names_are_those_of_the_list():
    folder = shared("risk/owasp_llm/LLM01_PromptInjection.md").parent
    heads = [path.read_text().split("\n", 1)[0] for path in sorted(folder.glob("LLM[01][0-9]_*"))]
    found = [re.match(r"## (LLM\d\d:2025) (.+)", head) for head in heads]
    assert {one[1]: one[2].strip() for one in found if one} == dict(owasp_llm())


# base


@settings(deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=9)), st.integers(1, 4), st.integers(10, 30))
def test_batches_keep_order_and_bounds(items, most, most_chars):
    found = batches(items, most=most, most_chars=most_chars)
    assert [one for batch in found for one in batch] == items
    assert all(len(batch) <= most and len(",".join(batch)) <= most_chars for batch in found)


def test_a_bomb_is_not_unpacked():
    with pytest.raises(DataError, match="unpacks to more than 1,000 bytes"):
        unpacked(gzip.compress(b"0" * 10_000_000), source="x", most_bytes=1_000)
