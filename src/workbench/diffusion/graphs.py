"""Heads and one-pass priors as ONNX graphs, node by node, of standard operators alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.diffusion.hypotheses import MultiHypothesis
from workbench.diffusion.networks import Trunk, time_features
from workbench.diffusion.prior import Prior
from workbench.diffusion.redirect import bare_prompt
from workbench.diffusion.tagger import Heads
from workbench.embedding.encoder import MINILM_DIM
from workbench.embedding.int8 import Array, Graph, Shape

__all__ = ["heads_graph", "redirect_graph"]


def heads_graph(heads: Heads) -> bytes:
    """Return an ONNX file: ``states`` (tokens, 384) of one text to what the heads say of it.

    Outputs are the logits ``payload`` (tokens,), ``harm`` () and ``wrapped`` (), and the unit
    ``vector`` (384,).

    Raises:
        ImportError: If the extra ``onnx`` is not installed.
    """
    graph = _Modules()
    flat = graph.constant([-1])
    detected = graph.node("Reshape", graph.add(graph.pool(heads.harm_gate), heads.detect), flat)
    harm, wrapped = (graph.node("Gather", detected, graph.constant(place)) for place in (0, 1))
    pooled = graph.pool(heads.vector_gate)
    vector = graph.unit(graph.node("Add", pooled, graph.add(pooled, heads.correct)))
    outputs: dict[str, tuple[str, Shape]] = {
        "payload": (graph.node("Reshape", graph.add("states", heads.payload), flat), ("tokens",)),
        "harm": (harm, ()),
        "wrapped": (wrapped, ()),
        "vector": (graph.node("Reshape", vector, flat), (MINILM_DIM,)),
    }
    return graph.to_bytes("states", ("tokens", MINILM_DIM), outputs=outputs)


@torch.no_grad()
def redirect_graph(prior: Prior, *, candidates: int) -> bytes:
    """Return an ONNX file: ``vector`` (1, dim) to unit ``candidates`` (1, k, dim), best first.

    Args:
        prior: One that needs no sampler; no condition is known to it.
        candidates: Hypotheses to propose; of a regression there is one.

    Raises:
        ImportError: If the extra ``onnx`` is not installed.
    """
    network, dim, scale = prior.network, prior.config.dim, prior.config.latent_scale
    graph = _Modules()
    states = graph.trunk(network, dim=dim)
    weight, bias = network.output.weight / scale, network.output.bias / scale
    residuals = graph.node(
        "Reshape", graph.linear(states, weight.numpy(), bias.numpy()), graph.constant([-1, dim])
    )
    if isinstance(network, MultiHypothesis):
        scores = graph.add(states, network.score)
        best = graph.node("TopK", scores, graph.constant([candidates]), skipped=1)
    else:
        candidates, best = 1, graph.constant([[0]])
    chosen = graph.node("Gather", residuals, best)
    latent = graph.node("Mul", "vector", graph.constant(np.float32(math.sqrt(dim))))
    vectors = graph.unit(graph.node("Add", latent, chosen))
    return graph.to_bytes(
        "vector", (1, dim), outputs={"candidates": (vectors, (1, candidates, dim))}
    )


class _Modules(Graph):
    """Adds modules of torch as they work once they are trained."""

    def add(self, states: str, module: nn.Module) -> str:
        match module:
            case nn.Sequential():
                for part in module:
                    states = self.add(states, part)
                return states
            case nn.Linear():
                return self.linear(states, *_arrays(module))
            case nn.LayerNorm():
                return self.norm(states, *_arrays(module), epsilon=module.eps)
            case nn.GELU():
                return self.node("Gelu", states)
            case nn.Dropout():
                return states
        raise TypeError(f"{type(module).__name__} has no graph; add it here")

    def pool(self, gate: nn.Linear) -> str:
        """Add the mean of all states, ``(1, dim)``, weighted by a softmax of the gate."""
        logits = self.node("Transpose", self.add("states", gate))
        return self.node("MatMul", self.node("Softmax", logits), "states")

    def unit(self, rows: str) -> str:
        return self.node("LpNormalization", rows)

    def trunk(self, network: Trunk, *, dim: int) -> str:
        """Add the states that a prompt's vector alone leads to.

        Everything else is constant then: the time is 1, the gate has no tokens, attention has
        nothing to look at but its learned none.
        """
        reading = network.read(bare_prompt(np.zeros((1, dim), np.float32)))
        modulation = network.from_time(time_features(torch.ones(1), width=network.hidden))[0]
        to_latent = network.from_pooled.weight * math.sqrt(dim)
        state = self.linear("vector", to_latent.numpy(), reading.state[0, 0].numpy())
        blocks: Any = network.blocks
        for number, block in enumerate(blocks):
            if network.attentions:
                nothing = torch.zeros_like(reading.state)
                memory = reading.memories[number]
                known = network.attentions[number](nothing, memory, reading.visible)
                state = self.node("Add", state, self.constant(known[0].numpy()))
            weight, bias = block.expand.weight, block.expand.bias + modulation
            wide = self.linear(self.add(state, block.norm), weight.numpy(), bias.numpy())
            state = self.node("Add", state, self.add(self.node("Gelu", wide), block.contract))
        return self.add(state, network.norm)


def _arrays(module: nn.Linear | nn.LayerNorm) -> tuple[Array, Array]:
    return module.weight.detach().numpy(), module.bias.detach().numpy()
