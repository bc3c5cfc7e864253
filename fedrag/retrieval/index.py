"""Exact nearest-neighbour search over passages: the only place that knows FAISS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import faiss

from fedrag.types import Array, Hit


class PassageIndex:
    """Ranks passages by the inner product of a query with their best chunk.

    Args:
        passage_ids: Passage of each chunk.
        texts: Text of each chunk.
        vectors: Unit vectors of the chunks (chunks, dim).
    """

    def __init__(self, passage_ids: Sequence[str], texts: Sequence[str], vectors: Array) -> None:
        self.passage_ids = tuple(passage_ids)
        self.texts = tuple(texts)
        self.vectors = vectors
        self._most_chunks = max(Counter(passage_ids).values(), default=1)
        self._passages = len(set(passage_ids))
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def __len__(self) -> int:
        return self._passages

    def search(self, queries: Array, k: int) -> list[list[Hit]]:
        """Return the k best passages of each query, best first; fewer where there are fewer.

        Args:
            queries: Unit vectors (queries, dim).
            k: Distinct passages wanted.
        """
        if not len(queries):
            return []
        chunks = min(len(self.passage_ids), k * self._most_chunks)
        scores, rows = self._index.search(queries, chunks)
        return [self._distinct(s, r, k) for s, r in zip(scores.tolist(), rows.tolist(), strict=True)]

    def _distinct(self, scores: list[float], rows: list[int], k: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        for score, row in zip(scores, rows, strict=True):
            passage_id = self.passage_ids[row]
            if passage_id not in best:
                best[passage_id] = Hit(passage_id, score, row)
            if len(best) == k:
                break
        return list(best.values())
