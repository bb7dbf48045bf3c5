"""What every source keeps, whoever it asks."""

from __future__ import annotations

import ast
import asyncio
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

import workbench.risk.sources
from risk_server import CVES, Clock, RiskServer
from workbench.core.errors import ConfigError, DataError
from workbench.core.settings import read_settings
from workbench.risk.sources.base import SOURCES, Fetched
from workbench.risk.sources.web import Web
from workbench.risk.sync import DEFAULT_SOURCES, plan
from workbench.risk.tables import SCHEMAS, conform

NAMES = (
    "atlas", "attack", "cve_records", "epss", "kev", "nvd", "osv", "owasp_llm", "servicenow",
)  # fmt: skip
ASKED = tuple(name for name in NAMES if name != "owasp_llm")
IDS = {"cves": CVES[:2], "purls": ("pkg:pypi/demo@1.0", "pkg:pypi/other@2"), "all": ()}
KEYS = {"SERVICENOW_TOKEN": "snow-secret", "NVD_API_KEYS": "nvd-secret"}
FOLDER = Path(workbench.risk.sources.__file__).parent


def ask(name, tmp_path, *faults, offline="1", base_url="", timeout_s=5.0, most_bytes=0):
    """Return what a source gives when its publisher misbehaves so, and the server."""
    plan(sources=[name])  # registers
    settings = read_settings({"WORKBENCH_HOME": str(tmp_path), "WORKBENCH_OFFLINE": offline})

    async def work():
        async with RiskServer().serve() as server:
            server.fail(name, *faults)
            timing = Clock().timing
            async with Web(
                settings, environment=KEYS, timing=timing, timeout_s=timeout_s, attempts=3
            ) as web:
                url = base_url or server.base_urls.get(name, "")
                source = SOURCES.get(name)(web, base_url=url)
                if most_bytes:
                    source.service = replace(source.service, most_bytes=most_bytes)
                try:
                    return await source.fetch(IDS[source.asks]), server
                except (DataError, ConfigError) as error:
                    return error, server

    return asyncio.run(work())


def test_all_are_registered():
    plan()
    assert set(NAMES) == set(SOURCES.names())
    assert set(DEFAULT_SOURCES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_fills_its_table(name, tmp_path):
    found, _ = ask(name, tmp_path)
    assert isinstance(found, Fetched)
    assert (found.source, found.error) == (name, "")
    assert found.table.num_rows > 0
    assert len(found.as_of) == 10
    table = SOURCES.get(name)(None).table
    if table in SCHEMAS:
        if "as_of" not in found.table.column_names:
            dates = pa.array([found.as_of] * found.table.num_rows)
            found = found.table.append_column("as_of", dates)
        else:
            found = found.table
        assert conform(found, table, where="x", fix="y").num_rows == found.num_rows


@pytest.mark.parametrize("name", NAMES)
def test_a_source_says_how_long_it_holds_and_what_it_takes(name):
    plan(sources=[name])
    source = SOURCES.get(name)(None)
    assert source.name == name
    assert source.ttl_s == source.service.ttl_s >= 0
    assert source.requests(1_000) >= source.requests(1) >= 0


WORDS = {
    "html*": "answers text/html", "off_host*": "redirects to https://evil.example/x, which",
    "bomb*": "unpacks to more than 1,048,576 bytes", "500*": "HTTP 500", "403*": "HTTP 403",
    "drop*": "connection failed", "no_host*": "redirects to what is no address",
}  # fmt: skip


@pytest.mark.parametrize("fault", WORDS)
@pytest.mark.parametrize("name", ASKED)
def test_a_fault_is_named_without_keys(name, fault, tmp_path):
    error, server = ask(name, tmp_path, fault, most_bytes=1 << 20)
    assert isinstance(error, DataError)
    text = str(error)
    assert text.startswith(f"source {name}: ")
    assert WORDS[fault] in text
    assert "secret" not in text
    assert "\n" not in text
    assert len(server.requests(name)) >= (3 if fault in {"500*", "403*", "drop*"} else 1)


@pytest.mark.parametrize("fault", ["403", "429", "500", "drop", "same_host"])
@pytest.mark.parametrize("name", ASKED)
def test_what_passes_is_tried_again(name, fault, tmp_path):
    found, _ = ask(name, tmp_path, fault)
    assert isinstance(found, Fetched), found
    assert found.error == ""
    assert found.table.num_rows > 0


@pytest.mark.parametrize("fault", ["half*", "renamed*", "listed*"])
@pytest.mark.parametrize("name", ["cve_records", "nvd", "kev", "epss", "osv", "servicenow"])
def test_a_change_of_shape_is_named(name, fault, tmp_path):
    error, _ = ask(name, tmp_path, fault)
    assert isinstance(error, DataError)
    assert str(error).startswith(f"source {name}: ")
    assert "upgrade prompt-safety-workbench" in str(error)


def test_garbage_is_cut_off(tmp_path):
    error, _ = ask("cve_records", tmp_path, "garbage*")
    assert "answers more than 8,388,608 bytes" in str(error)


def test_a_slow_answer_is_not_awaited(tmp_path):
    error, _ = ask("kev", tmp_path, "slow*", timeout_s=0.2)
    assert "no whole answer in 0.2 s in 3 attempts" in str(error)


def test_a_wait_beyond_measure_is_left_to_people(tmp_path):
    error, server = ask("kev", tmp_path, "429_long*")
    assert "it asks to wait 86,400 s, sync again after that" in str(error)
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", [one for one in ASKED if one != "servicenow"])
def test_offline_opens_no_socket_and_says_how(name, tmp_path):
    error, server = ask(name, tmp_path, base_url="https://feeds.example")
    assert isinstance(error, ConfigError)
    assert "WORKBENCH_OFFLINE=0" in str(error)
    assert "snapshot work offline" in str(error)
    assert server.seen == []


@pytest.mark.parametrize(
    "url",
    [
        "http://feeds.example/x",
        "https://me:pw@feeds.example",
        "https://a.example?key=s3cr",
        "x",
        "https://[s3cr",
    ],
)
def test_an_address_that_would_leak_is_refused(url, tmp_path):
    error, _ = ask("kev", tmp_path, base_url=url, offline="0")
    assert isinstance(error, ConfigError)
    assert "pw" not in str(error)
    assert "s3cr" not in str(error)


def test_keys_travel_in_headers_only(tmp_path):
    for name, header, value in (
        ("nvd", "apikey", "nvd-secret"), ("servicenow", "authorization", "Bearer snow-secret"),
    ):  # fmt: skip
        _, server = ask(name, tmp_path)
        _, path, headers, _ = server.seen[0]
        assert headers[header] == value
        assert "secret" not in path
    kept = b"".join(path.read_bytes() for path in (tmp_path / "risk").iterdir())
    assert b"nvd-secret" not in kept
    assert b"snow-secret" not in kept


@pytest.mark.parametrize("name", ["nvd", "servicenow"])
def test_a_key_that_comes_back_is_not_shown(name, tmp_path):
    error, _ = ask(name, tmp_path, "echo*")
    assert isinstance(error, DataError)
    assert "secret" not in str(error)
    assert "[key]" in str(error)


def test_only_the_client_opens_connections():
    importers = [
        path.name
        for path in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any("aiohttp" in (one.name, getattr(node, "module", "")) for one in node.names)
    ]
    assert set(importers) == {"web.py"}
