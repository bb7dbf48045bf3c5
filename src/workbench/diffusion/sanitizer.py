"""The sanitizer people call: window, tag and dewrap, detect, route, decode, judge again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError
from workbench.diffusion.condition import Condition
from workbench.diffusion.reader import Core, Reader, TextTags, find_core
from workbench.diffusion.redirect import Candidate, Redirector, Rewriter
from workbench.diffusion.routing import Decision, Routing
from workbench.judge.probe import Judge

__all__ = ["Precision", "SanitizedPrompt", "Sanitizer", "Sighting"]

Precision = Literal["float32", "int8"]

_STAGES = ("read", "dewrap", "redirect", "judge")
_LEAST_CONFIDENCE = 0.5
_WHOLE = 0.95
"""Share of a prompt's letters from which its core counts as all of it."""


@dataclass(frozen=True, kw_only=True)
class SanitizedPrompt:
    """What became of a prompt, and why."""

    prompt: str
    text: str
    """What to send on: the prompt byte for byte (pass), its core (dewrap), a safe text (redirect),
    or nothing (block)."""
    decision: Decision
    span: tuple[int, int] | None
    """Characters of the prompt's core; None where it is not set apart."""
    confidence: float
    """How sure the decision is: the probability of harm for redirect and block, else of none."""
    candidates: tuple[Candidate, ...]
    """Texts considered, best first; empty where the prompt passed."""
    scores: dict[str, float]
    """``risk``: calibrated probability that the core is harmful; ``harm``, ``harm_core``,
    ``wrapped``: logits it rests on; ``core``: mean probability of the core's tokens; ``unsafe``:
    probability by the judge that has the last word."""
    latency_ms: dict[str, float] = field(compare=False)
    """Stage → milliseconds per prompt of the batch."""


class Sighting(NamedTuple):
    """What was seen in a prompt before anything is decided."""

    whole: TextTags
    core: Core
    inner: TextTags
    """Tags of the core alone; those of the whole where it is not set apart."""
    risk: float

    @property
    def is_wrapped(self) -> bool:
        """Whether the prompt wears a wrapper."""
        return self.whole.wrapped > 0


