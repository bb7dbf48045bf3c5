"""Ten thousand requests, half of them broken: none is the guard's undoing."""

from __future__ import annotations

import asyncio

import pytest

from guard_requests import ask
from guard_server import RuleService, guard_app, serve_app
from workbench.llm.loopback import LoopbackServer
from workbench.serving.upstream import UpstreamConfig


@pytest.mark.slow
def test_ten_thousand_requests_make_no_error_of_its_own():
    service = RuleService()
    with LoopbackServer().serve_in_thread() as upstream:
        config = UpstreamConfig(
            anthropic_url=upstream.base_url, openai_url=upstream.base_url + "/v1"
        )
        with serve_app(guard_app(service, config)) as url:
            statuses = asyncio.run(ask(url, 10_000))
        asked = upstream.requests
    assert sum(statuses.values()) == 10_000
    assert max(statuses) < 500
    assert statuses[200] > 3000
    assert statuses[400] > 1000
    assert asked > 2000
