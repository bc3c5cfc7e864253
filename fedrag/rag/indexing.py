"""Indexes a site's passages: cuts them into chunks, encodes these once, and keeps the vectors on disk."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from fedrag.config.rag_settings import Search
from fedrag.data.chunking import Part, iterate_chunks
from fedrag.models.retriever import Retriever
from fedrag.retrieval.bm25 import K1, NAMES, B, Bm25Index, Terms, index_terms
from fedrag.retrieval.index import PassageIndex
from fedrag.retrieval.index_cache import INDEXES, IndexCache, Parts, StoredVectors
from fedrag.types import Passage
from fedrag.weights.store import fedrag_home

_VERSION = 1
_CHUNKS_AT_A_TIME = 32_768
"""Chunks that are encoded together: texts of similar length share a batch, whatever their passages."""


def build_index(
    retriever: Retriever,
    passages: Sequence[Passage],
    overlap: int,
    folder: Path | None = None,
    search: Search = "dense",
) -> PassageIndex:
    """Chunk and encode a site's passages and index them.

    Args:
        retriever: Encodes passages in its current state.
        passages: The site's passages.
        overlap: Tokens that neighbouring chunks share.
        folder: The folder of indexes, which is asked first and holds the result; None: nothing is kept.
        search: How passages will be ranked; nothing is encoded for "bm25".
    """
    cache = IndexCache(folder) if folder is not None else None
    if search == "bm25":
        parts = _parts(retriever, passages, overlap)
        stored = StoredVectors(np.zeros((len(parts), 0), np.float32), parts)
    elif cache is None:
        stored = _encode(retriever, passages, overlap)
    else:
        key = _key(retriever, passages, overlap)
        stored = cache.read(key) or cache.write(key, _encode(retriever, passages, overlap))
    texts = ChunkTexts(passages, stored.parts)
    owners = [passages[i].id for i in stored.parts[:, 0].tolist()]
    terms = None if search == "dense" else Bm25Index(_terms(texts, cache), len(texts))
    return PassageIndex(owners, texts, stored.vectors, by=search, terms=terms)


def shared_indexes() -> Path | None:
    """Return the folder of indexes that all runs of this machine's user share; None: it cannot be written."""
    return fedrag_home() / INDEXES if os.access(fedrag_home(), os.W_OK) else None


class ChunkTexts(Sequence[str]):
    """The texts of chunks, cut out of their passages when they are read.

    Args:
        passages: The site's passages.
        parts: Number of the passage, head, start and end of each chunk (chunks, 4).
    """

    def __init__(self, passages: Sequence[Passage], parts: Parts) -> None:
        self._passages = passages
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return the text of one chunk, or of several."""
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        number, head, start, end = self._parts[index].tolist()
        return Part(head, start, end).of(self._passages[number].full_text)


def _terms(texts: Sequence[str], cache: IndexCache | None) -> Terms:
    """Index the terms of chunks, which do not depend on the retriever's weights."""
    if cache is None:
        return index_terms(texts)
    key = _digest(f"{_VERSION}|bm25|{K1}|{B}|{unicodedata.unidata_version}", texts)
    found = cache.read_arrays(key, NAMES)
    terms = Terms(**found) if found else None
    if terms is None or not terms.is_whole:
        terms = index_terms(texts)
        cache.write_arrays(key, {name: getattr(terms, name) for name in NAMES})
    return terms


def _encode(retriever: Retriever, passages: Sequence[Passage], overlap: int) -> StoredVectors:
    parts = _parts(retriever, passages, overlap)
    texts = ChunkTexts(passages, parts)
    starts = range(0, len(texts), _CHUNKS_AT_A_TIME)
    vectors = np.zeros((0, 0), np.float32)
    for start in starts:
        block = retriever.encode_passages(texts[start : start + _CHUNKS_AT_A_TIME])
        if not start:
            vectors = np.empty((len(texts), block.shape[1]), np.float32)
        vectors[start : start + len(block)] = block
    return StoredVectors(vectors, parts)


def _parts(retriever: Retriever, passages: Sequence[Passage], overlap: int) -> Parts:
    """Return where the chunks of all passages stand (chunks, 4)."""
    numbers = {passage.id: number for number, passage in enumerate(passages)}
    chunks = iterate_chunks(passages, retriever.encoder.tokenizer, retriever.chunk_tokens, overlap)
    places = [(numbers[c.passage_id], c.part.head, c.part.start, c.part.end) for c in chunks]
    return np.array(places, np.int64).reshape(-1, 4)


def _key(retriever: Retriever, passages: Sequence[Passage], overlap: int) -> str:
    """Return a name for all that an index depends on: retriever, chunking and data."""
    texts = (text for passage in passages for text in (passage.id, passage.title or "", passage.text))
    return _digest(f"{_VERSION}|{retriever.passage_key()}|{retriever.chunk_tokens}|{overlap}", texts)


def _digest(settings: str, texts: Iterable[str]) -> str:
    digest = hashlib.sha256(settings.encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]
