"""BM25 and reciprocal rank fusion against their formulas, worked out here by hand."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedrag.retrieval.bm25 import NAMES, Bm25Index, Terms, index_terms
from fedrag.retrieval.fusion import fuse
from fedrag.retrieval.index import PassageIndex
from fedrag.retrieval.index_cache import IndexCache
from fedrag.retrieval.terms import split_terms

TEXTS = [
    "The library opens at nine, the pool at seven.",
    "The pool, the pool and once more the pool.",
    "Keys are kept by the porter.",
    "",
    "A late book costs ten cents a day; a late key nothing.",
]
QUERY = "When does the pool, the old pool, open at seven?"


def bm25_by_hand(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Return what the formula gives, word by word: Lucene's idf times the saturated count of the term."""
    words = ["".join(c if c.isalnum() else " " for c in text.lower()).split() for text in texts]
    mean = sum(map(len, words)) / len(words)
    asked = "".join(c if c.isalnum() else " " for c in query.lower()).split()
    scores = []
    for text in words:
        counts, score = Counter(text), 0.0
        for term in asked:
            holding = sum(term in other for other in words)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            score += idf * counts[term] / (counts[term] + k1 * (1 - b + b * len(text) / mean))
        scores.append(score)
    return scores


def test_scores_are_those_of_the_formula():
    scores = Bm25Index(index_terms(TEXTS), len(TEXTS)).scores(QUERY)
    np.testing.assert_allclose(scores, bm25_by_hand(TEXTS, QUERY), rtol=1e-5)
    assert scores[3] == 0
    assert scores.argmax() == 0


@pytest.mark.parametrize("query", ["", "?!", "zeppelin"])
def test_a_query_without_a_known_term_scores_nothing(query):
    assert Bm25Index(index_terms(TEXTS), len(TEXTS)).scores(query).tolist() == [0.0] * 5


def test_texts_without_any_term_score_nothing():
    assert Bm25Index(index_terms(["", "..."]), 2).scores("pool").tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Straße, naïve CAFÉ", ["strasse", "naïve", "café"]),
        ("ﬁle 12.5", ["file", "12", "5"]),
        ("Bộ Công an", ["bộ", "công", "an"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("القاهرة، مصر", ["القاهرة", "مصر"]),
        ("東京タワーへ行く", ["東京", "京タ", "タワ", "ワー", "ーへ", "へ行", "行く"]),
        ("สวัสดี", ["สว", "วั", "ัส", "สด", "ดี"]),
        ("서울은 큰 도시", ["서울", "울은", "큰", "도시"]),
        ("Covid-19疫苗", ["covid", "19", "疫苗"]),
    ],
)
def test_every_language_has_terms(text, terms):
    assert split_terms(text) == terms


def test_reciprocal_ranks_are_added_as_cormack_and_others_add_them():
    first = np.array([0.2, 0.9, 0.9, -0.5])  # ranks 3, 1, 2, 4: equal scores in their order
    second = np.array([7.0, -np.inf, 8.0, 1.0])  # ranks 2, none, 1, 3
    expected = [1 / 63 + 1 / 62, 1 / 61, 1 / 62 + 1 / 61, 1 / 64 + 1 / 63]
    np.testing.assert_allclose(fuse(first, second), expected, rtol=1e-12)


def searched(by: str, owners: list[str], vectors: np.ndarray) -> PassageIndex:
    return PassageIndex(owners, TEXTS, vectors, by=by, terms=Bm25Index(index_terms(TEXTS), len(TEXTS)))


@pytest.mark.parametrize("owners", [list("abcde"), list("aabbc"), list("ababc")])
@pytest.mark.parametrize("by", ["dense", "bm25", "hybrid"])
def test_a_search_and_its_ranks_are_those_of_brute_force(by, owners):
    vectors = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    queries = np.random.default_rng(4).standard_normal((2, 4)).astype(np.float32)
    texts = [QUERY, "late key"]
    found = searched(by, owners, vectors).rank(queries, 5, [owners, owners], texts)
    for query, text, ranking in zip(queries, texts, found, strict=True):
        similarity, by_terms = vectors @ query, np.array(bm25_by_hand(TEXTS, text))
        places = sorted(range(5), key=lambda i: -similarity[i])
        listed = sorted((i for i in range(5) if by_terms[i] > 0), key=lambda i: -by_terms[i])
        joined = [1 / (61 + places.index(i)) + (1 / (61 + listed.index(i)) if i in listed else 0.0) for i in range(5)]
        scores = {"dense": similarity, "bm25": by_terms, "hybrid": joined}[by]
        best = {owner: max(s for s, o in zip(scores, owners, strict=True) if o == owner) for owner in sorted(owners)}
        expected = sorted(best, key=lambda owner: -best[owner])
        assert [hit.passage_id for hit in ranking.best] == expected
        assert [hit.passage_id for hit in ranking.placed] == expected
        assert ranking.ranks == tuple(range(1, len(expected) + 1))
        np.testing.assert_allclose([hit.score for hit in ranking.best], [best[i] for i in expected], rtol=1e-5)
        assert all(scores[hit.chunk] == pytest.approx(hit.score, rel=1e-5) for hit in ranking.best)
    hits = searched(by, owners, vectors).search(queries, 2, texts)
    assert hits == [list(ranking.best[:2]) for ranking in found]


def test_hard_negatives_are_found_by_the_vectors_that_are_trained():
    vectors = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    query = np.random.default_rng(4).standard_normal((1, 4)).astype(np.float32)
    given = (query, 3, ["a"], [["a"]], lambda positive: math.inf)
    dense, hybrid = (searched(by, list("abcde"), vectors) for by in ("dense", "hybrid"))
    assert hybrid.hard_negatives(*given) == dense.hard_negatives(*given)
    assert hybrid.dense.search(query, 5) == dense.search(query, 5) != hybrid.search(query, 5, [QUERY])


@pytest.mark.parametrize("name", NAMES)
def test_terms_of_two_indexes_do_not_pass_for_one(name, tmp_path: Path):
    cache, terms, other = IndexCache(tmp_path), index_terms(TEXTS), index_terms(["another", "text"])
    cache.write_arrays("a", {n: getattr(other if n == name else terms, n) for n in NAMES})
    found = cache.read_arrays("a", NAMES)
    assert found is not None
    assert not Terms(**found).is_whole
    assert terms.is_whole
