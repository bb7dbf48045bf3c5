"""Texts of a chat sanitized in place; what an earlier request had is not looked at again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import Literal, NamedTuple, Protocol

from workbench.diffusion.routing import Decision
from workbench.diffusion.sanitizer import SanitizedPrompt
from workbench.serving.keys import Key
from workbench.serving.turns import Passage

__all__ = ["WITHHELD", "Cleaner", "Sanitizing"]

WITHHELD = "[This message was withheld by a prompt safety guard.]"
"""What stands in an earlier turn for a text that was blocked: the chat goes on without it."""
_ORDER: tuple[Decision, ...] = ("pass", "dewrap", "redirect", "block")
_MOST_VERDICTS, _MOST_CHARS = 20_000, 16_000_000
"""What is remembered, and the characters of texts in it."""


class Sanitizing(Protocol):
    """What is needed of the service."""

    @property
    def model_id(self) -> str:
        """Which model sanitizes now."""

    @property
    def portion(self) -> tuple[int, int]:
        """How many texts, and characters, may always come together."""

    async def sanitize(self, texts: Sequence[str], *, key: Key) -> list[SanitizedPrompt]:
        """Return what became of each text, in order."""


class _Verdict(NamedTuple):
    decision: Decision
    text: str
    """Instead of the one that was given; empty where that passed."""


class Cleaner:
    """Sanitizes chats.

    Args:
        service: Does the work.
        turns: ``all``, or only what came after the last answer.
    """

    def __init__(self, service: Sanitizing, *, turns: Literal["all", "last"]) -> None:
        self._service, self._turns = service, turns
        self._known: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._chars = 0

    async def clean(self, found: Iterable[Passage], *, key: Key) -> Decision:
        """Return the gravest decision, after texts were replaced; ``block``: send nothing.

        Raises:
            Refusal: As the service does.
        """
        wanted = [one for one in found if one.is_current or self._turns == "all"]
        gravest: Decision = "pass"
        # what stands together is looked at as it goes on: after its parts were replaced
        for is_joint in (False, True):
            part = [one for one in wanted if (len(one.places) > 1) == is_joint]
            readings = [one.readings() for one in part]
            verdicts = await self._verdicts(chain(*readings), key=key)
            for passage, texts in zip(part, readings, strict=True):
                decision, better = max(
                    (verdicts[text] for text in texts), key=lambda one: _ORDER.index(one.decision)
                )
                if decision == "block" and passage.is_current:
                    return "block"
                if decision != "pass":
                    passage.replace(WITHHELD if decision == "block" else better)
                    milder: Decision = "redirect" if decision == "block" else decision
                    gravest = max(gravest, milder, key=_ORDER.index)
        return gravest

    async def _verdicts(self, texts: Iterable[str], *, key: Key) -> dict[str, _Verdict]:
        """Return what is decided of each text; each key has a memory of its own."""
        scope = f"{key.id}\0{self._service.model_id}\0".encode()
        names = {text: sha256(scope + text.encode()).digest() for text in texts}
        verdicts = {text: self._known[name] for text, name in names.items() if name in self._known}
        for text in verdicts:
            self._known.move_to_end(names[text])
        unknown = (text for text in names if text not in verdicts)
        for portion in _portions(unknown, *self._service.portion):
            results = await self._service.sanitize(portion, key=key)
            for text, result in zip(portion, results, strict=True):
                better = "" if result.decision in {"pass", "block"} else result.text
                verdicts[text] = _Verdict(result.decision, better)
                self._keep(names[text], verdicts[text])
        return verdicts

    def _keep(self, name: bytes, verdict: _Verdict) -> None:
        if name not in self._known:
            self._known[name] = verdict
            self._chars += len(verdict.text)
        while len(self._known) > _MOST_VERDICTS or self._chars > _MOST_CHARS:
            _, oldest = self._known.popitem(last=False)
            self._chars -= len(oldest.text)


def _portions(texts: Iterable[str], most_texts: int, most_chars: int) -> Iterator[list[str]]:
    """Yield what is sanitized in one call: no chat is too long for the service."""
    portion: list[str] = []
    chars = 0
    for text in texts:
        chars += len(text)
        if portion and (len(portion) == most_texts or chars > most_chars):
            yield portion
            portion, chars = [], len(text)
        portion.append(text)
    if portion:
        yield portion
