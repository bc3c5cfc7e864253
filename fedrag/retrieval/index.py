"""Nearest-neighbour search over passages, exact or in inverted lists: the only module that uses FAISS."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import faiss

from fedrag.types import Array, Hit

EXACT_CHUNKS = 100_000
"""Most chunks that are searched exactly: one core then needs about a second for 1,000 queries."""
LISTED_CHUNKS = 200
"""Most chunks per query from inverted lists: further down the ranking, they lie more and more in unprobed lists."""
LISTS = 4.0  # lists per root of the number of chunks: choosing lists and reading them then take about the same time
PROBED_LISTS = 32
POINTS_PER_LIST = 64  # chunks per list that k-means reads; more take longer and give no better lists
FEWEST_POINTS_PER_LIST = 39  # below that, FAISS warns that the centres mean little


class PassageIndex:
    """Ranks passages by the inner product of a query with their best chunk.

    A small corpus is searched exactly. The chunks of a large one lie, in float16, in inverted lists around the centres
    of k-means, and a query reads the lists nearest to it: this is fast, but can miss a chunk. A query for more passages
    than the lists can give, such as a ranking of the whole corpus, is always searched exactly. The same vectors always
    give the same lists.

    Args:
        passage_ids: Passage of each chunk.
        texts: Text of each chunk.
        vectors: Unit vectors of the chunks (chunks, dim).
        exact_chunks: Most chunks that are searched exactly.
    """

    def __init__(
        self, passage_ids: Sequence[str], texts: Sequence[str], vectors: Array, exact_chunks: int = EXACT_CHUNKS
    ) -> None:
        self.passage_ids = tuple(passage_ids)
        self.texts = tuple(texts)
        self.vectors = vectors
        self._most_chunks = max(Counter(passage_ids).values(), default=1)
        self._passages = len(set(passage_ids))
        self._lists: Any = _lists_of(vectors) if len(vectors) > exact_chunks else None

    def __len__(self) -> int:
        return self._passages

    def search(self, queries: Array, k: int) -> list[list[Hit]]:
        """Return the k best passages for each query, best first; all of them if there are fewer.

        Args:
            queries: Unit vectors (queries, dim).
            k: Number of distinct passages.
        """
        if not len(queries):
            return []
        if self._lists is None or k > LISTED_CHUNKS:
            return self._search_exactly(queries, k)
        found = self._search_lists(queries, k)
        short = [row for row, hits in enumerate(found) if len(hits) < min(k, len(self))]
        if short:
            for row, hits in zip(short, self._search_exactly(queries[short], k), strict=True):
                found[row] = hits
        return found

    def _search_exactly(self, queries: Array, k: int) -> list[list[Hit]]:
        chunks = min(len(self.passage_ids), k * self._most_chunks)
        scores, rows = faiss.knn(queries, self.vectors, chunks, metric=faiss.METRIC_INNER_PRODUCT)
        return self._passages_of(scores, rows, k)

    def _search_lists(self, queries: Array, k: int) -> list[list[Hit]]:
        """Search the nearest lists; return fewer than k passages where their best chunks belong to fewer."""
        chunks = min(LISTED_CHUNKS, k * self._most_chunks)
        scores, rows = self._lists.search(queries, chunks)
        return self._passages_of(scores, rows, k)

    def _passages_of(self, scores: Array, rows: Any, k: int) -> list[list[Hit]]:
        return [self._distinct(s, r, k) for s, r in zip(scores.tolist(), rows.tolist(), strict=True)]

    def _distinct(self, scores: list[float], rows: list[int], k: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        for score, row in zip(scores, rows, strict=True):
            if row < 0:  # FAISS pads the result where the probed lists hold too few chunks
                break
            passage_id = self.passage_ids[row]
            if passage_id not in best:
                best[passage_id] = Hit(passage_id, score, row)
            if len(best) == k:
                break
        return list(best.values())


def _lists_of(vectors: Array) -> Any:
    """Return inverted lists of the chunks around the centres of seeded k-means."""
    dim = vectors.shape[1]
    count = max(1, min(round(LISTS * math.sqrt(len(vectors))), len(vectors) // FEWEST_POINTS_PER_LIST))
    lists = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, count, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    lists.cp.seed = 0
    lists.cp.max_points_per_centroid = POINTS_PER_LIST
    lists.nprobe = min(PROBED_LISTS, count)
    lists.train(vectors)
    lists.add(vectors)
    return lists
