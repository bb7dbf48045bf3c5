"""What every endpoint stands on: a key is checked, texts are sanitized, both are counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal

from workbench.core.errors import WorkbenchError
from workbench.core.settings import is_loopback
from workbench.diffusion.condition import Condition
from workbench.diffusion.sanitizer import SanitizedPrompt, Sanitizer
from workbench.embedding.encoder import MiniLM
from workbench.embedding.windows import STRIDE_TOKENS, WINDOW_TOKENS
from workbench.serving.batching import Batcher, Batches
from workbench.serving.books import Books
from workbench.serving.config import ServeConfig
from workbench.serving.keys import ANYBODY, Key, KeyRing
from workbench.serving.metrics import Metrics
from workbench.serving.models import Models, Prompt, Sanitized, Shadow
from workbench.serving.refusal import Overloaded, Refusal
from workbench.store.database import Store
from workbench.store.records import LedgerRow
from workbench.store.service_keys import Usage, all_keys
from workbench.store.usage import CREDIT_USD, window_start

__all__ = ["Service"]

_LOG = logging.getLogger(__name__)
_TICK_S = 1.0
_OVERHEAD = 16.0
"""Tokens that a text costs beside its own."""
_MOST_TOKENS_A_CHAR = 3
"""A Hangul syllable is taken apart into as many letters."""
_MOST_CHARS_A_TOKEN = 64
"""No language has so long words: what is longer is refused without being counted."""
_PORTION_TEXTS, _PORTION_CHARS = 64, 8192
_TWICE = WINDOW_TOKENS - STRIDE_TOKENS
_KNOWN = Condition()


class Service:
    """Sanitizes for callers with keys, in one process; of one event loop.

    Until ``load`` has returned, and from ``drain`` on, callers are told to come later.

    Args:
        config: How.
        store: Models, keys and ledger.
        credit_usd: Dollars that a credit of the keys' quotas is.
    """

    def __init__(
        self, config: ServeConfig, store: Store, *, credit_usd: Decimal = CREDIT_USD
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self.models = Models(store, config)
        self.in_flight = 0
        """Requests that are being answered, kept by the front."""
        self.is_draining = False
        self._store = store
        self._ring = KeyRing(credit_usd=credit_usd)
        self._books = Books(store)
        self._usage = Usage(store.engine)
        self._shadow_models = Models(store, config)
        self._shadow = Shadow(
            self._shadow_sanitizer, gain=config.shadow_gain, share=config.shadow_share,
            tell=lambda answered, seen: self.metrics.shadow.labels(answered, seen).inc(),
        )  # fmt: skip
        self._batcher = Batcher[Prompt, Sanitized](
            self.models.sanitize,
            Batches(texts=config.batch_texts, seconds=config.batch_s, wait_s=config.wait_s,
                    queue_s=config.queue_s),
            cost=lambda made: _OVERHEAD + made.tokens,
            spare=self._shadow.work if config.shadow_share else None,
            tell=self._tell_batch,
        )  # fmt: skip
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = False
        self.metrics.gauge("queue_texts", "Texts that wait.", lambda: self._batcher.waiting)
        self.metrics.gauge(
            "queue_seconds", "Estimated work that waits.", lambda: self._batcher.waiting_s
        )
        self.metrics.gauge("in_flight", "Requests begun.", lambda: self.in_flight)
        self.metrics.gauge("ready", "Whether it takes requests.", lambda: float(self.is_ready))

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return self._loaded and not self.is_draining

    @property
    def portion(self) -> tuple[int, int]:
        """How many texts, and characters, may always come together: no chat fills the queue."""
        most = self.config.max_tokens // _MOST_TOKENS_A_CHAR
        return min(_PORTION_TEXTS, self.config.max_texts), min(_PORTION_CHARS, most)

    @property
    def model_id(self) -> str:
        """Which model answers; empty while it is loaded."""
        current = self.models.current
        return current.id if current else ""

    def book(self, row: LedgerRow) -> None:
        """Enter a row in the ledger within a second."""
        self._books.enter([row])

    async def load(self) -> None:
        """Load keys, model and shadow, and learn how fast the model is; then it is ready.

        Raises:
            WorkbenchError: If there is no usable model.
        """
        self._ring.update(*await asyncio.to_thread(self._read_keys))
        await self.models.load(self.config.model)
        if self.config.shadow_share and self.config.shadow_model:
            await self._shadow_models.load(self.config.shadow_model)
        probes = [
            Prompt(text=f"What is {number} times seven, and why?", gain=1.0, condition=_KNOWN)
            for number in range(8)
        ]
        for _ in range(2):  # the first time is slower
            await self._batcher.measure(probes)
        self._batcher.start()
        self._tasks = [asyncio.create_task(self._tick())]
        if self.config.poll_s:
            self._tasks.append(asyncio.create_task(self._poll()))
        self._loaded = True

    async def drain(self) -> None:
        """Take no more, and return when what was begun is answered, or the time for it is over."""
        self.is_draining = True
        ends_at = time.monotonic() + self.config.drain_s
        while self.in_flight and time.monotonic() < ends_at:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """End, and write what is left to be written."""
        self.is_draining, self._loaded = True, False
        await self._batcher.stop()
        self._ending.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settle_books()

    async def authorized(self, headers: Mapping[str, str]) -> Key:
        """Return the key of a request: ``Authorization: Bearer …`` or ``x-api-key: …``.

        Counts the request against the limits of the key; refuses early where too much waits, so
        that no body is read in vain.

        Raises:
            Refusal: 401 without a known key; 403 where a page of another site asks through a
                browser.
            Overloaded: 429 if the key asked too often, its credits of the day are used up, or too
                much waits; 503 if the service begins or ends.
        """
        if refused := self.refusal():
            raise refused
        if self.config.is_open:
            if not is_loopback(f"//{headers.get('host', '')}"):
                raise Refusal(403, "without keys only this machine's own address is served")
            key = ANYBODY
        else:
            key = self._ring.find(headers)
            self._ring.count(key)
        return key

    def refusal(self) -> Overloaded | None:
        """Return why nobody is served at the moment; None while all are."""
        if self.is_draining:
            why = "the service ends; another takes over"
            return Overloaded(2, why, status=503, reason="ending")
        if not self._loaded:
            return Overloaded(5, "the model is being loaded", status=503, reason="loading")
        if self.in_flight > self.config.max_requests:
            return Overloaded(1, "too many requests at a time")
        return self._batcher.refusal()

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a request that is not served."""
        self.metrics.rejections.labels(refusal.reason).inc()

    def check_admin(self, key: Key) -> None:
        """Refuse a key that may not load models.

        Raises:
            Refusal: 403.
        """
        if key.id not in self.config.admins:
            raise Refusal(403, "this key may not do that; start with `workbench serve --admin ID`")

    async def sanitize(
        self,
        texts: Sequence[str],
        *,
        key: Key,
        condition: Condition = _KNOWN,
        gain: float | None = None,
    ) -> list[SanitizedPrompt]:
        """Return what became of each text, in order; counts them for the key.

        Args:
            texts: Hostile.
            key: Of :meth:`authorized`.
            condition: What is known of all of them.
            gain: Multiplies the odds of harm; the service's own if not given.

        Raises:
            Refusal: 413 where there are too many texts or tokens, 422 where there is none, or one
                that cannot be read.
            Overloaded: 429 if too much waits, 503 if the service begins or ends.
        """
        if not self._loaded:  # what was begun before it drains is answered
            raise Overloaded(2, "the service begins or ends", status=503, reason="ending")
        units = await self._units(texts)
        wanted = self.config.gain if gain is None else gain
        prompts = [Prompt(text=text, gain=wanted, condition=condition) for text in texts]
        try:
            made = await self._batcher.submit(prompts, units)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - it may quote the text; models.sanitize has told its kind
            raise Refusal(422, "a text could not be read; send another", reason="text") from None
        for prompt, one in zip(prompts, made, strict=True):
            self._books.add(key, model=one.model, tokens=one.tokens, units=_OVERHEAD + one.tokens)
            self.metrics.decisions.labels(one.result.decision).inc()
            self.metrics.tokens.inc(one.tokens)
            if self.config.shadow_share:
                self._shadow.offer(prompt, one.result.decision)
        return [one.result for one in made]

    async def reload(self, model: str = "") -> str:
        """Load another model and return its id; the old one goes on until then, and if it is bad.

        Args:
            model: As in :meth:`Models.load`.

        Raises:
            WorkbenchError: As there.
        """
        try:
            found = await self.models.load(model)
        except WorkbenchError:
            self.metrics.reloads.labels("refused").inc()
            raise
        self.metrics.reloads.labels("loaded").inc()
        return found

    async def reload_quietly(self) -> None:
        """Do that for the model of the config; what goes wrong is logged."""
        try:
            await self.reload(self.config.model)
        except WorkbenchError as error:
            _LOG.error("the model stays: %s", error)

    async def _units(self, texts: Sequence[str]) -> list[float]:
        """Return about how many tokens' work each text is; refuse too many texts or tokens."""
        most = self.config.max_texts
        if not texts:
            raise Refusal(422, "there is no text; send at least one")
        if len(texts) > most:
            raise Refusal(413, f"{len(texts)} texts; {most} may come together", reason="size")
        most, chars = self.config.max_tokens, sum(map(len, texts))
        if chars * _MOST_TOKENS_A_CHAR <= most:
            return [_OVERHEAD + len(text.encode("utf-8", "replace")) / 4 for text in texts]
        if chars > most * _MOST_CHARS_A_TOKEN:
            raise Refusal(413, f"{chars:,} characters; send less at a time", reason="size")
        sanitizer = self.models.current
        assert sanitizer is not None
        found = await asyncio.to_thread(_count, sanitizer.reader.encoder, texts)
        if sum(found) > most:
            raise Refusal(413, f"{sum(found):,} tokens; {most:,} may come together", reason="size")
        return [_OVERHEAD + tokens for tokens in found]

    def _tell_batch(self, texts: int, seconds: float) -> None:
        self.metrics.batch_texts.observe(texts)
        self.metrics.batch_seconds.observe(seconds)

    def _shadow_sanitizer(self) -> Sanitizer | None:
        return (self._shadow_models if self.config.shadow_model else self.models).current

    def _read_keys(self) -> tuple[list[Key], Mapping[str, Decimal]]:
        return all_keys(self._store.engine), self._usage.read(window_start("day"))

    async def _settle_books(self) -> None:
        try:
            self._books.close_page()
            await asyncio.to_thread(self._books.write)
        except Exception as error:  # noqa: BLE001 - tried again in a second, for as long as it takes
            _LOG.error("the ledger is behind, it is written later: %s", _told(error))
        try:
            self._ring.update(*await asyncio.to_thread(self._read_keys))
        except Exception as error:  # noqa: BLE001 - as before
            _LOG.error("keys are as they were, they are read later: %s", _told(error))

    async def _tick(self) -> None:
        while not await self._ends_within(_TICK_S):
            await self._settle_books()

    async def _poll(self) -> None:
        while not await self._ends_within(self.config.poll_s):
            try:
                if await self.models.load_newer():
                    self.metrics.reloads.labels("loaded").inc()
            except Exception as error:  # noqa: BLE001 - the next one may be better
                self.metrics.reloads.labels("refused").inc()
                _LOG.error("the model stays: %s", _told(error))

    async def _ends_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)
        return self._ending.is_set()


def _told(error: Exception) -> str:
    """Return what may be logged of an error: words of others may quote a text."""
    return str(error) if isinstance(error, WorkbenchError) else type(error).__name__


def _count(encoder: MiniLM, texts: Sequence[str]) -> list[int]:
    """Return how many tokens each text is; those that two windows see count once."""
    return [
        sum(len(window) - 2 for window in several) - _TWICE * (len(several) - 1)
        for several in encoder.spans(texts)
    ]
