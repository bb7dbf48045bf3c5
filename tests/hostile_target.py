"""A loopback server that stands for a target, with faults by path; for tests alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import asynccontextmanager, suppress

from aiohttp import WSMsgType, web

BOMB = gzip.compress(b"[" + b'"a",' * 5_000_000 + b'"a"]', 9)
"""20 MB of JSON in some 20 kB."""


class HostileTarget:
    """Answers at ``/echo`` and misbehaves elsewhere; remembers what it got.

    Args:
        latency_s: Of ``/echo``.
    """

    def __init__(self, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.seen: list[tuple[str, dict[str, str], object]] = []
        """Path, headers in lower case, body as JSON or as text."""
        self.in_flight = self.most_in_flight = self.connections = 0
        self.script: list[web.Response] = []
        """Answers of ``/scripted``, first first; the last one again and again."""
        self.ports: list[int] = []
        """Of clients, one per request."""
        self.url = ""

    @property
    def bodies(self) -> list:
        return [body for _, _, body in self.seen]

    @asynccontextmanager
    async def serve(self):
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{fault}", self._handle)
        app.router.add_route("*", "/{fault}/{rest:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, keepalive_timeout=5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = request.match_info["fault"]
        if fault.startswith("ws"):
            return await self._talk(request, fault)
        text = await request.text()
        body: object = text
        with suppress(ValueError):
            body = json.loads(text)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.path_qs, headers, body))
        self.ports.append(request.transport.get_extra_info("peername")[1])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await getattr(self, fault)(request, body)
        finally:
            self.in_flight -= 1

    async def echo(self, request, body):
        await asyncio.sleep(self.latency_s)
        messages = body.get("messages") if isinstance(body, dict) else None
        said = body.get("prompt", "") if isinstance(body, dict) else str(body)
        return web.json_response({"text": f"{len(messages or [1])}: {said}"})

    async def raw(self, request, body):
        return web.Response(text=body if isinstance(body, str) else json.dumps(body))

    async def scripted(self, request, body):
        made = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return web.Response(
            status=made.status,
            body=made.body,
            headers={k: v for k, v in made.headers.items() if k.lower() != "content-length"},
        )

    async def hang(self, request, body):
        await asyncio.sleep(30)

    async def drip(self, request, body):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3_000):
            await response.write(b"x")
            await asyncio.sleep(0.01)
        return response

    async def flood(self, request, body):
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with suppress(ConnectionError):
            for _ in range(1_000):
                await response.write(b"\x00\xff\xfe garbage" * 10_000)
        return response

    async def html(self, request, body):
        return web.Response(text="<!DOCTYPE html><p>Sign in", content_type="text/html")

    async def close(self, request, body):
        request.transport.abort()
        return web.Response()

    async def half(self, request, body):
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"text": "half')
        request.transport.close()
        return response

    async def garbage(self, request, body):
        request.transport.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        request.transport.close()
        return web.Response()

    async def redirect(self, request, body):
        return web.Response(status=307, headers={"Location": f"{self.url}/echo?moved"})

    async def bomb(self, request, body):
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=BOMB, headers=headers)

    async def zipped(self, request, body):
        packed = gzip.compress(b'{"text": "unpacked"}')
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async def unzippable(self, request, body):
        return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})

    async def strange(self, request, body):
        return web.Response(body=b"x", headers={"Content-Encoding": "br"})

    async def latin(self, request, body):
        return web.Response(body=b'{"text": "caf\xe9 \xff"}', content_type="application/json")

    async def charset(self, request, body):
        """Say the name of a character set in it, and after it what only some can."""
        headers = {"Content-Type": f"text/plain; charset={body}"}
        return web.Response(body=f"{body} \u20ac".encode(body, "ignore"), headers=headers)

    async def punycode(self, request, body):
        headers = {"Content-Type": 'text/plain; charset="punycode"'}
        return web.Response(status=418, body=b"b-" + b"z9" * 450_000, headers=headers)

    async def shape(self, request, body):
        return web.json_response({"text": {"no": ["text"]}, "error": None})

    async def deep(self, request, body):
        return web.Response(text="[" * 100_000)

    async def mirror(self, request, body):
        return web.json_response({"text": "\n".join(request.headers.values())})

    async def _talk(self, request: web.Request, fault: str) -> web.StreamResponse:
        self.connections += 1
        if fault == "ws-refused":
            return await self.scripted(request, None)
        if fault == "ws-moved":
            return web.Response(status=302, headers={"Location": f"{self.url}/ws"})
        if fault == "ws-dropped":
            request.transport.abort()
            return web.Response()
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        turn = 0
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            self.seen.append((request.path_qs, {}, message.data))
            turn += 1
            await self._reply(socket, fault, message.data, turn)
            if socket.closed:
                break
        return socket

    async def _reply(self, socket, fault: str, text: str, turn: int) -> None:
        if fault == "ws":
            await socket.send_str(json.dumps({"type": "ack"}))
            said = json.loads(text)["prompt"]
            await socket.send_str(json.dumps({"text": f"{turn}: {said}"}))
        elif fault == "ws-pieces":
            for piece in ("one ", "two ", "three"):
                await socket.send_str(json.dumps({"type": "delta", "text": piece}))
            await socket.send_str(json.dumps({"type": "done"}))
        elif fault == "ws-garbage":
            for _ in range(10_000):
                await socket.send_bytes(b"\xff\x00" * 100)
        elif fault == "ws-big":
            await socket.send_str("x" * 3_000_000)
        elif fault == "ws-close":
            await socket.close()
        elif fault == "ws-hang":
            await asyncio.sleep(30)
