"""Any service that is talked to over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from workbench.campaign.targets.chat import Said
from workbench.campaign.targets.config import TargetSpec
from workbench.campaign.targets.http import WireTarget
from workbench.campaign.targets.pacing import TargetError
from workbench.campaign.targets.template import Asked, answer_in, at_path, parse_path

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

__all__ = ["WebSocketTarget"]


class WebSocketTarget(WireTarget):
    """Holds each conversation over a connection of its own, or each message where that is said.

    Messages that hold no answer are passed over. Only connecting is tried again: what was sent may
    have had its effect.
    """

    def __init__(self, spec: TargetSpec, **opened: Any) -> None:
        super().__init__(spec, **opened)
        self._done = {parse_path(path): value for path, value in spec.done.items()}

    def _line(self, messages: int) -> AbstractAsyncContextManager[Any]:
        if not self._spec.per_message:
            return self._connected()
        if messages > 1 and not self._wire.template.has_history:
            raise TargetError(
                "the template carries no conversation; put {{messages}} or {{conversation}} in"
                " body, or set per_message: false"
            )
        return nullcontext()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientWebSocketResponse]:
        connection = await self._pace.attempts(self._connect)
        try:
            yield connection
        finally:
            await connection.close()

    async def _connect(self) -> ClientWebSocketResponse:
        wire = self._wire
        with wire.faults():
            async with asyncio.timeout(self._spec.timeout_s):
                address = wire.url(Asked("", (), ""))
                return await wire.session.ws_connect(address, max_msg_size=wire.limit)

    async def _say(self, asked: Asked, line: ClientWebSocketResponse | None) -> Said:
        connection = line or await self._connect()
        try:
            body = self._wire.template.body(asked) or b""
            started = time.perf_counter()
            with self._wire.faults():
                async with asyncio.timeout(self._spec.timeout_s):
                    await connection.send_str(body.decode())
                    text = await self._answer(connection)
            latency_ms = 1000 * (time.perf_counter() - started)
            return Said(self._wire.hide(text), latency_ms, self.usd_per_call)
        except TargetError as error:
            raise TargetError(str(error), kind=error.fault.kind) from None
        finally:
            if line is None:
                await connection.close()

    async def _answer(self, connection: ClientWebSocketResponse) -> str:
        pieces: list[str] = []
        left = self._wire.limit
        while True:
            message = await self._received(connection)
            left -= len(message) + 1
            if left < 0:
                limit = f"{self._wire.limit:,}"
                raise TargetError(f"more than {limit} bytes came; raise max_response_bytes")
            try:
                pieces.append(answer_in(message, self._wire.path))
            except TargetError:  # not the message that holds the answer
                if not self._done:
                    continue
            if not self._done or self._ends(message):
                return "".join(pieces)

    async def _received(self, connection: ClientWebSocketResponse) -> str:
        from aiohttp import WSMsgType

        message = await connection.receive()
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            return bytes(message.data).decode("utf-8", "replace")
        if message.type is WSMsgType.ERROR or connection.close_code == _TOO_BIG:
            raise TargetError(f"sent what is no message: {self._wire.show(str(message.data))}")
        raise TargetError("closed the connection before it answered", kind="dropped")

    def _ends(self, message: str) -> bool:
        try:
            value = json.loads(message)
        except (ValueError, RecursionError):
            return False
        return all(at_path(value, path) == wanted for path, wanted in self._done.items())

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()


_TOO_BIG = 1009
"""Close code of a message above the limit; source: RFC 6455, section 7.4.1."""
