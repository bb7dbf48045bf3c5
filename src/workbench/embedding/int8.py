"""The network of MiniLM on ONNX Runtime in 8-bit integers: three times as fast, a little blurred.

The graph is written here, node by node, from the published weights; no exporter is needed. One
window is one run, without padding: the scale of its activations is its own, so its states are the
same to the last bit whatever is encoded beside it. Cores are filled by windows side by side.

Weights have a scale per output. They take 7 bits, because processors without VNNI add two
products in 16 bits and 8 would overflow there. The product after GELU, whose few large
activations would drown the others, has a scale per 64 activations instead: measured, the mean
cosine to float32 goes up to .995, .988 without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info

from workbench.core.errors import ConfigError, StoreError
from workbench.store.artifacts import write_atomic

__all__ = ["Int8Bert"]

_HEADS, _LAYERS, _WIDTH, _EPSILON = 12, 6, 384, 1e-12
_BLOCK = 64
_CONTRIB = "com.microsoft"

Array = npt.NDArray[Any]


class Int8Bert:
    """Token ids to the states of the last layer, rounded on the way, float32 as they come out."""

    def __init__(self, weights: Path, graph: Path) -> None:
        """Open a graph, which is first made from the weights where there is none.

        Args:
            weights: ``model.safetensors`` of MiniLM.
            graph: File of the graph; its name says the weights and the recipe.

        Raises:
            ConfigError: If the extra ``onnx`` is not installed.
            StoreError: If the graph cannot be written or read.
        """
        try:
            import onnxruntime

            if not graph.is_file():
                write_atomic(graph, _graph(weights))
        except ImportError as error:
            raise ConfigError(
                f"encoder 'minilm-int8' needs {error.name}; "
                "pip install 'prompt-safety-workbench[onnx]', or use encoder 'minilm'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session: Any = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no base
            raise StoreError(f"{graph} is damaged; delete it, it is made anew: {error}") from error
        # As many as numpy may use: the runner narrows that for kernels that share the machine.
        pools = [pool["num_threads"] for pool in threadpool_info()]
        self._pool = ThreadPoolExecutor(max(pools, default=os.cpu_count()))

    def states(
        self, pieces: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Give the index of each piece and its ``(tokens, 384)`` states, in order."""
        yield from enumerate(self._pool.map(self._run, pieces))

    def _run(self, piece: Sequence[int]) -> npt.NDArray[np.float32]:
        states: npt.NDArray[np.float32] = self._session.run(None, {"ids": np.array([piece])})[0][0]
        return states


def _graph(weights: Path) -> bytes:
    from safetensors.numpy import load_file

    return _Graph(load_file(weights)).to_bytes()


class _Graph:
    """Nodes and constants of the network; each method adds some and returns the output's name."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def to_bytes(self) -> bytes:
        """Return the graph as an ONNX file: ``ids`` (1, tokens) to states (1, tokens, 384)."""
        from onnx import TensorProto, helper

        states = self._embeddings()
        for number in range(_LAYERS):
            states = self._layer(states, f"encoder.layer.{number}.")
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])
        out = helper.make_tensor_value_info(states, TensorProto.FLOAT, [1, "tokens", _WIDTH])
        graph = helper.make_graph(self._nodes, "minilm", [ids], [out], self._constants)
        versions = [helper.make_opsetid("", 20), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        return bytes(model.SerializeToString())

    def _embeddings(self) -> str:
        name = "embeddings."
        words = self._weights[f"{name}word_embeddings.weight"].astype(np.float16)  # half the file
        positions = (
            self._weights[f"{name}position_embeddings.weight"]
            + self._weights[f"{name}token_type_embeddings.weight"][0]
        )
        chosen = self._node("Cast", self._node("Gather", self._constant(words), "ids"), to=1)
        length = self._node("Shape", "ids", start=1, end=2)
        zero = self._constant(np.zeros(1, np.int64))
        places = self._node("Slice", self._constant(positions), zero, length)
        norm = [self._constant(self._weights[f"{name}LayerNorm.{k}"]) for k in ("weight", "bias")]
        whole = self._node("Add", chosen, places)
        return self._node("LayerNormalization", whole, *norm, epsilon=_EPSILON)

    def _layer(self, states: str, prefix: str) -> str:
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        projected = self._linear(states, *parts)
        attended = self._node(
            "MultiHeadAttention",
            *(self._part(projected, number) for number in range(3)),
            domain=_CONTRIB,
            num_heads=_HEADS,
        )
        joined = self._linear(attended, f"{prefix}attention.output.dense")
        states = self._add_norm(states, joined, f"{prefix}attention.output.LayerNorm")
        wide = self._node("Gelu", self._linear(states, f"{prefix}intermediate.dense"))
        narrow = self._linear_in_blocks(wide, f"{prefix}output.dense")
        return self._add_norm(states, narrow, f"{prefix}output.LayerNorm")

    def _part(self, projected: str, number: int) -> str:
        edges = [np.array([edge]) for edge in (number * _WIDTH, (number + 1) * _WIDTH, -1)]
        return self._node("Slice", projected, *map(self._constant, edges))

    def _add_norm(self, states: str, more: str, name: str) -> str:
        norm = [self._constant(self._weights[f"{name}.{kind}"]) for kind in ("weight", "bias")]
        return self._node(
            "SkipLayerNormalization", states, more, *norm, domain=_CONTRIB, epsilon=_EPSILON
        )

    def _linear(self, states: str, *names: str) -> str:
        """Add a product of 8-bit activations, one scale for all, and 7-bit weights."""
        weight = np.concatenate([self._weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([self._weights[f"{name}.bias"] for name in names])
        scale = np.abs(weight).max(axis=1) / 63
        rounded = np.round(weight / scale[:, None]).astype(np.int8)
        constants = [rounded.T, scale, np.zeros(len(scale), np.int8), bias]
        return self._node(
            "DynamicQuantizeMatMul", states, *map(self._constant, constants), domain=_CONTRIB
        )

    def _linear_in_blocks(self, states: str, name: str) -> str:
        """Add a product of 8-bit numbers with a scale per 64 activations and per 64 weights."""
        weight = self._weights[f"{name}.weight"]
        outputs, inputs = weight.shape
        blocks = weight.reshape(outputs, inputs // _BLOCK, _BLOCK)
        scale = np.abs(blocks).max(axis=2) / 127
        rounded = (np.round(blocks / scale[..., None]) + 128).astype(np.uint8)  # 128 stands for 0
        bias = self._constant(self._weights[f"{name}.bias"])
        return self._node(
            "MatMulNBits", states, self._constant(rounded), self._constant(scale), "", "", bias,
            domain=_CONTRIB, K=inputs, N=outputs, bits=8, block_size=_BLOCK, accuracy_level=4,
        )  # fmt: skip

    def _constant(self, value: Array) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = f"{kind}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output
