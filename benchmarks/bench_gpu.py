"""The sanitizer on a GPU: milliseconds and prompts per second, and training steps per second.

::

    python benchmarks/bench_gpu.py [--only latency] [--tokenizer FILE]

The shipped sanitizer reads on the CPU: its encoder packs weights for it. Here the same layers and
heads are moved to the GPU behind the same ``Sanitizer``, in two ways. *encoder*: only the network
of MiniLM is there, states come back and all else is the product as it is. *reader*: the heads are
there too, and tags alone come back. *network* is the latter without tokenizer and tags: ids in,
logits and vectors out. All of that passes, by a forced route.

Training is the product's own trainer, heads, layers and data; pairs are grown from the seeds.

Without the package of MiniLM its weights are drawn at random, in its sizes: time does not depend
on their values. ``--tokenizer`` is its ``tokenizer.json`` then.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bench_latency import on_route
from gpu_minilm import Encoder, Files, WholeReader, cpu_network, files, gpu_name, network, timed
from gpu_training import training
from measure import publish
from workbench.data.requests import load_benign
from workbench.diffusion.phases import PHASES
from workbench.diffusion.reader import Reader, TextTags
from workbench.diffusion.redirect import Gallery, Redirector
from workbench.diffusion.routing import NEVER
from workbench.diffusion.sanitizer import Sanitizer
from workbench.diffusion.tagger import Heads
from workbench.embedding.encoder import MINILM_DIM
from workbench.embedding.windows import merge

CASES = (
    (32, 1), (128, 1), (512, 1), (32, 32), (128, 32), (512, 32), (32, 256), (128, 256), (512, 256),
    (32, 1024),
)  # fmt: skip
"""Tokens of a prompt, and prompts at a time."""
ON_CPU = ((32, 1), (512, 1), (32, 256))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to read."""

    name: str
    device: str
    precision: str
    reader: Reader


def variants(found: Files, device: torch.device, folder: Path) -> Iterator[Variant]:
    """Give the product on the CPU, and the ways to read on a GPU."""
    torch.manual_seed(1)
    heads = Heads(PHASES["phase-1"].tagger.hidden, dropout=0.0)
    last: Any = heads.correct[-1]
    nn.init.normal_(last.weight, std=0.02)  # zero before training, which would say nothing
    net = cpu_network(found, folder)
    yield Variant(
        name="product", device="cpu", precision="float32",
        reader=Reader(heads, encoder=Encoder(net, found.tokenizer, name="cpu")),
    )  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        moved = network(found).to(device, dtype)
        encoder = Encoder(moved, found.tokenizer, name=str(dtype))
        named = {"device": str(device), "precision": str(dtype).removeprefix("torch.")}
        if dtype is torch.float32:
            yield Variant(name="encoder", reader=Reader(heads, encoder=encoder), **named)
        there = Heads(PHASES["phase-1"].tagger.hidden, dropout=0.0).to(device)
        there.load_state_dict(heads.state_dict())
        yield Variant(name="reader", reader=WholeReader(there, encoder=encoder), **named)


def prompts(encoder: Encoder, *, tokens: int, count: int) -> list[str]:
    """Return different texts of so many tokens, of the shipped requests."""
    requests = [one.request for one in load_benign()]
    longer = [
        " ".join(requests[(7 * first + place) % len(requests)] for place in range(tokens // 3))
        for first in range(count)
    ]
    cut = []
    for text, several in zip(longer, encoder.spans(longer), strict=True):
        spans = merge([one[1:-1] for one in several])
        cut.append(text[: int(spans[tokens - 1, 1])])
    return cut


def latency(found: Files, device: torch.device, *, seconds: float) -> list[dict[str, Any]]:
    """Return a row per way to read, length and batch."""
    rows, right = [], None
    with tempfile.TemporaryDirectory() as folder:
        for variant in variants(found, device, Path(folder)):
            encoder: Any = variant.reader.encoder
            mixed = [text for size in (8, 32, 300, 512)
                     for text in prompts(encoder, tokens=size, count=8)]  # fmt: skip
            read = variant.reader(mixed)
            right = right or read
            off = _off(read, right)
            cases = ON_CPU if variant.name == "product" else CASES
            rows += [row(variant, *case, seconds=seconds) | {"off": off} for case in cases]
    return rows


def _off(read: Sequence[TextTags], right: Sequence[TextTags]) -> float:
    """Return the relative distance of all vectors and logits to those of the product."""

    def flat(tags: Sequence[TextTags]) -> npt.NDArray[np.float64]:
        parts = [np.concatenate([one.vector, one.payload, [one.harm, one.wrapped]]) for one in tags]
        return np.concatenate(parts).astype(np.float64)

    return float(np.linalg.norm(flat(read) - flat(right)) / np.linalg.norm(flat(right)))


def row(variant: Variant, tokens: int, batch: int, *, seconds: float) -> dict[str, Any]:
    """Return how long a batch that passes takes, with and without its tokenization."""
    reader, encoder = variant.reader, variant.reader.encoder
    assert isinstance(encoder, Encoder)
    texts = prompts(encoder, tokens=tokens, count=batch)
    sanitizer = Sanitizer(
        reader,
        routing=NEVER,
        redirector=Redirector(
            None, gallery=Gallery(texts=(), vectors=np.zeros((0, MINILM_DIM), np.float32))
        ),
    )
    forced = on_route(sanitizer, "pass")
    decided = {one.decision for one in forced(texts)}
    assert decided == {"pass"}, decided
    whole = timed(lambda: forced(texts), seconds=seconds)
    encoder.keeps = True
    cut = timed(lambda: forced(texts), seconds=seconds / 2)
    encoder.keeps = False
    alone = None
    if isinstance(reader, WholeReader):
        pieces, owners, _ = encoder.cut(texts)
        alone = timed(lambda: reader.tags(pieces, owners, texts=batch), seconds=seconds / 2)
    p50 = float(np.median(whole))
    return {
        "on": variant.device, "reads": variant.name, "precision": variant.precision,
        "tokens": tokens, "batch": batch, "p50_ms": p50, "p95_ms": float(np.quantile(whole, 0.95)),
        "prompts_per_s": round(1000 * batch / p50), "p50_tokenized_ms": float(np.median(cut)),
        "network_ms": None if alone is None else float(np.median(alone)), "times": len(whole),
    }  # fmt: skip


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--only", choices=("latency", "training"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing to measure; --device cpu rehearses it")
        return
    device, found = torch.device(asked.device), files(asked.tokenizer)
    print(gpu_name())
    named = {"gpu": gpu_name()}
    if asked.only != "latency":
        made = [named | one for one in training(found, device, steps=asked.steps)]
        for name, key in (("gpu-training", "ms"), ("gpu-steps", "bare_step_ms")):
            publish(name, [one for one in made if key in one])
    if asked.only != "training":
        publish("gpu", [named | one for one in latency(found, device, seconds=asked.seconds)])


if __name__ == "__main__":
    main()
