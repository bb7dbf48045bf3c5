"""The face that every model service shows to the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from workbench.core.errors import ConfigError
from workbench.core.settings import Secret, Settings, is_loopback
from workbench.llm.messages import Fault, PromptCache, Reply, Request

if TYPE_CHECKING:
    from workbench.llm.config import GatewayConfig

__all__ = [
    "LOOPBACK_NAME",
    "BatchTransport",
    "Sending",
    "Transport",
    "is_rehearsal",
    "open_transport",
]

LOOPBACK_NAME = "workbench-loopback"
"""``Server`` header of the loopback model server, whose money is play money."""
_PROBE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How one request is sent."""

    model: str
    key: Secret
    prompt_cache: PromptCache = "off"
    prewarm: bool = False
    """Only write the system text to the service's cache; nothing is generated."""
    timeout_s: float = 120.0
    on_text: Callable[[str], None] | None = None
    """Called with each piece of text as it arrives; asks the service to stream."""


class Transport(Protocol):
    """Sends one HTTP request per call and never raises for what a service does."""

    provider: str
    """Provider id in ``genai-prices``: ``anthropic``, ``aws``, ``google``, ``openai``, …"""

    async def send(self, request: Request, sending: Sending) -> Reply | Fault:
        """Send once, without retries; give what came back."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class BatchTransport(Transport, Protocol):
    """A service that takes many requests at half price, answered within a day."""

    async def submit(
        self, requests: Mapping[str, Request], sending: Mapping[str, Sending]
    ) -> str | Fault:
        """Submit requests by custom id (at most 64 of ``[A-Za-z0-9_-]``); give the batch's id."""
        ...

    async def has_ended(self, batch: str, *, key: Secret) -> bool | Fault:
        """Give whether every request of a batch has been processed."""
        ...

    async def collect(self, batch: str, *, key: Secret) -> Mapping[str, Reply | Fault] | Fault:
        """Give what came back by custom id; a fault where the batch itself cannot be read."""
        ...

    async def recent(self, *, key: Secret) -> Sequence[tuple[str, float, int]] | Fault:
        """Give (id, created at in seconds since 1970, number of requests) of the newest batches."""
        ...


def open_transport(config: GatewayConfig, *, settings: Settings) -> Transport:
    """Return the transport of the configured service; nothing is connected yet.

    Args:
        config: Service, address and requests in flight.
        settings: Say which addresses may be reached.

    Raises:
        ConfigError: If the service is out of reach offline, or a part of the installation is
            missing.
    """
    if config.provider == "scripted":
        from workbench.llm.scripted import ScriptedTransport, echo

        return ScriptedTransport(default=echo)
    if not settings.may_connect(config.base_url):
        raise ConfigError(
            f"provider {config.provider!r} is out of reach offline; set WORKBENCH_OFFLINE=0 to"
            " allow it. A base_url on this machine and provider: scripted work offline"
        )
    url, limit = config.base_url, config.savings.parallel
    if config.provider == "openai":
        from workbench.llm.openai_compatible import OpenAITransport

        return OpenAITransport(base_url=url, max_connections=limit)
    from workbench.llm.anthropic import AnthropicTransport, BedrockTransport, VertexTransport

    clouds = {"bedrock": BedrockTransport, "vertex": VertexTransport}
    return clouds.get(config.provider, AnthropicTransport)(base_url=url, max_connections=limit)


def is_rehearsal(config: GatewayConfig) -> bool:
    """Return whether the configured service only plays: the loopback server says so itself."""
    if not config.base_url or not is_loopback(config.base_url):
        return config.provider == "scripted"
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(config.base_url, timeout=_PROBE_S) as response:
            headers = response.headers
    except HTTPError as error:
        headers = error.headers
    except (OSError, HTTPException, ValueError):
        return False
    return bool(headers.get("server") == LOOPBACK_NAME)
