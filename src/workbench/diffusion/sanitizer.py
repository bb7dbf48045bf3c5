"""The sanitizer people call: encode, translate, decide, decode; saved without pickle."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from workbench.core.errors import ConfigError, DataError
from workbench.core.identity import content_id
from workbench.diffusion.config import PhaseConfig
from workbench.diffusion.decode import Candidate, Gallery, decode
from workbench.diffusion.denoiser import Denoiser
from workbench.diffusion.translator import DiffusionTranslator
from workbench.embedding.encoder import Encoder
from workbench.judge.probe import Judge
from workbench.store.artifacts import write_atomic, write_json_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Routing",
    "SanitizedPrompt",
    "Sanitizer",
    "build_sanitizer",
    "calibrate_routing",
]

Vectors = npt.NDArray[np.float32]
Decision = Literal["pass", "rewrite", "block"]

_WEIGHTS_FILE = "model.safetensors"
_CONFIG_FILE = "config.json"
_FORMAT = 1
_GALLERY_KEY = "gallery.vectors"


@dataclass(frozen=True, kw_only=True)
class Routing:
    """When a prompt is left alone: when the model would hardly move it."""

    threshold: float
    """Least 1 − cosine between prompt and prediction for a rewrite; 0 rewrites everything."""
    false_positive_rate: float
    """Share of benign validation texts that the threshold rewrites all the same."""
    benign: int
    """Benign texts that chose the threshold."""


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
    """Texts considered, nearest first; empty where the prompt passed."""
    scores: dict[str, float]
    """``moved``: 1 − cosine between prompt and prediction; ``unsafe``: the judge's probability."""
    latency_ms: dict[str, float] = field(compare=False)
    """Stage → milliseconds per prompt of the batch."""


def calibrate_routing(
    moved: npt.NDArray[np.float64], *, false_positive_rate: float = 0.05
) -> Routing:
    """Return the threshold that rewrites at most a share of benign texts.

    Args:
        moved: 1 − cosine between prompt and prediction, of benign validation texts.
        false_positive_rate: Largest share to rewrite, in [0, 1).

    Raises:
        ConfigError: If the rate is out of range.
        DataError: If there are no texts.
    """
    if not 0 <= false_positive_rate < 1:
        raise ConfigError(f"false_positive_rate is {false_positive_rate}; it must be in [0, 1)")
    if not len(moved):
        raise DataError("no benign validation texts to calibrate on; grow the pair set")
    allowed = int(np.floor(false_positive_rate * len(moved)))
    # just above the largest benign value that must still pass
    threshold = float(np.nextafter(np.sort(moved)[len(moved) - 1 - allowed], np.inf))
    return Routing(
        threshold=threshold,
        false_positive_rate=float(np.mean(moved >= threshold)),
        benign=len(moved),
    )