class Sanitizer:
    """Takes wrappers off, leads harmful requests elsewhere and leaves the others alone.

    ::

        sanitizer = Sanitizer.load(path)
        sanitizer(["..."])[0].text

    Args:
        reader: Tags prompts.
        routing: Decides by the tags.
        redirector: Has safe texts.
        judge: Has the last word on texts other than the prompt; what it flags is blocked.
        rewriter: Writes in place of the redirector's texts.
        model_id: Hash of all that was saved; empty where it never was.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        routing: Routing,
        redirector: Redirector,
        judge: Judge | None = None,
        rewriter: Rewriter | None = None,
        model_id: str = "",
    ) -> None:
        self.reader = reader
        self.routing = routing
        self.redirector = redirector
        self.judge = judge
        self.rewriter = rewriter
        self.id = model_id

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        precision: Precision = "float32",
        judge: Judge | None = None,
        threads: int = 0,
    ) -> Sanitizer:
        """Return the sanitizer that was saved in a folder.

        Args:
            path: Folder of :func:`workbench.diffusion.checkpoint.save_sanitizer`.
            precision: Of the encoder; ``int8`` is three times as fast and needs the extra ``onnx``.
            judge: Has the last word.
            threads: Of this process, as many as torch has if 0; with one, a latency is what a
                prompt costs that comes alone.

        Raises:
            ConfigError: If the extra is not installed.
            DataError: If a file is missing, damaged, changed, or of another format.
        """
        from workbench.diffusion.checkpoint import load_sanitizer

        if threads:
            import torch

            torch.set_num_threads(threads)
        return load_sanitizer(path, precision=precision, judge=judge)

    def __call__(
        self, prompts: Sequence[str], *, gain: float = 1.0, conditions: Sequence[Condition] = ()
    ) -> list[SanitizedPrompt]:
        """Return one result per prompt, in order; deterministic but for the latencies.

        Args:
            prompts: Texts; hostile.
            gain: Multiplies the odds of harm: 0 redirects nothing, more than 1 is stricter.
            conditions: What is known beside the texts, one each; none where nothing is.

        Raises:
            ConfigError: If the gain is negative or not finite, or conditions are too few or many.
        """
        spent = dict.fromkeys(_STAGES, 0.0)
        sightings = self.look(prompts, spent=spent)
        results = self.decide(prompts, sightings, gain=gain, conditions=conditions, spent=spent)
        latency = {stage: 1000 * seconds / max(len(prompts), 1) for stage, seconds in spent.items()}
        return [replace(one, latency_ms=latency) for one in results]

    def look(
        self, prompts: Sequence[str], *, spent: dict[str, float] | None = None
    ) -> list[Sighting]:
        """Return what is seen in each prompt; a wrapped one is read twice, its core alone then."""
        spent = dict.fromkeys(_STAGES, 0.0) if spent is None else spent
        with _timed(spent, "read"):
            wholes = self.reader(prompts)
            cores = [_core(prompt, tags) for prompt, tags in zip(prompts, wholes, strict=True)]
        with _timed(spent, "dewrap"):
            inner = list(wholes)
            apart = [
                number
                for number, (prompt, core) in enumerate(zip(prompts, cores, strict=True))
                if _is_apart(prompt, core)
            ]
            texts = [prompts[number][cores[number].start : cores[number].end] for number in apart]
            for number, tags in zip(apart, self.reader(texts), strict=True):
                inner[number] = tags
            logits = _logits(wholes, inner)
            risks = self.routing.risk(*logits.T).tolist()
        return [Sighting(*seen) for seen in zip(wholes, cores, inner, risks, strict=True)]

    def decide(
        self,
        prompts: Sequence[str],
        sightings: Sequence[Sighting],
        *,
        gain: float = 1.0,
        conditions: Sequence[Condition] = (),
        spent: dict[str, float] | None = None,
    ) -> list[SanitizedPrompt]:
        """Return what becomes of prompts that were looked at; args, errors as :meth:`__call__`."""
        if not 0 <= gain < math.inf:
            raise ConfigError(f"gain is {gain}; give a number >= 0")
        if conditions and len(conditions) != len(prompts):
            raise ConfigError(f"{len(conditions)} conditions for {len(prompts)} prompts")
        spent = dict.fromkeys(_STAGES, 0.0) if spent is None else spent
        results = [
            self._routed(prompt, seen, gain=gain)
            for prompt, seen in zip(prompts, sightings, strict=True)
        ]
        with _timed(spent, "redirect"):
            led = [number for number, one in enumerate(results) if one.decision == "redirect"]
            known = [conditions[number] for number in led] if conditions else []
            proposed = self._redirects(
                [_sent(prompts[number], sightings[number].core) for number in led],
                np.array([sightings[number].inner.vector for number in led]),
                conditions=known,
            )
            for number, candidates in zip(led, proposed, strict=True):
                results[number] = _redirected(results[number], candidates)
        with _timed(spent, "judge"):
            self._judge(results)
        return results

    def _routed(self, prompt: str, seen: Sighting, *, gain: float) -> SanitizedPrompt:
        is_apart = _is_apart(prompt, seen.core)
        decision: Decision = "pass"
        if self.routing.exceeds(seen.risk, is_wrapped=seen.is_wrapped, gain=gain):
            decision = "redirect"
        elif is_apart:
            decision = "dewrap"
        text = _sent(prompt, seen.core) if decision == "dewrap" else prompt
        own = Candidate(text=text, origin="span", score=seen.core.confidence)
        return SanitizedPrompt(
            prompt=prompt,
            text=text,
            decision=decision,
            span=(seen.core.start, seen.core.end) if is_apart else None,
            confidence=seen.risk if decision == "redirect" else 1 - seen.risk,
            candidates=(own,) if decision == "dewrap" else (),
            scores={
                "risk": seen.risk,
                "harm": seen.whole.harm,
                "harm_core": seen.inner.harm,
                "wrapped": seen.whole.wrapped,
                "core": seen.core.confidence,
            },
            latency_ms={},
        )

    def _redirects(
        self,
        requests: Sequence[str],
        vectors: npt.NDArray[np.float32],
        *,
        conditions: Sequence[Condition],
    ) -> list[list[Candidate]]:
        proposed = self.redirector(vectors, conditions=conditions)
        if self.rewriter is None or not requests:
            return proposed
        written = self.rewriter(requests)
        return [
            [Candidate(text=text, origin="rewriter", score=1.0), *rest] if text else rest
            for text, rest in zip(written, proposed, strict=True)
        ]

    def _judge(self, results: list[SanitizedPrompt]) -> None:
        """Send on the first candidate that the judge does not flag; block where it flags all.

        A prompt that passes is nobody's candidate.
        """
        changed = [number for number, one in enumerate(results) if one.candidates]
        if self.judge is None or not changed:
            return
        texts = [one.text for number in changed for one in results[number].candidates]
        risks = iter(self.judge.score(texts).tolist())
        for number in changed:
            judged = [(next(risks), one) for one in results[number].candidates]
            results[number] = _chosen(results[number], judged, threshold=self.judge.threshold)


def _core(prompt: str, tags: TextTags) -> Core:
    """Return the core of a prompt: all of it unless it wears a wrapper."""
    return find_core(prompt, tags) if tags.wrapped > 0 else Core(0, len(prompt), 0.0)


def _is_apart(prompt: str, core: Core) -> bool:
    is_part = core.end - core.start < _WHOLE * len(prompt.strip())
    return is_part and core.confidence >= _LEAST_CONFIDENCE


def _sent(prompt: str, core: Core) -> str:
    return prompt[core.start : core.end] if _is_apart(prompt, core) else prompt


def _logits(wholes: Sequence[TextTags], inner: Sequence[TextTags]) -> npt.NDArray[np.float64]:
    rows = [(one.harm, core.harm, one.wrapped) for one, core in zip(wholes, inner, strict=True)]
    return np.array(rows, np.float64).reshape(-1, 3)


def _redirected(result: SanitizedPrompt, candidates: list[Candidate]) -> SanitizedPrompt:
    if not candidates:
        return replace(result, text="", decision="block")
    return replace(result, text=candidates[0].text, candidates=tuple(candidates))


def _chosen(
    result: SanitizedPrompt, judged: list[tuple[float, Candidate]], *, threshold: float
) -> SanitizedPrompt:
    # the sort is stable: those not flagged come first, else as they were
    judged = sorted(judged, key=lambda one: one[0] >= threshold)
    unsafe, best = judged[0]
    candidates = tuple(one for _, one in judged)
    scores = result.scores | {"unsafe": unsafe}
    if unsafe >= threshold:
        return replace(
            result, text="", decision="block", confidence=unsafe, candidates=candidates,
            scores=scores,
        )  # fmt: skip
    return replace(result, text=best.text, candidates=candidates, scores=scores)


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    spent[stage] += time.perf_counter() - started
