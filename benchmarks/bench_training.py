"""Training steps per CPU second at 0.5M parameters: plain loops, ours, Lightning, torchcfm.

All take the same network, rows and batches of 32. Ours clips gradients, lets the learning rate
decay and averages weights; the first two plain loops and torchcfm's do none of that, the third
does all. Runs alternate, because a machine is rarely alone: the ratio is the median over rounds
of the ratio within a round. torchcfm is no dependency of the product. To have its row, install it
beside and say where::

    pip install --no-deps --target /tmp/torchcfm torchcfm==1.0.7 pot
    PYTHONPATH=/tmp/torchcfm python benchmarks/bench_training.py

``--processes`` compares one process and two instead, batches of 512 shared over gloo: samples per
second and counted FLOP/s, also as a share of what a matrix product reaches in as many processes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, mse_loss

from measure import publish
from workbench.diffusion.trainer import train
from workbench.diffusion.training_config import TrainingConfig
from workbench.diffusion.training_data import TensorData

_DIM, _HIDDEN, _BATCH, _ROWS = 384, 272, 32, 4096
_STEPS, _ROUNDS = 800, 5
_RATE = 5e-4


class Pairs(NamedTuple):
    """Prompts and what they should become."""

    prompt: Tensor
    clean: Tensor


class Network(nn.Module):
    """A residual MLP of a noisy vector, its prompt and a time, with the loss of a guess."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * _DIM + 1, _HIDDEN)
        self.norm = nn.LayerNorm(_HIDDEN)
        self.expand = nn.Linear(_HIDDEN, _HIDDEN)
        self.contract = nn.Linear(_HIDDEN, _HIDDEN)
        self.leave = nn.Linear(_HIDDEN, _DIM)

    def forward(self, noisy: Tensor, prompt: Tensor, times: Tensor) -> Tensor:
        """Return the guess."""
        state = self.enter(torch.cat([noisy, prompt, times], dim=1))
        state = state + self.contract(gelu(self.expand(self.norm(state))))
        guess: Tensor = self.leave(state)
        return guess

    def loss(self, batch: Pairs, generator: torch.Generator) -> Tensor:
        """Return the squared error of guesses at random times."""
        times = torch.rand(len(batch.clean), 1, generator=generator)
        noise = torch.randn(batch.clean.shape, generator=generator)
        noisy = torch.lerp(noise, batch.clean, times)
        return mse_loss(self(noisy, batch.prompt, times), batch.clean)


def _data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    sides = (torch.randn(_ROWS, _DIM, generator=generator) for _ in Pairs._fields)
    return TensorData(Pairs(*sides))


def _plain(data: TensorData, network: Network, *, fused: bool | None = None) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, fused=fused)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_STEPS):
        batch = data.batch(data.draw(_BATCH, generator))
        optimizer.zero_grad()
        torch.autograd.backward(network.loss(batch, generator))
        optimizer.step()


