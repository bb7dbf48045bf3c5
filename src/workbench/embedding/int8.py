"""The network of MiniLM on ONNX Runtime in 8-bit integers: three times as fast, a little blurred.

The graph is written here, node by node, from the published weights; no exporter is needed. With
products in float32 it is the network itself, for others to run. One
window is one run, without padding: the scale of its activations is its own, so its states are the
same to the last bit whatever is encoded beside it. Cores are filled by windows side by side.

Weights have a scale per output. They take 7 bits, because processors without VNNI add two
products in 16 bits and 8 would overflow there. The product after GELU, whose few large
activations would drown the others, has a scale per 64 activations instead: measured, the mean
cosine to float32 goes up to .995, .988 without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_info

from workbench.core.errors import ConfigError, StoreError
from workbench.store.artifacts import write_atomic

__all__ = ["Graph", "Int8Bert", "encoder_graph"]

_HEADS, _LAYERS, _WIDTH, _EPSILON = 12, 6, 384, 1e-12
_BLOCK = 64
_CONTRIB = "com.microsoft"

Array = npt.NDArray[Any]
Shape = tuple[int | str, ...]


class Int8Bert:
    """Token ids to the states of the last layer, rounded on the way, float32 as they come out."""

    def __init__(
        self, weights: Path, graph: Path, *, tuned: Mapping[str, Any] | None = None
    ) -> None:
        """Open a graph, which is first made from the weights where there is none.

        Args:
            weights: ``model.safetensors`` of MiniLM.
            graph: File of the graph; its name says the weights and the recipe.
            tuned: Tensors to use in place of those of the same name.

        Raises:
            ConfigError: If the extra ``onnx`` is not installed.
            StoreError: If the graph cannot be written or read.
        """
        try:
            import onnxruntime

            if not graph.is_file():
                write_atomic(graph, encoder_graph(weights, tuned=tuned or {}, precision="int8"))
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
        self._threads = max(pools, default=os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads)

    def states(
        self, pieces: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Give the index of each piece and its ``(tokens, 384)`` states, in order."""
        several = min(len(pieces), self._threads) > 1  # else a thread of its own is only a detour
        yield from enumerate((self._pool.map if several else map)(self._run, pieces))

    def _run(self, piece: Sequence[int]) -> npt.NDArray[np.float32]:
        states: npt.NDArray[np.float32] = self._session.run(None, {"ids": np.array([piece])})[0][0]
        return states


def encoder_graph(weights: Path, *, tuned: Mapping[str, Any], precision: str) -> bytes:
    """Return an ONNX file: ``ids`` (1, tokens) to ``states`` (1, tokens, 384).

    Args:
        weights: ``model.safetensors`` of MiniLM.
        tuned: Tensors to use in place of those of the same name.
        precision: ``float32`` or ``int8``.

    Raises:
        ImportError: If the extra ``onnx`` is not installed.
    """
    from safetensors.numpy import load_file

    changed = {name: np.asarray(tensor, np.float32) for name, tensor in tuned.items()}
    graphs = {"float32": _Float32, "int8": _Int8}
    return graphs[precision](load_file(weights) | changed).encoder()


