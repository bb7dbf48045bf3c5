"""The sanitizer in front of any other target."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from workbench.campaign.targets.base import ASKED_FOR, Conversation, Kind, Response, Target, worst
from workbench.campaign.targets.sanitizer import SanitizerTarget
from workbench.core.identity import text_id

__all__ = ["REFUSAL", "GuardedTarget"]

REFUSAL = "I can't help with that."
"""What a user reads whose message was blocked."""
_TOGETHER = 64


class GuardedTarget:
    """Sends on what a sanitizer makes of each message; a blocked one ends the conversation.

    The messages before it are sent, as they would have been. What several conversations want
    sanitized at the same time is sanitized together.

    Args:
        guard: The sanitizer.
        inner: What stands behind it.
        name: Instead of ``guarded@GAIN(INNER)``.
    """

    defends = True

    def __init__(self, guard: SanitizerTarget, inner: Target, *, name: str = "") -> None:
        gain = guard.name.partition("@")[2]
        self.name = name or f"guarded@{gain}({inner.name})"
        self.identity = text_id("guarded", guard.identity, inner.identity, REFUSAL)
        self.kind: Kind = inner.kind
        self.parallel = inner.parallel
        self.batch = inner.batch
        self.usd_per_call = inner.usd_per_call
        self.is_metered = inner.is_metered
        self._guard = guard
        self._inner = inner
        self._waiting: list[tuple[str, asyncio.Future[Response]]] = []
        self._turn = asyncio.Lock()

    async def respond(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return what comes back through the sanitizer.

        Raises:
            BudgetError: As the target behind.
            Exception: As the target behind.
        """
        texts = [text for turns in conversations for text in turns]
        made = iter(await asyncio.gather(*map(self._sanitized, texts)))
        seen = [_until_block(next(made) for _ in turns) for turns in conversations]
        sent = [tuple(one.text for one in mine if one.decision != "block") for mine in seen]
        answers = iter(await self._answers([turns for turns in sent if turns]))
        refusal = REFUSAL if self.kind == "model" else ""
        return [
            _together(mine, next(answers) if turns else None, refusal=refusal)
            for mine, turns in zip(seen, sent, strict=True)
        ]

    async def _answers(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Return what is said behind; asked for itself, the same target may say something else."""
        execution, case, trial = ASKED_FOR.get()
        asked_for = ASKED_FOR.set((execution and f"{execution} {self.name}", case, trial))
        try:
            return await self._inner.respond(conversations)
        finally:
            ASKED_FOR.reset(asked_for)

    async def _sanitized(self, text: str) -> Response:
        made: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, made))
        async with self._turn:
            while not made.done():  # others, since cancelled, may stand before it
                await self._sanitize_waiting()
        return await made

    async def _sanitize_waiting(self) -> None:
        """Sanitize those who wait longest; whoever is cancelled leaves the others waiting."""
        self._waiting = [one for one in self._waiting if not one[1].done()]
        batch = self._waiting[:_TOGETHER]
        made = await asyncio.to_thread(self._made, [text for text, _ in batch])
        for (_, future), one in zip(batch, made, strict=True):
            if future.done():
                continue
            if isinstance(one, Response):
                future.set_result(one)
            else:
                future.set_exception(one)

    def _made(self, texts: Sequence[str]) -> list[Response | Exception]:
        """Return what the sanitizer makes of each text; one that it cannot read fails alone."""
        try:
            return [*self._guard.sanitized([(text,) for text in texts])]
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            if len(texts) == 1:
                return [error]
            half = len(texts) // 2
            return [*self._made(texts[:half]), *self._made(texts[half:])]

    async def close(self) -> None:
        """Close the connections."""
        await self._inner.close()


def _until_block(made: Iterable[Response]) -> list[Response]:
    mine = []
    for one in list(made):
        mine.append(one)
        if one.decision == "block":
            break
    return mine


def _together(made: Sequence[Response], answer: Response | None, *, refusal: str) -> Response:
    """Return the response to a conversation of which so much went through the sanitizer."""
    decision = worst(one.decision for one in made)
    latency_ms = sum(one.latency_ms for one in made)
    if answer is None:
        return Response(text=refusal, decision="block", latency_ms=latency_ms)
    latency_ms += answer.latency_ms
    if decision != "block" or answer.decision == "block":
        return replace(answer, decision=worst((decision, answer.decision)), latency_ms=latency_ms)
    replies = (*answer.replies, answer.text)
    return replace(answer, text=refusal, decision="block", latency_ms=latency_ms, replies=replies)
