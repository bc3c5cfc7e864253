"""Exact scores of all passages for queries, in blocks of bounded memory.

A passage scores the inner product of the query with its best chunk. Equal scores rank in the order of the passages, so
a rank that is counted is the rank in the whole ranking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedrag.types import Array

Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.floating]

BLOCK_SCORES = 2**25
"""Most scores of chunks in memory at a time, 128 MiB, unless one query alone has more."""


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    """The scores of one query.

    Attributes:
        chunks: Score of each chunk, those of a passage side by side (chunks,).
        passages: Score of each passage (passages,).
        starts: First chunk of each passage, and the number of chunks (passages + 1,).
    """

    chunks: Scores
    passages: Scores
    starts: Numbers

    def best_chunk(self, passage: int) -> int:
        """Return the first of the best chunks of a passage."""
        start, end = self.starts[passage : passage + 2]
        return int(start + self.chunks[start:end].argmax())

    def rank(self, passage: int) -> int:
        """Return a passage's rank from 1, by counting the passages before it."""
        score = self.passages[passage]
        before = np.count_nonzero(self.passages > score) + np.count_nonzero(self.passages[:passage] == score)
        return 1 + int(before)


def best_of(scores: Scores, k: int) -> list[int]:
    """Return the positions of the k highest scores, best first, equal ones in their order.

    >>> best_of(np.array([0.1, 0.5, 0.3, 0.5], np.float32), 3)
    [1, 3, 2]
    """
    k = min(k, len(scores))
    if k <= 0:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    chosen = np.flatnonzero(scores >= least)
    return [int(position) for position in chosen[np.argsort(-scores[chosen], kind="stable")][:k]]


def scored_query(chunks: Scores, starts: Numbers) -> ScoredQuery:
    """Return the scores of one query, a passage's being that of its best chunk."""
    single = len(starts) - 1 == len(chunks)
    return ScoredQuery(chunks, chunks if single else np.maximum.reduceat(chunks, starts[:-1]), starts)


def score_queries(queries: Array, vectors: Array, starts: Numbers) -> Iterator[ScoredQuery]:
    """Yield the scores of each query, which are gone when the next one is asked for.

    Args:
        queries: Vectors (queries, dim).
        vectors: Vectors of the chunks, those of a passage side by side (chunks, dim).
        starts: First chunk of each passage, and the number of chunks (passages + 1,).
    """
    at_a_time = max(1, BLOCK_SCORES // max(1, len(vectors)))
    for first in range(0, len(queries), at_a_time):
        for chunks in queries[first : first + at_a_time] @ vectors.T:
            yield scored_query(chunks, starts)


def starts_of(owners: Sequence[int] | Numbers) -> Numbers:
    """Return where the chunks of each passage start, and their number, for owners in ascending order.

    >>> starts_of([0, 0, 1, 2, 2, 2]).tolist()
    [0, 2, 3, 6]
    """
    numbers = np.asarray(owners, np.int64)
    changes = np.flatnonzero(np.diff(numbers)) + 1
    return np.concatenate([np.zeros(min(1, len(numbers)), np.int64), changes, [len(numbers)]])
