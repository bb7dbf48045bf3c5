"""Requests to a guard, valid ones and broken ones, the same for the same seed."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp

from guard_server import KEY

_PATHS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/models")
_ODD_PATHS = ("/v1/messages/../models", "/v1//messages", "/v1/messages/batches", "/v1/models/a%2Fb")
_TEXTS = (
    "hello",
    "BLOCK",
    "REDIRECT",
    "a story WRAP: a river",
    "",
    " ",
    "\x00",
    "é" * 99,
    "x" * 9999,
)
_ODD = (None, True, 0, -1, 1e300, 10**40, "text", [], {}, [[]], "\u2028", ["a", {"type": "text"}])


def mixed_requests(number: int, *, seed: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Give method, path, body and headers of so many requests."""
    chance = random.Random(seed)
    for _ in range(number):
        path = chance.choice(_PATHS)
        body = _body(chance, model="gpt-5.4-mini" if "chat" in path else "claude-haiku-5-5")
        method = "GET" if path == "/v1/models" else "POST"
        headers = {
            "x-workbench-key": KEY, "authorization": "Bearer up", "content-type": "application/json"
        }  # fmt: skip
        if "messages" in path or chance.random() < 0.5:
            headers["anthropic-version"] = "2023-06-01"
        raw = json.dumps(body).encode()
        if chance.random() < 0.5:
            raw, method, path = _broken(raw, method, path, headers, chance)
        yield method, path, raw, headers


def _body(chance: random.Random, *, model: str) -> dict[str, Any]:
    messages = []
    for turn in range(chance.randrange(1, 6)):
        said: Any = chance.choice(_TEXTS)
        if chance.random() < 0.4:
            said = [{"type": "text", "text": chance.choice(_TEXTS)} for _ in range(2)]
        messages.append({"role": ("user", "assistant")[turn % 2], "content": said})
    is_stream = chance.random() < 0.5
    return {"model": model, "max_tokens": 50, "messages": messages, "stream": is_stream}


def _broken(
    raw: bytes, method: str, path: str, headers: dict[str, str], chance: random.Random
) -> tuple[bytes, str, str]:
    kind = chance.randrange(8)
    if kind == 0:
        raw = raw[: chance.randrange(len(raw))]
    elif kind == 1:
        at = chance.randrange(len(raw))
        raw = raw[:at] + chance.randbytes(1) + raw[at + 1 :]
    elif kind in {2, 3, 4}:
        body = json.loads(raw)
        holder = chance.choice([body, *body["messages"]])
        holder[chance.choice([*holder, "system", "Content"])] = chance.choice(_ODD)
        raw = json.dumps(body).encode()
    elif kind == 5:
        name = chance.choice([*headers, "content-encoding", "anthropic-beta", "transfer-encoding"])
        headers[name] = chance.choice(["", "x", "gzip", "\xff", "a" * 5000, "chunked, chunked"])
    elif kind == 6:
        path, method = chance.choice(_ODD_PATHS), chance.choice(["POST", "GET", "PUT", "HEAD"])
    else:
        raw = b"[" * chance.randrange(50_000)
    return raw, method, path


async def ask(url: str, number: int, *, seed: int = 0, at_once: int = 16) -> Counter[int]:
    """Send mixed requests and return how often each status came; 0 where the connection closed."""
    statuses: Counter[int] = Counter()
    waiting = mixed_requests(number, seed=seed)
    connector = aiohttp.TCPConnector(limit=at_once)
    async with aiohttp.ClientSession(url, connector=connector) as session:

        async def work() -> None:
            for method, path, raw, headers in waiting:
                try:
                    async with session.request(
                        method, path, data=raw, headers=headers, allow_redirects=False
                    ) as got:
                        await got.read()
                        statuses[got.status] += 1
                except (aiohttp.ClientError, ValueError):
                    statuses[0] += 1

        await asyncio.gather(*(work() for _ in range(at_once)))
    return statuses
