"""The index against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from fedrag.retrieval.index import PassageIndex


def unit_vectors(rows: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def chunked() -> tuple[PassageIndex, list[str], np.ndarray]:
    """Index 60 chunks of 13 passages; one of them has 20."""
    owners = [f"p{i}" for i in [*[0] * 20, *(1 + np.arange(40) % 12)]]
    vectors = unit_vectors(60, 8, seed=1)
    return PassageIndex(owners, [f"text {row}" for row in range(60)], vectors), owners, vectors


@pytest.mark.parametrize("k", [1, 3, 13, 50])
def test_passages_are_ranked_by_their_best_chunk_as_brute_force_ranks_them(chunked, k):
    index, owners, vectors = chunked
    queries = unit_vectors(25, 8, seed=2)
    for query, hits in zip(queries, index.search(queries, k), strict=True):
        similarities = vectors.astype(np.float64) @ query.astype(np.float64)
        best = {owner: max(s for s, o in zip(similarities, owners, strict=True) if o == owner) for owner in owners}
        expected = sorted(best, key=lambda owner: -best[owner])[:k]
        assert [hit.passage_id for hit in hits] == expected
        for hit in hits:
            assert hit.score == pytest.approx(best[hit.passage_id], abs=1e-6)
            assert similarities[hit.chunk] == pytest.approx(best[hit.passage_id], abs=1e-6)
            assert owners[hit.chunk] == hit.passage_id


def test_it_counts_passages_and_keeps_the_texts_of_chunks(chunked):
    index, _, _ = chunked
    assert len(index) == 13
    assert index.texts[41] == "text 41"


def test_no_query_has_no_result(chunked):
    index, _, _ = chunked
    assert index.search(np.zeros((0, 8), np.float32), 3) == []