def _plain_with_all(data: TensorData, network: Network) -> None:
    """Do what ours does: clip gradients, let the learning rate decay, average the weights."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    average = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(0)
    for _ in range(_STEPS):
        batch = data.batch(data.draw(_BATCH, generator))
        optimizer.zero_grad()
        torch.autograd.backward(network.loss(batch, generator))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
        with torch.no_grad():
            for mean, now in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(now, 0.001)


def _ours(data: TensorData, network: Network) -> None:
    config = TrainingConfig(
        steps=_STEPS,
        batch_size=_BATCH,
        learning_rate=_RATE,
        validate_every=_STEPS,
        accelerator="cpu",
        devices=1,
    )
    train(network, data, config, validate=lambda _: {"loss": 0.0}, metric="loss")


class _Module(pl.LightningModule):  # type: ignore[misc]  # Lightning is skipped
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.generator = torch.Generator().manual_seed(0)

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:  # noqa: ARG002
        loss = self.network.loss(Pairs(*batch), self.generator)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=_RATE, fused=True)


def _lightning_defaults(data: TensorData, network: Network) -> None:
    rows = torch.utils.data.TensorDataset(*data.tensors)
    loader = torch.utils.data.DataLoader(rows, batch_size=_BATCH, shuffle=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = pl.Trainer(accelerator="cpu", max_steps=_STEPS, default_root_dir=folder)
        trainer.fit(_Module(network), loader)


def _torchcfm() -> dict[str, Callable[[TensorData, Network], None]]:
    try:
        library = importlib.import_module("torchcfm.conditional_flow_matching")
    except ImportError as error:
        print(f"no row for torchcfm ({error}); the docstring says how to install it")
        return {}
    matcher = library.ConditionalFlowMatcher(sigma=0.1)

    def loop(data: TensorData, network: Network, *, fused: bool | None = None) -> None:
        """Follow the loop of its examples."""
        optimizer = torch.optim.Adam(network.parameters(), lr=_RATE, fused=fused)
        generator = torch.Generator().manual_seed(0)
        for _ in range(_STEPS):
            prompt, clean = data.batch(data.draw(_BATCH, generator))
            optimizer.zero_grad()
            noise = torch.randn_like(clean)
            times, noisy, velocity = matcher.sample_location_and_conditional_flow(noise, clean)
            guess = network(noisy, prompt, times[:, None])
            torch.autograd.backward(torch.mean((guess - velocity) ** 2))
            optimizer.step()

    return {"torchcfm loop": loop, "torchcfm loop, fused Adam": partial(loop, fused=True)}


_TO = {
    "plain": "plain loop",
    "fused": "plain loop, fused AdamW",
    "all": "plain loop, fused, doing all that ours does",
}


def _ratio(rates: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(rates, others, strict=True))


def _matmul_flops() -> float:
    """Return the FLOP/s of a large product on one thread: what there is to be reached here."""
    size, seconds = 1024, []
    one, other = torch.randn(size, size), torch.randn(size, size)
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(one, other)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds)


def _shared(data: TensorData) -> list[dict[str, Any]]:
    """Return a row for one process and one for two."""
    found = []
    for processes in (1, 2):
        config = TrainingConfig(
            steps=200, batch_size=512, validate_every=200, accelerator="cpu", devices=processes
        )
        told = train(Network(), data, config, validate=lambda _: {"loss": 0.0}, metric="loss")
        reached = told["flops"] / told["train_s"]
        found.append(
            {
                "processes": told["processes"],
                "samples_per_s": told["samples_per_s"],
                "gflop_per_s": reached / 1e9,
                "of_measured_matmul": reached / processes / _matmul_flops(),
                "cpu_s": told["cpu_s"],
            }
        )
    return found


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", action="store_true")
    torch.set_num_threads(1)
    if parser.parse_args().processes:
        publish("training-processes", _shared(_data()))
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    contenders: dict[str, Callable[[TensorData, Network], None]] = {
        "plain loop": _plain,
        "plain loop, fused AdamW": partial(_plain, fused=True),
        "plain loop, fused, doing all that ours does": _plain_with_all,
        "workbench train": _ours,
        "Lightning defaults": _lightning_defaults,
        **_torchcfm(),
    }
    data, rates = _data(), {name: list[float]() for name in contenders}
    for _ in range(_ROUNDS):
        for name, run in contenders.items():
            torch.manual_seed(0)
            network, started = Network(), time.process_time()
            run(data, network)
            rates[name].append(_STEPS / (time.process_time() - started))
    rows: list[dict[str, Any]] = [
        {
            "what": name,
            "steps_per_cpu_s": statistics.median(found),
            **{f"to_{short}": _ratio(found, rates[whole]) for short, whole in _TO.items()},
            "lowest": min(found),
            "highest": max(found),
        }
        for name, found in rates.items()
    ]
    parameters = sum(one.numel() for one in Network().parameters())
    print(f"{parameters:,} parameters, batch {_BATCH}, {_STEPS} steps, {_ROUNDS} runs, one thread")
    publish("training", rows)


if __name__ == "__main__":
    main()
