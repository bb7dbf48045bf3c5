"""The one client that asks publishers: paced, bounded, patient, and never off their host."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit

from workbench.core.errors import ConfigError, DataError, WorkbenchError
from workbench.core.identity import text_id
from workbench.core.redact import hide_password
from workbench.core.settings import Secret, Settings, is_loopback, read_variable
from workbench.llm.faults import one_line, retry_after_s
from workbench.llm.limits import backoff_s, fingerprint
from workbench.llm.messages import Fault
from workbench.llm.timing import Timing
from workbench.risk.sources.base import Service, unpacked
from workbench.risk.sources.cache import AnswerCache
from workbench.risk.sources.pace import Pace

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

__all__ = ["Got", "Progress", "Web", "keys_of"]

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int, str], None]
"""How many requests are done, of how many known so far, and the source of the last one."""

_log = logging.getLogger(__name__)

_USER_AGENT = "prompt-safety-workbench"
_PASSING = frozenset({403, 408, 425, 429, 500, 502, 503, 504, 520, 522, 524})
"""Statuses that may pass: NVD says 403 to who asks too often, and at times to others."""
_BUSY = frozenset({403, 429})
_REDIRECTS = 3
_GIVE_UP = 10
"""Failures in a row after which a publisher is asked no more."""
_CONNECT_S = 10.0
_SHOWN_BYTES = 2_000
_LEAST_KEY = 8


class Got(NamedTuple):
    """An answer."""

    value: Any
    """What the parser made of it; None where the publisher knows no such thing."""
    on: str
    """ISO date on which the publisher gave it."""


class Web:
    """Asks publishers. Belongs to one event loop; use it as ``async with Web(settings) as web``.

    Args:
        settings: Say whether connections are allowed, and where the cache lies.
        environment: Variables to read keys from instead of the process's own.
        timing: Clocks and sleep.
        timeout_s: For one whole answer.
        attempts: How often one request is sent at most.
        wait_cap_s: Longest wait that a publisher may ask for.
        tell: Called as requests are done.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environment: Mapping[str, str] | None = None,
        timing: Timing | None = None,
        timeout_s: float = 120.0,
        attempts: int = 5,
        wait_cap_s: float = 120.0,
        tell: Progress | None = None,
    ) -> None:
        self._settings = settings
        self.environment = environment
        self._timing = timing or Timing()
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._wait_cap_s = wait_cap_s
        self._tell = tell
        self._counts: dict[str, tuple[int, int]] = {}
        self._cache = AnswerCache(settings.home / "risk" / "answers.db", clock=self._timing.clock)
        self._paces: dict[str, Pace] = {}
        self._session: ClientSession | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._stack.aclose()
        self._session = None

    def check(self, service: Service, url: str) -> None:
        """Refuse an address that may not be asked, before any connection.

        Raises:
            ConfigError: If there is none, it is unfit for a key, or settings say offline.
        """
        name, parts = service.name, _parts(url)
        if not parts.hostname:
            raise ConfigError(f"source {name}: no address; give --base-url {name}=https://…")
        if "@" in parts.netloc or parts.query or (parts.scheme != "https" and not is_loopback(url)):
            raise ConfigError(
                f"source {name}: {hide_password(url)} is no https address without password and"
                " query; correct it, keys come from the environment"
            )
        if not self._settings.may_connect(url):
            raise ConfigError(
                f"source {name}: {parts.hostname} is not asked, WORKBENCH_OFFLINE is 1; set"
                " WORKBENCH_OFFLINE=0 to allow it, or give --file; assessments of a snapshot work"
                " offline"
            )

    def tell(self, source: str, done: int, total: int) -> None:
        """Say how far a source is; told is the sum over all of them."""
        self._counts[source] = done, total
        if self._tell:
            counts = self._counts.values()
            self._tell(sum(one for one, _ in counts), sum(all_ for _, all_ in counts), source)

    async def get(
        self,
        service: Service,
        url: str,
        *,
        parse: Callable[[bytes], Any],
        query: Mapping[str, str] | None = None,
        body: Any = None,
        may_be_absent: bool = False,
    ) -> Got:
        """Return what a parser makes of an answer, from the cache while that is fresh.

        Args:
            service: Who is asked; decides pace, key and bounds.
            url: Address without query.
            parse: Raises DataError for what it cannot use; such an answer is not kept.
            query: Parameters of the address.
            body: JSON to post; a GET without.
            may_be_absent: Whether 404 means that there is no such thing.

        Raises:
            ConfigError: As :meth:`check`, or if a key that it needs is not set.
            DataError: If there was no usable answer in several attempts.
        """
        self.check(service, url)
        full = f"{url}?{urlencode(query)}" if query else url
        sent = None if body is None else json.dumps(body)
        cache_key = self._cache_key(service, full, sent)
        kept = self._cache.get(cache_key)
        if kept is not None:
            try:
                return Got(parse(kept[0]), _day(kept[1]))
            except DataError:  # kept by another version
                _log.info("source %s: a kept answer is of no use, it is asked anew", service.name)
        data = await self._download(service, full, sent, may_be_absent=may_be_absent)
        today = _day(self._timing.clock())
        if data is None:
            return Got(None, today)
        value = parse(data)
        self._cache.put(cache_key, data, ttl_s=service.ttl_s)
        return Got(value, today)

    async def each(
        self, items: Iterable[T], call: Callable[[T], Awaitable[R]], *, service: Service
    ) -> list[R | WorkbenchError]:
        """Return what a call gives for each item, in their order, or why it failed.

        After several failures in a row the rest is not asked: the publisher is out of order.
        """
        waiting = list(enumerate(items))
        total = len(waiting)
        found: dict[int, R | WorkbenchError] = {}
        waiting.reverse()
        in_a_row = 0

        async def work() -> None:
            nonlocal in_a_row
            while waiting and in_a_row < _GIVE_UP:
                index, item = waiting.pop()
                try:
                    found[index] = await call(item)
                    in_a_row = 0
                except WorkbenchError as error:
                    found[index] = error
                    in_a_row += 1
                self.tell(service.name, len(found), total)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(service.parallel, total)):
                group.create_task(work())
        rest = DataError(f"source {service.name}: not asked, {in_a_row} requests in a row failed")
        return [found.get(index, rest) for index in range(total)]

    async def _download(
        self, service: Service, url: str, body: str | None, *, may_be_absent: bool
    ) -> bytes | None:
        pace = self._pace(service)
        for attempt in range(self._attempts):
            key = await pace.acquire()
            outcome = await self._follow(service, url, body, key)
            if isinstance(outcome, bytes):
                # One that repeats the key would have it kept, shown and shared.
                secret = key.reveal().encode()
                is_long = len(secret) >= _LEAST_KEY
                return outcome.replace(secret, b"[key]") if is_long else outcome
            if outcome.status == HTTPStatus.NOT_FOUND and may_be_absent:
                return None
            asked_s = outcome.retry_after_s or 0.0
            is_last = attempt + 1 == self._attempts or asked_s > self._wait_cap_s
            if is_last or not outcome.is_retryable:
                raise self._failure(service, url, outcome, attempts=attempt + 1)
            wait_s = backoff_s(attempt, outcome, cap_s=self._wait_cap_s)
            if outcome.status in _BUSY:
                pace.rest(key, seconds=wait_s)
            else:
                await self._timing.sleep(wait_s)
        raise AssertionError  # attempts >= 1

    def _failure(self, service: Service, url: str, fault: Fault, *, attempts: int) -> DataError:
        denied = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        variable = service.key_variable
        fix = f"check {variable}" if variable and fault.status in denied else "try again later"
        if fault.retry_after_s:
            fix = f"it asks to wait {fault.retry_after_s:,.0f} s, sync again after that"
        times = f" in {attempts} attempts" if attempts > 1 else ""
        return DataError(
            f"source {service.name}: {hide_password(url)}: {fault.message}{times}; {fix}"
        )

    async def _follow(
        self, service: Service, url: str, body: str | None, key: Secret
    ) -> bytes | Fault:
        """Return an answer or why there is none, after redirects on the same host."""
        for _ in range(_REDIRECTS):
            outcome = await self._once(service, url, body, key)
            if not isinstance(outcome, str):
                return outcome
            try:
                target = urljoin(url, outcome)
            except ValueError:
                return _final("redirects to what is no address")
            old, new = _parts(url), _parts(target)
            if (old.scheme, old.netloc) != (new.scheme, new.netloc):
                where = one_line(hide_password(target), key=key)[:200]
                return _final(f"redirects to {where}, which is not followed")
            url = target
        return _final(f"redirects more than {_REDIRECTS} times")

    async def _once(
        self, service: Service, url: str, body: str | None, key: Secret
    ) -> bytes | Fault | str:
        """Return an answer, where it redirects to, or a fault."""
        import aiohttp
        from yarl import URL

        headers = {"Accept-Encoding": "gzip", "User-Agent": _USER_AGENT}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key.reveal():
            headers[service.key_header] = service.key_prefix + key.reveal()
        try:
            async with (await self._open()).request(
                "GET" if body is None else "POST",
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                return await self._read(service, response, key)
        except TimeoutError:
            return Fault(kind="timeout", message=f"no whole answer in {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            what = one_line(str(error), key=key) or type(error).__name__
            return Fault(kind="dropped", message=f"the connection failed ({what})")
        except ValueError as error:
            return _final(f"sent what is no HTTP ({one_line(str(error), key=key)})")

    async def _read(
        self, service: Service, response: ClientResponse, key: Secret
    ) -> bytes | Fault | str:
        status = response.status
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return response.headers.get("Location", "")
        if status != HTTPStatus.OK:
            return await self._refusal(response, key)
        media = response.content_type
        if media not in service.media:
            known = " or ".join(service.media)
            return _final(f"answers {one_line(media, key=key)[:60]}, not {known}")
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > service.most_bytes:
                return _final(f"answers more than {service.most_bytes:,} bytes")
        packing = response.headers.get("Content-Encoding", "identity")
        return bytes(data) if packing == "identity" else _plain(bytes(data), service)

    async def _refusal(self, response: ClientResponse, key: Secret) -> Fault:
        """Return what a status other than success means."""
        status = response.status
        said = response.headers.get("message") or (
            await response.content.read(_SHOWN_BYTES)
        ).decode("utf-8", "replace")
        lower = {name.lower(): value for name, value in response.headers.items()}
        return Fault(
            kind="unavailable",
            message=f"HTTP {status} {one_line(said, key=key)[:100]}".strip(),
            status=status,
            is_retryable=status in _PASSING,
            retry_after_s=retry_after_s(lower, now=self._timing.clock()),
        )

    async def _open(self) -> ClientSession:
        if self._session is None:
            import aiohttp

            session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
                trust_env=False,
                auto_decompress=False,
            )
            self._session = await self._stack.enter_async_context(session)
        return self._session

    def _pace(self, service: Service) -> Pace:
        if service.name not in self._paces:
            keys, _ = keys_of(service, self.environment)
            rate = service.rate
            if not keys[0].reveal() and service.rate_without_key:
                rate = service.rate_without_key
            self._paces[service.name] = Pace(keys, rate=rate, timing=self._timing)
        return self._paces[service.name]

    def _cache_key(self, service: Service, url: str, body: str | None) -> str:
        """Return the name of an answer; what needs a key is kept for that key alone."""
        who = ""
        if service.needs_key:
            who = ",".join(map(fingerprint, keys_of(service, self.environment)[0]))
        return text_id(url, body or "", who)


def keys_of(
    service: Service, environment: Mapping[str, str] | None = None
) -> tuple[tuple[Secret, ...], str]:
    """Return the keys of a service and, where there are none, a line that says so.

    Raises:
        ConfigError: If it needs one, or one cannot be a key. No message shows a key.
    """
    name = service.key_variable
    if not name:
        return (Secret(""),), ""
    try:
        value = read_variable(name, environment).reveal()
    except ConfigError as error:
        if service.needs_key:
            raise
        return (Secret(""),), str(error)
    keys = dict.fromkeys(filter(None, value.split(",")))
    if not keys or any(" " in key for key in keys):
        raise ConfigError(f"{name} holds a space or no key; set it to keys with commas between")
    return tuple(map(Secret, keys)), ""


def _parts(url: str) -> SplitResult:
    """Return the parts of an address, all empty where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def _final(message: str) -> Fault:
    return Fault(kind="malformed", message=message, is_retryable=False)


def _plain(data: bytes, service: Service) -> bytes | Fault:
    """Return a body without the compression that the request offered."""
    try:
        return unpacked(data, source=service.name, most_bytes=service.most_bytes)
    except DataError as error:
        return _final(str(error).partition(": ")[2].partition("; ")[0])


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
