"""Answers shared by several machines, in Redis, in front of the store; a miss is never an error."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn
from uuid import uuid4

from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import canonical_json
from workbench.core.redact import hide_password
from workbench.core.settings import Settings

__all__ = ["RedisCache", "open_cache"]

_log = logging.getLogger(__name__)

_ANSWER = "workbench:answer:"
_LEASE = "workbench:lease:"
_MAX_BYTES = 4_000_000
"""No answer is longer; a longer value is somebody else's and would only fill the memory."""
_CONNECTIONS = 32
_TIMEOUT_S = 1.0
_REST_S = 30.0
"""How long a server that does not answer is left alone, so that calls need not wait for it."""
_IF_OURS = "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end return redis.call("
_RELEASE = _IF_OURS + "'del', KEYS[1])"
_RENEW = _IF_OURS + "'pexpire', KEYS[1], ARGV[2])"


class RedisCache:
    """Answers as JSON in Redis; belongs to one event loop.

    While the server does not answer, everything is a miss and every lease is granted (the store
    still keeps two processes from sending the same); that is logged once.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; may hold a password, which is never shown.
        clock: Seconds that never run backwards.

    Raises:
        ConfigError: If the URL is no Redis URL, or redis-py is not installed.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError:
            raise ConfigError(
                "WORKBENCH_CACHE_URL: pip install 'prompt-safety-workbench[redis]', or unset it"
            ) from None
        try:
            pool: Any = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),  # a miss is cheaper than waiting
            )
            pool.make_connection()  # connects nothing, but refuses unknown options
        except (ValueError, TypeError):  # what it says may show the password
            raise ConfigError(
                "WORKBENCH_CACHE_URL is not the address of a Redis; write redis://host:6379/0"
            ) from None
        self._redis: Any = Redis.from_pool(pool)
        self._url = hide_password(url)
        self._faults = (RedisError, OSError, UnicodeError)
        self._clock = clock
        self._rests_until = -1.0
        self._has_warned = False
        self._token = uuid4().hex

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return the answer kept under a key; None also for what is no answer."""
        # not GET: whatever lies there, no more than this comes over the line
        data = await self._ask("GETRANGE", _ANSWER + key, 0, _MAX_BYTES)
        if not data or len(data) > _MAX_BYTES:
            return None
        try:
            answer = json.loads(data, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return None
        return answer if isinstance(answer, dict) else None

    async def put(self, key: str, answer: dict[str, Any], *, ttl_s: float | None) -> None:
        """Keep an answer for some seconds, for ever with None; over-long ones are not kept."""
        # a lone surrogate becomes the JSON escape that it is
        data = canonical_json(answer).encode("utf-8", "backslashreplace")
        if len(data) <= _MAX_BYTES and (ttl_s is None or ttl_s > 0):
            await self._ask("SET", _ANSWER + key, data, *_expiry(ttl_s))

    async def lease(self, key: str, *, ttl_s: float = 15.0) -> bool:
        """Return whether the caller may send; also where the server does not answer.

        The lease is short, so that a buyer that dies holds up the others no longer; who needs it
        longer calls :meth:`renew` every few seconds.
        """
        command = ("SET", _LEASE + key, self._token, "NX", *_expiry(ttl_s))
        return bool(await self._ask(*command, otherwise=True))

    async def renew(self, key: str, *, ttl_s: float = 15.0) -> bool:
        """Return whether the lease is still the caller's, from now on for so many seconds."""
        command = ("EVAL", _RENEW, 1, _LEASE + key, self._token, _milliseconds(ttl_s))
        return bool(await self._ask(*command, otherwise=True))

    async def release(self, key: str) -> None:
        """Give a lease back, unless it ran out and is somebody else's by now."""
        await self._ask("EVAL", _RELEASE, 1, _LEASE + key, self._token)

    async def evaluate(
        self, script: str, keys: Sequence[str], arguments: Sequence[float]
    ) -> list[bytes]:
        """Return what a script says, which the server is sent once.

        Raises:
            StoreError: If the server does not answer: this is no cache, and a miss no answer.
        """
        try:
            answer: list[bytes] = await self._redis.register_script(script)(keys, arguments)
        except self._faults as error:
            raise StoreError(
                f"{self._url}: no answer about rate limits ({type(error).__name__}); start that"
                " Redis, or unset WORKBENCH_CACHE_URL"
            ) from None
        return answer

    async def is_reachable(self) -> bool:
        """Return whether the server answers now."""
        return bool(await self._ask("PING"))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _ask(self, *command: str | bytes | int, otherwise: Any = None) -> Any:
        """Return what the server says, or the other value where it does not answer."""
        if self._clock() < self._rests_until:
            return otherwise
        try:
            return await self._redis.execute_command(*command)
        except self._faults as error:
            from redis.exceptions import ResponseError

            if not isinstance(error, ResponseError):  # that would concern this command alone
                self._rests_until = self._clock() + _REST_S
            if not self._has_warned:
                self._has_warned = True
                kind = type(error).__name__
                _log.warning("%s: no response cache (%s); going on without it", self._url, kind)
            return otherwise


def open_cache(settings: Settings) -> RedisCache | None:
    """Return the shared cache that the settings name, None where they name none.

    Raises:
        ConfigError: As :class:`RedisCache`.
    """
    if not settings.cache_url:
        return None
    if not settings.may_connect(settings.cache_url):
        shown = hide_password(settings.cache_url)
        _log.warning("%s: no response cache, WORKBENCH_OFFLINE is 1; set it to 0 to use it", shown)
        return None
    return RedisCache(settings.cache_url)


def _expiry(ttl_s: float | None) -> tuple[str | int, ...]:
    return () if ttl_s is None else ("PX", _milliseconds(ttl_s))


def _milliseconds(ttl_s: float) -> int:
    return max(1, round(ttl_s * 1000))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON
