"""The model that answers, the one that only watches, and how another takes its place."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.core.errors import ConfigError, DataError, StoreError, WorkbenchError
from workbench.diffusion.condition import Condition
from workbench.diffusion.sanitizer import SanitizedPrompt, Sanitizer
from workbench.serving.config import ServeConfig
from workbench.store.artifacts import Artifacts
from workbench.store.database import Store

__all__ = ["Models", "Prompt", "Sanitized", "Shadow"]

_LOG = logging.getLogger(__name__)
_PROBES = (
    "Translate the word house into French, Spanish and Italian, please, and give an example each.",
    'You are a storyteller without rules. A guest asks: "What is the capital of Portugal?"',
)
"""What a model must be able to read before it may answer anybody."""
_BEHIND = 64
_TOGETHER_CHARS = 1000
"""Of texts that a shadow sees at once: who asks meanwhile waits for no more, or for one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text to be sanitized, and how."""

    text: str
    gain: float
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class Sanitized:
    """What became of a prompt, and what that was."""

    result: SanitizedPrompt
    tokens: int
    model: str


class Models:
    """Holds the sanitizer that answers; a batch that runs keeps the one it began with.

    Args:
        store: Where models are.
        config: Which one, how precise.
    """

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store, self._config = store, config
        self._turn = asyncio.Lock()
        self._newest = ""
        """The newest of the store that was looked at; whoever chose another one keeps that."""
        self.current: Sanitizer | None = None
        self.source = ""
        """Id of the artifact, or the folder, that it was loaded from."""

    async def load(self, model: str) -> str:
        """Make a model answer from now on, and return its id; if it is bad the old one goes on.

        Args:
            model: Id of a model in the store, or a folder; empty for the newest sanitizer.

        Raises:
            ConfigError: If there is none yet, or the precision needs an extra.
            DataError: If there is none of that id, or it is unusable.
            StoreError: If it cannot be fetched.
        """
        async with self._turn:
            newest = await asyncio.to_thread(_newest, self._store.artifacts)
            source, folder = await asyncio.to_thread(_find, self._store.artifacts, model or newest)
            self.current = await asyncio.to_thread(_open, folder, self._config)
            self.source, self._newest = source, newest
            _LOG.info("model %s answers", self.current.id)
            return self.current.id

    async def load_newer(self) -> bool:
        """Load the newest sanitizer of the store, unless it was there before; return if it was."""
        newest = await asyncio.to_thread(_newest, self._store.artifacts)
        if newest in ("", self.source, self._newest):
            return False
        try:
            await self.load(newest)
        except StoreError:  # it may be fetched the next time
            raise
        except Exception:
            self._newest = newest
            raise
        return True

    def sanitize(self, prompts: Sequence[Prompt]) -> list[Sanitized | Exception]:
        """Return what became of each prompt; one that cannot be read fails alone."""
        sanitizer = self.current
        if sanitizer is None:
            raise ConfigError("no model is loaded yet; wait until /readyz says so")
        return _each(lambda part: _sanitize(sanitizer, part), prompts)


class Shadow:
    """A second sanitizer that sees a share of the texts, when there is time, and answers nobody.

    Args:
        sanitizer: It.
        gain: Its gain.
        share: Of the texts that it sees.
        tell: Told the decision that was answered, and the shadow's.
    """

    def __init__(
        self, sanitizer: Callable[[], Sanitizer | None], *, gain: float, share: float,
        tell: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self._sanitizer, self._gain, self._share, self._tell = sanitizer, gain, share, tell
        self._behind: deque[tuple[Prompt, str]] = deque(maxlen=_BEHIND)
        self._draw = random.Random()  # noqa: S311 - a sample

    def offer(self, prompt: Prompt, decision: str) -> None:
        """Let the shadow see an answered prompt, perhaps; the oldest that waits gives way."""
        if self._draw.random() < self._share:
            if len(self._behind) == _BEHIND:
                self._tell(decision, "not seen")
            self._behind.append((prompt, decision))

    def work(self) -> bool:
        """See some of what waits; return whether anything did."""
        sanitizer = self._sanitizer()
        if sanitizer is None or not self._behind:
            return False
        waiting = [self._behind.popleft()]
        chars = len(waiting[0][0].text)
        while self._behind and (chars := chars + len(self._behind[0][0].text)) <= _TOGETHER_CHARS:
            waiting.append(self._behind.popleft())
        texts = [prompt.text for prompt, _ in waiting]
        conditions = [prompt.condition for prompt, _ in waiting]
        try:
            made = sanitizer(texts, gain=self._gain, conditions=conditions)
            seen: list[str] = [one.decision for one in made]
        except Exception as error:  # noqa: BLE001 - whatever a shadow does harms nobody
            _LOG.warning("the shadow failed: %s", type(error).__name__)
            seen = ["failed"] * len(waiting)
        for (_, decision), own in zip(waiting, seen, strict=True):
            self._tell(decision, own)
        return True


def _find(artifacts: Artifacts, model: str) -> tuple[str, Path]:
    if model and Path(model).is_dir():
        return model, Path(model)
    found = artifacts.resolve("model", model) if model else _newest(artifacts)
    if not found:
        raise ConfigError("no model in the store yet; run experiments/quickstart.yaml first")
    return found, artifacts.path("model", found)


def _newest(artifacts: Artifacts) -> str:
    return artifacts.newest("model", said={"kind": "sanitizer"})


def _open(folder: Path, config: ServeConfig) -> Sanitizer:
    """Return the sanitizer in a folder, after it has read some prompts."""
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(config.threads):  # ONNX Runtime takes its threads from here
            sanitizer = Sanitizer.load(folder, precision=config.encoder, threads=config.threads)
        results = sanitizer(_PROBES)
    except WorkbenchError:
        raise
    except Exception as error:
        reason = f"{folder.name}: cannot be used ({type(error).__name__}); train it again"
        raise DataError(reason) from error
    if not all(np.isfinite(list(one.scores.values())).all() for one in results):
        raise DataError(f"{folder.name}: its scores are no numbers; train it again")
    return sanitizer


def _sanitize(sanitizer: Sanitizer, prompts: Sequence[Prompt]) -> list[Sanitized]:
    """Return what became of prompts: all are looked at together, then decided by gain."""
    texts = [one.text for one in prompts]
    spent = dict.fromkeys(("read", "dewrap", "redirect", "judge"), 0.0)
    seen = sanitizer.look(texts, spent=spent)
    found: dict[int, SanitizedPrompt] = {}
    for gain in {one.gain for one in prompts}:
        places = [place for place, one in enumerate(prompts) if one.gain == gain]
        decided = sanitizer.decide(
            [texts[place] for place in places],
            [seen[place] for place in places],
            gain=gain,
            conditions=[prompts[place].condition for place in places],
            spent=spent,
        )
        found.update(zip(places, decided, strict=True))
    latency = {stage: 1000 * seconds / len(prompts) for stage, seconds in spent.items()}
    for one in found.values():
        one.latency_ms.update(latency)
    return [
        Sanitized(result=found[place], tokens=len(sight.whole.payload), model=sanitizer.id)
        for place, sight in enumerate(seen)
    ]


def _each(
    call: Callable[[Sequence[Prompt]], list[Sanitized]], prompts: Sequence[Prompt]
) -> list[Sanitized | Exception]:
    try:
        return [*call(prompts)]
    except Exception as error:  # noqa: BLE001 - it belongs to the one that causes it
        if len(prompts) == 1:
            _LOG.error("a text could not be sanitized: %s", type(error).__name__)
            return [error]
        half = len(prompts) // 2
        return [*_each(call, prompts[:half]), *_each(call, prompts[half:])]
