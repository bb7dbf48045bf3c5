"""What is asked of a model and what comes back, the same for every service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal, NamedTuple

from workbench.core.errors import InputError
from workbench.core.identity import content_id
from workbench.core.money import ZERO

__all__ = [
    "MAX_PROMPT_BYTES",
    "Answer",
    "Difficulty",
    "Fault",
    "FaultKind",
    "PromptCache",
    "Reply",
    "Request",
    "Tier",
    "Turn",
    "Usage",
]

Tier = Literal["none", "cheap", "standard", "strong"]
"""``none``: a rule answers, no model is needed."""
Difficulty = Literal["simple", "normal", "complex"]
PromptCache = Literal["off", "5m", "1h"]
"""How long the service keeps a request's system text; it bills writes dearer, reads cheaper."""

MAX_PROMPT_BYTES = 2_000_000
"""Longer texts are refused before any money is spent: a mistake, at some 500,000 tokens each."""
_MOST_NAME = 200
"""Characters that the store keeps of a name."""


class Turn(NamedTuple):
    """One earlier message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a model.

    Raises:
        InputError: If a text is empty, over-long or holds what UTF-8 cannot say, or the schema what
            JSON cannot.
    """

    prompt: str
    system: str = ""
    """What stays the same over many requests; it stands first, so that a service can cache it."""
    history: tuple[Turn, ...] = ()
    task: str = "analysis"
    """What it is for; decides the tier of model, see ``models.json``."""
    difficulty: Difficulty = "normal"
    model: str = ""
    """A model by name, past the routing."""
    namespace: str = ""
    """Part of the response cache with its own time to live; empty for the task's name."""
    variant: int = 0
    """Which of several answers to the same prompt, >= 0; models answer the same prompt differently
    each time, so the n-th mutation is cached as the n-th."""
    max_tokens: int = 512
    schema: Mapping[str, Any] | None = None
    """JSON schema that the answer must meet; None for free text."""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("a request's prompt is empty; write one, or leave the request out")
        if not all(turn.text.strip() for turn in self.history):
            raise InputError("a turn of a request's history is empty; leave it out")
        if self.max_tokens < 1 or self.variant < 0:
            raise InputError(
                f"max_tokens={self.max_tokens}, variant={self.variant}: must be >= 1 and >= 0"
            )
        for name in ("task", "namespace", "model"):
            value = getattr(self, name)
            if not value.isprintable() or len(value) > _MOST_NAME:
                raise InputError(
                    f"{name} {value[:80]!r}: write one line of plain text, <= {_MOST_NAME}"
                    " characters"
                )
        if self.size_bytes > MAX_PROMPT_BYTES:
            raise InputError(
                f"a prompt of {self.size_bytes:,} bytes exceeds {MAX_PROMPT_BYTES:,}; shorten it,"
                " e.g. with workbench.llm.context.fit"
            )

    @cached_property
    def size_bytes(self) -> int:
        """Bytes of UTF-8 of all texts: no byte-level tokenizer makes more tokens of them."""
        try:
            texts = (self.system, self.prompt, *(turn.text for turn in self.history))
            schema = json.dumps(self.schema, allow_nan=False) if self.schema else ""
            return sum(len(text.encode()) for text in texts) + len(schema)
        except UnicodeEncodeError as error:
            raise InputError(
                f"a prompt holds a lone surrogate at character {error.start}, which is not text;"
                " decode it with errors='replace' first"
            ) from None
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"a request's schema is no JSON: {error}; write a dict of JSON values"
            ) from None

    def key(self, *, service: str, model: str, occurrence: int = 0) -> str:
        """Return the hex sha256 under which an answer is kept: all that decides about it."""
        return content_id(
            [
                service, model, self.system, self.history, self.prompt,
                self.namespace or self.task, self.variant, self.max_tokens, self.schema, occurrence,
            ]
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the service counted them; the first four add up to the prompt."""

    input_tokens: int = 0
    """Neither read from the service's cache nor written to it."""
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompt."""
        return (
            self.input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A service's answer to one HTTP request."""

    text: str
    stop_reason: str
    """``end_turn``, ``max_tokens``, ``refusal``, …; never empty: a reply without one is a fault."""
    usage: Usage
    model: str
    """As the service names it."""
    request_id: str = ""
    latency_s: float = 0.0
    bytes_sent: int = 0
    """Of HTTP bodies, as they crossed the wire."""
    bytes_received: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    """Rate-limit headers, lower case."""


FaultKind = Literal[
    "rate_limit",
    "overloaded",
    "unavailable",
    "timeout",
    "dropped",
    "malformed",
    "denied",
    "invalid",
]
"""``denied``: the key is refused (401, 403) · ``invalid``: the request is (400, 404, 413, 422)."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why one HTTP request gave no usable answer."""

    kind: FaultKind
    message: str
    """One line, without keys."""
    status: int = 0
    """HTTP status; 0 where none came."""
    is_retryable: bool = True
    may_be_billed: bool = False
    """Whether the service may have generated, and billed, an answer that was lost."""
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the gateway gives for a request."""

    text: str
    stop_reason: str
    model: str
    usage: Usage
    usd: Decimal = ZERO
    """What this answer was billed; 0 where it was at hand."""
    outcome: Literal["sent", "batch", "hit", "joined", "rule"] = "sent"
    """``hit``: from the response cache · ``joined``: the same request was in flight already ·
    ``rule``: no model needed."""
    latency_s: float = 0.0

    @property
    def is_refusal(self) -> bool:
        """Whether the model declined: a verdict, not an error."""
        return self.stop_reason == "refusal"
