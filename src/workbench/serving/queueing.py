"""Workers that batch, simulated batch by batch: many queues side by side, none knows another.

The rules are those of :mod:`workbench.serving.batching`: who comes to an idle worker is served at
once, a batch that follows another waits a moment to become full, its work and the work that waits
are limited by an estimate that learns from each batch, and who finds too much waiting is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError
from workbench.serving.config import ServeConfig

__all__ = ["Curve", "Outcome", "Sample", "arrivals", "fit_curve", "quantiles", "simulate"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_OVERHEAD = 16.0
"""Tokens that a text counts beside its own in the estimate of work."""
_MEMORY = 0.2
"""Weight of the newest batch in that estimate."""
_AHEAD = 8
"""Arrivals looked at in one step."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Seconds that a batch takes: each + texts × text + tokens × token + tokens² × square."""

    each_s: float
    text_s: float
    token_s: float
    square_s: float
    """Per squared token of a text; attention is what grows so."""
    scatter: float
    """Standard deviation of the logarithm of what was measured over this."""

    def text_seconds(self, tokens: Floats) -> Floats:
        """Return what texts add to a batch, in the shape of ``tokens``."""
        made: Floats = self.text_s + self.token_s * tokens + self.square_s * tokens**2
        return made


class Sample(NamedTuple):
    """One measured batch of texts of equal length."""

    texts: int
    tokens: int
    """Of each."""
    seconds: float


