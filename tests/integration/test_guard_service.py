"""The guard in front of the real service: its keys, its model, its ledger."""

from __future__ import annotations

import anthropic
import pytest

from guard_server import serve_app
from served_models import REDIRECTS, add_model
from workbench.core.settings import Secret
from workbench.llm.loopback import LoopbackServer
from workbench.serving.app import make_app
from workbench.serving.config import ServeConfig
from workbench.serving.guard import guard_routes
from workbench.serving.keys import new_key
from workbench.serving.service import Service
from workbench.serving.upstream import Upstream, UpstreamConfig
from workbench.store.ledger import Ledger
from workbench.store.service_keys import Usage, add_key


def test_a_call_is_cleaned_paid_and_counted_for_its_key(store) -> None:
    add_model(store, risk=9)
    key, secret = new_key(
        owner="anna", name="t", quota_credits_per_day=None, requests_per_minute=None
    )
    add_key(store.engine, key)
    heard: list[str] = []

    def answer(body):
        heard.append(body["messages"][0]["content"])
        return "fine"

    with LoopbackServer(answer=answer).serve_in_thread() as models:
        config = UpstreamConfig(anthropic_url=models.base_url, payer="service")
        upstream = Upstream(config, keys={"anthropic": Secret("sk-house")})
        service = Service(ServeConfig(precision="float32"), store)
        app = make_app(service, more=guard_routes(service, upstream))

        async def loading(scope, receive, send):
            if scope["type"] == "http" and not service.is_ready:
                await service.load()
            await app(scope, receive, send)
            if scope["type"] == "lifespan":
                await upstream.close()

        with (
            serve_app(loading) as url,
            anthropic.Anthropic(api_key=secret.reveal(), base_url=url, max_retries=0) as client,
        ):
            messages = [{"role": "user", "content": "How do I bake bread?"}]
            made = client.messages.with_raw_response.create(
                model="claude-haiku-5-5", max_tokens=50, messages=messages
            )
            with pytest.raises(anthropic.AuthenticationError):
                client.with_options(api_key="wb_no_no").messages.create(
                    model="claude-haiku-5-5", max_tokens=50, messages=messages
                )
    assert made.headers["x-workbench-decision"] == "redirect"
    assert made.parse().content[0].text == "fine"
    assert len(heard) == 1
    assert heard[0] in REDIRECTS
    rows = Ledger(store.engine).rows()
    call = next(row for row in rows if row.unit == "token")
    assert (call.who, call.job, call.phase) == ("anna", key.id, "serving")
    assert call.usd > 0
    assert {row.phase for row in rows} == {"serving"}
    assert Usage(store.engine).read("2000")[key.id] >= call.usd
