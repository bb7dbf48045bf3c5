"""What is written about targets, and which addresses may be attacked."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from workbench.campaign.targets.address import checked_address
from workbench.campaign.targets.base import PassThrough
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.http import HttpTarget
from workbench.campaign.targets.pacing import TargetError
from workbench.campaign.targets.spec import open_targets, parse_target, services_of
from workbench.campaign.targets.template import Asked, Template, answer_in
from workbench.core.errors import ConfigError
from workbench.core.settings import read_settings, read_variable
from workbench.llm.config import GatewayConfig, Savings

FILE = """
type: http
name: shop assistant
url: https://shop.example/chat
staging: true
headers: {Authorization: "Bearer ${env:SHOP_KEY}", X-Tenant: "7"}
body: {model: small, messages: "{{messages}}"}
response_path: choices.0.message.content
usd_per_call: 0.002
parallel: 4
quiet: 09:00-17:00 Europe/Berlin
block_status: [403]
"""


def write(tmp_path, text):
    path = tmp_path / "target.yaml"
    path.write_text(text)
    return path


# -- lines and files


def test_lines_say_targets():
    assert parse_target("bare").type == "bare"
    assert parse_target("sanitizer").gain == 1.0
    assert parse_target("sanitizer@4").gain == 4.0
    guarded = parse_target("guarded@2.5:anthropic:claude-haiku-5-5")
    assert (guarded.type, guarded.gain, guarded.target.model) == (
        "guarded",
        2.5,
        "claude-haiku-5-5",
    )
    local = parse_target("openai:llama3@http://127.0.0.1:8000/v1")
    assert (local.provider, local.model, local.url) == (
        "openai", "llama3", "http://127.0.0.1:8000/v1",
    )  # fmt: skip
    assert parse_target("openai:org/m@v2").model == "org/m@v2"
    assert parse_target("http://localhost:1/a").type == "http"
    assert parse_target("wss://localhost:1/a").type == "websocket"
    assert parse_target("python:a.b:c").function == "a.b:c"
    assert parse_target("guarded:guarded@3:bare").target.target.type == "bare"


@pytest.mark.parametrize(
    "line",
    ["", "nonsense", "sanitizer@x", "sanitizer@-1", "sanitizer@nan", "guarded", "guarded@4",
     "bare@2", "guarded:nonsense", "sanitizer:bare", "anthropic:", "openai:@http://h", "python:", "ftp://h/",
     "guarded:" * 50 + "bare", "missing.yaml", "guarded:missing.yaml"],
)  # fmt: skip
def test_other_lines_are_refused(line):
    with pytest.raises(ConfigError) as caught:
        parse_target(line)
    assert "\n" not in str(caught.value)


def test_files_say_every_field(tmp_path):
    spec = parse_target(write(tmp_path, FILE))
    assert spec.usd_per_call == Decimal("0.002")
    assert spec.block_status == (403,)
    assert spec.variables == ["SHOP_KEY"]
    assert parse_target(str(tmp_path / "target.yaml")) == spec
    guarded = parse_target(f"guarded@4:{tmp_path / 'target.yaml'}")
    assert guarded.target == spec
    nested = parse_target(write(tmp_path, "type: guarded\ntarget: {type: model, model: m}\n"))
    assert nested.target.model == "m"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ulr": "x"}, "did you mean 'url'"),
        ({"type": "htpp"}, "did you mean 'http'"),
        ({"gain": 4}, "unknown field 'gain'"),
        ({"url": ""}, "needs url"),
        ({"url": 5}, "one line of text"),
        ({"url": "http://localhost/{{prompt}}"}, "only after"),
        ({"url": "http://localhost/?\u00e9={{prompt}}"}, "only after"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"parallel": 2.5}, "whole number"),
        ({"staging": "yes"}, "true or false"),
        ({"format": "xml"}, "format is 'xml'"),
        ({"method": "DELETE"}, "method is 'DELETE'"),
        ({"quiet": "9 to 5"}, "IANA time zone"),
        ({"usd_per_call": -1}, "dollars >= 0"),
        ({"usd_per_call": "dear"}, "amount of dollars"),
        ({"block_status": 403}, "write a list"),
        ({"block_status": [200]}, "400 to 599"),
        ({"response_path": "a..b"}, "empty step"),
        ({"headers": {"Authorization": "Bearer abc-literal"}}, "looks like a secret"),
        ({"headers": {"X-Api-Key": "abc-literal"}}, "looks like a secret"),
        ({"headers": {"A b": "x"}}, "no name of a header"),
        ({"headers": {"X": "a\r\nEvil: 1"}}, "one line"),
        ({"headers": ["a"]}, "no mapping"),
        ({"headers": {"X-Id": "{{conversation}}"}}, "holds a placeholder"),
        ({"done": {"a": 1}}, "unknown field 'done'"),
        ({"name": "x" * 101}, "at most 100"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, change, match):
    content = {**yaml.safe_load(FILE), **change}
    with pytest.raises(ConfigError, match=match) as caught:
        parse_target(write(tmp_path, yaml.safe_dump(content)))
    assert "abc-literal" not in str(caught.value)
    assert "target.yaml" in str(caught.value)


@pytest.mark.parametrize("name", ["prompt", "messages", "conversation"])
def test_addresses_of_websockets_say_nothing(name):
    with pytest.raises(ConfigError, match="holds a placeholder"):
        parse_target(f"ws://localhost:1/ask?q={{{{{name}}}}}")


@pytest.mark.parametrize(
    "text",
    ["[1", "- a", "a: b: c", "\x00", "&a [*a]", "x" * 1_000_001, "url: &a [*a]",
     "type: guarded\ntarget: &a {type: guarded, target: *a}"],
)  # fmt: skip
def test_files_that_are_no_mapping_are_refused(tmp_path, text):
    with pytest.raises(ConfigError, match=r"target\.yaml"):
        parse_target(write(tmp_path, text))


# -- templates


def template(body, **fields):
    return Template(body, **{"format": "json", "where": "t", **fields})


@pytest.mark.parametrize(
    ("body", "fields", "match"),
    [
        ('{"messages": {{messages}}}', {}, "no JSON"),
        ({"a": "{{promt}}"}, {}, "did you mean 'prompt'"),
        ({"a": "b"}, {}, "nothing of the prompt"),
        ({"a": float("nan"), "b": "{{prompt}}"}, {}, "no JSON"),
        (["{{prompt}}"], {"format": "form"}, "mapping"),
        ({"a": "{{prompt}}"}, {"format": "text"}, "is a text"),
        ([["{{prompt}}"] * 200] * 200, {}, "too large"),
    ],
)
def test_templates_that_cannot_work_are_refused(body, fields, match):
    with pytest.raises(ConfigError, match=match):
        template(body, **fields)


def test_aliases_that_multiply_are_refused():
    node = ["{{prompt}}"] * 9
    for _ in range(4):
        node = [node] * 9
    with pytest.raises(ConfigError, match="too large"):
        template(node)


def test_values_stand_alone_or_in_text():
    asked = Asked("say {{messages}}", [{"role": "user", "content": 'a"'}], "id-1")
    made = template({"a": "{{ messages }}", "b": "[{{prompt}}|{{conversation}}]", "c": 1})
    assert made.body(asked) == (
        b'{"a": [{"role": "user", "content": "a\\""}], "b": "[say {{messages}}|id-1]", "c": 1}'
    )
    assert template('{"a": "{{prompt}}"}').body(asked) == b'{"a": "say {{messages}}"}'


@pytest.mark.parametrize(
    ("text", "path", "answer"),
    [
        ('{"choices": [{"message": {"content": "hi"}}]}', None, "hi"),
        ('{"content": [{"type": "text", "text": "hi"}]}', None, "hi"),
        ('{"response": "hi"}', None, "hi"),
        ('[{"generated_text": "hi"}]', None, "hi"),
        ('"hi"', None, "hi"),
        ("plain words", None, "plain words"),
        ("<html>all", (), "<html>all"),
        ('{"a": [1, {"b": "x"}]}', ("a", "-1", "b"), "x"),
        ('{"a": 5}', ("a",), "5"),
    ],
)
def test_answers_are_found(text, path, answer):
    assert answer_in(text, path) == answer


@given(
    st.text() | st.from_regex(r"[\[{\"0-9a-e,:\]}<!]{0,40}"), st.sampled_from([None, ("a", "0")])
)
def test_any_text_is_an_answer_or_one_clear_failure(text, path):
    try:
        line = answer_in(text, path).replace("\n", "")
    except TargetError as error:
        line = str(error)
    assert "\n" not in line


# -- addresses


def check(url, *, hosts=(), staging=True, offline="0", schemes=("http", "https")):
    return checked_address(
        url, where="t", schemes=schemes, allow_hosts=hosts, staging=staging,
        settings=read_settings({"WORKBENCH_OFFLINE": offline}),
    )  # fmt: skip


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8/x", "http://localhost/x", "https://[::1]:9/", "http://127.9.9.9/",
     "http://LOCALHOST/"],
)  # fmt: skip
def test_this_machine_is_always_allowed(url):
    assert check(url, staging=False, offline="1")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://a.example/x", ["a.example"]),
        ("https://A.Example:8443/x", ["a.example"]),
        ("https://a.example:8443/", ["a.example:8443"]),
        ("https://a.example/", ["a.example:443"]),
        ("http://b\u00fccher.example/", ["xn--bcher-kva.example"]),
        ("http://xn--bcher-kva.example/", ["b\u00fccher.example"]),
        ("http://10.0.0.7/", ["10.0.0.7"]),
        ("http://[2001:db8::1]/", ["2001:DB8::1"]),
        ("http://[2001:db8::1]:80/", ["[2001:db8::1]:80"]),
        ("http://a.example./", ["a.example."]),
    ],
)
def test_named_hosts_are_allowed(url, hosts):
    assert check(url, hosts=hosts)
    with pytest.raises(ConfigError, match="staging"):
        check(url, hosts=hosts, staging=False)
    with pytest.raises(ConfigError, match="WORKBENCH_OFFLINE"):
        check(url, hosts=hosts, offline="1")


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/", "https://a.example.evil.com/", "https://evil-a.example/",
     "https://sub.a.example/", "https://a.example:444/", "http://a.example./", "http://127.1/",
     "http://2130706433/", "http://0x7f.1/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/",
     "http://localhost.evil.com/", "http://127.0.0.1.evil.com/", "http://localhost./",
     "http://169.254.169.254/latest/", "https://\u0430.example/", "http://evil.example#@a.example/",
     "http://evil.example?@a.example/"],
)  # fmt: skip
def test_other_hosts_are_refused_by_name(url):
    with pytest.raises(ConfigError, match="--allow-host"):
        check(url, hosts=["a.example:443"])


@pytest.mark.parametrize(
    "url",
    ["http://user:pw@127.0.0.1/", "http://pw@127.0.0.1/", "http://a.example\\@127.0.0.1/",
     "http://127.0.0.1 .evil.com/", "http://127.0.0.1\t.evil.com/", "http://127.0.0.1\n/",
     "http:///x", "http://", "http://[::1/", "http://h:99999/", "http://a..b/", "http://a%2eb/",
     "http://%6cocalhost/", "file:///etc/passwd", "gopher://127.0.0.1/", "127.0.0.1:80", "//h/",
     "http://[fe80::1%25lo]/x y"],
)  # fmt: skip
def test_what_is_no_plain_address_is_refused(url):
    with pytest.raises(ConfigError) as caught:
        check(url, hosts=["a.example"])
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["http://a.example", "a.example/x", "*", "u@h", "", "a b", "*.com"]
)
def test_hosts_to_allow_are_hosts(host):
    with pytest.raises(ConfigError, match="allow-host"):
        check("https://a.example/", hosts=[host])


# -- opening


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path, store, monkeypatch):
    spec = parse_target(write(tmp_path, FILE))
    store = replace(store, settings=replace(store.settings, offline=False))
    with pytest.raises(ConfigError, match="SHOP_KEY is not set"):
        open_targets([spec], store=store, config=GatewayConfig(), allow_hosts=["shop.example"])
    monkeypatch.setenv("SHOP_KEY", "very-secret")
    (target,) = open_targets(
        [spec], store=store, config=GatewayConfig(), allow_hosts=["shop.example"]
    )
    assert isinstance(target, HttpTarget)
    assert (target.name, target.parallel) == ("shop assistant", 4)
    shown = " ".join(map(repr, (target, vars(target), vars(target._wire), spec)))
    assert "very-secret" not in shown + target.identity + target.name
    monkeypatch.setenv("SHOP_KEY", "another")
    (again,) = open_targets(
        [spec], store=store, config=GatewayConfig(), allow_hosts=["shop.example"]
    )
    assert again.identity == target.identity


@pytest.mark.parametrize("value", ["", "a\nb", "caf\u00e9"])
def test_variables_that_no_header_may_hold_are_refused(value):
    with pytest.raises(ConfigError, match="SHOP_KEY") as caught:
        read_variable("SHOP_KEY", {"SHOP_KEY": value})
    assert not value or value not in str(caught.value)
    assert read_variable("A", {"A": "x y"}).reveal() == "x y"


def test_opening_says_what_is_missing(store):
    with pytest.raises(ConfigError, match="trained sanitizer"):
        open_targets([parse_target("sanitizer@4")], store=store, config=GatewayConfig())
    with pytest.raises(ConfigError, match="gateway to anthropic"):
        open_targets([parse_target("anthropic:m")], store=store, config=GatewayConfig())
    with pytest.raises(ConfigError, match="--allow-host"):
        open_targets(
            [parse_target("openai:m@https://api.example/v1")], store=store, config=GatewayConfig()
        )
    with pytest.raises(ConfigError, match=r"--allow-host evil\.example"):
        open_targets(
            [parse_target("guarded:http://evil.example/")],
            store=store,
            config=GatewayConfig(),
            sanitizer=Sanitizer(),
        )
    bare, named = open_targets(
        [TargetSpec(type="bare"), TargetSpec(type="bare", name="b")],
        store=store,
        config=GatewayConfig(),
    )
    assert (bare.name, named.name, PassThrough.name) == ("bare", "b", "bare")


@pytest.mark.parametrize("line", ["anthropic:m", "guarded:anthropic:m"])
def test_the_address_of_the_section_llm_must_be_allowed_too(store, line):
    specs = [parse_target(line)]
    config = GatewayConfig(base_url="https://llm.example/v1")
    gateways = dict.fromkeys(services_of(specs, config), object())
    given = {"store": store, "config": config, "gateway": gateways, "sanitizer": Sanitizer()}
    with pytest.raises(ConfigError, match=r"--allow-host llm\.example"):
        open_targets(specs, **given)
    given["allow_hosts"] = ["llm.example"]
    with pytest.raises(ConfigError, match="staging"):
        open_targets(specs, **given)
    with pytest.raises(ConfigError, match="offline"):
        open_targets(specs, **given, staging=True)
    given["store"] = replace(store, settings=replace(store.settings, offline=False))
    assert len(open_targets(specs, **given, staging=True)) == 1


def test_gateways_are_looked_up_by_the_config_they_were_named_by(store):
    llm = '{"base_url": "http://127.0.0.1:1", "savings": {"parallel": 3}}'
    store = replace(store, settings=replace(store.settings, llm=llm))
    config = GatewayConfig(base_url="http://127.0.0.1:2", savings=Savings(parallel=5))
    specs = [parse_target("anthropic:m")]
    (name,) = services_of(specs, config)
    gateways = {name: object()}
    (target,) = open_targets(specs, store=store, config=config, gateway=gateways)
    assert target.parallel == 5


class Sanitizer:
    id = "model-1"
    judge = None


def test_each_service_has_its_gateway_without_a_response_cache():
    lines = ["anthropic:a", "guarded:anthropic:b", "openai:c@http://localhost:8000/v1", "bare"]
    specs = [parse_target(line) for line in lines]
    found = services_of(specs, GatewayConfig(base_url="http://127.0.0.1:1"))
    assert list(found) == ["anthropic http://127.0.0.1:1", "openai http://localhost:8000/v1"]
    assert not any(one.savings.response_cache or one.savings.batches for one in found.values())
    assert list(services_of(specs[:1], GatewayConfig(provider="bedrock"))) == ["bedrock"]
    assert list(services_of(specs[:1], GatewayConfig(provider="openai"))) == ["anthropic"]


def test_nothing_heavy_is_loaded_before_a_target_is_asked():
    probe = (
        "import sys\n"
        "from workbench.campaign.targets import callable, guarded, http, model, spec, websocket\n"
        "heavy = ('aiohttp', 'yarl', 'torch', 'pandas', 'numpy', 'anthropic', 'openai', 'yaml')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_closed_target_may_be_closed_again(store):
    (target,) = open_targets(
        [parse_target("http://127.0.0.1:9/")], store=store, config=GatewayConfig()
    )

    async def close_twice():
        await target.close()
        await target.close()

    asyncio.run(close_twice())
