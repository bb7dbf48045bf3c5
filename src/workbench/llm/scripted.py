"""A model that says what it is told to say: for tests, notebooks and work offline."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from workbench.core.errors import ModelError
from workbench.core.settings import Secret
from workbench.llm.messages import Fault, Reply, Request, Usage
from workbench.llm.transport import Sending

__all__ = ["Script", "ScriptedTransport", "echo"]

Script = str | Reply | Fault | Callable[[Request], str | Reply | Fault]
_BYTES_PER_TOKEN = 4


def echo(request: Request) -> str:
    """Return an answer that shows what was asked."""
    return f"[scripted] {request.prompt[:200]}"


class ScriptedTransport:
    """Answers from a queue and records what it was asked; counts a token per four bytes.

    Args:
        replies: Answers in order; a function makes its answer from the request.
        default: Answers once the queue is empty; without one, :class:`ModelError` is raised then.
        provider: Whose prices apply.
        latency_s: How long each answer takes.
    """

    def __init__(
        self,
        *replies: Script,
        default: Script | None = None,
        provider: str = "anthropic",
        latency_s: float = 0.0,
    ) -> None:
        self.provider = provider
        self.queue = deque(replies)
        self.requests: list[Request] = []
        self.sendings: list[Sending] = []
        self._default = default
        self._latency_s = latency_s
        self._batches: dict[str, tuple[float, dict[str, Reply | Fault]]] = {}

    async def send(self, request: Request, sending: Sending) -> Reply | Fault:
        """Give the next answer of the script."""
        self.requests.append(request)
        self.sendings.append(sending)
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        if sending.prewarm:
            return _reply("", request, sending)
        script = self.queue.popleft() if self.queue else self._default
        if script is None:
            raise ModelError(
                f"the script has no answer left for its request number {len(self.requests)};"
                " give it one more, or a default"
            )
        answer = script(request) if callable(script) else script
        reply = _reply(answer, request, sending) if isinstance(answer, str) else answer
        if sending.on_text and isinstance(reply, Reply):
            sending.on_text(reply.text)
        return reply

    async def submit(
        self, requests: Mapping[str, Request], sending: Mapping[str, Sending]
    ) -> str | Fault:
        """Answer a batch at once and keep it until it is collected."""
        batch = f"batch_{len(self._batches) + 1}"
        results = {name: await self.send(one, sending[name]) for name, one in requests.items()}
        self._batches[batch] = (time.time(), results)
        return batch

    async def has_ended(self, batch: str, *, key: Secret) -> bool | Fault:  # noqa: ARG002
        """Give True: batches are answered at once. No key is needed."""
        return True if batch in self._batches else _unknown(batch)

    async def collect(
        self,
        batch: str,
        *,
        key: Secret,  # noqa: ARG002
    ) -> Mapping[str, Reply | Fault] | Fault:
        """Give the answers by custom id."""
        return self._batches[batch][1] if batch in self._batches else _unknown(batch)

    async def recent(
        self,
        *,
        key: Secret,  # noqa: ARG002
    ) -> Sequence[tuple[str, float, int]] | Fault:
        """Give the batches, newest first."""
        found = [(batch, at, len(results)) for batch, (at, results) in self._batches.items()]
        return found[::-1]

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def _unknown(batch: str) -> Fault:
    return Fault(kind="invalid", message=f"no batch {batch[:40]}", status=404, is_retryable=False)


def _reply(text: str, request: Request, sending: Sending) -> Reply:
    limit = 0 if sending.prewarm else request.max_tokens
    words = text.encode(errors="replace")
    tokens = -(-len(words) // _BYTES_PER_TOKEN)
    is_cut = tokens > limit or sending.prewarm
    return Reply(
        text=words[: limit * _BYTES_PER_TOKEN].decode(errors="ignore"),
        stop_reason="max_tokens" if is_cut else "end_turn",
        usage=Usage(
            input_tokens=-(-request.size_bytes // _BYTES_PER_TOKEN),
            output_tokens=min(tokens, limit),
        ),
        model=sending.model,
    )
