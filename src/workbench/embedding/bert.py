"""The network of MiniLM, on torch's own encoder layers.

``transformers`` is the oracle of the tests but not imported here: its ``BertModel`` costs four
CPU seconds of imports in every process, torch alone costs one.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["Bert"]

_LAYER_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""Name in torch's layer → name in the published weights."""


class Bert(nn.Module):
    """Token ids to mean-pooled states, in float32 and without dropout.

    Source:
        Devlin et al. 2019, arXiv:1810.04805; pooling of Reimers & Gurevych 2019, arXiv:1908.10084.
    """

    def __init__(self, folder: Path) -> None:
        """Read ``config.json`` and ``model.safetensors`` from a folder."""
        super().__init__()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        embeddings = {
            name: tensor for name, tensor in weights.items() if name.startswith("embeddings.")
        }
        self.words = embeddings["embeddings.word_embeddings.weight"]
        # Every token is of type 0 here, so the type's vector joins the positions once and for all.
        self.positions = (
            embeddings["embeddings.position_embeddings.weight"]
            + embeddings["embeddings.token_type_embeddings.weight"][0]
        )
        width, epsilon = int(config["hidden_size"]), float(config["layer_norm_eps"])
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.norm.load_state_dict(
            {kind: embeddings[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")}
        )
        self.layers = nn.ModuleList()
        for number in range(int(config["num_hidden_layers"])):
            layer = nn.TransformerEncoderLayer(
                width,
                int(config["num_attention_heads"]),
                int(config["intermediate_size"]),
                activation="gelu",
                layer_norm_eps=epsilon,
                batch_first=True,
            )
            layer.load_state_dict(_layer_weights(weights, f"encoder.layer.{number}."))
            self.layers.append(layer)
        self.eval()

    def forward(self, ids: Tensor, present: Tensor) -> Tensor:
        """Return ``(batch, width)`` mean states over the present tokens, not normalized.

        Both arguments are ``(batch, tokens)``: ids, and booleans that are false on padding.
        """
        states = self.norm(self.words[ids] + self.positions[: ids.shape[1]])
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=~present)
        weight = present[..., None]
        means: Tensor = (states * weight).sum(1) / weight.sum(1)
        return means


def _layer_weights(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    state = {}
    for kind in ("weight", "bias"):
        attention = [f"{prefix}attention.self.{part}.{kind}" for part in ("query", "key", "value")]
        state[f"self_attn.in_proj_{kind}"] = torch.cat([weights[name] for name in attention])
        for ours, theirs in _LAYER_PARTS.items():
            state[f"{ours}.{kind}"] = weights[f"{prefix}{theirs}.{kind}"]
    return state
