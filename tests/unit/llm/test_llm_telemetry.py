"""Spans arrive at a collector with figures and without texts; without one they cost nothing."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
import time
import timeit
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from workbench.core.errors import ConfigError, ModelError
from workbench.llm import telemetry
from workbench.llm.messages import Answer, Request, Usage
from workbench.llm.router import Route
from workbench.llm.telemetry import spans

REASONS = "gen_ai.response.finish_reasons"
REQUEST = Request(prompt="PROMPT-TEXT", system="SYSTEM-TEXT", task="summary")
ROUTE = Route(tier="cheap", model="some-model", reason="r")
ANSWER = Answer(
    text="ANSWER-TEXT",
    stop_reason="end_turn",
    model="some-model-2",
    usage=Usage(
        input_tokens=1,
        cache_read_tokens=20,
        cache_write_5m_tokens=300,
        cache_write_1h_tokens=4000,
        output_tokens=7,
    ),
    usd=Decimal("0.125"),
)


@contextmanager
def collector(*, answers: bool = True):
    """A collector on loopback; gives its address and what it is sent, decoded."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received = []
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if not answers:
                released.wait(10)
            received.append((self.path, ExportTraceServiceRequest.FromString(body), body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def values_of(span):
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
    }


def test_a_collector_sees_each_call_with_its_figures_and_none_of_its_texts(settings):
    with collector() as (address, received):
        settings = replace(settings, otlp_endpoint=address, run_id="run-1", experiment="trial")
        traced = spans(settings, provider="bedrock", phase="generation")
        with traced.chat(REQUEST, ROUTE) as span:
            span.end(ANSWER)
        with pytest.raises(ModelError), traced.chat(REQUEST, ROUTE):
            raise ModelError("ERROR-TEXT")
        traced.close()
    path, message, body = received[0]
    assert path == "/v1/traces"
    good, bad = message.resource_spans[0].scope_spans[0].spans
    assert (good.name, good.kind) == ("chat some-model", 3)  # a client's
    values = values_of(good)
    assert [each.string_value for each in values.pop(REASONS).values] == ["end_turn"]
    assert values == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "aws.bedrock",
        "gen_ai.system": "aws.bedrock",
        "gen_ai.request.model": "some-model",
        "gen_ai.response.model": "some-model-2",
        "gen_ai.usage.input_tokens": 4321,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 20,
        "gen_ai.usage.cache_creation.input_tokens": 4300,
        "workbench.job": "run-1",
        "workbench.experiment": "trial",
        "workbench.phase": "generation",
        "workbench.task": "summary",
        "workbench.outcome": "sent",
        "workbench.cost_usd": 0.125,
    }
    assert (bad.status.code, values_of(bad)["error.type"]) == (2, "ModelError")
    assert not bad.events
    assert b"-TEXT" not in body


def test_names_of_attributes_are_those_of_the_conventions():
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    source = Path(telemetry.__file__).read_text()
    used = {part for part in source.split('"') if part.startswith("gen_ai.")}
    assert used
    assert used <= known


@pytest.mark.parametrize("endpoint", ["", "https://collector.example.org"])
def test_without_a_collector_within_reach_nothing_happens_at_next_to_no_cost(settings, endpoint):
    traced = spans(replace(settings, otlp_endpoint=endpoint), provider="anthropic")

    def call():
        with traced.chat(REQUEST, ROUTE) as span:
            span.end(ANSWER)

    best_s = min(timeit.repeat(call, number=1_000, repeat=20)) / 1_000
    assert best_s < 2e-6
    traced.close()


def test_a_collector_that_hangs_or_is_gone_holds_nobody_up(settings, monkeypatch):
    monkeypatch.setattr(telemetry, "_CLOSE_S", 0.2)
    with collector(answers=False) as (address, _):
        for endpoint in (address, "http://127.0.0.1:9"):
            traced = spans(replace(settings, otlp_endpoint=endpoint))
            with traced.chat(REQUEST, ROUTE) as span:
                span.end(ANSWER)
            started = time.monotonic()
            traced.close()
            assert time.monotonic() - started < 2


def test_closing_waits_no_longer_than_said_whatever_the_library_does(settings, monkeypatch):
    monkeypatch.setattr(telemetry, "_CLOSE_S", 0.05)
    released = threading.Event()
    traced = spans(replace(settings, otlp_endpoint="http://127.0.0.1:9"))
    shut_down = traced._provider.shutdown
    traced._provider.shutdown = lambda: released.wait(10) and shut_down()
    started = time.monotonic()
    traced.close()
    assert time.monotonic() - started < 5
    released.set()


def test_the_extra_is_named_where_it_is_absent(settings, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"prompt-safety-workbench\[telemetry\]"):
        spans(replace(settings, otlp_endpoint="http://127.0.0.1:4318"))
    spans(settings).close()


@pytest.mark.parametrize("module", ["telemetry", "cache", "config"])
def test_importing_loads_nothing_heavy(module):
    heavy = ("anthropic", "openai", "redis", "aiohttp", "opentelemetry", "pandas", "sqlalchemy")
    probe = f"import sys, workbench.llm.{module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
