"""The guard's price: a streamed answer's first token, direct and through it; broken requests.

Upstream, guard and client are processes of their own. A stand-in for the sanitizer waits for some
``SANITIZE_MS`` and tells how long that was; the rest of the delay is the guard's own. Other load on
the machine counts as the guard's: run it alone, or with ``nice -n -10``.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp
import numpy as np
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from measure import ROOT, publish

ROUNDS, WARM, FLOOD = 300, 20, 10_000
FIRST_TOKEN_MS, SANITIZE_MS, LIMIT_MS = 20, 8, 5
MODELS = {"/v1/messages": "claude-haiku-5-5", "/v1/chat/completions": "gpt-5.4-mini"}

sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    """Measure and publish; arguments: rounds, requests. The same file runs as the guard, too."""
    if sys.argv[1:2] == ["guard"]:
        _guard(sys.argv[2], float(sys.argv[3]))
        return
    rounds, flood = map(int, sys.argv[1:3]) if sys.argv[1:] else (ROUNDS, FLOOD)
    loopback = [sys.executable, "-m", "workbench.llm.loopback"]
    with (
        _process([*loopback, "--latency-s", str(FIRST_TOKEN_MS / 1000)]) as upstream,
        _process([sys.executable, __file__, "guard", upstream, str(SANITIZE_MS)]) as guard,
    ):
        rows = [asyncio.run(_compare(path, upstream, guard, rounds)) for path in MODELS]
    with (
        _process(loopback) as upstream,
        _process([sys.executable, __file__, "guard", upstream, "0"]) as guard,
    ):
        began = time.perf_counter()
        statuses = asyncio.run(importlib.import_module("guard_requests").ask(guard, flood))
        took_s = time.perf_counter() - began
    said = ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items()))
    flooded = dict.fromkeys(rows[0], "-") | {
        "of": f"{flood} mixed requests",
        "holds": max(statuses) < 500,
        "note": f"{said}; {flood / took_s:.0f}/s",
    }
    publish("guard", [*rows, flooded])


async def _compare(path: str, upstream: str, guard: str, rounds: int) -> dict[str, Any]:
    """Return the first token's delay; direct and guarded take turns, so both see the same load."""
    headers = {
        "x-workbench-key": "wb-key", "authorization": "Bearer up", "anthropic-version": "2023-06-01"
    }  # fmt: skip
    found = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(-WARM, rounds):
            text = f"{path} {number}"
            direct = await _first_token(session, upstream + path, MODELS[path], text)
            guarded = await _first_token(session, guard + path, MODELS[path], text)
            async with session.get(guard + "/took") as answer:
                sanitizing = float(await answer.text())
            found.append((direct, guarded, sanitizing, guarded - direct - sanitizing))
    table = 1000 * np.array(found[WARM:])
    row: dict[str, Any] = {"of": f"first token, {path}"}
    for quantile, told in ((0.5, "p50"), (0.95, "p95")):
        values = np.quantile(table, quantile, axis=0).tolist()
        names = ("direct", "guard", "sanitizing", "own")
        row |= {f"{name}_{told}_ms": value for name, value in zip(names, values, strict=True)}
    return row | {"limit_ms": LIMIT_MS, "holds": row["own_p95_ms"] <= LIMIT_MS, "note": ""}


async def _first_token(session: aiohttp.ClientSession, url: str, model: str, text: str) -> float:
    body = {
        "model": model, "max_tokens": 64, "stream": True,
        "messages": [{"role": "user", "content": text}],
    }  # fmt: skip
    began = time.perf_counter()
    async with session.post(url, json=body) as answer:
        await answer.content.readany()
        took_s = time.perf_counter() - began
        assert answer.status == 200
        async for _ in answer.content.iter_any():
            pass
    return took_s


def _guard(upstream: str, sanitize_ms: float) -> None:
    server = importlib.import_module("guard_server")
    upstream_config = importlib.import_module("workbench.serving.upstream").UpstreamConfig

    class Service(server.RuleService):  # type: ignore[misc, name-defined]
        took_s = 0.0

        async def sanitize(self, texts: Sequence[str], *, key: Any) -> Any:
            began = time.perf_counter()
            await asyncio.sleep(sanitize_ms / 1000)
            results = await super().sanitize(texts, key=key)
            self.took_s = time.perf_counter() - began
            return results

    service = Service()

    async def took(_: Request) -> PlainTextResponse:
        return PlainTextResponse(str(service.took_s))

    config = upstream_config(anthropic_url=upstream, openai_url=upstream + "/v1")
    app = server.guard_app(service, config)
    app.router.routes.append(Route("/took", took))
    served = uvicorn.Config(app, port=0, log_level="error", access_log=False)
    sock = served.bind_socket()
    sock.listen()
    print("http://{}:{}".format(*sock.getsockname()), flush=True)
    uvicorn.Server(served).run([sock])


@contextmanager
def _process(command: Sequence[str]) -> Iterator[str]:
    """Run a server; give the address that it prints first."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
