"""The sanitizer people call: encode, translate, decide, decode; saved without pickle."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from workbench.core.errors import ConfigError, DataError, WorkbenchError
from workbench.core.identity import content_id
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.datamodule import harmless
from workbench.diffusion.decode import Candidate, Gallery, decode
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.translator import DiffusionTranslator
from workbench.embedding.encoder import Encoder, FloatArray
from workbench.judge.calibrate import threshold_at
from workbench.judge.probe import Judge
from workbench.store.artifacts import write_atomic, write_json_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Routing", "SanitizedPrompt", "Sanitizer", "build_sanitizer"]

Decision = Literal["pass", "rewrite", "block"]

_WEIGHTS_FILE = "model.safetensors"
_CONFIG_FILE = "config.json"
_FORMAT = 1
_STAGES = ("encode", "translate", "decode", "judge")
_GALLERY_KEY = "gallery.vectors"
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError, WorkbenchError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Routing:
    """When a prompt is left alone: when the model would hardly move it."""

    threshold: float
    """Least 1 − cosine between prompt and prediction for a rewrite; 0 rewrites everything."""
    false_positive_rate: float
    """Share of the texts that chose the threshold which it rewrites all the same."""
    benign: int
    """How many texts chose it."""


@dataclass(frozen=True, kw_only=True)
class SanitizedPrompt:
    """What became of a prompt, and why."""

    prompt: str
    text: str
    """What to send on: the prompt byte for byte (pass), another text, or nothing (block)."""
    decision: Decision
    confidence: float
    """Cosine between the text and where the model wanted to go, in [−1, 1]."""
    candidates: tuple[Candidate, ...]
    """Texts considered, best first; empty where the prompt passed."""
    scores: dict[str, float]
    """``moved``: 1 − cosine between prompt and prediction; ``unsafe``: the judge's probability."""
    latency_ms: dict[str, float] = field(compare=False)
    """Stage → milliseconds per prompt of the batch."""


