"""A sanitizer for others to run: ONNX, safetensors, JSON and a card, each file with its hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from safetensors.numpy import save

from workbench.core.errors import ConfigError
from workbench.core.identity import new_id
from workbench.diffusion.checkpoint import Checkpoint, read_checkpoint
from workbench.diffusion.graphs import heads_graph, redirect_graph
from workbench.diffusion.model_card import model_card
from workbench.diffusion.sanitizer import Precision
from workbench.embedding.encoder import minilm_folder
from workbench.embedding.int8 import encoder_graph
from workbench.store.artifacts import clear_disk_errors, write_atomic

__all__ = ["Export", "export_sanitizer"]


class Export(NamedTuple):
    """What was written."""

    folder: Path
    model: str
    """Id of the sanitizer."""
    files: dict[str, str]
    """Name → sha256, as in ``SHA256SUMS``."""
    redirects: str
    """How safe texts are found outside of the Workbench, in words."""


def export_sanitizer(
    path: Path,
    out: Path,
    *,
    precisions: Sequence[Precision] = ("float32", "int8"),
    evaluation: Mapping[str, Any] | None = None,
) -> Export:
    """Write a sanitizer into a new folder, all of it or nothing, and return what was written.

    Args:
        path: Folder of a sanitizer.
        out: Folder to make; an empty one is taken too.
        precisions: Of the encoder, one file each.
        evaluation: Figures of ``workbench evaluate`` for the card.

    Raises:
        ConfigError: If the extra ``onnx`` is not installed, a precision is unknown, or the folder
            is not empty.
        DataError: If a file of the sanitizer is missing, damaged, changed or of another format, or
            the evaluation is of another model.
        StoreError: If the folder cannot be written, or MiniLM's files are not those published.
    """
    _check(out, precisions)
    checkpoint = read_checkpoint(path)
    encoder = checkpoint.reader().encoder.id  # opened so: MiniLM's own files are checked too
    try:
        files = _files(checkpoint, precisions)
    except ImportError as error:
        raise ConfigError(
            f"an export needs {error.name}; pip install 'prompt-safety-workbench[onnx]'"
        ) from error
    redirects = _redirects(checkpoint, is_exported="redirect.onnx" in files)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files["README.md"] = card = model_card(
        checkpoint,
        encoder=encoder,
        redirects=redirects,
        files=files,
        sums=sums,
        evaluation=evaluation,
    ).encode()
    sums["README.md"] = hashlib.sha256(card).hexdigest()
    files["SHA256SUMS"] = "".join(f"{sha}  {name}\n" for name, sha in sums.items()).encode()
    _write(out.resolve(), files)
    return Export(out, checkpoint.config["id"], sums, redirects)


def _check(out: Path, precisions: Sequence[Precision]) -> None:
    known = get_args(Precision)
    if not precisions or not set(precisions) <= set(known):
        said = ", ".join(precisions) or "none"
        raise ConfigError(f"precisions are {said}; choose from {', '.join(known)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; name a new folder or an empty one")


def _files(checkpoint: Checkpoint, precisions: Sequence[Precision]) -> dict[str, bytes]:
    published = minilm_folder()
    weights = published / "model.safetensors"
    files = {
        f"encoder.{one}.onnx": encoder_graph(weights, tuned=checkpoint.encoder, precision=one)
        for one in precisions
    }
    files["heads.onnx"] = heads_graph(checkpoint.heads)
    redirector = checkpoint.redirector
    if redirector.prior and not redirector.prior.config.samplers:
        files["redirect.onnx"] = redirect_graph(redirector.prior, candidates=redirector.candidates)
    gallery = redirector.gallery
    files["gallery.safetensors"] = save({"vectors": gallery.vectors.astype(np.float16)})
    files["gallery.json"] = json.dumps(gallery.texts, indent=0).encode()
    files["routing.json"] = json.dumps(checkpoint.routing.to_json(), indent=1).encode()
    files["tokenizer.json"] = (published / "tokenizer.json").read_bytes()
    return files


def _redirects(checkpoint: Checkpoint, *, is_exported: bool) -> str:
    prior = checkpoint.redirector.prior
    nearest = "the safe text nearest to the request's own vector"
    if prior is None:
        return f"no prior: {nearest}"
    process = prior.config.process
    if is_exported:
        return f"{process}: redirect.onnx proposes vectors, the safe text nearest to one is taken"
    return (
        f"{process}, not exported: it draws noise and runs its network step by step, which is no "
        f"graph of one pass; outside of the Workbench take {nearest}, a different choice"
    )


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Write files beside the folder, which then takes their place at once."""
    temporary = out.with_name(f".{out.name}.{new_id('tmp')}")
    with clear_disk_errors(out):
        try:
            for name, data in files.items():
                write_atomic(temporary / name, data)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
