"""The same face on Chroma, for collections that outgrow an exact search; an extra.

It differs from the default index in three ways. Its search by vectors is approximate. BM25 is
computed over the chunks that the vectors found and at most 500 that hold one of the longest words
of the query. And it has no transactions: after a kill a document may be partly in, until the next
ingest mends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.core.errors import ConfigError
from workbench.core.identity import text_id
from workbench.embedding.encoder import FloatArray
from workbench.llm.context import lexical
from workbench.risk.documents.index import check_name
from workbench.risk.documents.records import (
    Chunk,
    Document,
    Hit,
    Vectors,
    Where,
    conditions,
    depth_of,
    fuse,
)
from workbench.risk.documents.words import query_words
from workbench.store.database import Store

__all__ = ["ChromaIndex", "open_chroma"]

_BATCH = 1_000
_BY_WORDS = 500
_SEARCHED_WORDS = 8
_Metadata = Mapping[str, Any]


def open_chroma(store: Store, name: str = "default") -> ChromaIndex:
    """Return the index of that name in Chroma's folder of the store; makes it at the first use.

    Raises:
        ConfigError: If Chroma is not installed, or the name is no simple one.
    """
    try:
        from chromadb import PersistentClient
        from chromadb.config import Settings
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; pip install 'prompt-safety-workbench[chroma]', "
            "or use the default index"
        ) from None
    folder = store.home / "risk" / "chroma"
    folder.mkdir(parents=True, exist_ok=True)
    quiet = Settings(anonymized_telemetry=False)  # it would tell its makers of each start
    return ChromaIndex(PersistentClient(path=str(folder), settings=quiet), name)


class ChromaIndex:
    """An index in one collection of a Chroma client."""

    def __init__(self, client: Any, name: str) -> None:
        self._collection: Any = client.get_or_create_collection(
            # Chroma wants at least three characters; and never its own model, which it downloads.
            f"documents-{check_name(name)}",
            embedding_function=None,
            configuration={"hnsw": {"space": "cosine"}},
        )

    @property
    def encoder_id(self) -> str:
        """Encoder of the vectors; empty while there are none."""
        found = self._collection.get(limit=1, include=["metadatas"])["metadatas"]
        return str(found[0]["encoder"]) if found else ""

    def known(self) -> Mapping[str, str]:
        """Return file → fingerprint of those that are complete."""
        # A document's first chunk is written last.
        found = self._collection.get(where={"position": 0}, include=["metadatas"])["metadatas"]
        return {str(one["file"]): str(one["fingerprint"]) for one in found}

    def count(self) -> int:
        """Return the number of chunks."""
        return int(self._collection.count())

    def add(self, document: Document, *, fingerprint: str, vectors: Vectors | None) -> None:
        """Put a document in place of what was there of its file.

        Raises:
            ConfigError: If there are no vectors, or they are of another encoder.
        """
        if vectors is None:
            raise ConfigError("Chroma keeps nothing without vectors; give an encoder")
        held = self.encoder_id
        if held and held != vectors.encoder_id:
            raise ConfigError(
                f"{self._collection.name}: its vectors are of {held}, not of {vectors.encoder_id}; "
                "use that encoder, or another index"
            )
        self.remove(document.file)
        shared = _shared(document) | {"fingerprint": fingerprint, "encoder": vectors.encoder_id}
        for batch in _batches(range(len(document.chunks) - 1, -1, -1)):
            chunks = [document.chunks[position] for position in batch]
            self._collection.upsert(
                ids=[text_id(document.file, str(position)) for position in batch],
                embeddings=vectors.rows[batch],
                documents=[chunk.text for chunk in chunks],
                metadatas=[
                    shared | _own(chunk, position)
                    for chunk, position in zip(chunks, batch, strict=True)
                ],
            )

    def remove(self, file: str) -> bool:
        """Take a file out; returns whether any of it was in."""
        ids = self._collection.get(where={"file": file}, include=[])["ids"]
        for batch in _batches(ids):
            self._collection.delete(ids=batch)
        return bool(ids)

    def search(
        self, query: str, vector: FloatArray | None, *, top: int, where: Where | None = None
    ) -> list[Hit]:
        """Return the best chunks by reciprocal-rank fusion of BM25 and cosine, best first.

        Raises:
            ConfigError: If ``where`` makes no sense.
        """
        condition = _condition(where)
        depth = depth_of(top)
        found: dict[str, tuple[str, _Metadata]] = {}
        if vector is not None and self.count():
            near = self._collection.query(
                query_embeddings=[vector.tolist()],
                n_results=depth,
                where=condition,
                include=["documents", "metadatas"],
            )
            found |= _by_id(near["ids"][0], near["documents"][0], near["metadatas"][0])
        by_vector = list(range(len(found)))
        words = query_words(query)
        if words:
            longest = sorted(words, key=len)[-_SEARCHED_WORDS:]
            with_word = self._collection.get(
                where=condition,
                where_document={"$regex": rf"(?i)\b(?:{'|'.join(map(re.escape, longest))})\b"},
                limit=_BY_WORDS,
                include=["documents", "metadatas"],
            )
            found |= _by_id(with_word["ids"], with_word["documents"], with_word["metadatas"])
        candidates = list(found.values())
        by_words = _by_words(" ".join(words), [text for text, _ in candidates], depth)
        return _hits(candidates, by_words, by_vector, top=top)


def _batches(items: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _BATCH):
        yield list(items[start : start + _BATCH])


def _shared(document: Document) -> dict[str, Any]:
    """Return what is said of each chunk of a document; a tag is a key, a date also a number."""
    return {
        "file": document.file,
        "sha256": document.sha256,
        "kind": document.kind,
        "title": document.title,
        "asset": document.asset,
        "date": document.date,
        "day": _day(document.date),
        **{f"tag:{tag}": True for tag in document.tags},
    }


def _own(chunk: Chunk, position: int) -> dict[str, Any]:
    return {"position": position, "section": chunk.section, "page": chunk.page or 0}


def _day(date: str) -> int:
    return int(date.replace("-", "") or 0)


def _condition(where: Where | None) -> dict[str, Any] | None:
    """Return a filter as Chroma writes it."""
    parts: list[dict[str, Any]] = []
    for field, values in conditions(where):
        if field == "tags":
            tags = [{f"tag:{value}": True} for value in values]
            parts.append({"$or": tags} if len(tags) > 1 else tags[0])
        elif field == "since":
            parts.append({"day": {"$gte": _day(values[0])}})
        elif field == "until":
            parts += [{"day": {"$lte": _day(values[0])}}, {"day": {"$gt": 0}}]
        else:
            parts.append({field: {"$in": list(values)}})
    if len(parts) > 1:
        return {"$and": parts}
    return parts[0] if parts else None


def _by_id(
    ids: Sequence[str], texts: Sequence[str], metadatas: Sequence[_Metadata]
) -> dict[str, tuple[str, _Metadata]]:
    return dict(zip(ids, zip(texts, metadatas, strict=True), strict=True))


def _by_words(query: str, texts: Sequence[str], depth: int) -> list[int]:
    scores = lexical(query, texts)
    ranked = sorted(range(len(texts)), key=lambda at: (-scores[at], at))
    return [at for at in ranked if scores[at] > 0][:depth]


def _hits(
    candidates: Sequence[tuple[str, _Metadata]],
    by_words: list[int],
    by_vector: list[int],
    *,
    top: int,
) -> list[Hit]:
    word_ranks = {at: rank for rank, at in enumerate(by_words, start=1)}
    hits = []
    for at, score in fuse([by_words, by_vector], top=top):
        text, said = candidates[at]
        hit = Hit(
            text=text,
            file=str(said["file"]),
            title=str(said["title"]),
            section=str(said["section"]),
            page=int(said["page"]) or None,
            score=score,
            word_rank=word_ranks.get(at),
            vector_rank=at + 1 if at < len(by_vector) else None,
        )
        hits.append(hit)
    return hits
