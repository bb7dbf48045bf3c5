"""How the service runs: limits, batching, model and shadow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from workbench.core.errors import ConfigError

__all__ = ["ServeConfig"]

_POSITIVE = (
    "max_body_bytes", "max_texts", "max_tokens", "max_requests", "body_s", "batch_texts", "batch_s",
    "queue_s", "drain_s", "threads",
)  # fmt: skip
_FROM_ZERO = ("wait_s", "poll_s", "gain", "shadow_gain")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Everything that an operator may choose."""

    host: str = "127.0.0.1"
    port: int = 8400
    is_open: bool = False
    """Serve callers on this machine without a key."""
    admins: tuple[str, ...] = ()
    """Ids of the keys that may load another model."""

    model: str = ""
    """Id of a model in the store, or its folder; empty for the newest sanitizer."""
    precision: Literal["auto", "int8", "float32"] = "auto"
    """Of the encoder; ``auto`` is int8 where ONNX Runtime is installed."""
    threads: int = 1
    """Cores that the model computes on."""
    gain: float = 1.0
    """Of requests that say none."""
    poll_s: float = 0.0
    """Seconds between looks for a newer model in the store; 0: never."""

    max_body_bytes: int = 1 << 20
    max_texts: int = 128
    """Of one request."""
    max_tokens: int = 8192
    """Of all texts of one request."""
    max_requests: int = 1024
    """Served at the same time: what their bodies may hold in memory is bounded by it; those of
    guarded APIs by a bound of their own."""
    body_s: float = 10.0
    """Within which a body must have come."""

    batch_texts: int = 16
    """Sanitized together, at most."""
    batch_s: float = 0.05
    """Estimated seconds of work in one batch, at most, unless one text alone takes longer."""
    wait_s: float = 0.002
    """For how long a batch that follows another waits to become full; one after a pause does not
    wait."""
    queue_s: float = 0.5
    """Estimated seconds of work that may wait; a request beyond it is told when to come again."""
    drain_s: float = 20.0
    """Within which requests that were begun are answered when the service ends."""

    shadow_model: str = ""
    """A second model, that answers nobody; empty for the same one, see ``shadow_gain``."""
    shadow_gain: float = 1.0
    shadow_share: float = 0.0
    """Of the texts that the shadow sees too."""

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, *_FROM_ZERO):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (name in _POSITIVE and not value):
                least = "more than 0" if name in _POSITIVE else "0 or more"
                raise ConfigError(f"{name} is {value}; it must be {least}")
        if not 0 <= self.shadow_share <= 1:
            raise ConfigError(f"shadow_share is {self.shadow_share}; it must be in [0, 1]")
        if self.is_open and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                f"--open serves without keys, on this machine alone; {self.host!r} is reached from"
                " others: add a key with `workbench serve keys add`, or use --host 127.0.0.1"
            )

    @property
    def encoder(self) -> Literal["int8", "float32"]:
        """The precision that ``auto`` comes to here."""
        if self.precision != "auto":
            return self.precision
        return "int8" if find_spec("onnxruntime") and find_spec("onnx") else "float32"
