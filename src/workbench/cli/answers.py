"""Answers on standard output in the order of their prompts, as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from workbench.llm.gateway import Outcome

__all__ = ["Answers"]

_EVERY_S = 10.0


class Answers:
    """Prints answers in order and says how far they are.

    Args:
        total: How many there will be.
        as_json: One JSON object each, failed ones too; else text, and an empty line for those.
    """

    def __init__(self, total: int, *, as_json: bool) -> None:
        self.failed = 0
        self._total, self._as_json = total, as_json
        self._taken = 0
        self._next = 0
        self._waiting: dict[int, Outcome] = {}

    def take(self, position: int, outcome: Outcome) -> None:
        """Print an answer, and those that waited for it, once all before it are printed."""
        self._taken += 1
        self.failed += isinstance(outcome, Exception)
        self._waiting[position] = outcome
        while self._next in self._waiting:
            self._print()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Say every ten seconds how many there are; at the end print those that still wait."""
        telling = asyncio.create_task(self._tell())
        try:
            yield
        finally:
            telling.cancel()
            while self._waiting:
                self._print()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            failed = f", {self.failed} of them failed" if self.failed else ""
            click.echo(f"{self._taken} of {self._total} answered{failed}", err=True)

    def _print(self) -> None:
        outcome, number = self._waiting.pop(self._next, None), self._next + 1
        self._next = number
        if isinstance(outcome, Exception):
            click.echo(f"prompt {number}: {outcome}", err=True)
        if self._as_json:
            if outcome is not None:
                click.echo(json.dumps({"number": number, **_told(outcome)}))
        elif outcome is None or isinstance(outcome, Exception):
            click.echo()  # line N stays the answer to prompt N
        else:  # what a model says may hold codes that a terminal obeys
            text = outcome.text
            click.echo("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text))


def _told(outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, Exception):
        return {"error": str(outcome)}
    names = ("text", "stop_reason", "model", "outcome", "latency_s")
    return {**{name: getattr(outcome, name) for name in names}, "usd": float(outcome.usd)}