def fit_curve(samples: Sequence[Sample]) -> Curve:
    """Return the curve that is nearest to measured batches, in relative terms.

    Raises:
        ConfigError: If there are fewer than four batches, or one took no time.
    """
    from scipy.optimize import nnls

    if len(samples) < 4 or min(one.seconds for one in samples) <= 0:  # noqa: PLR2004 - unknowns
        raise ConfigError(f"{len(samples)} measured batches; give four or more that took time")
    texts, tokens, seconds = np.array(samples, dtype=float).T
    terms = np.stack([np.ones_like(texts), texts, texts * tokens, texts * tokens**2], axis=1)
    found, _ = nnls(terms / seconds[:, None], np.ones_like(seconds))
    scatter = float(np.std(np.log(seconds / np.maximum(terms @ found, 1e-9))))
    each, text, token, square = map(float, found)
    return Curve(each_s=each, text_s=text, token_s=token, square_s=square, scatter=scatter)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of arrivals; arrays have their shape."""

    latency_s: Floats
    """From arrival to answer; NaN where there was none."""
    rejected: npt.NDArray[np.bool_]
    busy_s: Floats
    """``(queues,)`` seconds of work of all workers of a queue."""


def arrivals(rates: Floats, *, step_s: float, rng: np.random.Generator) -> Floats:
    """Return Poisson arrivals whose rate changes from step to step.

    Args:
        rates: ``(queues, steps)`` arrivals per second.
        step_s: Length of a step, seconds.
        rng: Chance.

    Returns:
        ``(queues, n)`` times in rising order, padded with infinity.
    """
    counts = rng.poisson(rates * step_s)
    totals = counts.sum(axis=1)
    times = np.full((len(rates), int(totals.max(initial=0))), np.inf)
    begins = np.tile(np.arange(rates.shape[1]) * step_s, (len(rates), 1))
    filled = np.arange(times.shape[1]) < totals[:, None]
    times[filled] = np.repeat(begins.ravel(), counts.ravel())
    times[filled] += rng.random(int(totals.sum())) * step_s
    times.sort(axis=1)
    return times


def simulate(
    times: Floats, tokens: Floats, *, curve: Curve, config: ServeConfig, front_s: float = 0.0,
    workers: int = 1, rng: np.random.Generator,
) -> Outcome:  # fmt: skip
    """Return what becomes of arrivals, first come first served, each row a queue of its own.

    Args:
        times: ``(queues, n)`` arrivals, rising, padded with infinity.
        tokens: ``(queues, n)`` of each text.
        curve: What batches take.
        config: Limits of batches and queues; of one worker.
        front_s: A worker's own seconds per text around its batches.
        workers: Of each queue.
        rng: Chance.
    """
    made = _Simulation(
        times, tokens, curve=curve, config=config, front_s=front_s, workers=workers, rng=rng
    )
    return made.run()


class _Simulation:
    """The state of all queues; a step is one batch of each."""

    def __init__(
        self, times: Floats, tokens: Floats, *, curve: Curve, config: ServeConfig, front_s: float,
        workers: int, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        queues, count = times.shape
        room = max(_AHEAD, config.batch_texts)
        pad = ((0, 0), (0, room))
        self._times = np.pad(times, pad, constant_values=np.inf)
        self._units = np.pad(tokens + _OVERHEAD, pad)
        self._seconds = np.pad(curve.text_seconds(tokens) + front_s, pad)
        self._curve, self._config, self._rng, self._count = curve, config, rng, count
        self._queue_s = config.queue_s * workers
        self._row = np.arange(queues)[:, None]
        self._line = np.zeros((queues, count + room), dtype=np.int64)
        """Who was let in, in order."""
        self._seen, self._in, self._out = (np.zeros(queues, dtype=np.int64) for _ in range(3))
        self._waiting = np.zeros(queues)
        self._free = np.zeros((queues, workers))
        self._busy = np.zeros(queues)
        usual = float(tokens.mean()) if tokens.size else 1.0
        seconds = curve.each_s + curve.text_seconds(np.array([usual]))[0] + front_s
        self._rate = np.full(queues, (usual + _OVERHEAD) / max(seconds, 1e-9))
        self._latency = np.full(self._times.shape, np.nan)
        self._rejected = np.zeros(self._times.shape, dtype=bool)

    def run(self) -> Outcome:
        while self._step():
            pass
        shape = np.s_[:, : self._count]
        return Outcome(
            latency_s=self._latency[shape], rejected=self._rejected[shape], busy_s=self._busy
        )

    def _step(self) -> bool:
        """Run the next batch of each queue; return whether there was any."""
        rows = self._row[:, 0]
        worker = self._free.argmin(axis=1)
        free = self._free[rows, worker]
        self._admit(free)
        starts = self._starts(free)
        alive = np.isfinite(starts)
        if not alive.any():
            return False
        self._admit(np.where(alive, starts, -np.inf))
        at = self._out[:, None] + np.arange(self._config.batch_texts)
        who = self._line[self._row, at]
        units = self._units[self._row, who]
        room = self._config.batch_s * self._rate[:, None]
        taken = (at < self._in[:, None]) & (np.cumsum(units, axis=1) <= room)
        taken[:, 0] = alive
        size = taken.sum(axis=1)
        noise = np.exp(self._curve.scatter * self._rng.standard_normal(len(rows)))
        work = self._curve.each_s + (self._seconds[self._row, who] * taken).sum(axis=1)
        work *= noise / np.exp(self._curve.scatter**2 / 2) * alive
        ends = starts + work
        queue, place = np.nonzero(taken)
        found = who[queue, place]
        self._latency[queue, found] = ends[queue] - self._times[queue, found]
        done = (units * taken).sum(axis=1)
        self._waiting -= done
        self._out += size
        self._busy += work
        self._free[rows, worker] = np.where(alive, ends, np.inf)
        learned = done / np.maximum(work, 1e-9)
        self._rate += np.where(alive, _MEMORY * (learned - self._rate), 0.0)
        return True

    def _starts(self, free: Floats) -> Floats:
        """Return when the next batches begin: of nobody never."""
        rows = self._row[:, 0]
        length = self._in - self._out
        missing = np.maximum(self._config.batch_texts - length, 1)
        following = self._times[rows, np.minimum(self._seen + missing - 1, self._count)]
        full = np.where(length >= self._config.batch_texts, free, np.maximum(free, following))
        gathered = np.minimum(free + self._config.wait_s, full)
        first = self._times[rows, self._seen]
        starts: Floats = np.where(length > 0, gathered, np.maximum(free, first))
        return starts

    def _admit(self, until: Floats) -> None:
        """Let in who comes until then and finds room; the others are rejected."""
        while True:
            at = self._seen[:, None] + np.arange(_AHEAD)
            times = self._times[self._row, at]
            due = (times <= until[:, None]) & np.isfinite(times)
            if not due[:, 0].any():
                return
            units = self._units[self._row, at] * due
            before = self._waiting[:, None] + np.cumsum(units, axis=1) - units
            let_in = due & (before < self._queue_s * self._rate[:, None])
            let_in[:, 0] |= due[:, 0] & (self._in == self._out)
            queue, place = np.nonzero(let_in)
            self._line[queue, self._in[queue] + place] = at[queue, place]
            queue, place = np.nonzero(due & ~let_in)
            self._rejected[queue, at[queue, place]] = True
            self._waiting += (units * let_in).sum(axis=1)
            self._in += let_in.sum(axis=1)
            self._seen += due.sum(axis=1)
            if not due[:, -1].any():
                return


def quantiles(values: Floats, weights: Floats) -> list[float]:
    """Return the median, 95th and 99th percentile of weighted values; 0 of none."""
    if not len(values):
        return [0.0, 0.0, 0.0]
    order = values.argsort()
    reached = weights[order].cumsum()
    at = np.searchsorted(reached, np.array([0.5, 0.95, 0.99]) * reached[-1])
    return [float(one) for one in values[order][at]]
