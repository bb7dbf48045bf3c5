"""From a trained tagger and pairs to a sanitizer: its gallery, its redirects and its routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from workbench.core.errors import DataError
from workbench.core.identity import content_id
from workbench.diffusion.checkpoint import SanitizerParts
from workbench.diffusion.condition import CONTEXTS, Condition
from workbench.diffusion.prior import Prior, PriorBatch, PriorConfig, ProcessKind
from workbench.diffusion.reader import Reader
from workbench.diffusion.redirect import Gallery, Redirector, bare_prompt
from workbench.diffusion.routing import NEVER, fit_routing
from workbench.diffusion.sanitizer import Sanitizer
from workbench.diffusion.tagged import tagged_texts
from workbench.diffusion.tagger import Tagger
from workbench.diffusion.trainer import TrainingMetrics, train
from workbench.diffusion.training_config import TrainingConfig
from workbench.embedding.encoder import Encoder, FloatArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RedirectData", "assemble", "best_redirects", "train_redirects"]

_HIDDEN = 256


class RedirectData:
    """Harmful requests and the safe texts that each is led to, as rows for the trainer.

    Args:
        frame: Pairs.
        encoder: The published encoder.

    Raises:
        DataError: If no pair leads a harmful request to a safe text.
    """

    def __init__(self, frame: pd.DataFrame, *, encoder: Encoder) -> None:
        led = frame[(frame["relation"] == "safe_rewrite") & (frame["core"] != "")]
        led = led.drop_duplicates(["core", "clean"])
        if led.empty:
            raise DataError("no pair leads a harmful request to a safe one; grow the pair set")
        self.requests = led["core"].tolist()
        self.redirects = led["clean"].tolist()
        target = torch.from_numpy(np.ascontiguousarray(encoder.encode(self.redirects)))
        prompt = bare_prompt(encoder.encode(self.requests), _conditions(led))
        self.whole = PriorBatch(prompt, target)
        self.id = content_id([encoder.id, self.requests, self.redirects, prompt.condition.tolist()])

    def nearest(self, requests: Sequence[str], vectors: FloatArray) -> float:
        """Return the mean cosine of vectors to the nearest safe text of the request of each."""
        targets = self.whole.target.numpy()
        owners = np.array(self.requests)
        return float(
            np.mean(
                [
                    (targets[owners == request] @ vector).max()
                    for request, vector in zip(requests, vectors, strict=True)
                ]
            )
        )

    def draw(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        """Return the rows of one batch."""
        return torch.randint(len(self.requests), (size,), generator=generator)

    def batch(self, rows: Int[Tensor, " rows"]) -> PriorBatch:
        """Return requests and redirects."""
        return self.whole.at(rows)


def _conditions(led: pd.DataFrame) -> list[Condition]:
    """Return what is known of each row; the longer a redirect among all, the more detail it has."""
    words = led["clean"].map(lambda text: len(text.split()))
    details = (words.rank(method="average") - 1) / max(len(led) - 1, 1)
    known = zip(led["context"], led["domain"], led["language"], details, strict=True)
    return [
        Condition(
            context=context if context in CONTEXTS else "",
            domain=domain,
            language=language,
            detail=float(detail),
        )
        for context, domain, language, detail in known
    ]


def train_redirects(
    config: PriorConfig,
    training: TrainingConfig,
    *,
    data: RedirectData,
    validation: RedirectData,
    folder: Path | None = None,
) -> tuple[Prior, TrainingMetrics]:
    """Return a prior trained on redirects, with its best weights by the loss on validation.

    ``folder`` is where a killed training goes on from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        prior = Prior(config)

    def validate(model: nn.Module) -> dict[str, float]:
        loss = cast("Prior", model).loss(validation.whole, torch.Generator().manual_seed(0))
        return {"loss": float(loss)}

    options: dict[str, Any] = {
        "folder": folder,
        "run": content_id([config.to_json(), validation.id]),
    }
    return prior, train(prior, data, training, validate=validate, metric="loss", **options)


def best_redirects(
    training: pd.DataFrame,
    validation: pd.DataFrame,
    *,
    encoder: Encoder,
    config: TrainingConfig,
    processes: Sequence[ProcessKind],
    folder: Path | None = None,
) -> tuple[Prior | None, list[dict[str, float | str]]]:
    """Return the prior that leads validation's requests best, and how each one did.

    Compared are priors of the processes and no prior at all, by the cosine of the first text found
    to the nearest of the safe texts that the request has. Without processes there is nothing to
    compare. ``folder`` is where a killed training goes on from.
    """
    if not processes:
        return None, []
    data, held = (RedirectData(one, encoder=encoder) for one in (training, validation))
    texts = tuple(sorted(set(data.redirects)))
    gallery = Gallery(texts=texts, vectors=encoder.encode(texts))
    requests = sorted(set(held.requests))
    vectors = encoder.encode(requests)
    told: list[dict[str, float | str]] = []
    found: list[Prior | None] = []
    for process in (*processes, None):
        prior = None
        if process:
            sizes = PriorConfig(network="mlp", process=process, hidden=_HIDDEN)
            prior, _ = train_redirects(sizes, config, data=data, validation=held, folder=folder)
        firsts = [one[0].text for one in Redirector(prior, gallery=gallery)(vectors)]
        reached = held.nearest(requests, encoder.encode(firsts))
        told.append({"prior": process or "none: nearest safe text", "cosine": reached})
        found.append(prior)
    best = max(range(len(found)), key=lambda place: told[place]["cosine"])
    return found[best], told


def assemble(
    tagger: Tagger,
    prior: Prior | None,
    *,
    reader: Reader,
    training: pd.DataFrame,
    validation: pd.DataFrame,
    encoder: Encoder,
    about: Mapping[str, Any],
    most: int,
) -> SanitizerParts:
    """Return a sanitizer: its gallery is of training pairs, its routing is of validation pairs.

    Safe texts that the tagger itself takes for harmful are left out of the gallery.

    Args:
        tagger: Trained.
        prior: Trained on redirects; None leads to the safe texts nearest to the request.
        reader: Of the tagger.
        training: Pairs; the clean sides of harmful ones are the gallery.
        validation: Pairs that neither model was trained on.
        encoder: The published encoder.
        about: What to keep about the training, plain JSON values.
        most: Texts of validation that choose the routing, at most.

    Raises:
        DataError: If the validation pairs are too few.
    """
    led = training[training["relation"] == "safe_rewrite"]
    texts = sorted(set(led["clean"]))
    safe = [text for text, tags in zip(texts, reader(texts), strict=True) if tags.harm < 0]
    # as a checkpoint keeps them: loaded, it is to do the same
    vectors = encoder.encode(safe).astype(np.float16).astype(np.float32)
    gallery = Gallery(texts=tuple(safe), vectors=vectors)
    redirector = Redirector(prior, gallery=gallery)
    rows = tagged_texts(validation)
    chosen = np.random.default_rng(0).permutation(len(rows))[:most]
    rows = [rows[number] for number in chosen.tolist()]
    undecided = Sanitizer(reader, routing=NEVER, redirector=redirector)
    seen = undecided.look([row.text for row in rows])
    logits = np.array([(one.whole.harm, one.inner.harm, one.whole.wrapped) for one in seen])
    routing = fit_routing(
        logits,
        harmful=np.array([row.harmful for row in rows]),
        # as the sanitizer will take them, right or wrong
        wrapped=np.array([one.is_wrapped for one in seen]),
    )
    return SanitizerParts(tagger, redirector, routing, about)