class Graph:
    """Nodes and constants of a network; methods add some and return the name of the output."""

    def __init__(self) -> None:
        self._nodes: list[tuple[str, Sequence[str], list[str], str, dict[str, Any]]] = []
        self._constants: list[Any] = []

    def to_bytes(
        self,
        given: str,
        shape: Shape,
        *,
        outputs: Mapping[str, tuple[str, Shape]],
        dtype: npt.DTypeLike = np.float32,
    ) -> bytes:
        """Return the graph as an ONNX file.

        Args:
            given: Name of the one input.
            shape: Its shape; names stand for sizes that vary.
            outputs: Name for others → the name it has here, and the shape; float32.
            dtype: Of the input.
        """
        from onnx import TensorProto, helper

        names = {own: name for name, (own, _) in outputs.items()}
        nodes = [
            helper.make_node(
                kind, inputs, [names.get(one, one) for one in made], domain=domain, **attributes
            )
            for kind, inputs, made, domain, attributes in self._nodes
        ]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        source = helper.make_tensor_value_info(given, kind, shape)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
            for name, (_, size) in outputs.items()
        ]
        graph = helper.make_graph(nodes, "workbench", [source], ends, self._constants)
        opset = [helper.make_opsetid("", 20)]
        if any(node.domain for node in nodes):
            opset.append(helper.make_opsetid(_CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        return bytes(model.SerializeToString())

    def constant(self, value: npt.ArrayLike) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = f"constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(
        self, kind: str, *inputs: str, domain: str = "", skipped: int = 0, **attributes: Any
    ) -> str:
        """Add a node of one output, or of more of which the first ones are skipped."""
        output = f"{kind}{len(self._nodes)}"
        made = [*(f"{output}.{place}" for place in range(skipped)), output]
        self._nodes.append((kind, inputs, made, domain, attributes))
        return output

    def linear(self, states: str, weight: Array, bias: Array) -> str:
        """Add a product in float32, the weight as ``(outputs, inputs)``."""
        product = self.node("MatMul", states, self.constant(weight.T))
        return self.node("Add", product, self.constant(bias))

    def norm(self, states: str, weight: Array, bias: Array, *, epsilon: float) -> str:
        """Add a layer normalization over the last axis."""
        constants = map(self.constant, (weight, bias))
        return self.node("LayerNormalization", states, *constants, epsilon=epsilon)


class _Float32(Graph):
    """The network of MiniLM."""

    def __init__(self, weights: dict[str, Array]) -> None:
        super().__init__()
        self._weights = weights

    def encoder(self) -> bytes:
        """Return the whole network as an ONNX file."""
        states = self._embeddings()
        for number in range(_LAYERS):
            states = self._layer(states, f"encoder.layer.{number}.")
        shape = (1, "tokens", _WIDTH)
        outputs = {"states": (states, shape)}
        return self.to_bytes("ids", shape[:2], outputs=outputs, dtype=np.int64)

    def _embeddings(self) -> str:
        name = "embeddings."
        positions = (
            self._weights[f"{name}position_embeddings.weight"]
            + self._weights[f"{name}token_type_embeddings.weight"][0]
        )
        chosen = self._words(self._weights[f"{name}word_embeddings.weight"])
        length = self.node("Shape", "ids", start=1, end=2)
        zero = self.constant(np.zeros(1, np.int64))
        places = self.node("Slice", self.constant(positions), zero, length)
        weight, bias = (self._weights[f"{name}LayerNorm.{kind}"] for kind in ("weight", "bias"))
        return self.norm(self.node("Add", chosen, places), weight, bias, epsilon=_EPSILON)

    def _words(self, words: Array) -> str:
        return self.node("Gather", self.constant(words), "ids")

    def _layer(self, states: str, prefix: str) -> str:
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        projected = self._linear(states, *parts)
        attended = self.node(
            "MultiHeadAttention",
            *(self._part(projected, number) for number in range(3)),
            domain=_CONTRIB,
            num_heads=_HEADS,
        )
        joined = self._linear(attended, f"{prefix}attention.output.dense")
        states = self._add_norm(states, joined, f"{prefix}attention.output.LayerNorm")
        wide = self.node("Gelu", self._linear(states, f"{prefix}intermediate.dense"))
        narrow = self._narrow(wide, f"{prefix}output.dense")
        return self._add_norm(states, narrow, f"{prefix}output.LayerNorm")

    def _part(self, projected: str, number: int) -> str:
        edges = [np.array([edge]) for edge in (number * _WIDTH, (number + 1) * _WIDTH, -1)]
        return self.node("Slice", projected, *map(self.constant, edges))

    def _add_norm(self, states: str, more: str, name: str) -> str:
        # not Add, which ONNX Runtime fuses into SkipLayerNormalization: six times as slow (1.32)
        weight, bias = (self._weights[f"{name}.{kind}"] for kind in ("weight", "bias"))
        return self.norm(self.node("Sum", states, more), weight, bias, epsilon=_EPSILON)

    def _linear(self, states: str, *names: str) -> str:
        return self.linear(states, *self._joined(*names))

    def _narrow(self, states: str, name: str) -> str:
        """Add the product after GELU."""
        return self._linear(states, name)

    def _joined(self, *names: str) -> tuple[Array, Array]:
        """Return the weights and biases of layers side by side."""
        weights, biases = (
            np.concatenate([self._weights[f"{name}.{kind}"] for name in names])
            for kind in ("weight", "bias")
        )
        return weights, biases


class _Int8(_Float32):
    """The same in 8-bit integers."""

    def _words(self, words: Array) -> str:
        half = words.astype(np.float16)  # half the file
        return self.node("Cast", super()._words(half), to=1)

    def _linear(self, states: str, *names: str) -> str:
        """Add a product of 8-bit activations, one scale for all, and 7-bit weights."""
        weight, bias = self._joined(*names)
        scale = np.abs(weight).max(axis=1) / 63
        rounded = np.round(weight / scale[:, None]).astype(np.int8)
        constants = [rounded.T, scale, np.zeros(len(scale), np.int8), bias]
        return self.node(
            "DynamicQuantizeMatMul", states, *map(self.constant, constants), domain=_CONTRIB
        )

    def _narrow(self, states: str, name: str) -> str:
        """Add a product of 8-bit numbers with a scale per 64 activations and per 64 weights."""
        weight = self._weights[f"{name}.weight"]
        outputs, inputs = weight.shape
        blocks = weight.reshape(outputs, inputs // _BLOCK, _BLOCK)
        scale = np.abs(blocks).max(axis=2) / 127
        rounded = (np.round(blocks / scale[..., None]) + 128).astype(np.uint8)  # 128 stands for 0
        bias = self.constant(self._weights[f"{name}.bias"])
        return self.node(
            "MatMulNBits", states, self.constant(rounded), self.constant(scale), "", "", bias,
            domain=_CONTRIB, K=inputs, N=outputs, bits=8, block_size=_BLOCK, accuracy_level=4,
        )  # fmt: skip
