"""The service in this process: a real sanitizer that nobody trained, and hostile callers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hostile_texts import HOSTILE
from served_models import REDIRECTS, add_model
from workbench.core.errors import DataError, StoreError
from workbench.serving import service as service_module
from workbench.serving.app import make_app
from workbench.serving.config import ServeConfig
from workbench.serving.keys import ANYBODY, new_key
from workbench.serving.refusal import Overloaded
from workbench.serving.service import Service
from workbench.store.database import Store
from workbench.store.ledger import Ledger
from workbench.store.service_keys import add_key, revoke_key

Check = Callable[[httpx.AsyncClient, Service], Awaitable[None]]
SANITIZE = "/v1/sanitize"
SECRET_TEXT = "zanzibar-quokka"


@asynccontextmanager
async def served(store: Store, **options: Any):
    wanted = {"is_open": True, "precision": "float32"} | options
    service = Service(ServeConfig(**wanted), store)
    transport = httpx.ASGITransport(make_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        try:
            yield client, service
        finally:
            await service.close()


def run(store: Store, check: Check, **options: Any) -> None:
    async def whole() -> None:
        async with served(store, **options) as (client, service):
            await service.load()
            await check(client, service)

    asyncio.run(whole())


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert SECRET_TEXT not in answer.text
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return told


def metric(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith(f"workbench_serving_{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def new(store: Store, **limits: Any):
    wanted = {"quota_credits_per_day": None, "requests_per_minute": None} | limits
    key, secret = new_key(owner="anna", name="test", **wanted)
    add_key(store.engine, key)
    return key, {"Authorization": f"Bearer {secret.reveal()}"}


def test_texts_come_back_as_the_sanitizer_itself_would_say(store) -> None:
    add_model(store, risk=-9)
    texts = ["How do I bake bread?", "", "half \ud83d a pair", *HOSTILE[:20]]

    async def check(client, service) -> None:
        answer = await client.post(SANITIZE, json={"text": "Hello there"})
        assert answer.status_code == 200
        body = json.dumps({"texts": texts}).encode()
        kind = {"Content-Type": "application/json"}
        many = await client.post(SANITIZE, content=body, headers=kind)
        found = json.loads(many.content)["results"]
        expected = service.models.current(texts)
        for one, own in zip(found, expected, strict=True):
            assert (one["text"], one["decision"]) == (own.text, own.decision)
            assert one["prompt"] == own.prompt
            assert one["scores"] == pytest.approx(own.scores, abs=1e-3)

    run(store, check)


def test_gain_and_condition_are_each_callers_own(store) -> None:
    add_model(store, risk=9)

    async def check(client, service) -> None:
        bodies = [{"text": f"Tell me about {n}", "gain": gain, "context": "research"}
                  for n in range(6) for gain in (0, 1)]  # fmt: skip
        answers = await asyncio.gather(*(client.post(SANITIZE, json=one) for one in bodies))
        for body, answer in zip(bodies, answers, strict=True):
            [result] = answer.json()["results"]
            assert (result["decision"] == "redirect") == (body["gain"] == 1)
            assert body["gain"] == 0 or result["text"] in REDIRECTS

    run(store, check)


def test_what_is_broken_is_refused_and_says_how_to_mend_it(store, caplog) -> None:
    add_model(store)
    caplog.set_level(logging.DEBUG)
    kind = {"Content-Type": "application/json"}

    async def check(client, service) -> None:
        async def post(content: bytes, **headers: str) -> httpx.Response:
            return await client.post(SANITIZE, content=content, headers=kind | headers)

        secret = SECRET_TEXT.encode()
        problem(await post(b"{" + secret), 400)
        problem(await post(b"[]"), 400)
        problem(await post(b"\xff\xfe"), 400)
        problem(await post(b"[" * 5_000), 400)
        problem(await post(b'{"text": "a"}', **{"Content-Type": "text/plain"}), 415)
        problem(await post(b'{"text": 1}'), 422)
        problem(await post(b'{"text": "a", "gain": NaN}'), 422)
        problem(await post(b'{"text": "a", "gain": 1e999}'), 422)
        problem(await post(b'{"texts": []}'), 422)
        problem(await post(b'{"text": "a", "texts": ["a"]}'), 422)
        problem(await post(b'{"text": "a", "language": "\\ud800"}'), 422)
        assert "did you mean 'text'" in problem(await post(b'{"txet": "a"}'), 422)["detail"]
        problem(await post(json.dumps({"texts": [SECRET_TEXT] * 9}).encode()), 413)
        problem(await post(json.dumps({"text": f"{SECRET_TEXT} " * 300}).encode()), 413)
        problem(await post(json.dumps({"text": "각 " * 40}).encode()), 413)
        problem(await post(b'{"text": "' + secret * 2000 + b'"}'), 413)
        problem(await client.get(SANITIZE), 405)
        problem(await client.get("/nowhere"), 404)
        problem(await post(b"{}", Host="attacker.example"), 403)
        problem(await client.post("/admin/reload", json={}), 403)
        assert (await client.post(SANITIZE, json={"text": "한" * 9})).status_code == 200
        shown = (await client.get("/metrics")).text
        assert SECRET_TEXT not in shown
        assert metric(shown, 'rejections_total{reason="size"}') == 4

    run(store, check, max_texts=8, max_tokens=100, max_body_bytes=20_000)
    assert SECRET_TEXT not in caplog.text


def test_an_error_of_its_own_tells_no_text(store, caplog, monkeypatch) -> None:
    add_model(store)

    async def check(client, service) -> None:
        real = service.models.current.look

        def look(texts, **options):
            if any(SECRET_TEXT in text for text in texts):
                raise RuntimeError(texts[0])
            return real(texts, **options)

        monkeypatch.setattr(service.models.current, "look", look)
        answers = await asyncio.gather(
            *(client.post(SANITIZE, json={"text": text}) for text in ("fine", SECRET_TEXT, "too"))
        )
        assert [one.status_code for one in answers] == [200, 422, 200]
        problem(answers[1], 422)

        def parse(*_, **__):
            raise RuntimeError(SECRET_TEXT)

        monkeypatch.setattr("workbench.serving.app.parse_sanitize", parse)
        problem(await client.post(SANITIZE, json={"text": "a"}), 500)
        assert service.in_flight == 0

    run(store, check)
    assert SECRET_TEXT not in caplog.text
    assert "RuntimeError" in caplog.text


def test_keys_open_count_and_pay(store) -> None:
    add_model(store)
    key, auth = new(store)
    _, slow = new(store, requests_per_minute=2)
    _, poor = new(store, quota_credits_per_day=1e-9)
    revoked, gone = new(store)
    revoke_key(store.engine, revoked.id)

    async def check(client, service) -> None:
        async def ask(headers: dict[str, str]) -> httpx.Response:
            return await client.post(SANITIZE, json={"text": "Hello"}, headers=headers)

        assert problem(await ask({}), 401)
        assert problem(await ask(gone), 401)
        assert (await ask(auth)).status_code == 200
        assert [(await ask(slow)).status_code for _ in range(3)] == [200, 200, 429]
        assert problem(await ask(slow), 429)
        assert (await ask(poor)).status_code == 200
        await service._settle_books()
        assert "credits" in problem(await ask(poor), 429)["detail"]
        assert (await ask(auth)).status_code == 200

    run(store, check, is_open=False)
    rows = [row for row in store.ledger.rows() if row.job == key.id]
    assert {row.phase for row in rows} == {"serving"}
    assert {row.who for row in rows} == {"anna"}
    assert sum(row.details.get("texts", 0) for row in rows) == 2
    assert sum(row.usd for row in rows) > 0


def test_a_ledger_that_cannot_be_written_is_written_later(store, monkeypatch, caplog) -> None:
    add_model(store)
    real, broken = Ledger.add, [True, True]

    marks = []

    def add(ledger, rows, *, mark):
        marks.append(mark)
        if broken:
            broken.pop()
            raise StoreError("disk is full")
        real(ledger, rows, mark=mark)

    monkeypatch.setattr(Ledger, "add", add)

    async def check(client, service) -> None:
        for _ in range(3):
            await service.sanitize(["Hello"], key=ANYBODY)
            await service._settle_books()

    run(store, check)
    assert not broken
    assert marks[0] == marks[1] == marks[2] != marks[3]  # of one page, kept or not
    assert "disk is full" in caplog.text
    assert sum(row.details.get("texts", 0) for row in store.ledger.rows()) == 3


def test_overloaded_it_says_when_to_come_again_and_recovers(store) -> None:
    add_model(store)

    async def check(client, service) -> None:
        async def ask(number: int) -> httpx.Response:
            return await client.post(SANITIZE, json={"text": f"What is {number}? " * 9})

        answers = await asyncio.gather(*map(ask, range(150)))
        counts = {code: sum(one.status_code == code for one in answers) for code in (200, 429)}
        assert sum(counts.values()) == 150
        assert min(counts.values()) > 0
        for one in answers:
            if one.status_code == 429:
                problem(one, 429)
        assert (await ask(1)).status_code == 200
        text = (await client.get("/metrics")).text
        assert metric(text, 'rejections_total{reason="overload"}') == counts[429]
        assert metric(text, "queue_texts") == 0

    run(store, check, queue_s=0.05)


def test_too_many_at_a_time_are_refused_before_they_are_read(store) -> None:
    add_model(store)

    async def check(client, service) -> None:
        service.in_flight = 5
        problem(await client.post(SANITIZE, json={"text": "a"}), 429)
        service.in_flight = 0
        assert (await client.post(SANITIZE, json={"text": "a"})).status_code == 200

    run(store, check, max_requests=5)


def test_it_is_ready_once_loaded_and_until_it_drains(store) -> None:
    add_model(store)

    async def whole() -> None:
        async with served(store) as (client, service):
            body = {"text": "Hello"}
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            problem(await client.post(SANITIZE, json=body), 503)
            with pytest.raises(Overloaded):
                await service.sanitize(["a"], key=ANYBODY)
            await service.load()
            assert (await client.get("/readyz")).status_code == 200
            texts = [f"What is {number}?" for number in range(60)]
            begun = asyncio.create_task(client.post(SANITIZE, json={"texts": texts}))
            while not service._batcher.waiting:
                await asyncio.sleep(0)
            draining = asyncio.create_task(service.drain())
            await asyncio.sleep(0)
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            problem(await client.post(SANITIZE, json=body), 503)
            assert not begun.done()
            await draining
            assert len((await begun).json()["results"]) == 60

    asyncio.run(whole())


def test_draining_ends_at_its_deadline(store) -> None:
    add_model(store)

    async def check(client, service) -> None:
        service.in_flight = 1
        await asyncio.wait_for(service.drain(), 5)

    run(store, check, drain_s=0.1)


def test_another_model_takes_over_and_a_bad_one_does_not(store) -> None:
    first = add_model(store, risk=-9)
    key, auth = new(store)
    _, other = new(store)

    async def check(client, service) -> None:
        async def decision() -> str:
            answer = await client.post(SANITIZE, json={"text": "Hello you"}, headers=auth)
            return answer.json()["results"][0]["decision"]

        async def reload(**body: Any) -> httpx.Response:
            return await client.post("/admin/reload", json=body, headers=auth)

        assert await decision() != "redirect"
        asking = [asyncio.create_task(decision()) for _ in range(20)]
        second = add_model(store, seed=1, risk=9)
        assert (await reload()).json() == {"model": second}
        assert await decision() == "redirect"
        assert len(await asyncio.gather(*asking)) == 20
        assert (await reload(model=first[:12])).json() == {"model": first}
        assert await decision() != "redirect"
        broken = store.artifacts.path("model", second) / "model.safetensors"
        broken.write_bytes(broken.read_bytes()[:-1] + b"x")
        for wrong in (second, "../../etc", "/tmp", "f" * 64, 7, "zz"):
            problem(await reload(model=wrong), 422)
        problem(await client.post("/admin/reload", json={}, headers=other), 403)
        assert await decision() != "redirect"
        assert not await service.models.load_newer()  # whoever chose the first one keeps it
        damaged = store.artifacts.path("model", add_model(store, seed=4)) / "model.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
        with pytest.raises(DataError):
            await service.models.load_newer()
        assert not await service.models.load_newer()  # not tried again and again
        third = add_model(store, seed=2, risk=9)
        assert await service.models.load_newer()
        assert service.model_id == third
        assert not await service.models.load_newer()

    run(store, check, is_open=False, admins=(key.id,))


def test_a_shadow_sees_texts_is_counted_and_answers_nobody(store) -> None:
    add_model(store, risk=9)

    async def check(client, service) -> None:
        for _ in range(10):
            answer = await client.post(SANITIZE, json={"text": "Hello you"})
            assert answer.json()["results"][0]["decision"] == "redirect"
        seen = 'shadow_total{answered="redirect",shadow='
        for _ in range(3_000):
            await asyncio.sleep(0.01)
            text = (await client.get("/metrics")).text
            found = sum(metric(text, f'{seen}"{one}"}}') for one in ("pass", "dewrap"))
            if found == 10:
                break
        assert found == 10
        assert metric(text, f'{seen}"redirect"}}') == 0

    run(store, check, shadow_share=1.0, shadow_gain=0.0)


def test_a_shadow_that_fails_harms_nobody(store, monkeypatch) -> None:
    add_model(store, risk=-9)
    other = add_model(store, seed=3, risk=9)
    add_model(store, seed=4, risk=-9)

    async def check(client, service) -> None:
        assert service._shadow_models.current.id == other
        monkeypatch.setattr(service._shadow_models.current, "look", None)
        for _ in range(3):
            answer = await client.post(SANITIZE, json={"text": "Hello"})
            assert answer.status_code == 200
            await asyncio.sleep(0.05)
        assert 'shadow="failed"' in (await client.get("/metrics")).text

    run(store, check, shadow_share=1.0, shadow_model=other)


def test_what_no_language_is_so_long_is_refused_uncounted(store, monkeypatch) -> None:
    add_model(store)

    async def check(client, service) -> None:
        monkeypatch.setattr(service_module, "_count", lambda *_: pytest.fail("was counted"))
        text = "a " * 64 * service.config.max_tokens
        problem(await client.post(SANITIZE, json={"text": text[: 2**20]}), 413)

    run(store, check, max_tokens=1_000, max_body_bytes=2**21)


def test_any_chat_comes_in_portions_that_are_not_refused(store) -> None:
    add_model(store)

    async def check(client, service) -> None:
        texts, chars = service.portion
        assert (texts, chars) == (32, 170)
        await service.sanitize(["\uac01" * (chars // texts)] * texts, key=ANYBODY)

    run(store, check, max_texts=32, max_tokens=512)
