"""The index against brute force, and its lists against exact search."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from fedrag.retrieval import exact
from fedrag.retrieval import index as index_module
from fedrag.retrieval.index import PassageIndex
from fedrag.retrieval.lists import lists_of
from fedrag.types import Hit


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


# Ranks and hard negatives


def whole_ranking(owners: list[str], vectors: np.ndarray, query: np.ndarray) -> dict[str, float]:
    """Return the score of every passage, best first, as a plain sort ranks them."""
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    best = {owner: max(s for s, o in zip(scores, owners, strict=True) if o == owner) for owner in owners}
    return dict(sorted(best.items(), key=lambda item: -item[1]))


def test_counted_ranks_are_those_of_the_whole_ranking(chunked, monkeypatch):
    index, owners, vectors = chunked
    monkeypatch.setattr(exact, "BLOCK_SCORES", 200)  # three queries at a time
    queries = unit_vectors(25, 8, seed=2)
    wanted = [("p0", "p7", "p0", "not here"), ("p3",), (), ("p12", "p1", "p5", "p2")]
    wanted = [wanted[row % 4] for row in range(25)]
    for query, ids, found in zip(queries, wanted, index.rank(queries, 3, wanted), strict=True):
        ranked = list(whole_ranking(owners, vectors, query))
        assert [hit.passage_id for hit in found.best] == ranked[:3]
        assert found.ranks == tuple(sorted(ranked.index(id) + 1 for id in set(ids) - {"not here"}))
        assert [hit.passage_id for hit in found.placed] == [ranked[rank - 1] for rank in found.ranks]
        assert all(owners[hit.chunk] == hit.passage_id for hit in (*found.best, *found.placed))


def test_equal_scores_rank_in_the_order_of_the_passages():
    index = PassageIndex(list("abcde"), [""] * 5, np.array([[1], [2], [1], [2], [1]], np.float32))
    (found,) = index.rank(np.ones((1, 1), np.float32), 4, ["abcde"])
    assert [hit.passage_id for hit in found.best] == list("bdac")
    assert [(hit.passage_id, rank) for hit, rank in zip(found.placed, found.ranks, strict=True)] == [
        ("b", 1),
        ("d", 2),
        ("a", 3),
        ("c", 4),
        ("e", 5),
    ]


@pytest.mark.parametrize("margin", [0.0, 0.1, 9.0])
def test_hard_negatives_are_the_best_that_are_neither_labelled_nor_too_similar(chunked, margin):
    index, owners, vectors = chunked
    queries = unit_vectors(25, 8, seed=2)
    labelled = [{"p0", f"p{row % 13}"} for row in range(25)]
    positives = [f"p{row % 13}" for row in range(25)]
    found = index.hard_negatives(queries, 2, positives, labelled, lambda score: score - margin)
    for query, positive, right, hits in zip(queries, positives, labelled, found, strict=True):
        ranked = whole_ranking(owners, vectors, query)
        wrong = [p for p, score in ranked.items() if p not in right and score <= ranked[positive] - margin]
        assert [hit.passage_id for hit in hits] == wrong[:2]


def test_an_index_without_passages_finds_nothing():
    index = PassageIndex([], [], np.zeros((0, 8), np.float32))
    assert index.search(unit_vectors(2, 8, seed=1), 3) == [[], []]
    assert [found.ranks for found in index.rank(unit_vectors(2, 8, seed=1), 3, [("p0",), ()])] == [(), ()]


def test_a_passage_of_a_thousand_chunks_makes_nobody_search_deeper():
    """Once every search asked for as many chunks per passage as the longest passage has."""
    vectors = clusters(copies=20, bases=200, seed=3)
    owners = ["long"] * 1000 + [f"p{row}" for row in range(3000)]
    index = PassageIndex(owners, [""] * 4000, vectors, exact_chunks=0)
    asked: list[int] = []

    class Lists:
        def search(self, queries: np.ndarray, chunks: int) -> tuple[np.ndarray, np.ndarray]:
            asked.append(chunks)
            return lists_of(vectors).search(queries, chunks)

    index._lists = Lists()
    index.search(unit_vectors(1, 16, seed=9), 5)
    assert asked[0] == 20


# A large corpus, in lists


def clusters(copies: int, bases: int, seed: int) -> np.ndarray:
    """Return unit vectors that lie close together around some others, as sentences repeat themselves."""
    base = np.tile(unit_vectors(bases, 16, seed), (copies, 1))
    moved = base + 0.1 * unit_vectors(len(base), 16, seed + 1)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def large() -> tuple[PassageIndex, PassageIndex, np.ndarray]:
    """Index 12,000 chunks of 6,000 passages, with and without lists."""
    vectors = clusters(copies=60, bases=200, seed=3)
    owners, texts = [f"p{row % 6000}" for row in range(12_000)], [""] * 12_000
    return PassageIndex(owners, texts, vectors, 11_999), PassageIndex(owners, texts, vectors, 12_000), vectors


def recall(found: list[list[Hit]], right: list[list[Hit]]) -> float:
    shares = [
        len({h.passage_id for h in a} & {h.passage_id for h in b}) / len(b) for a, b in zip(found, right, strict=True)
    ]
    return sum(shares) / len(shares)


def test_beyond_the_border_nearly_all_of_the_best_passages_are_found(large):
    lists, exact, vectors = large
    for queries in (clusters(copies=1, bases=200, seed=3), unit_vectors(200, 16, seed=9)):
        found, right = lists.search(queries, 10), exact.search(queries, 10)
        assert 0.95 <= recall(found, right) <= 1.0
        for query, hits in zip(queries, found, strict=True):
            scores = [hit.score for hit in hits]
            assert len({hit.passage_id for hit in hits}) == 10
            assert scores == sorted(scores, reverse=True)
            np.testing.assert_allclose(scores, vectors[[hit.chunk for hit in hits]] @ query, atol=1e-4)


def test_lists_find_the_best_by_dot_product_where_vectors_have_lengths_of_their_own():
    lengths = np.random.default_rng(4).uniform(5.0, 15.0, (12_000, 1)).astype(np.float32)
    vectors, ids = lengths * clusters(copies=60, bases=200, seed=3), [str(row) for row in range(12_000)]
    lists, exact = (PassageIndex(ids, ids, vectors, most) for most in (11_999, 12_000))
    queries = 10.0 * clusters(copies=1, bases=200, seed=3)
    assert recall(lists.search(queries, 10), exact.search(queries, 10)) >= 0.95


def test_lists_are_built_for_very_many_queries_only(monkeypatch):
    """For a thousand queries they took longer to build than exact search takes."""
    monkeypatch.setattr(index_module, "EXACT_CHUNKS", 3_999)
    monkeypatch.setattr(index_module, "EXACT_QUERIES", 50)
    vectors = clusters(copies=20, bases=200, seed=3)
    names = [f"p{row}" for row in range(4000)]
    index = PassageIndex(names, names, vectors)
    found = index.search(unit_vectors(50, 16, seed=9), 5)
    assert found == PassageIndex(names, names, vectors, 4000).search(unit_vectors(50, 16, seed=9), 5)
    assert "_lists" not in vars(index)
    index.search(unit_vectors(51, 16, seed=9), 5)
    assert "_lists" in vars(index)


def test_lists_look_into_a_part_of_the_corpus_only(large):
    lists, exact, _ = large
    queries = unit_vectors(500, 16, seed=9)
    assert recall(lists.search(queries, 100), exact.search(queries, 100)) < 1.0


@pytest.mark.parametrize("k", [201, 6000, 7000])
def test_long_and_whole_rankings_of_a_large_corpus_are_exact(large, k):
    lists, exact, _ = large
    queries = unit_vectors(3, 16, seed=5)
    assert lists.search(queries, k) == exact.search(queries, k)
    assert len(lists.search(queries, k)[0]) == min(k, len(lists))


def test_passages_of_very_many_chunks_do_not_shorten_a_ranking():
    """The 200 chunks that lists are asked for were all of one passage."""
    vectors = clusters(copies=1000, bases=4, seed=7)
    owners = [f"big {row % 4}" if row < 3600 else f"p{row}" for row in range(4000)]
    lists, exact = (PassageIndex(owners, [""] * 4000, vectors, border) for border in (0, 4000))
    queries = unit_vectors(20, 16, seed=8)
    assert [[hit.passage_id for hit in hits] for hits in lists.search(queries, 3)] == [
        [hit.passage_id for hit in hits] for hits in exact.search(queries, 3)
    ]


def test_the_same_vectors_give_the_same_lists_whatever_the_number_of_threads(large):
    lists, _, vectors = large
    queries = unit_vectors(100, 16, seed=9)
    threads = faiss.omp_get_max_threads()
    found = []
    for count in (1, 2):
        faiss.omp_set_num_threads(count)
        again = PassageIndex(lists.passage_ids, lists.texts, vectors, 11_999)
        found.append(again.search(queries, 10))
    faiss.omp_set_num_threads(threads)
    assert found[0] == found[1]
