from __future__ import annotations

import asyncio
import json
import time
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard_server import RuleService
from workbench.core.errors import ConfigError
from workbench.serving.cleaning import WITHHELD, Cleaner
from workbench.serving.refusal import Refusal
from workbench.serving.turns import passages, read_body
from workbench.serving.upstream import Upstream, UpstreamConfig
from workbench.store.service_keys import Key

KEY = Key(id="a", owner="anna")
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "REDIRECT"},
}


def user(content):
    return {"role": "user", "content": content}


def text(said):
    return {"type": "text", "text": said}


def clean(body, *, turns="all", service=None, key=KEY):
    made = deepcopy(body)
    cleaner = Cleaner(service or RuleService(), turns=turns)
    return asyncio.run(cleaner.clean(passages(made), key=key)), made


@pytest.mark.parametrize(
    ("content", "better"),
    [
        ("WRAP:a", "a"),
        ([text("x"), text("WRAP:a"), IMAGE], [text("x"), text("a"), IMAGE]),
        (
            [{"type": "tool_result", "tool_use_id": "WRAP:t", "content": "WRAP:a"}],
            [{"type": "tool_result", "tool_use_id": "WRAP:t", "content": "a"}],
        ),
        (
            [{"type": "tool_result", "tool_use_id": "t", "content": [text("WRAP:a"), IMAGE]}],
            [{"type": "tool_result", "tool_use_id": "t", "content": [text("a"), IMAGE]}],
        ),
        (
            [{"type": "document", "source": {"type": "text", "data": "WRAP:a"}, "title": "WRAP:b"}],
            [{"type": "document", "source": {"type": "text", "data": "a"}, "title": "b"}],
        ),
        (
            [{"type": "document", "source": {"type": "content", "content": [text("WRAP:a")]}}],
            [{"type": "document", "source": {"type": "content", "content": [text("a")]}}],
        ),
        (["WRAP:a", "b"], ["a", "b"]),
        ([{"type": "odd", "text": {"text": "WRAP:a"}}], [{"type": "odd", "text": {"text": "a"}}]),
        # split over two blocks, harmless each
        ([text("REDI"), IMAGE, text("RECT")], [text("a safe text"), IMAGE]),
        (["REDI", "RECT"], ["a safe text"]),
        (["REDI", "x", "RECT", "x", "REDIRECT"], ["REDI", "x", "RECT", "x", "a safe text"]),
        # a story about its core, harmless each
        ([text("a story WRA"), text("P:a")], [text("a")]),
        ([text("WRAP:b"), text("a story WRA"), text("P:a")], [text("a")]),
        # of no kind that is known here, but others read it
        ([{"type": "refusal", "refusal": "WRAP:a"}], [{"type": "refusal", "refusal": "a"}]),
        ([{"type": "odd", "deep": {"er": ["WRAP:a"]}}], [{"type": "odd", "deep": {"er": ["a"]}}]),
        ([["WRAP:a"]], [["a"]]),
        ([{"type": "x", "url": "a story WRAP:a"}], [{"type": "x", "url": "a"}]),
        (
            [{"type": "file", "file": {"file_data": "WRAP:x", "filename": "WRAP:a"}}],
            [{"type": "file", "file": {"file_data": "WRAP:x", "filename": "a"}}],
        ),
        (
            [{"source": {"type": "base64", "media_type": "TEXT/plain", "data": "WRAP:a"}}],
            [{"source": {"type": "base64", "media_type": "TEXT/plain", "data": "a"}}],
        ),
    ],
)
@pytest.mark.parametrize("role", ["user", "tool", "function", "User", "somebody"])
def test_texts_are_replaced_where_they_stand(role, content, better):
    decision, made = clean({"messages": [{"role": role, "content": content}], "n": 1})
    assert made == {"messages": [{"role": role, "content": better}], "n": 1}
    assert decision == ("redirect" if "safe" in json.dumps(better) else "dewrap")


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_the_operators_and_the_models_texts_are_left_alone(role):
    body = {"system": "BLOCK", "messages": [{"role": role, "content": [text("BLOCK")]}]}
    assert clean(body) == ("pass", body)


def test_a_tools_result_in_the_models_turn_is_no_word_of_the_models():
    block = {"type": "mcp_tool_result", "tool_use_id": "t", "content": [text("WRAP:a")]}
    ran = {"type": "code_execution_tool_result", "content": {"stdout": "WRAP:a", "return_code": 0}}
    _, made = clean({"messages": [user("x"), {"role": "assistant", "content": [block, ran]}]})
    assert made["messages"][1]["content"][0]["content"] == [text("a")]
    assert made["messages"][1]["content"][1]["content"] == {"stdout": "a", "return_code": 0}


def test_other_fields_of_a_users_message_are_read():
    _, made = clean({"messages": [user("x") | {"name": "WRAP:a", "reasoning": "WRAP:b"}]})
    assert made["messages"] == [user("x") | {"name": "a", "reasoning": "b"}]


