"""What every transport must do, against the loopback server or, scripted, without one."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from workbench.core.settings import Secret
from workbench.llm.anthropic import AnthropicTransport, BedrockTransport, VertexTransport
from workbench.llm.loopback import Faults, LoopbackServer
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.openai_compatible import OpenAITransport
from workbench.llm.scripted import ScriptedTransport
from workbench.llm.transport import Sending

KEY = Secret("sk-test-0123456789abcdefgh")
HTTP = {
    "anthropic": (AnthropicTransport, "", "claude-haiku-4-5"),
    "bedrock": (BedrockTransport, "", "anthropic.claude-haiku-4-5"),
    "vertex": (VertexTransport, "/v1", "claude-haiku-4-5"),
    "openai": (OpenAITransport, "/v1", "gpt-5"),
}
SCRIPTS = {
    "": "an answer",
    "429": Fault(kind="rate_limit", message="slow down", status=429, retry_after_s=2.0),
    "401": Fault(kind="denied", message="who?", status=401, is_retryable=False),
    "malformed": Fault(kind="malformed", message="{{", status=200, may_be_billed=True),
    "drop": Fault(kind="dropped", message="gone", may_be_billed=True),
}


@pytest.fixture(autouse=True)
def clouds(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("CLOUD_ML_REGION", "us")
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "project")


@pytest.fixture(params=[*HTTP, "scripted"])
def name(request):
    return request.param


@asynccontextmanager
async def serving(name, fault="", **server):
    """Give a transport whose next answer has the fault, its model and the server's ledger."""
    if name == "scripted":
        yield ScriptedTransport(SCRIPTS[fault], default="an answer"), "claude-haiku-4-5"
        return
    faults = Faults(script=[fault], retry_after_s=2.0)
    kind, path, model = HTTP[name]
    async with LoopbackServer(faults=faults, **server) as running:
        transport = kind(base_url=running.base_url + path)
        yield transport, model
        await transport.close()


def ask(name, fault="", *, request=None, **values):
    async def run():
        async with serving(name, fault) as (transport, model):
            sending = Sending(**{"model": model, "key": KEY, **values})
            return await transport.send(request or Request(prompt="What is a marmot?"), sending)

    return asyncio.run(run())


def test_an_answer_says_what_it_cost_and_why_it_ended(name):
    reply = ask(name, request=Request(prompt="q", system="s", max_tokens=3))
    assert isinstance(reply, Reply)
    assert reply.text
    assert reply.stop_reason in {"end_turn", "max_tokens"}
    assert reply.usage.prompt_tokens > 0
    assert 0 < reply.usage.output_tokens <= 3
    assert reply.model


def test_text_as_it_arrives_is_the_text_of_the_answer(name):
    pieces = []
    reply = ask(name, on_text=pieces.append)
    assert isinstance(reply, Reply)
    assert "".join(pieces) == reply.text
    assert reply.usage.output_tokens > 0


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_rate_limit_is_told_with_its_wait(name, is_streamed):
    fault = ask(name, "429", on_text=str if is_streamed else None)
    assert (fault.kind, fault.status, fault.retry_after_s) == ("rate_limit", 429, 2.0)
    assert fault.is_retryable
    assert not fault.may_be_billed


@pytest.mark.parametrize(
    ("spoiled", "kind", "is_retryable", "may_be_billed"),
    [
        ("401", "denied", False, False),
        ("malformed", "malformed", True, True),
        ("drop", "dropped", True, True),
    ],
)
def test_faults_have_the_same_meaning_everywhere(name, spoiled, kind, is_retryable, may_be_billed):
    fault = ask(name, spoiled)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.is_retryable, fault.may_be_billed) == (
        kind, is_retryable, may_be_billed,
    )  # fmt: skip
    assert "\n" not in fault.message
    assert KEY.reveal() not in repr(fault)


def test_to_prewarm_generates_nothing(name):
    request = Request(prompt="q", system="rules " * 4000)
    reply = ask(name, request=request, prewarm=True, prompt_cache="5m", on_text=pytest.fail)
    assert isinstance(reply, Reply)
    assert reply.text == ""
    assert reply.usage.output_tokens == 0
    if name in {"anthropic", "bedrock", "vertex"}:
        assert reply.usage.cache_write_5m_tokens > 0


def test_a_transport_answers_many_at_once_and_again(name):
    async def run():
        async with serving(name) as (transport, model):
            sending = Sending(model=model, key=KEY)
            requests = [Request(prompt=f"q {n}") for n in range(40)]
            first = await asyncio.gather(*(transport.send(one, sending) for one in requests))
            other = replace(sending, key=Secret("another"))
            return [*first, await transport.send(requests[0], other)]

    replies = asyncio.run(run())
    assert len(replies) == 41
    assert all(isinstance(reply, Reply) for reply in replies)
    assert all(reply.usage != Usage() for reply in replies)


@pytest.mark.parametrize("name", ["anthropic", "openai", "scripted"], indirect=True)
def test_a_server_of_ones_own_needs_no_key(name):
    assert isinstance(ask(name, key=Secret("")), Reply)
