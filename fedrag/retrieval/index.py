"""Search over passages: by vectors, exactly or in inverted lists, by terms, or by both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fedrag.config.rag_settings import Search
from fedrag.retrieval.bm25 import Bm25Index
from fedrag.retrieval.exact import Numbers, ScoredQuery, best_of, score_queries, scored_query, starts_of
from fedrag.retrieval.fusion import fuse
from fedrag.retrieval.lists import lists_of
from fedrag.types import Array, Hit

EXACT_CHUNKS = 100_000
"""Most chunks that are always searched exactly: one core then needs about a second for 1,000 queries."""
EXACT_QUERIES = 20_000
"""Most queries that are always searched exactly: to build lists takes as long as some 20,000 exact searches."""
LISTED_CHUNKS = 200
"""Most chunks per query from inverted lists: further down the ranking, they lie more and more in unprobed lists."""
_CHUNKS_PER_PASSAGE = 4  # that lists are asked for at first; a query whose best chunks are of fewer passages asks again


@dataclass(frozen=True, slots=True)
class Ranking:
    """The head of a query's ranking, and the places of the passages that were asked for.

    Attributes:
        best: The best passages, best first.
        placed: The passages that were asked for, best first.
        ranks: Their ranks in the whole ranking, from 1.
    """

    best: tuple[Hit, ...]
    placed: tuple[Hit, ...]
    ranks: tuple[int, ...]


class PassageIndex:
    """Ranks passages by their best chunk: by its inner product with the query, by BM25, or by both ranks joined.

    Search is exact, but for very many queries in a large corpus that is searched by vectors alone: its chunks then lie,
    in float16, in inverted lists around the centres of k-means, and a query reads the lists nearest to it. This is
    fast, but can miss a chunk. A query for more passages than the lists can give is always searched exactly, and so are
    ranks and hard negatives.

    Args:
        passage_ids: Passage of each chunk.
        texts: Text of each chunk.
        vectors: Vectors of the chunks (chunks, dim); of no dimension where they are searched by terms alone.
        exact_chunks: Most chunks that are searched exactly, however many queries there are; None: `EXACT_CHUNKS`, and
            beyond that up to `EXACT_QUERIES` queries at a time.
        by: How passages are ranked.
        terms: Scores the chunks by their terms; unless `by` is "dense".
    """

    def __init__(
        self,
        passage_ids: Sequence[str],
        texts: Sequence[str],
        vectors: Array,
        exact_chunks: int | None = None,
        by: Search = "dense",
        terms: Bm25Index | None = None,
    ) -> None:
        self.passage_ids = passage_ids
        self.texts = texts
        self.vectors = vectors
        self.by = by
        self._terms = terms
        numbers: dict[str, int] = {}
        owners = np.array([numbers.setdefault(passage_id, len(numbers)) for passage_id in passage_ids], np.int64)
        self._numbers = numbers
        self._names = tuple(numbers)
        # Chunks of a passage stand side by side; where they do not, a sorted copy of the vectors is searched.
        self._order: Numbers | None = None if (np.diff(owners) >= 0).all() else np.argsort(owners, kind="stable")
        self._sorted = vectors if self._order is None else vectors[self._order]
        self._starts = starts_of(owners if self._order is None else owners[self._order])
        self._is_large = len(vectors) > (EXACT_CHUNKS if exact_chunks is None else exact_chunks)
        self._exact_queries = EXACT_QUERIES if exact_chunks is None else 0

    def __len__(self) -> int:
        return len(self._names)

    @property
    def dense(self) -> PassageIndex:
        """The same passages, ranked by their vectors alone."""
        found = copy.copy(self)
        found.by = "dense"
        return found

    def search(self, queries: Array, k: int, texts: Sequence[str] = ()) -> list[list[Hit]]:
        """Return the k best passages for each query, best first; all of them if there are fewer.

        Args:
            queries: Vectors (queries, dim).
            k: Number of distinct passages.
            texts: The queries as texts, unless they are searched by vectors alone.
        """
        if not len(queries) or not len(self):
            return [[] for _ in queries]
        exact = not self._is_large or len(queries) <= self._exact_queries or k > LISTED_CHUNKS
        if exact or self.by != "dense":
            return self._search_exactly(queries, k, texts)
        found: list[list[Hit]] = [[] for _ in queries]
        short = list(range(len(queries)))
        for chunks in (min(_CHUNKS_PER_PASSAGE * k, LISTED_CHUNKS), LISTED_CHUNKS):
            for row, hits in zip(short, self._search_lists(queries[short], k, chunks), strict=True):
                found[row] = hits
            short = [row for row in short if len(found[row]) < min(k, len(self))]
            if not short:
                return found
        for row, hits in zip(short, self._search_exactly(queries[short], k, ()), strict=True):
            found[row] = hits
        return found

    def rank(
        self, queries: Array, k: int, wanted: Sequence[Collection[str]], texts: Sequence[str] = ()
    ) -> list[Ranking]:
        """Return the k best passages for each query, and where in the whole ranking some others stand.

        Args:
            queries: Vectors (queries, dim).
            k: Number of distinct passages.
            wanted: The passages whose ranks are asked for, for each query; those that are not here have none.
            texts: The queries as texts, unless they are searched by vectors alone.
        """
        scores = self._scored(queries, texts)
        return [self._ranking(scored, k, ids) for scored, ids in zip(scores, wanted, strict=True)]

    def hard_negatives(
        self,
        queries: Array,
        k: int,
        positives: Sequence[str],
        labelled: Sequence[Collection[str]],
        most: Callable[[float], float],
    ) -> list[list[Hit]]:
        """Return the k best passages by their vectors that are not labelled, for each query, best first.

        Args:
            queries: Vectors (queries, dim).
            k: Number of distinct passages.
            positives: The positive of each query.
            labelled: All passages that are labelled for each query.
            most: Returns the highest score of a hard negative, given the score of the positive.
        """
        found = []
        for scored, positive, ids in zip(self.dense._scored(queries), positives, labelled, strict=True):
            allowed = scored.passages.copy()
            if positive in self._numbers:
                limit = most(float(scored.passages[self._numbers[positive]]))
                allowed[allowed > np.float64(limit)] = -np.inf  # compared in float64
            allowed[self._known(ids)] = -np.inf
            found.append([self._hit(scored, p) for p in best_of(allowed, k) if allowed[p] > -np.inf])
        return found

    def _search_exactly(self, queries: Array, k: int, texts: Sequence[str]) -> list[list[Hit]]:
        return [[self._hit(scored, p) for p in best_of(scored.passages, k)] for scored in self._scored(queries, texts)]

    def _scored(self, queries: Array, texts: Sequence[str] = ()) -> Iterator[ScoredQuery]:
        """Yield the scores of each query, one at a time in memory where terms take part."""
        if self.by == "bm25":
            return (scored_query(self._term_scores(text), self._starts) for text in texts)
        by_vectors = score_queries(queries, self._sorted, self._starts)
        if self.by == "dense":
            return by_vectors
        return (
            scored_query(fuse(scored.chunks, _ranked(self._term_scores(text))), self._starts)
            for scored, text in zip(by_vectors, texts, strict=True)
        )

    def _term_scores(self, text: str) -> Array:
        assert self._terms is not None
        scores = self._terms.scores(text)
        return scores if self._order is None else scores[self._order]

    def _ranking(self, scored: ScoredQuery, k: int, ids: Collection[str]) -> Ranking:
        best = tuple(self._hit(scored, p) for p in best_of(scored.passages, k))
        placed = sorted((scored.rank(p), p) for p in self._known(ids))
        return Ranking(best, tuple(self._hit(scored, p) for _, p in placed), tuple(rank for rank, _ in placed))

    def _known(self, ids: Collection[str]) -> list[int]:
        return [self._numbers[passage_id] for passage_id in dict.fromkeys(ids) if passage_id in self._numbers]

    def _hit(self, scored: ScoredQuery, passage: int) -> Hit:
        chunk = scored.best_chunk(passage)
        row = chunk if self._order is None else int(self._order[chunk])
        return Hit(self._names[passage], float(scored.passages[passage]), row)

    @cached_property
    def _lists(self) -> Any:
        """The inverted lists, built when they are first searched: ranks and hard negatives never need them."""
        return lists_of(self.vectors)

    def _search_lists(self, queries: Array, k: int, chunks: int) -> list[list[Hit]]:
        """Search the nearest lists; return fewer than k passages where their best chunks belong to fewer."""
        scores, rows = self._lists.search(queries, chunks)
        return [self._distinct(s, r, k) for s, r in zip(scores.tolist(), rows.tolist(), strict=True)]

    def _distinct(self, scores: list[float], rows: list[int], k: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        for score, row in zip(scores, rows, strict=True):
            if row < 0 or len(best) == k:  # FAISS pads the result where the probed lists hold too few chunks
                break
            best.setdefault(self.passage_ids[row], Hit(self.passage_ids[row], score, row))
        return list(best.values())


def _ranked(scores: Array) -> Array:
    """Return scores of BM25, in which what shares no term with the query has no rank."""
    return np.where(scores > 0, scores, np.float32(-np.inf))
