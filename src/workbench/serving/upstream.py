"""The one way out: requests go to the configured model services, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.core.errors import ConfigError
from workbench.core.redact import hide_password
from workbench.core.settings import Secret, Settings, is_loopback, read_keys
from workbench.serving.refusal import Overloaded, Refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

__all__ = ["Api", "Incoming", "Upstream", "UpstreamConfig", "open_upstream"]

Api = Literal["anthropic", "openai"]
_APIS: tuple[Api, ...] = ("anthropic", "openai")

_SENT_ON = re.compile(
    r"accept|user-agent|idempotency-key|anthropic-(version|beta)|openai-(beta|organization|project)"
    r"|x-client-request-id|x-stainless-[a-z-]+"
)
"""Headers of a client that reach the service; those with keys are a matter of their own."""
_KEYS = ("authorization", "x-api-key")
_SENT_BACK = re.compile(
    r"content-(type|encoding)|(x-)?request-id|retry-after(-ms)?|x-should-retry"
    r"|(anthropic|x)-ratelimit-[a-z-]+|openai-(version|model|processing-ms)"
)
"""Headers of the service that reach the client: no cookie, no address, nothing of one hop."""
_CHOICES = frozenset({"openai-organization", "openai-project"})
"""Whom a call is charged to: the choice of whoever pays."""
_QUERY = frozenset({"after", "after_id", "before_id", "beta", "limit"})
_PRINTABLE = re.compile(r"[ -~]*")
_ANSWERS = (2, 4, 5)
"""Hundreds of the statuses that are passed on."""
_RETRY_S = 5
_MOST_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """Which services are called, and who pays them.

    Raises:
        ConfigError: If an address is none, or a time is not above 0.
    """

    anthropic_url: str = ""
    """Base URL as the ``anthropic`` client takes it, ``https://api.anthropic.com``; empty: none."""
    openai_url: str = ""
    """Base URL as the ``openai`` client takes it, ``https://api.openai.com/v1``; empty: none."""
    payer: Literal["client", "service"] = "client"
    """``client``: its own key of the model service goes on, and its key of this service is in
    ``x-workbench-key``. ``service``: the client has a key of this service alone."""
    connect_s: float = 10.0
    """Longest time to connect."""
    silence_s: float = 600.0
    """Longest time in which the service may say nothing."""
    most_open: int = 1000
    """Most requests that wait for the services at once; more are told to come later."""

    def __post_init__(self) -> None:
        from yarl import URL

        for name in ("anthropic_url", "openai_url"):
            given = getattr(self, name)
            try:
                url = URL(given)
                is_good = url.scheme in {"http", "https"} and bool(url.host and url.port)
            except ValueError:
                is_good = False
            if given and (not is_good or set("?#@") & set(given)):
                raise ConfigError(
                    f"{name} is {hide_password(given)[:80]!r}; write http(s)://host[:port][/path]"
                    " without user, query and fragment"
                )
        if min(self.connect_s, self.silence_s, self.most_open) <= 0:
            raise ConfigError("connect_s, silence_s and most_open must be above 0")

    def url(self, api: Api) -> str:
        """Return the base URL of an API; empty where it is not served."""
        return self.anthropic_url if api == "anthropic" else self.openai_url


class Incoming:
    """A service's answer, whose body is still to come.

    Args:
        response: Of the client library.
    """

    def __init__(self, response: ClientResponse) -> None:
        self._response = response
        self.status = response.status
        found = {name.lower(): value for name, value in response.headers.items()}
        self.headers = {
            name: value
            for name, value in found.items()
            if _SENT_BACK.fullmatch(name) and _PRINTABLE.fullmatch(value)
        }
        """Those that reach the client."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body's bytes as they come.

        Raises:
            Refusal: 502 or 504, if they stop coming.
        """
        with _faults():
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def whole(self) -> bytes:
        """Return the body.

        Raises:
            Refusal: 502 or 504, if it does not come whole, or is too large for an answer.
        """
        found = bytearray()
        async for chunk in self.chunks():
            found += chunk
            if len(found) > _MOST_BYTES:
                raise _unavailable(f"answered with more than {_MOST_BYTES:,} bytes")
        return bytes(found)


