"""The socket that tells a user what happens: one snapshot, then diffs.

A client sends ``{"subscribe": ["jobs", "job/ID", …], "from": SEQ}``; ``from`` only after a lost
connection, with the topics it had. It gets the values of the topics, in alphabetical order, as
``{"seq", "topics": [topic, …], "snapshot": [value, …]}``, and then changes of that list, see
``server.diffs``: ``{"seq", "diffs": [[path, value], …]}``. What cannot be understood is answered
with ``{"problem": {…}}``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from workbench.core.errors import InputError
from workbench.core.fields import refuse_unknown
from workbench.server.feed import Feeds
from workbench.server.identity import RESOURCE
from workbench.server.topics import parse_topics

__all__ = ["StreamHandler"]

_MOST_BYTES = 4_096
"""Of one message from a client."""
_MOST_MISTAKES = 5
_MOST_OF_USER = 50
_MOST_SOCKETS = 1_000
_POLICY, _ERROR, _LATER = 1008, 1011, 1013
"""Why a socket is closed, RFC 6455 section 7.4 and its registry."""


class StreamHandler(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """One socket. At most one message is on its way; who is slow gets a snapshot instead of many.

    Mounted as ``(path, StreamHandler, {"feeds": Feeds(store_of)})``.
    """

    auth_resource = RESOURCE

    def initialize(self, feeds: Feeds) -> None:
        """Take what the route gives."""
        self._feeds = feeds
        self._bell = asyncio.Event()
        self._topics: tuple[str, ...] = ()
        self._since: int | None = None
        self._mistakes = 0
        self._sender: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Most bytes of a message; a longer one closes the socket."""
        return _MOST_BYTES

    @ws_authenticated
    async def get(self, *arguments: str, **named: str) -> None:
        """Open the socket of a user who may read."""
        user = self.current_user
        may = self.authorizer.is_authorized(self, user, "read", self.auth_resource)
        if not await ensure_async(may):
            raise HTTPError(403, log_message="user may not read workbench")
        try:
            self._feed = self._feeds.of(user.username)
        except InputError as error:  # no name that records can carry
            raise HTTPError(403, log_message=str(error)) from None
        await super().get(*arguments, **named)

    def open(self, *arguments: str, **named: str) -> None:
        """Begin to ping, and to send what comes."""
        super().open(*arguments, **named)
        if self._feed.sockets >= _MOST_OF_USER or self._feeds.sockets >= _MOST_SOCKETS:
            self.close(_LATER, "too many sockets; close some")
            return
        self._feed.enter(self._bell)
        self._sender = asyncio.create_task(self._send())

    def on_message(self, message: str | bytes) -> None:
        """Take a subscription; a later one replaces it."""
        if self._sender is None:
            return
        try:
            topics, since = _parse(message)
        except InputError as error:
            self._refuse(str(error))
            return
        self._feed.follow(topics, instead_of=self._topics)
        self._topics, self._since = topics, since
        self._bell.set()

    def on_close(self) -> None:
        """Stop sending, and reading what only this socket wanted."""
        super().on_close()
        if self._sender is not None:
            self._sender.cancel()
            self._feed.follow((), instead_of=self._topics)
            self._feed.leave(self._bell)

    async def _send(self) -> None:
        try:
            while not self._feed.is_over:
                await self._bell.wait()
                self._bell.clear()
                if not self._topics:
                    continue
                self._since, text = self._feed.message(self._topics, self._since)
                if text:
                    await self.write_message(text)  # until it is with the client's machine
            self.close(_ERROR, "the feed ended; connect again")
        except WebSocketClosedError:
            return

    def _refuse(self, why: str) -> None:
        self._mistakes += 1
        if self._mistakes >= _MOST_MISTAKES:
            self.close(_POLICY, "too many messages that make no sense")
            return
        problem = {"type": "about:blank", "title": "Bad message", "status": 400, "detail": why}
        self.write_message(json.dumps({"problem": problem}))


def _parse(message: str | bytes) -> tuple[tuple[str, ...], int | None]:
    """Return the topics of a subscription, and the number of the state that the client has."""
    try:
        asked: Any = json.loads(message)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise InputError('not understood; write {"subscribe": ["jobs"]}')
    refuse_unknown(asked, known=("subscribe", "from"), where="message")
    since = asked.get("from")
    if since is not None and (type(since) is not int or since < 0):
        raise InputError(f"from is {str(since)[:40]!r}; give the seq of the last message, or none")
    return parse_topics(asked.get("subscribe")), since
