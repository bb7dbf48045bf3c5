"""Any service that takes a prompt over HTTP and gives text."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any

from workbench.campaign.targets.chat import ChatTarget, Said
from workbench.campaign.targets.config import SECRET, TargetSpec
from workbench.campaign.targets.pacing import TargetError
from workbench.campaign.targets.template import (
    CONTENT_TYPES,
    Asked,
    Template,
    answer_in,
    parse_path,
)
from workbench.core.settings import Secret
from workbench.llm.faults import one_line, retry_after_s
from workbench.llm.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession
    from yarl import URL

__all__ = ["HttpTarget", "Wire", "WireTarget"]

_USER_AGENT = "prompt-safety-workbench"
_DEFAULT_BODY = {"prompt": "{{prompt}}"}
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_PASSING = (HTTPStatus.BAD_GATEWAY, 529)
"""Statuses of faults between the target and us, which may pass; after 504 it may still answer."""
_SHOWN = 300
_LEAST_SECRET = 6
"""Characters; shorter values stand in any text by chance."""
_AT_ONCE = 1 << 20
"""Bytes that the client writes without a pause for others."""
_IDLE_S = 1.0
"""Connections rest no longer: servers close theirs after 2 s and more, maybe as one is used."""
_CHARSETS = re.compile(
    r"utf-?8|(us-)?ascii|latin-?1|iso-8859-([1-9]|1[0134-6])|(cp|windows-)125[0-8]|utf-16([bl]e)?"
    r"|shift[_-]jis|gb18030|gbk|gb2312|big5|euc-(jp|kr|cn)|koi8-[ru]",
    re.IGNORECASE,
)
"""What is decoded in time that grows with length alone; others (punycode) need its square."""


class Wire:
    """What HTTP and WebSocket targets share: template, headers with secrets, one session.

    Args:
        spec: What somebody wrote.
        url: Its address, checked.
        secrets: Environment variable → value, for headers.
    """

    def __init__(self, spec: TargetSpec, *, url: URL, secrets: Mapping[str, Secret]) -> None:
        body = spec.body
        if body is None and spec.method != "GET":
            body = _DEFAULT_BODY
        where = spec.name or str(url.with_query(None))
        query = spec.url.partition("#")[0].partition("?")[2]
        self.template = Template(body, format=spec.format, where=where, query=query)
        self.path = None if spec.response_path is None else parse_path(spec.response_path)
        self.limit = spec.max_response_bytes
        self._url = url.with_fragment(None)
        self._has_query = "{{" in query
        self._spec = spec
        self._secrets = secrets
        self._session: ClientSession | None = None

    def url(self, asked: Asked) -> URL:
        """Return where to send a message."""
        if not self._has_query:
            return self._url
        from yarl import URL

        return URL(f"{self._url.with_query(None)}?{self.template.query(asked)}", encoded=True)

    @property
    def session(self) -> ClientSession:
        """The one session: no proxies, no cookies, nothing unpacked without a bound."""
        if self._session is None:
            import aiohttp

            headers = {
                "User-Agent": _USER_AGENT,
                "Accept-Encoding": "identity",
                "Content-Type": CONTENT_TYPES[self._spec.format],
            }
            mine = {name.lower() for name in self._spec.headers}
            headers = {name: value for name, value in headers.items() if name.lower() not in mine}
            self._session = aiohttp.ClientSession(
                headers={**headers, **{k: self._filled(v) for k, v in self._spec.headers.items()}},
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
                middlewares=(self._once,),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._spec.timeout_s),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    async def _once(self, request: ClientRequest, send: ClientHandlerType) -> ClientResponse:
        """Send a request; the client would follow redirects and repeat what it holds harmless."""
        with self.faults():
            response = await send(request)
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            response.close()
            raise self.refusal(response.status, response.headers, "")
        return response

    def _filled(self, value: str) -> str:
        return SECRET.sub(lambda found: self._secrets[found[1]].reveal(), value)

    def hide(self, text: str) -> str:
        """Return a text without the secrets that the target may have sent back."""
        for name, secret in self._secrets.items():
            if len(secret.reveal()) >= _LEAST_SECRET:
                text = text.replace(secret.reveal(), f"[{name}]")
        return text

    def show(self, text: str) -> str:
        """Return hostile text for a message: the beginning, as one line, without secrets."""
        return one_line(self.hide(text[: 20 * _SHOWN]), key=Secret(""))[:_SHOWN]

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn what the client raises into :class:`TargetError`."""
        import aiohttp

        try:
            yield
        except TargetError:
            raise
        except TimeoutError:
            raise TargetError(
                f"no whole answer within {self._spec.timeout_s:g} s; raise timeout_s",
                kind="timeout",
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise TargetError(
                f"cannot connect: {self.show(str(error))}", kind="unavailable", is_retryable=True
            ) from None
        except aiohttp.ServerDisconnectedError:
            raise TargetError("closed the connection before it answered", kind="dropped") from None
        except aiohttp.ClientResponseError as error:
            raise self.refusal(error.status, error.headers or {}, error.message) from None
        except (aiohttp.ClientError, OSError) as error:
            raise TargetError(
                f"closed the connection in the middle of its answer ({type(error).__name__})",
                kind="dropped",
            ) from None
        except ValueError as error:
            raise TargetError(f"sent what is no HTTP: {self.show(str(error))}") from None

    def refusal(self, status: int, headers: Mapping[str, str], text: str) -> TargetError:
        """Return what a status other than success means."""
        shown = self.show(text)
        lower = {name.lower(): value for name, value in headers.items()}
        if status in _BUSY:
            after_s = retry_after_s(lower, now=time.time())
            return TargetError(
                f"HTTP {status}: too busy", kind="rate_limit", is_retryable=True,
                retry_after_s=after_s,
            )  # fmt: skip
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            to = self.show(lower.get("location", "nowhere"))
            return TargetError(f"HTTP {status}: redirects to {to}, which is not followed")
        return TargetError(
            f"HTTP {status}: {shown}", kind="unavailable", is_retryable=status in _PASSING
        )

    async def close(self) -> None:
        """Close the session."""
        if self._session:
            await self._session.close()
            self._session = None


class WireTarget(ChatTarget):
    """A service at an address of its own.

    Args:
        spec: What somebody wrote.
        url: Its address, checked by ``address.checked_address``.
        secrets: Environment variable → value, for headers; never shown.
        timing: Clocks and sleep.
        tell: Called with a line when quiet hours hold it.
    """

    def __init__(
        self,
        spec: TargetSpec,
        *,
        url: URL,
        secrets: Mapping[str, Secret] | None = None,
        timing: Timing | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        name = str(url.with_query(None))[:100]
        super().__init__(spec, name=name, identity=spec.identity, timing=timing, tell=tell)
        self._wire = Wire(spec, url=url, secrets=secrets or {})


class HttpTarget(WireTarget):
    """Sends one HTTP request per message, redirects never followed."""

    async def _say(self, asked: Asked, line: Any) -> Said:  # noqa: ARG002
        wire = self._wire
        if len(asked.messages) > 1 and not wire.template.has_history:
            raise TargetError(
                "the template carries no conversation; put {{messages}} or {{conversation}} in body"
            )
        body: bytes | BytesIO | None = wire.template.body(asked)
        if isinstance(body, bytes) and len(body) > _AT_ONCE:
            body = BytesIO(body)
        with wire.faults():
            url = wire.url(asked)
            started = time.perf_counter()
            async with wire.session.request(
                self._spec.method, url, data=body, allow_redirects=False
            ) as response:
                data = await self._read(response)
            latency_ms = 1000 * (time.perf_counter() - started)
            text = _unpacked(data, response, limit=wire.limit)
        status = response.status
        if status in self._spec.block_status:
            return Said(wire.hide(text), latency_ms, self.usd_per_call, "block")
        if not response.ok:
            raise wire.refusal(status, response.headers, text)
        return Said(wire.hide(answer_in(text, wire.path)), latency_ms, self.usd_per_call)

    async def _read(self, response: ClientResponse) -> bytes:
        limit = self._wire.limit
        if (response.content_length or 0) > limit:
            raise _too_long(limit)
        data = bytearray()
        chunks: AsyncIterator[bytes] = response.content.iter_any()
        async for chunk in chunks:
            data += chunk
            if len(data) > limit:
                raise _too_long(limit)
        return bytes(data)

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()


def _unpacked(data: bytes, response: ClientResponse, *, limit: int) -> str:
    """Return a body as text, however much more of it its compression would make."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding in {"gzip", "deflate"}:
        unpacker = zlib.decompressobj(wbits=47)  # either, by its header
        try:
            data = unpacker.decompress(data, limit + 1)
        except zlib.error:
            raise TargetError(f"sent what is no {encoding}") from None
        if len(data) > limit:
            raise _too_long(limit)
    elif encoding != "identity":
        raise TargetError(f"sent Content-Encoding {encoding[:40]!r}, which was not asked for")
    charset = response.charset or ""
    return data.decode(charset if _CHARSETS.fullmatch(charset) else "utf-8", "replace")


def _too_long(limit: int) -> TargetError:
    return TargetError(f"an answer of more than {limit:,} bytes; raise max_response_bytes")
