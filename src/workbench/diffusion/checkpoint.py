"""A sanitizer on disk: safetensors and JSON, no pickle; a changed or foreign file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from workbench.core.errors import ConfigError, DataError, WorkbenchError
from workbench.core.identity import content_id
from workbench.diffusion.layers import published_names
from workbench.diffusion.prior import Prior, PriorConfig
from workbench.diffusion.reader import Reader
from workbench.diffusion.redirect import Gallery, Redirector
from workbench.diffusion.routing import Routing
from workbench.diffusion.sanitizer import Precision, Sanitizer
from workbench.diffusion.tagger import Heads, Tagger, TaggerConfig
from workbench.embedding.encoder import MINILM_IDS, MiniLM, Tuned
from workbench.judge.probe import Judge
from workbench.store.artifacts import write_atomic, write_json_atomic

__all__ = [
    "Checkpoint", "SanitizerParts", "load_sanitizer", "read_checkpoint", "reader_of",
    "sanitizer_id", "save_sanitizer",
]  # fmt: skip

_WEIGHTS_FILE = "model.safetensors"
_CONFIG_FILE = "config.json"
_FORMAT = 2
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError,
    WorkbenchError,
)  # fmt: skip
_PREFIXES = ("encoder.", "heads.", "prior.")


class SanitizerParts(NamedTuple):
    """All that a sanitizer is made of, in memory."""

    tagger: Tagger
    redirector: Redirector
    routing: Routing
    about: Mapping[str, Any]
    """What it was trained on and how: plain JSON values."""
    trained: Mapping[str, Any] = MappingProxyType({})
    """What training took, see :func:`~workbench.diffusion.phase_run.taken`; no part of the id: the
    same weights take another time elsewhere."""


def reader_of(tagger: Tagger, *, precision: Precision = "float32") -> Reader:
    """Return a reader with the weights of a trained tagger."""
    return _reader(tagger.heads, published_names(tagger.layers), precision=precision)


def sanitizer_id(parts: SanitizerParts) -> str:
    """Return the hash of all that :func:`save_sanitizer` writes; raises likewise."""
    return str(_contents(parts)[1]["id"])


def save_sanitizer(parts: SanitizerParts, path: Path) -> None:
    """Write a sanitizer into a folder, each file atomically.

    Raises:
        DataError: If a weight is NaN or infinite.
        StoreError: If the folder cannot be written.
    """
    weights, config = _contents(parts)
    write_atomic(path / _WEIGHTS_FILE, weights)
    write_json_atomic(path / _CONFIG_FILE, config)


class Checkpoint(NamedTuple):
    """The files of a sanitizer, checked and read."""

    config: Mapping[str, Any]
    encoder: Mapping[str, Tensor]
    """Tuned weights under the names that MiniLM's have."""
    heads: Heads
    redirector: Redirector
    routing: Routing

    def reader(self, *, precision: Precision = "float32") -> Reader:
        """Return what reads prompts with these weights."""
        return _reader(self.heads, self.encoder, precision=precision)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what is in the folder of a sanitizer.

    Raises:
        DataError: If a file is missing, damaged, changed, or of another format.
    """
    try:
        config = json.loads((path / _CONFIG_FILE).read_text(encoding="utf-8"))
        if config["format"] != _FORMAT:
            raise ValueError(f"{_CONFIG_FILE} is format {config['format']}, not {_FORMAT}")
        parts = [config, config["trained"]] if "trained" in config else [config]
        if any(one["id"] != _id(one) for one in parts):
            raise ValueError(f"{_CONFIG_FILE} was changed after it was written")
        weights = (path / _WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(weights).hexdigest() != config["weights"]:
            raise ValueError(f"{_WEIGHTS_FILE} was changed after it was written")
        if config["encoder"] != MINILM_IDS["minilm"]:
            raise ValueError(f"it stands on encoder {config['encoder']}")
        tensors = load(weights)
        if not all(bool(one.isfinite().all()) for one in tensors.values()):
            raise ValueError(f"{_WEIGHTS_FILE} holds NaN or infinity")
        encoder, heads, prior = (_under(tensors, prefix) for prefix in _PREFIXES)
        tagger_config = TaggerConfig.from_json(config["tagger"])
        own_heads = Heads(tagger_config.hidden, dropout=tagger_config.dropout)
        own_heads.load_state_dict(heads)
        own_prior = Prior(PriorConfig.from_json(config["prior"])) if config["prior"] else None
        if own_prior:
            own_prior.load_state_dict(prior)
        gallery = Gallery(
            texts=tuple(config["gallery"]), vectors=tensors["gallery"].float().numpy()
        )
        redirector = Redirector(own_prior, gallery=gallery, candidates=config["candidates"])
        return Checkpoint(
            config, encoder, own_heads, redirector, Routing.from_json(config["routing"])
        )
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a usable sanitizer ({reason}); train it again") from error


def load_sanitizer(
    path: Path, *, precision: Precision = "float32", judge: Judge | None = None
) -> Sanitizer:
    """Return the sanitizer in a folder; args and errors as :meth:`Sanitizer.load`."""
    read = read_checkpoint(path)
    return Sanitizer(
        read.reader(precision=precision),
        routing=read.routing,
        redirector=read.redirector,
        judge=judge,
        model_id=read.config["id"],
    )


def _reader(heads: Heads, encoder: Mapping[str, Tensor], *, precision: Precision) -> Reader:
    names = {"float32": "minilm", "int8": "minilm-int8"}
    if precision not in names:
        raise ConfigError(f"precision is {precision!r}; choose float32 or int8")
    tuned = Tuned(encoder, hashlib.sha256(save(dict(encoder))).hexdigest()) if encoder else None
    return Reader(heads, encoder=MiniLM(names[precision], tuned=tuned))


def _contents(parts: SanitizerParts) -> tuple[bytes, dict[str, Any]]:
    prior, gallery = parts.redirector.prior, parts.redirector.gallery
    modules: list[Mapping[str, Tensor]] = [
        published_names(parts.tagger.layers),
        parts.tagger.heads.state_dict(),
        prior.state_dict() if isinstance(prior, nn.Module) else {},
    ]
    tensors = {
        prefix + name: tensor.detach().contiguous()
        for prefix, named in zip(_PREFIXES, modules, strict=True)
        for name, tensor in named.items()
    }
    tensors["gallery"] = torch.from_numpy(np.asarray(gallery.vectors, np.float16))
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{name} holds NaN or infinity; train again with a lower learning rate")
    weights = save(tensors)
    config: dict[str, Any] = {
        "format": _FORMAT,
        "weights": hashlib.sha256(weights).hexdigest(),
        "encoder": MINILM_IDS["minilm"],
        "tagger": parts.tagger.config.to_json(),
        "prior": prior.config.to_json() if prior else None,
        "candidates": parts.redirector.candidates,
        "routing": parts.routing.to_json(),
        "gallery": list(gallery.texts),
        "about": dict(parts.about),
    }
    config["id"] = _id(config)
    if trained := dict(parts.trained):
        config["trained"] = trained | {"id": _id(trained)}
    return weights, config


def _id(config: Mapping[str, Any]) -> str:
    """Return the hash of all that a config says, but for its id and what training took."""
    left_out = {"id", "trained"}
    return content_id({name: value for name, value in config.items() if name not in left_out})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
