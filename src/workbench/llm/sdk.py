"""What the transports over the SDKs of Anthropic and OpenAI share: clients and one exchange.

An SDK's own retries are off, because the gateway must pay for each attempt by name, and its
validation is strict, because otherwise a page of HTML passes for an answer. One pool of
connections serves all keys.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from workbench.core.errors import ConfigError, InputError, ModelError
from workbench.core.settings import Secret, is_loopback
from workbench.llm.faults import Exchange
from workbench.llm.messages import Fault

__all__ = ["SdkTransport", "events_of"]

T = TypeVar("T")
_MOST_BYTES = (2**26, 2**30)
"""Of an answer, and of a batch's answers."""
_NO_KEY = "none"
"""Sent to a server of one's own, which asks for no key."""


class SdkTransport:
    """A service behind an SDK; it belongs to the event loop of its first call.

    Args:
        base_url: Another address of the service; empty for its own.
        max_connections: Requests in flight.

    Raises:
        ConfigError: If a package that the service needs is not installed.
    """

    provider: str
    _package: str
    """The SDK, and in it:"""
    _client_class: str
    _key_argument = "api_key"
    _options: Mapping[str, Any] = {}
    _needs: tuple[str, str] | None = None
    """A package beyond those always installed, and the extra of this project that brings it."""
    _own_address = ""
    _key_variable = ""
    """Where its key comes from; empty if it can do without one."""

    def __init__(self, *, base_url: str = "", max_connections: int = 32) -> None:
        if self._needs and not _is_installed(self._needs[0]):
            package, extra = self._needs
            raise ConfigError(
                f"{package} is not installed; run pip install 'prompt-safety-workbench[{extra}]'"
            )
        self._base_url = base_url or self._own_address
        self._max_connections = max_connections
        self._http: Any = None
        self._clients: dict[str, Any] = {}

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _exchange(
        self,
        call: Callable[[Any, Exchange], Awaitable[T]],
        *,
        key: Secret,
        timeout_s: float,
    ) -> T | Fault:
        """Return what a call with the key's client gives, or why it failed."""
        client = self._client(key.reveal())
        exchange = Exchange(sdk=import_module(self._package), key=key)
        try:
            async with asyncio.timeout(timeout_s):
                return await call(client, exchange)
        except exchange.errors as error:
            return exchange.fault_of(error)

    async def _open(
        self, create: Callable[..., Awaitable[Any]], body: Mapping[str, Any], exchange: Exchange
    ) -> Any:
        """Return the raw response to a request whose body is yet to be parsed."""
        try:
            raw = await create(**body)
        except ValueError as error:
            raise InputError(f"the request cannot be sent: {error}") from None
        exchange.response = raw.http_response
        return raw

    def _client(self, key: str) -> Any:
        """Return the client of a key, made anew: copies of one forget strict validation."""
        if key in self._clients:
            return self._clients[key]
        if not key and self._key_variable and self._base_url == self._own_address:
            raise ConfigError(
                f"there is no key for {self.provider}; set {self._key_variable}, or use provider:"
                " scripted or a server of your own by base_url, which need none"
            )
        sdk = import_module(self._package)
        self._http = self._http or self._connect(sdk)
        self._clients[key] = getattr(sdk, self._client_class)(
            **{self._key_argument: key or (_NO_KEY if self._key_variable else None)},
            **self._options,
            base_url=self._base_url or None,
            http_client=self._http,
            max_retries=0,
            _strict_response_validation=True,
        )
        return self._clients[key]

    def _connect(self, sdk: Any) -> Any:
        """Return the pool of connections."""
        import httpx2

        for name in (self._package, "httpx2"):  # below, they log what a server echoes: the key
            logging.getLogger(name).setLevel(logging.WARNING)
        limit = self._max_connections
        return sdk.DefaultAioHttpClient(
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
            follow_redirects=False,  # a prompt goes to no address but the configured one
            trust_env=not is_loopback(self._base_url),  # nor through a proxy to this machine
            event_hooks={"response": [_bound]},
        )


async def events_of(stream: Any, exchange: Exchange) -> AsyncIterator[Any]:
    """Yield the events of an SDK's stream.

    Raises:
        ModelError: If the SDK cannot read what came.
    """
    try:
        async for event in stream:
            yield event
    except exchange.errors:
        raise
    except Exception as error:  # Bedrock's decoder fails in many ways
        raise ModelError(f"the stream is not readable: {error}") from error


async def _bound(response: Any) -> None:
    """Make reading a response fail where it does not end, and end in time where it does."""
    import httpx2

    response.encoding = "utf-8"  # whatever it says: decoding punycode takes hours
    read, left = response.aiter_bytes, _MOST_BYTES["batches" in response.request.url.path]

    async def aiter_bytes(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        nonlocal left
        async for chunk in read(chunk_size):
            left -= len(chunk)
            if left < 0:
                raise httpx2.DecodingError("the answer is far too long")
            yield chunk

    response.aiter_bytes = aiter_bytes


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package around it
        return False