def test_a_word_that_goes_on_in_the_next_block_is_read_whole():
    service = RuleService()
    clean({"messages": [user([text("bo"), text("at"), text("house.")])]}, service=service)
    assert {"bo\nat\nhouse.", "boathouse."} <= set(service.seen)
    service.seen.clear()
    clean({"messages": [user([text("a boat."), text("a house.")])]}, service=service)
    assert service.seen == ["a boat.", "a house.", "a boat.\na house."]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": [{"role": "user", "content": [%s"a"]}]}' % (b'"a",' * 2_000_000),
        b'{"messages": [{"role": "user", "content": [%s"a"]}]}' % (b'"a",' * 450_000),
        b'{"messages": [], "x": [%s[]]}' % (b"[]," * 2_000_000),
    ],
    ids=["texts", "fewer texts", "lists"],
)
def test_a_body_of_a_million_parts_keeps_nobody_waiting(raw):
    began = time.process_time()
    with pytest.raises(Refusal) as refused:
        passages(read_body(raw))
    assert refused.value.status_code == 413
    assert time.process_time() - began < 1


def test_a_chat_goes_on_without_an_earlier_text_that_was_blocked():
    said = {"role": "assistant", "content": "No."}
    decision, made = clean({"messages": [user("BLOCK"), said, user("hello")]})
    assert (decision, made["messages"][0]) == ("redirect", user(WITHHELD))
    assert clean({"messages": [user("hello"), said, user("BLOCK")]})[0] == "block"
    prefilled = {"messages": [user("BLOCK"), {"role": "assistant", "content": "Sure"}]}
    assert clean(prefilled)[0] == "block"


def test_the_last_turn_alone_may_be_looked_at():
    service = RuleService()
    said = {"role": "assistant", "content": "No."}
    body = {"messages": [user("WRAP:a"), said, user("WRAP:b"), user("c")]}
    _, made = clean(body, turns="last", service=service)
    assert [one["content"] for one in made["messages"]] == ["WRAP:a", "No.", "b", "c"]
    assert sorted(service.seen) == ["WRAP:b", "c"]


def test_what_is_known_is_not_asked_again_but_by_another_key_or_model():
    service = RuleService()
    cleaner = Cleaner(service, turns="all")

    async def ask(key):
        return await cleaner.clean(passages({"messages": [user("WRAP:a"), user("b")]}), key=key)

    for _ in range(2):
        assert asyncio.run(ask(KEY)) == "dewrap"
    assert len(service.seen) == 2
    asyncio.run(ask(Key(id="b", owner="bob")))
    assert len(service.seen) == 4
    service.model_id = "two"
    asyncio.run(ask(KEY))
    assert len(service.seen) == 6


def test_a_long_chat_comes_in_portions():
    sizes = []

    class Service(RuleService):
        async def sanitize(self, texts, *, key):
            sizes.append((len(texts), sum(map(len, texts))))
            return await super().sanitize(texts, key=key)

    body = {"messages": [user(f"{number} {'x' * 100}") for number in range(300)]}
    body["messages"].append(user("y" * 50_000))
    assert clean(body, service=Service())[0] == "pass"
    assert all(texts <= 64 and (chars <= 8192 or texts == 1) for texts, chars in sizes)
    assert sum(texts for texts, _ in sizes) == 301


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"null", b"{", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}',
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}', b'{"a": "\\ud800"}',
        b'{"a": "\xff"}', b'{"a": "\n"}', b"[" * 100_000, b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"), b'{"a": %s}' % (b"9" * 5000),
    ],
)  # fmt: skip
def test_bodies_that_two_readers_may_take_differently_are_refused(raw):
    with pytest.raises(Refusal) as refused:
        read_body(raw)
    assert refused.value.status_code == 400
    assert len(refused.value.detail) < 200


def deep(levels):
    block = text("x")
    for _ in range(levels):
        block = {"type": "tool_result", "content": [block]}
    return block


@pytest.mark.parametrize(
    "body",
    [
        {}, {"messages": "a"}, {"messages": [1]}, {"messages": [{"content": "a"}]},
        {"messages": [{"role": 1}]}, {"messages": [{"role": "user", "Content": "a"}]},
        {"Messages": [], "messages": []}, {"messages": [user([{"type": "text", "Text": "a"}])]},
        {"messages": [{"role": "user", "\u212aey": "a"}]}, {"messages": [user([deep(20)])]},
    ],
)  # fmt: skip
def test_messages_that_hide_texts_are_refused(body):
    with pytest.raises(Refusal) as refused:
        passages(body)
    assert refused.value.status_code == 400


def test_too_many_texts_are_refused():
    with pytest.raises(Refusal) as refused:
        passages({"messages": [user("a")] * 5000})
    assert refused.value.status_code == 413


blocks = st.recursive(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.sampled_from(["a", "REDIRECT"])}),
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.sampled_from(["tool_result", "document"]),
            "content": st.one_of(st.lists(inner, max_size=3), st.just("WRAP: REDIRECT")),
            "title": st.sampled_from(["t", "REDIRECT"]),
        }
    ),
    max_leaves=5,
)


@given(st.lists(st.tuples(st.sampled_from(["user", "tool"]), st.lists(blocks, max_size=4))))
def test_no_text_of_a_user_gets_by(turns):
    body = {"messages": [{"role": role, "content": content} for role, content in turns]}
    _, made = clean(body)
    assert "REDIRECT" not in json.dumps(made)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a", "a", "http://", "http://u:p@a", "http://a?b=c", "http://a#b", "http://a:0",
        "http://[::1", "http://@a",
    ],
)  # fmt: skip
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(ConfigError, match="openai_url") as refused:
        UpstreamConfig(openai_url=url)
    assert "p@a" not in str(refused.value)


def test_who_pays_needs_a_key():
    with pytest.raises(ConfigError, match="key"):
        Upstream(UpstreamConfig(openai_url="http://a", payer="service"))
    with pytest.raises(ConfigError, match="silence_s"):
        UpstreamConfig(silence_s=0)