class Sanitizer:
    """Rewrites unsafe prompts and leaves the others alone.

    ::

        sanitizer = Sanitizer.load(path, encoder=encoder)
        sanitizer(["..."], gain=1.0)[0].text
    """

    name = "diffusion"

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

    def vectors(self, X: Vectors, *, gain: float = 1.0, seed: int | None = None) -> Vectors:  # noqa: N803
        """Return where the model would move unit rows; see ``DiffusionTranslator.vectors``."""
        return self.translator.vectors(X, gain=gain, seed=seed)

    def moved(self, X: Vectors) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return 1 − cosine between rows and their predictions, in [0, 2]."""
        cosines = np.sum(X * self.vectors(X), axis=1, dtype=np.float64)
        return np.clip(1 - cosines, 0, 2)

    def __call__(self, prompts: Sequence[str], *, gain: float = 1.0) -> list[SanitizedPrompt]:
        """Return one result per prompt, in order; deterministic but for the latencies.

        Args:
            prompts: Texts of any kind and length.
            gain: How far to follow the model: 1 is its prediction, more is safer and less faithful,
                0 changes nothing.
        """
        if not prompts:
            return []
        clock = _Clock(len(prompts))
        rows = self.encoder.encode(prompts)
        clock.stop("encode")
        moved = self.moved(rows)
        outputs = self.vectors(rows, gain=gain)
        clock.stop("translate")
        chosen = np.flatnonzero((moved >= self.routing.threshold) & (gain > 0)).tolist()
        rewritten = [prompts[index] for index in chosen]
        candidates = (
            decode(rewritten, outputs[chosen], encoder=self.encoder, gallery=self.gallery)
            if rewritten
            else []
        )
        clock.stop("decode")
        texts = [own[0].text for own in candidates]
        unsafe = self.judge.score(texts) if self.judge is not None and texts else None
        clock.stop("judge")
        results = [
            SanitizedPrompt(
                prompt=prompt,
                text=prompt,
                decision="pass",
                confidence=float(row @ output),
                candidates=(),
                scores={"moved": float(distance)},
                latency_ms=clock.per_item_ms,
            )
            for prompt, row, output, distance in zip(prompts, rows, outputs, moved, strict=True)
        ]
        for position, (index, own) in enumerate(zip(chosen, candidates, strict=True)):
            results[index] = self._rewritten(
                results[index],
                own,
                unsafe=None if unsafe is None else float(unsafe[position]),
            )
        return results

    def _rewritten(
        self, passed: SanitizedPrompt, own: list[Candidate], *, unsafe: float | None
    ) -> SanitizedPrompt:
        blocked = self.judge is not None and unsafe is not None and unsafe >= self.judge.threshold
        return SanitizedPrompt(
            prompt=passed.prompt,
            text="" if blocked else own[0].text,
            decision="block" if blocked else "rewrite",
            confidence=own[0].cosine,
            candidates=tuple(own),
            scores=passed.scores | ({} if unsafe is None else {"unsafe": unsafe}),
            latency_ms=passed.latency_ms,
        )

    def contents(self) -> tuple[bytes, dict[str, Any]]:
        """Return what :meth:`save` writes: weights as safetensors, the rest as JSON."""
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
        weights, config = self.contents()
        return content_id([weights.hex(), config])

    def save(self, path: Path) -> None:
        """Write ``model.safetensors`` and ``config.json`` into a folder, each atomically.

        Raises:
            StoreError: If the disk is full or read-only.
        """
        weights, config = self.contents()
        write_atomic(path / _WEIGHTS_FILE, weights)
        write_json_atomic(path / _CONFIG_FILE, config)

    @classmethod
    def load(cls, path: Path, *, encoder: Encoder, judge: Judge | None = None) -> Sanitizer:
        """Return the sanitizer that :meth:`save` wrote.

        Args:
            path: Folder of the model.
            encoder: The encoder it was trained with.
            judge: Has the last word on rewritten texts; what it flags is blocked.

        Raises:
            DataError: If a file is missing or damaged, of another format, or made for another
                encoder.
        """
        try:
            saved = json.loads((path / _CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(path / _WEIGHTS_FILE)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f"{path}: not a readable sanitizer ({error}); train it again"
            ) from error
        if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
            raise DataError(f"{path / _CONFIG_FILE}: not format {_FORMAT}; train the model again")
        if saved["encoder"] != encoder.id:
            raise DataError(
                f"{path}: made for encoder {saved['encoder']}, not {encoder.id}; load that one"
            )
        config = PhaseConfig.from_json(saved["config"])
        denoiser = Denoiser(config)
        gallery_vectors = tensors.pop(_GALLERY_KEY, torch.empty(0, config.dim)).numpy()
        try:
            denoiser.load_state_dict(tensors)
        except RuntimeError as error:
            raise DataError(
                f"{path / _WEIGHTS_FILE}: the weights do not fit the config; train the model again"
            ) from error
        return cls(
            DiffusionTranslator(config, denoiser),
            encoder=encoder,
            gallery=Gallery(texts=tuple(saved["gallery"]), vectors=gallery_vectors),
            routing=Routing(**saved["routing"]),
            judge=judge,
        )


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
        validation: Validation pairs; those that must not change choose the threshold.
        false_positive_rate: Largest share of these to rewrite.

    Raises:
        ConfigError: If the rate is out of range.
    """
    texts = tuple(sorted(set(training["clean"])))
    gallery = Gallery(texts=texts, vectors=encoder.encode(texts))
    everything = Routing(threshold=0.0, false_positive_rate=1.0, benign=0)
    sanitizer = Sanitizer(translator, encoder=encoder, gallery=gallery, routing=everything)
    benign = validation.loc[validation["adversarial"] == validation["clean"], "clean"].tolist()
    if benign:
        moved = sanitizer.moved(encoder.encode(benign))
        sanitizer.routing = calibrate_routing(moved, false_positive_rate=false_positive_rate)
    return sanitizer


class _Clock:
    """Milliseconds per prompt of each stage."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._last = time.perf_counter()
        self.per_item_ms: dict[str, float] = {}

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self.per_item_ms[stage] = 1000 * (now - self._last) / self._items
        self._last = now
