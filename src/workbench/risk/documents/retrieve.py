"""Finds passages for a question, by words and by meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from workbench.core.errors import ConfigError, StoreError
from workbench.embedding.encoder import MINILM_IDS, Encoder, FloatArray
from workbench.embedding.vectors import open_encoder
from workbench.risk.documents.index import open_index
from workbench.risk.documents.records import Hit, Index, Where
from workbench.store.database import Store

__all__ = ["passages_of", "retrieve"]

_QUERY_CHARS = 4_000


def retrieve(
    index: Index,
    query: str,
    *,
    top: int = 8,
    where: Where | None = None,
    encoder: Encoder | None = None,
) -> list[Hit]:
    """Return the passages that fit a query best, best first.

    Where no vector can be had, words alone decide, and each hit's ``note`` says why.

    Args:
        index: What to search.
        query: Anything; the first 4,000 characters count.
        top: The most hits, >= 1.
        where: Fields that a file must have, e.g. ``{"asset": "shop", "tags": ["policy"]}``.
        encoder: That of the index.

    Raises:
        ConfigError: If ``top`` < 1, ``where`` makes no sense, or the encoder is another one.
        StoreError: If the index cannot be read.
    """
    if top < 1:
        raise ConfigError(f"top={top}: must be >= 1")
    query = query[:_QUERY_CHARS].strip()
    vector, note = _vector(index, query, encoder)
    hits = index.search(query, vector, top=top, where=where)
    return [replace(hit, note=note) for hit in hits] if note else hits


def passages_of(
    store: Store, name: str = "default", *, top: int = 4, where: Where | None = None
) -> Callable[[str], Sequence[str]]:
    """Return a function that gives the passages nearest to a query, each below where it stands.

    Of an index whose vectors are not MiniLM's, words alone are searched.

    Args:
        store: Where the index is.
        name: Of the index.
        top: The most passages a query.
        where: As in :func:`retrieve`.

    Raises:
        ConfigError: If there is no such index.
        StoreError: If the index cannot be read.
    """
    index = open_index(store, name, must_exist=True)
    names = {encoder_id: name for name, encoder_id in MINILM_IDS.items()}
    held = names.get(index.encoder_id)
    encoder = open_encoder(store, held) if held else None

    def passages(query: str) -> Sequence[str]:
        hits = retrieve(index, query, top=top, where=where, encoder=encoder)
        return [f"{hit.place}\n{hit.text}" for hit in hits]

    return passages


def _vector(index: Index, query: str, encoder: Encoder | None) -> tuple[FloatArray | None, str]:
    """Return the vector of a query, or why there is none."""
    held = index.encoder_id
    if encoder is None:
        return None, "words alone: no encoder was given"
    if not held:
        return None, "words alone: the index holds no vectors"
    if encoder.id != held:
        raise ConfigError(f"the index has vectors of {held}, not of {encoder.id}; use that encoder")
    if not query:
        return None, "words alone: the query is empty"
    try:
        return encoder.encode([query])[0], ""
    except (ConfigError, StoreError) as error:
        return None, f"words alone: {error}"
