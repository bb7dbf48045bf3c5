"""Training on a GPU: steps per second of the product's trainer at the sizes of the phases.

Heads, layers, data and trainer are the product's, pairs are grown from the seeds. Validations are
left out of the steps, and timed by themselves: they run on the CPU wherever the training is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from gpu_minilm import Encoder, Files, gpu_name, network, timed
from workbench.core.gpus import gpus
from workbench.core.settings import project_root
from workbench.data.sources import open_source
from workbench.diffusion.arrays import TrainingArrays
from workbench.diffusion.layers import EncoderLayer
from workbench.diffusion.phases import PHASES, Phase
from workbench.diffusion.tagged import TaggedData, emphasis, tagged_texts
from workbench.diffusion.tagger import Heads, Tagger, TaggerConfig
from workbench.diffusion.training_config import TrainingConfig
from workbench.embedding.encoder import MINILM_LAYERS
from workbench.embedding.states import StateCache
from workbench.scaling.phase_cost import Work, cost

__all__ = ["training"]

TRAINED = ("phase-1", "phase-2", "phase-3")
_CPU_STEPS = {"tagger": 10, "prior": 20}
_VALIDATED = 500
_WARM = 40


class Drawn(Tagger):
    """A tagger of the product whose tuned layers start at random."""

    def __init__(self, config: TaggerConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.layers = nn.ModuleList(
            EncoderLayer(dropout=config.dropout) for _ in range(config.tuned_layers)
        )
        self.heads = Heads(config.hidden, dropout=config.dropout)


def training(found: Files, device: torch.device, *, steps: int) -> Iterator[dict[str, Any]]:
    """Give a row per phase and model on the device, and one on the CPU."""
    options = {"adapter": "seeds", "dialogues": True, "encodings": True, "languages": "all"}
    stems = open_source(options, folder=project_root()).stems[::9]
    pairs = [asdict(pair) for stem in stems for pair in islice(stem.grow(seed=0), 12)]
    texts = tagged_texts(pd.DataFrame(pairs))
    encoder = Encoder(network(found).to(device), found.tokenizer, name="whole")
    with tempfile.TemporaryDirectory() as folder:
        for name in TRAINED:
            phase = PHASES[name]
            below = MINILM_LAYERS - phase.tagger.tuned_layers
            net = network(found, layers=below).to(device)
            cache = StateCache(Path(folder), Encoder(net, found.tokenizer, name=f"layer{below}"))
            known: dict[str, Any] = {"cache": cache, "encoder": encoder}
            data = TaggedData(texts, weights=emphasis(texts), **known)
            fits = {"tagger": tagger_fit(phase, data), "prior": prior_fit(phase)}
            for what, fit in fits.items():
                config = phase.training if what == "tagger" else phase.prior_training
                config = replace(config, warmup_steps=0, devices=1)
                for precision in ("bf16-mixed", "32-true") if device.type == "cuda" else ():
                    on_gpu = replace(config, accelerator="cuda", precision=precision, steps=steps)
                    yield trained(f"{name} {what}", fit, on_gpu)
                on_cpu = replace(config, accelerator="cpu", precision="32-true")
                yield trained(f"{name} {what}", fit, replace(on_cpu, steps=_CPU_STEPS[what]))
            few = TaggedData(texts[:_VALIDATED], **known)
            yield parts_of(f"{name} tagger", Drawn(phase.tagger), data, few, device)


Fit = Callable[[TrainingConfig], Any]


def tagger_fit(phase: Phase, data: Any) -> Fit:
    """Return the training of a phase's tagger, its validations left out."""
    from workbench.diffusion.trainer import train

    def fit(config: TrainingConfig) -> Any:
        model = Drawn(phase.tagger)
        return train(model, data, config, validate=lambda _: {"loss": 0.0}, metric="loss")

    return fit


def prior_fit(phase: Phase) -> Fit:
    """Return the training of a phase's prior on vectors drawn at random."""
    from workbench.diffusion.methods import fit_method

    draw = np.random.default_rng(0)
    sides = [draw.standard_normal((rows, phase.prior.dim)) for rows in (8192, 8192, 64, 64)]
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    names = (one.name for one in fields(TrainingArrays))
    rows = [side.astype(np.float32) for side in units]
    arrays = TrainingArrays(**dict(zip(names, rows, strict=True)))

    def fit(config: TrainingConfig) -> Any:
        return fit_method(phase.prior.process, arrays, config, sizes=phase.prior)[1]

    return fit


def trained(name: str, fit: Fit, config: TrainingConfig) -> dict[str, Any]:
    """Return steps per second of the product's trainer, beside what the estimate of cost takes."""
    where, steps = config.accelerator, config.steps
    config = replace(config, validate_every=steps)
    if where == "cuda":
        fit(replace(config, steps=_WARM, validate_every=_WARM))
    done = fit(config)
    each, flops = done["train_s"] / done["steps"], done["flops"] / done["steps"]
    found: dict[str, Any] = {
        "what": name, "on": where, "precision": config.precision, "batch": config.batch_size,
        "steps": done["steps"], "steps_per_s": 1 / each, "ms": 1000 * each, "gflop": flops / 1e9,
        "samples_per_s": done["samples_per_s"], "cpu_share": done["cpu_s"] / done["train_s"],
    }  # fmt: skip
    gpu = next((one for one in gpus().values() if where == "cuda" and one.name in gpu_name()), None)
    if gpu:
        free = dict.fromkeys([f"gpu_{gpu.name.lower()}_hour"], _Free())
        taken = cost(Work(flops=flops, steps=1, samples=1), gpu, free)["gpu_hours"]
        assumed = {f"assumed_{end}_ms": 3.6e6 * hours for end, hours in taken.items()}
        return found | {"utilization": flops / each / gpu.peak_flops, **assumed}
    blank = dict.fromkeys(("value", "low", "high"))
    return found | {"utilization": None} | {f"assumed_{end}_ms": None for end in blank}


class _Free:
    usd, source, checked = Decimal(0), "", ""


def parts_of(name: str, model: Tagger, data: Any, few: Any, device: torch.device) -> dict[str, Any]:
    """Return what a step and a validation are made of, in milliseconds."""
    from workbench.diffusion.tagging import tagger_errors

    generator = torch.Generator().manual_seed(0)
    drawn = [data.draw(PHASES["phase-1"].training.batch_size, generator) for _ in range(20)]
    places = iter(range(10**9))
    cpu_ms = timed(lambda: data.batch(drawn[next(places) % 20]), seconds=0.5)
    batches = [type(one)(*(part.to(device) for part in one)) for one in map(data.batch, drawn)]
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
            loss = model.loss(batches[next(places) % 20], generator)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    bare_ms = timed(step, seconds=1)
    started = time.perf_counter()
    tagger_errors(model.cpu(), few)
    each_ms = 1000 * (time.perf_counter() - started) / _VALIDATED
    return {
        "what": name, "batch_on_cpu_ms": float(np.median(cpu_ms)),
        "bare_step_ms": float(np.median(bare_ms)), "validated_text_on_cpu_ms": each_ms,
        "tokens": float(np.mean([float(one.mask.sum()) for one in batches])),
        "padded": float(np.mean([one.mask.numel() for one in batches])),
    }  # fmt: skip