class Sanitizer:
    """Rewrites unsafe prompts and leaves the others alone.

    ::

        sanitizer = Sanitizer.load(path, encoder=encoder)
        sanitizer(["..."], gain=1.0)[0].text
    """

    def __init__(
        self,
        translator: DiffusionTranslator,
        *,
        encoder: Encoder,
        gallery: Gallery,
        routing: Routing,
        judge: Judge | None = None,
    ) -> None:
        self.translator = translator
        self.encoder = encoder
        self.gallery = gallery
        self.routing = routing
        self.judge = judge

    def moved(self, X: FloatArray) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return 1 − cosine between rows and their predictions, in [0, 2]."""
        cosines = np.sum(X * self.translator.vectors(X), axis=1, dtype=np.float64)
        return np.clip(1 - cosines, 0, 2)

    def __call__(self, prompts: Sequence[str], *, gain: float = 1.0) -> list[SanitizedPrompt]:
        """Return one result per prompt, in order; deterministic but for the latencies.

        Args:
            prompts: Texts of any kind and length.
            gain: How far to follow the model: 1 is its prediction, more is safer and less faithful,
                0 changes nothing.

        Raises:
            ConfigError: If the gain is negative or no number.
        """
        if not 0 <= gain < np.inf:
            raise ConfigError(f"gain is {gain}; give a number >= 0")
        if not prompts:
            return []
        stamps = [time.perf_counter()]
        rows = self.encoder.encode(prompts)
        stamps.append(time.perf_counter())
        moved = self.moved(rows)
        outputs = self.translator.vectors(rows, gain=gain)
        stamps.append(time.perf_counter())
        chosen = np.flatnonzero((moved >= self.routing.threshold) & (gain > 0)).tolist()
        candidates = decode(
            [prompts[index] for index in chosen],
            rows[chosen],
            outputs[chosen],
            encoder=self.encoder,
            gallery=self.gallery,
        )
        stamps.append(time.perf_counter())
        texts = [own[0].text for own in candidates]
        unsafe = self.judge.score(texts) if self.judge and texts else np.zeros(len(texts))
        stamps.append(time.perf_counter())
        spans_ms = [1000 * (end - start) / len(prompts) for start, end in pairwise(stamps)]
        results = [
            SanitizedPrompt(
                prompt=prompt,
                text=prompt,
                decision="pass",
                confidence=float(row @ output),
                candidates=(),
                scores={"moved": float(distance)},
                latency_ms=dict(zip(_STAGES, spans_ms, strict=True)),
            )
            for prompt, row, output, distance in zip(prompts, rows, outputs, moved, strict=True)
        ]
        for index, own, risk in zip(chosen, candidates, unsafe.tolist(), strict=True):
            blocked = self.judge is not None and risk >= self.judge.threshold
            results[index] = replace(
                results[index],
                text="" if blocked else own[0].text,
                decision="block" if blocked else "rewrite",
                confidence=own[0].cosine,
                candidates=tuple(own),
                scores=results[index].scores | ({"unsafe": risk} if self.judge else {}),
            )
        return results

    def _contents(self) -> tuple[bytes, dict[str, Any]]:
        tensors = {
            name: value.detach().contiguous()
            for name, value in self.translator.denoiser.state_dict().items()
        }
        tensors[_GALLERY_KEY] = torch.from_numpy(np.ascontiguousarray(self.gallery.vectors))
        config = {
            "format": _FORMAT,
            "encoder": self.encoder.id,
            "config": self.translator.config.to_json(),
            "routing": asdict(self.routing),
            "gallery": list(self.gallery.texts),
        }
        return save(tensors), config

    @property
    def id(self) -> str:
        """Hash of weights, gallery, routing and config."""
        weights, config = self._contents()
        return content_id([hashlib.sha256(weights).hexdigest(), config])

    def save(self, path: Path) -> None:
        """Write ``model.safetensors`` and ``config.json`` into a folder, each atomically."""
        weights, config = self._contents()
        write_atomic(path / _WEIGHTS_FILE, weights)
        write_json_atomic(path / _CONFIG_FILE, config)

    @classmethod
    def load(cls, path: Path, *, encoder: Encoder, judge: Judge | None = None) -> Sanitizer:
        """Return the sanitizer that :meth:`save` wrote into a folder.

        The judge has the last word on rewritten texts; what it flags is blocked.

        Raises:
            DataError: If a file is missing, damaged, of another format or for another encoder.
        """
        try:
            saved = json.loads((path / _CONFIG_FILE).read_text(encoding="utf-8"))
            if saved["format"] != _FORMAT:
                raise ValueError(f"{_CONFIG_FILE} is not format {_FORMAT}")
            if saved["encoder"] != encoder.id:
                raise ValueError(f"made for encoder {saved['encoder']}, not {encoder.id}")
            tensors = load_file(path / _WEIGHTS_FILE)
            known = tensors.pop(_GALLERY_KEY).numpy()
            gallery = Gallery(texts=tuple(saved["gallery"]), vectors=known)
            config = PhaseConfig.from_json(saved["config"])
            translator = DiffusionTranslator(config, Denoiser(config))
            translator.denoiser.load_state_dict(tensors)
            routing = Routing(**saved["routing"])
        except _UNREADABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path}: not a usable sanitizer ({reason}); train it again") from error
        return cls(translator, encoder=encoder, gallery=gallery, routing=routing, judge=judge)


def build_sanitizer(
    translator: DiffusionTranslator,
    *,
    encoder: Encoder,
    training: pd.DataFrame,
    validation: pd.DataFrame,
    false_positive_rate: float = 0.05,
) -> Sanitizer:
    """Return the sanitizer of a trained model: its gallery and its routing threshold.

    Args:
        translator: Trained model.
        encoder: Encoder it was trained with.
        training: Training pairs; the clean sides are the gallery.
        validation: Validation pairs; the clean texts that must not change (where there are none,
            all clean texts) choose the threshold.
        false_positive_rate: Largest share of these to rewrite.

    Raises:
        ConfigError: If the rate is not in [0, 1).
        DataError: If there are no validation pairs.
    """
    texts = tuple(sorted(set(training["clean"])))
    gallery = Gallery(texts=texts, vectors=encoder.encode(texts))
    everything = Routing(threshold=0.0, false_positive_rate=1.0, benign=0)
    sanitizer = Sanitizer(translator, encoder=encoder, gallery=gallery, routing=everything)
    moved = sanitizer.moved(encoder.encode(harmless(validation)))
    threshold = threshold_at(moved, false_positive_rate=false_positive_rate)
    sanitizer.routing = Routing(
        threshold=threshold,
        false_positive_rate=float(np.mean(moved >= threshold)),
        benign=len(moved),
    )
    return sanitizer
