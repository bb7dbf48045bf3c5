"""How the gateway spends: service, models, savings, rates, budgets; one validated record."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.core.money import usd
from workbench.core.settings import Settings
from workbench.llm.messages import PromptCache, Tier
from workbench.llm.off_peak import OffPeak
from workbench.llm.prices import Prices
from workbench.store.budgets import Budgets

__all__ = ["GatewayConfig", "Rates", "Savings", "parse", "read_config"]

Provider = Literal["anthropic", "bedrock", "vertex", "openai", "scripted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """The measures that save money or time, each with its switch."""

    prompt_cache: PromptCache = "5m"
    prewarm: bool = True
    """Write a shared system text to the service's cache once, before a fan-out."""
    response_cache: bool = True
    routing: bool = True
    """Off: every request goes to the strong tier, unless it names its model."""
    items_per_call: int = 20
    """Items that share one call; 1 switches it off."""
    batches: bool = False
    """Message batches: half the price, answered within a day."""
    context_tokens: int = 0
    """Most tokens of context documents, the most relevant ones first; 0 keeps all."""
    concise: bool = True
    """Ask for structured answers without prose."""
    parallel: int = 32
    """Requests in flight, never more; 1 switches parallel calls off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What the service allows, and how patiently its faults are met."""

    requests_per_minute: float = 0
    """Per key and model; 0 until response headers say."""
    tokens_per_minute: float = 0
    """Prompt tokens per key and model; 0 until response headers say."""
    max_attempts: int = 6
    timeout_s: float = 120.0
    retry_after_cap_s: float = 60.0
    """Longest wait that a service's ``Retry-After`` may ask for."""
    breaker_failures: int = 20
    """Faults in a row after which a model rests."""
    breaker_rest_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """Everything that decides how model calls are made; see ``docs/gateway.md``."""

    provider: Provider = "anthropic"
    base_url: str = ""
    """Another address of the service, e.g. a local server; empty for its own."""
    models: Mapping[Tier, str] = field(default_factory=dict)
    """Tier → model, over those of ``models.json``."""
    tasks: Mapping[str, Tier] = field(default_factory=dict)
    """Task → tier, over those of ``models.json``."""
    ttl_s: Mapping[str, float | None] = field(default_factory=dict)
    """Namespace → seconds an answer is kept, None for ever; over those of ``models.json``."""
    price_file: str = ""
    """JSON of prices that go before the shipped ones, see ``llm.prices``."""
    off_peak: str = ""
    """Hours in which calls may start, e.g. ``22:00-06:00 Europe/Berlin``; empty for always."""
    savings: Savings = Savings()
    rates: Rates = Rates()
    budgets: Budgets = field(default_factory=Budgets)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every field said; :func:`parse` gives the same config."""
        text = json.dumps(asdict(self), default=str)  # dollars as text: exact
        return cast("dict[str, Any]", json.loads(text))


_RANGES: Mapping[str, tuple[float, float]] = {
    "items_per_call": (1, 1_000),
    "parallel": (1, 4_096),
    "max_attempts": (1, 100),
    "timeout_s": (0.1, 86_400),
    "breaker_failures": (1, math.inf),
}
"""Field → least and most; every other number is >= 0."""
_ADDRESS = re.compile(r"https?://([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?(/[\w./~%-]*)?")


def parse(section: Mapping[str, Any], *, where: str, root: Path = Path()) -> GatewayConfig:
    """Return the validated config of an ``llm`` section; reads its price file.

    Args:
        section: Fields of :class:`GatewayConfig` by name, those of its parts in mappings.
        where: File and field, for messages.
        root: Folder that the price file's path starts from; the working folder if not given.

    Raises:
        ConfigError: If a field is unknown, ill-typed or out of range. The message names the file,
            the field and the fix.
    """
    config: GatewayConfig = _record(GatewayConfig, section, where)
    if "none" in config.models:
        raise ConfigError(f"{where}.models: 'none' is the tier without a model; leave it out")
    if config.base_url and not _is_address(config.base_url):  # not shown: may hold a key
        raise ConfigError(
            f"{where}.base_url: write http(s)://host[:port][/path], without user or key in it"
        )
    try:
        if config.off_peak:
            OffPeak.parse(config.off_peak)
        if config.price_file:
            Prices(root / config.price_file)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def read_config(settings: Settings) -> GatewayConfig:
    """Return the config that the settings carry; the defaults where they carry none.

    Raises:
        ConfigError: If ``WORKBENCH_LLM`` is not JSON or as :func:`parse`.
    """
    if not settings.llm:
        return GatewayConfig()
    try:
        section = json.loads(settings.llm)
    except (ValueError, RecursionError):
        raise ConfigError(
            "WORKBENCH_LLM is not JSON; write the llm section of an experiment file as JSON"
        ) from None
    return parse(section, where="WORKBENCH_LLM")


def _is_address(url: str) -> bool:
    try:
        return bool(_ADDRESS.fullmatch(url)) and urlsplit(url).port != 0
    except ValueError:  # no such port, no such IPv6 address
        return False


def _record(kind: type[Any], section: Any, where: str) -> Any:
    if not isinstance(section, Mapping):
        raise _refusal(section, where, f"a mapping of {', '.join(f.name for f in fields(kind))}")
    hints = get_type_hints(kind)
    refuse_unknown(section, known=tuple(hints), where=where)
    return kind(
        **{name: _value(hints[name], given, f"{where}.{name}") for name, given in section.items()}
    )


def _value(kind: Any, given: Any, where: str) -> Any:
    """Return a value as the annotation of its field says, or refuse it."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _record(cast("type[Any]", kind), given, where)
    if origin is Literal:
        return _choice(given, get_args(kind), where)
    if origin is UnionType:  # of something and None
        return None if given is None else _value(get_args(kind)[0], given, where)
    if origin is not None:
        of_key, of_value = get_args(kind)
        if not isinstance(given, Mapping):
            raise _refusal(given, where, "a mapping")
        return {
            _value(of_key, key, where): _value(of_value, value, f"{where}.{key}")
            for key, value in given.items()
        }
    return _PLAIN[kind](given, where)