class Upstream:
    """Sends requests on; one session, made at first use.

    Args:
        config: Where to.
        keys: The service's own, by API; used where it pays.

    Raises:
        ConfigError: If the service pays and has no key.
    """

    def __init__(self, config: UpstreamConfig, *, keys: Mapping[Api, Secret] | None = None) -> None:
        self.config = config
        self._keys = keys or {}
        self._session: ClientSession | None = None
        self._open = 0
        self.apis = tuple(api for api in _APIS if config.url(api))
        for api in self.apis if config.payer == "service" else ():
            key = self._keys.get(api, Secret(""))
            if not (key.reveal() or is_loopback(config.url(api))):
                raise ConfigError(f"no key for {config.url(api)}: the service pays and needs one")

    @asynccontextmanager
    async def request(
        self, api: Api, path: str, *, headers: Mapping[str, str], query: Mapping[str, str],
        body: bytes | None = None,
    ) -> AsyncIterator[Incoming]:  # fmt: skip
        """Give the service's answer, whose body has still to be read; leaving early cancels it.

        Args:
            api: Whose service.
            path: Below its base URL; never what a client wrote.
            headers: The client's; what does not concern the service stays here.
            query: The client's, likewise.
            body: To be posted; None to get.

        Raises:
            Refusal: 400 for a header that cannot be sent, 502 and 504 for a service that does not
                answer, 429 where too many wait for it.
        """
        if self._open >= self.config.most_open:
            raise Overloaded(1, "too many requests wait for the model service")
        known = {name: value for name, value in query.items() if name in _QUERY}
        sent = self._headers(api, headers, is_post=body is not None)
        self._open += 1
        try:
            with _faults():
                response = await self.session.request(
                    "GET" if body is None else "POST", self.config.url(api).rstrip("/") + path,
                    data=body, headers=sent, params=known, allow_redirects=False,
                )  # fmt: skip
            try:
                if response.status // 100 not in _ANSWERS:
                    raise _unavailable("redirects, which is not followed, or says an odd status")
                yield Incoming(response)
            finally:
                response.close()
        finally:
            self._open -= 1

    @property
    def session(self) -> ClientSession:
        """The one session: no proxies, no cookies, nothing unpacked."""
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self.config.connect_s, sock_read=self.config.silence_s
                ),
                skip_auto_headers=("User-Agent", "Content-Type"),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Close the session."""
        if self._session:
            await self._session.close()
            self._session = None

    def _headers(self, api: Api, given: Mapping[str, str], *, is_post: bool) -> dict[str, str]:
        wanted = {name.lower(): value for name, value in given.items()}
        pays = self.config.payer == "service"
        sent = {
            name: value
            for name, value in wanted.items()
            if (_SENT_ON.fullmatch(name) or name in _KEYS)
            and not (pays and name in _CHOICES | {*_KEYS})
        }
        if not all(map(_PRINTABLE.fullmatch, sent.values())):
            raise Refusal(400, "a header holds a character that is not printable ASCII; correct it")
        if pays:
            key = self._keys.get(api, Secret("")).reveal()
            own = {"anthropic": ("x-api-key", key), "openai": ("authorization", f"Bearer {key}")}
            sent |= [own[api]] if key else []
        if is_post:
            sent["content-type"] = "application/json"
        return sent | {"accept-encoding": "identity"}


def open_upstream(config: UpstreamConfig, settings: Settings) -> Upstream:
    """Return the upstream of a config, with the keys that the environment has for it.

    Raises:
        ConfigError: If an address may not be called offline, or a key is missing.
    """
    for api in _APIS:
        if config.url(api) and not settings.may_connect(config.url(api)):
            raise ConfigError(
                f"{hide_password(config.url(api))[:80]} is beyond this machine, and the workbench"
                " is offline; set WORKBENCH_OFFLINE=0"
            )
    pays = config.payer == "service"
    return Upstream(
        config, keys={api: read_keys(api)[0] for api in _APIS if config.url(api) and pays}
    )


@contextmanager
def _faults() -> Iterator[None]:
    """Say what went wrong on the way; the client library's words may hold an address."""
    import aiohttp

    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise _unavailable("cannot be connected to in time") from None
    except TimeoutError:
        raise _unavailable("does not answer in time", status=504) from None
    except aiohttp.ClientConnectorError:
        raise _unavailable("cannot be connected to") from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise _unavailable("broke off, or sent what is no HTTP") from None


def _unavailable(reason: str, *, status: int = 502) -> Refusal:
    return Refusal(
        status, f"the model service {reason}; try again", headers={"Retry-After": str(_RETRY_S)},
        reason="upstream",
    )  # fmt: skip
