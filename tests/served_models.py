"""Sanitizers that nobody trained, in a store: enough to be served."""

from __future__ import annotations

from dataclasses import replace

import torch

from workbench.diffusion.checkpoint import SanitizerParts, sanitizer_id, save_sanitizer
from workbench.diffusion.redirect import Gallery, Redirector
from workbench.diffusion.routing import Routing
from workbench.diffusion.tagger import Tagger, TaggerConfig
from workbench.embedding.encoder import load_encoder
from workbench.store.database import Store

__all__ = ["REDIRECTS", "add_model", "make_parts"]

REDIRECTS = ("How do smoke detectors work?", "How do locks keep a home safe?")
_ROUTING = Routing(
    weights=(1, 1, 0, 0), bare=0.5, wrapped=0.5, false_positive_rate={}, recall={}, texts=0
)


def make_parts(*, seed: int = 0, risk: float = 0.0) -> SanitizerParts:
    """Return what is to be saved: a risk of 9 redirects everything, of -9 nothing."""
    torch.manual_seed(seed)
    tagger = Tagger(TaggerConfig(tuned_layers=0, hidden=8))
    gallery = Gallery(texts=REDIRECTS, vectors=load_encoder().encode(REDIRECTS))
    routing = replace(_ROUTING, weights=(1, 1, 0, risk))
    return SanitizerParts(tagger, Redirector(None, gallery=gallery), routing, {})


def add_model(store: Store, **options: float) -> str:
    """Keep a sanitizer in a store and return its id."""
    parts = make_parts(**options)
    model = sanitizer_id(parts)
    with store.artifacts.create("model", model, {"kind": "sanitizer"}) as folder:
        save_sanitizer(parts, folder)
    return model
