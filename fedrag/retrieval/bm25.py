"""BM25 (Robertson and Zaragoza 2009): scores texts by the terms that they share with a query, the rare ones most."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from fedrag.retrieval.terms import split_terms
from fedrag.types import Array

K1 = 1.5
"""How soon a term that is repeated in a text counts no more."""
B = 0.75
"""How much the length of a text counts; 0: not at all."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What each term adds to the score of each text that holds it; a term is known by its hash alone.

    Attributes:
        hashes: Hash of each term, in ascending order (terms,).
        starts: Where the texts of each term start, and the number of them all (terms + 1,).
        texts: Number of a text that holds the term (postings,).
        scores: What the term adds to its score (postings,).
    """

    hashes: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int32]
    scores: Array

    @property
    def is_whole(self) -> bool:
        """Whether the arrays belong together."""
        arrays = (self.hashes, self.starts, self.texts, self.scores)
        if [f"{array.dtype} {array.ndim}" for array in arrays] != ["uint64 1", "int64 1", "int32 1", "float32 1"]:
            return False
        postings = len(self.texts)
        return len(self.starts) == len(self.hashes) + 1 and self.starts[-1] == postings == len(self.scores)


NAMES: tuple[str, ...] = tuple(field.name for field in fields(Terms))
"""The names of its arrays."""


def index_terms(texts: Iterable[str]) -> Terms:
    """Index the terms of texts, in Lucene's form of BM25: no score is negative."""
    terms = [split_terms(text) for text in texts]
    hashes = {term: _hash(term) for text in terms for term in text}
    ordered = np.array(sorted(hashes.values()), np.uint64)
    if not hashes:
        return Terms(ordered, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    rows = {term: int(row) for term, row in zip(hashes, np.searchsorted(ordered, list(hashes.values())), strict=True)}
    numbered = [[rows[term] for term in text] for text in terms]
    built = _scorer().build_index_from_ids(list(range(len(ordered))), numbered, show_progress=False)
    return Terms(
        ordered,
        built["indptr"].astype(np.int64),
        built["indices"].astype(np.int32),
        built["data"].astype(np.float32),
    )


class Bm25Index:
    """Scores texts for queries.

    Args:
        terms: The terms of the texts.
        n_texts: The number of texts.
    """

    def __init__(self, terms: Terms, n_texts: int) -> None:
        self._hashes = terms.hashes
        self._n_texts = n_texts
        self._scorer = _scorer()
        self._scorer.nonoccurrence_array = None
        self._scorer.scores = {
            "data": terms.scores,
            "indices": terms.texts,
            "indptr": terms.starts,
            "num_docs": n_texts,
        }

    def scores(self, query: str) -> Array:
        """Return the score of every text for a query (texts,); 0 for those that share no term with it.

        A term that the query repeats counts as often.

        >>> Bm25Index(index_terms(["A red fox.", "A dog."]), 2).scores("Where is the fox?") > 0
        array([ True, False])
        """
        wanted = np.array([_hash(term) for term in split_terms(query)], np.uint64)
        rows = np.searchsorted(self._hashes, wanted)
        rows, wanted = rows[rows < len(self._hashes)], wanted[rows < len(self._hashes)]
        known = rows[self._hashes[rows] == wanted]
        if not len(known):
            return np.zeros(self._n_texts, np.float32)
        scores: Array = self._scorer.get_scores_from_ids(known)
        return scores


def _scorer() -> Any:
    return bm25s.BM25(k1=K1, b=B, method="lucene")


def _hash(term: str) -> int:
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
