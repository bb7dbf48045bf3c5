"""Answers on their way to the client: passed on byte for byte, and read for what they used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from starlette.responses import Response

from workbench.llm.messages import Usage
from workbench.serving.refusal import Refusal
from workbench.serving.upstream import Incoming

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["EVENTS", "Client", "Dialect", "Meter"]

EVENTS = "text/event-stream"
_MOST_LINE = 2**20
_LAST = {b"event:message_stop", b"data:[DONE]"}
"""Without spaces, the lines that end a stream: clients leave there, and miss nothing."""


class Dialect(Protocol):
    """How an API says things; a module is one."""

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Return the JSON of an error."""

    def event(self, values: dict[str, Any]) -> bytes:
        """Return a server-sent event."""

    def refusal(self, body: Mapping[str, Any], text: str) -> bytes:
        """Return an answer that declines, as JSON or as all events."""

    def usage(self, found: Mapping[str, Any]) -> Usage:
        """Return the tokens that an answer's ``usage`` says."""


class Meter:
    """Finds what a service says about tokens; keeps no text."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        """The ``usage`` that was said; of several, the newest value of each field."""
        self.bytes = 0
        self.is_whole = False
        """Whether all of the answer was seen."""
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Read on in a stream of events."""
        self.bytes += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._read_line(line)
        if len(self._rest) > _MOST_LINE:
            self._rest = b""

    def end(self) -> None:
        """Read a last line that no line end came after."""
        self._read_line(self._rest)

    def _read_line(self, line: bytes) -> None:
        if line.startswith(b"data:") and b'"usage"' in line:
            self.read(line[5:])
        self.is_whole |= line[:32].translate(None, b" \r") in _LAST

    def read(self, document: bytes) -> None:
        """Read a JSON document: an answer, or one event's data."""
        try:
            values = json.loads(document)
        except (ValueError, RecursionError):
            return
        for holder in (values, values.get("message")) if isinstance(values, dict) else ():
            said = holder.get("usage") if isinstance(holder, dict) else None
            if isinstance(said, dict):
                self.found |= {name: value for name, value in said.items() if value is not None}


class Client:
    """Who gets the answer to one request.

    Args:
        scope: Of ASGI, as the next two.
        receive: Not used while an answer goes out.
        send: Takes the answer.
        dialect: Of the API that was asked.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
        self._asgi, self._send, self.dialect = (scope, receive, send), send, dialect
        self.headers: dict[str, str] = {}
        """Sent with every answer."""

    async def refuse(self, refusal: Refusal) -> None:
        """Say why there is no answer."""
        body = json.dumps(self.dialect.error(refusal.status_code, refusal.detail)).encode()
        await self.answer(body, status=refusal.status_code, headers=refusal.headers or {})

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:  # fmt: skip
        """Send a whole answer."""
        told = {"content-type": kind, **self.headers, **(headers or {})}
        await Response(body, status, told)(*self._asgi)

    async def relay(self, answer: Incoming, meter: Meter) -> None:
        """Pass a service's answer on: events as they come, everything else when it is whole.

        Raises:
            Refusal: 502 or 504, if it breaks off before anything of it was sent.
        """
        headers = answer.headers | self.headers
        if not headers.get("content-type", "").startswith(EVENTS):
            body = await answer.whole()
            meter.bytes = len(body)
            meter.read(body)
            meter.is_whole = True
            await self.answer(body, status=answer.status, headers=headers)
            return
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": answer.status, "headers": raw}
        await self._send(start)
        try:
            async for chunk in answer.chunks():
                meter.feed(chunk)
                await self._pass(chunk)
            meter.end()
        except Refusal as refusal:  # an event that was begun ends with the empty line
            if not meter.is_whole:
                error = self.dialect.error(refusal.status_code, refusal.detail)
                await self._pass(b"\n\n" + self.dialect.event(error))
        await self._send({"type": "http.response.body", "body": b""})

    async def _pass(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
