"""What somebody writes about a target: every field checked, none ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from workbench.campaign.targets.pacing import quiet_hours
from workbench.campaign.targets.template import Format, parse_path
from workbench.core.errors import ConfigError
from workbench.core.fields import refuse_unknown, suggest
from workbench.core.identity import content_id
from workbench.core.money import ZERO, usd

__all__ = ["SECRET", "TargetSpec", "TargetType"]

TargetType = Literal["bare", "sanitizer", "guarded", "http", "websocket", "python", "model"]

SECRET = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]{0,99})\}")
"""Stands in a header for the value of an environment variable."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_SECRET_HEADER = re.compile(r"(?i)auth|key|token|secret|cookie|password|session")
_MOST_NAME = 100

_CALLS = ("defends", "quiet", "requests_per_minute", "parallel", "timeout_s", "usd_per_call")
_SENT = (
    "url", "staging", "headers", "body", "format", "response_path", "max_response_bytes",
    "max_attempts", "pause_cap_s",
)  # fmt: skip
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "bare": (),
    "sanitizer": ("gain",),
    "guarded": ("gain", "target"),
    "http": (*_CALLS, *_SENT, "method", "block_status"),
    "websocket": (*_CALLS, *_SENT, "done", "per_message"),
    "python": (*_CALLS, "function"),
    "model": (
        "provider", "model", "url", "staging", "system", "max_tokens", "defends", "quiet",
        "requests_per_minute", "parallel",
    ),
}  # fmt: skip
"""Type → the fields that it may have, beside ``type`` and ``name``."""
_NEEDED = {"http": "url", "websocket": "url", "python": "function", "model": "model"}
_RANGES: Mapping[str, tuple[float, float]] = {
    "timeout_s": (0.1, 86_400),
    "max_response_bytes": (1, 1 << 30),
    "parallel": (0, 4_096),
    "requests_per_minute": (0, 1_000_000),
    "max_attempts": (1, 100),
    "pause_cap_s": (0, 3_600),
    "max_tokens": (1, 1_000_000),
    "gain": (0, 1_000_000),
}
"""Field → least and most."""
_WHOLE = ("max_response_bytes", "parallel", "max_attempts", "max_tokens")
_SWITCHES = ("defends", "staging", "per_message")
_ANSWERS = (
    "type", "url", "method", "headers", "body", "format", "response_path", "block_status", "done",
    "per_message",
)  # fmt: skip
"""Fields that decide what comes back over HTTP or a WebSocket."""


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """A target as somebody wrote it; ``docs/targets.md`` explains each field.

    Raises:
        ConfigError: If a value makes no sense.
    """

    type: TargetType
    name: str = ""
    url: str = ""
    """Address of the service; of a model, instead of the provider's own."""
    staging: bool = False
    """Declared to be no production system."""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Any = None
    format: Format = "json"
    response_path: str | None = None
    """None: guessed; empty: the whole text."""
    block_status: tuple[int, ...] = ()
    """HTTP statuses by which the service declines."""
    done: Mapping[str, Any] = field(default_factory=dict)
    """Path → value of the message that ends an answer which comes in pieces."""
    per_message: bool = False
    """A connection for each message instead of each conversation."""
    timeout_s: float = 60.0
    max_response_bytes: int = 1_000_000
    usd_per_call: Decimal = ZERO
    parallel: int = 0
    """0: 8; of a model, as the section ``llm`` says."""
    requests_per_minute: float = 0
    max_attempts: int = 3
    pause_cap_s: float = 60.0
    quiet: str = ""
    """Hours in which nothing is sent."""
    defends: bool = False
    function: str = ""
    """``package.module:function`` or ``file.py:function``."""
    folder: Path = field(default=Path(), repr=False, compare=False)
    """That relative paths start from."""
    provider: Literal["anthropic", "openai"] = "anthropic"
    model: str = ""
    system: str = ""
    max_tokens: int = 512
    gain: float = 1.0
    target: TargetSpec | None = None
    """What stands behind the sanitizer."""

    def __post_init__(self) -> None:
        for name in _RANGES:
            _check_number(name, getattr(self, name))
        for name in _SWITCHES:
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"{name} is {value!r:.80}; write true or false")
        for name in ("name", "url", "method", "quiet", "function", "model"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.isprintable():
                raise ConfigError(f"{name} is {value!r:.80}; write one line of text")
        if len(self.name) > _MOST_NAME:
            raise ConfigError(f"name has {len(self.name)} characters; write at most {_MOST_NAME}")
        if not isinstance(self.system, str):
            raise ConfigError(f"system is {self.system!r:.80}; write a text")
        _check_choice("format", self.format, get_args(Format))
        _check_choice("provider", self.provider, ("anthropic", "openai"))
        _check_choice("method", self.method, ("POST", "GET", "PUT", "PATCH"))
        if self.quiet:
            quiet_hours(self.quiet, name=self.name or self.type)
        self._check_url()
        self._check_answers()
        _check_headers(self.headers)

    def _check_url(self) -> None:
        address, _, query = self.url.partition("?")
        if "{{" in address or ("{{" in query and not query.isascii()):
            raise ConfigError(
                "url holds a placeholder; write them only after ?, there in ASCII alone"
            )
        if "{{" in query and self.type == "websocket":
            raise ConfigError(
                "url holds a placeholder; a connection stands before anything is said, so write"
                " them in body"
            )

    def _check_answers(self) -> None:
        if self.response_path is not None:
            if not isinstance(self.response_path, str):
                raise ConfigError(f"response_path is {self.response_path!r:.80}; write a path")
            parse_path(self.response_path)
        if not isinstance(self.done, Mapping) or not all(isinstance(one, str) for one in self.done):
            raise ConfigError(f"done is {self.done!r:.80}; write path: value")
        if self.done and self.response_path == "":
            raise ConfigError("done needs a response_path: pieces of answers stand in JSON")
        for status in self.block_status:
            if type(status) is not int or not 400 <= status <= 599:  # noqa: PLR2004
                raise ConfigError(f"block_status holds {status!r:.80}; write statuses 400 to 599")

    @classmethod
    def from_mapping(cls, values: Any, *, where: str, folder: Path = Path()) -> TargetSpec:
        """Return the target that a mapping describes; ``target`` in it must be a spec already.

        Raises:
            ConfigError: If a field is unknown, unfit for the type, missing or makes no sense.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: holds {type(values).__name__}; write field: value lines")
        kind = values.get("type", "http")
        if kind not in _FIELDS:
            raise ConfigError(f"{where}: type is {kind!r:.80}; {suggest(kind, tuple(_FIELDS))}")
        refuse_unknown(values, known=("type", "name", *_FIELDS[kind]), where=where)
        if (needed := _NEEDED.get(kind)) and not values.get(needed):
            raise ConfigError(f"{where}: a target of type {kind} needs {needed}")
        if kind == "guarded" and not isinstance(values.get("target"), TargetSpec):
            raise ConfigError(f"{where}: a target of type guarded needs target, what it guards")
        try:
            changed: dict[str, Any] = {"type": kind, "folder": folder}
            if "usd_per_call" in values:
                changed["usd_per_call"] = _price(values["usd_per_call"])
            if "block_status" in values:
                changed["block_status"] = _statuses(values["block_status"])
            return cls(**{**values, **changed})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @property
    def identity(self) -> str:
        """Hash of all that decides what a service answers; of secrets only where they stand."""
        return content_id({name: getattr(self, name) for name in _ANSWERS})

    @property
    def needs_sanitizer(self) -> bool:
        """Whether a trained sanitizer takes part."""
        return self.type in {"sanitizer", "guarded"}

    @property
    def variables(self) -> list[str]:
        """Environment variables that its headers name."""
        return sorted({name for one in self.headers.values() for name in SECRET.findall(one)})


def _check_number(name: str, value: Any) -> None:
    least, most = _RANGES[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise ConfigError(f"{name} is {value!r:.80}; write a number from {least:g} to {most:g}")
    if name in _WHOLE and not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r:.80}; write a whole number")


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r:.80}; {suggest(value, known)}")


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, Mapping):
        raise ConfigError("headers is no mapping; write Name: value lines")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ConfigError(f"headers: {name!r:.80} is no name of a header")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            raise ConfigError(f"headers: {name} must be one line of ASCII text; quote it")
        if "{{" in value:
            raise ConfigError(f"headers: {name} holds a placeholder; write them in body or url")
        if _SECRET_HEADER.search(name) and not SECRET.search(value):
            raise ConfigError(
                f"headers: {name} looks like a secret; write ${{env:NAME}} and set that variable"
            )


def _price(value: Any) -> Decimal:
    price = usd(value)
    if price < 0 or isinstance(value, bool):
        raise ConfigError(f"usd_per_call is {value!r:.80}; write dollars >= 0, e.g. 0.002")
    return price


def _statuses(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"block_status is {value!r:.80}; write a list, e.g. [403]")
    return tuple(value)


assert {name for names in _FIELDS.values() for name in names} | {"type", "name", "folder"} == {
    one.name for one in fields(TargetSpec)
}