def _choice(given: Any, choices: tuple[str, ...], where: str) -> str:
    if given is False and "off" in choices:  # what YAML makes of a bare `off`
        return "off"
    if given not in choices:
        raise ConfigError(f"{where}: {given!r:.80}; {suggest(given, choices)}")
    return str(given)


def _switch(given: Any, where: str) -> bool:
    if not isinstance(given, bool):
        raise _refusal(given, where, "true or false")
    return given


def _text(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given.isprintable() or given != given.strip():
        raise _refusal(given, where, "one line of text, without spaces around it")
    return given


def _number(given: Any, where: str) -> float:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not -math.inf < cast("float", given) < math.inf:
        raise _refusal(given, where, "a number")
    least, most = _RANGES.get(where.rpartition(".")[2], (0, math.inf))
    if not least <= given <= most:
        raise _refusal(given, where, f"a number from {least:g} to {most:g}")
    return cast("float", given)


def _whole(given: Any, where: str) -> int:
    if int(_number(given, where)) != given:
        raise _refusal(given, where, "a whole number")
    return int(given)


def _dollars(given: Any, where: str) -> Decimal:
    try:
        amount = usd(given)
    except ConfigError:
        amount = Decimal(-1)
    if amount < 0:
        raise _refusal(given, where, "dollars >= 0, e.g. 12.50")
    return amount


_PLAIN: Mapping[Any, Callable[[Any, str], Any]] = {
    bool: _switch, str: _text, int: _whole, float: _number, Decimal: _dollars
}  # fmt: skip


def _refusal(given: Any, where: str, wanted: str) -> ConfigError:
    return ConfigError(f"{where}: {given!r:.80}; write {wanted}")
