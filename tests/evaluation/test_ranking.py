import math
import random

import pytest
import pytrec_eval

from fedrag.evaluation.ranking import ndcg_at, recall_at, reciprocal_rank

MEASURES = {"success.1,5", "recip_rank", "ndcg_cut.10"}


def random_case(seed):
    random_ = random.Random(seed)
    passages = [f"p{i}" for i in range(random_.randint(1, 30))]
    ranked = random_.sample(passages, random_.randint(1, len(passages)))
    relevant = random_.sample(passages, random_.randint(1, min(15, len(passages))))
    return ranked, relevant


def test_measures_are_those_of_trec_eval():
    cases = {f"q{seed}": random_case(seed) for seed in range(500)}
    labels = {question: dict.fromkeys(relevant, 1) for question, (_, relevant) in cases.items()}
    scores = {
        question: {passage: float(-rank) for rank, passage in enumerate(ranked)}
        for question, (ranked, _) in cases.items()
    }
    expected = pytrec_eval.RelevanceEvaluator(labels, MEASURES).evaluate(scores)
    for question, (ranked, relevant) in cases.items():
        ranks = [rank for rank, passage in enumerate(ranked, start=1) if passage in relevant]
        measured = {
            "success_1": recall_at(ranks, 1),
            "success_5": recall_at(ranks, 5),
            "recip_rank": reciprocal_rank(ranks),
            "ndcg_cut_10": ndcg_at(ranks, len(relevant), 10),
        }
        assert measured == pytest.approx(expected[question], abs=1e-12)


def test_one_labelled_passage_among_the_first_is_enough_for_recall():
    assert recall_at([2, 50], 2) == 1.0
    assert recall_at([2, 50], 1) == 0.0


def test_rank_counts_over_the_whole_ranking():
    assert reciprocal_rank([1000]) == 1 / 1000


def test_perfect_ranking_has_gain_one_however_many_passages_are_labelled():
    assert ndcg_at(range(1, 4), 3, 10) == 1.0
    assert ndcg_at(range(1, 21), 20, 10) == 1.0


def test_labelled_passages_that_were_not_ranked_cost_gain():
    assert ndcg_at([1], 2, 10) == 1 / (1 + 1 / math.log2(3))


def test_nothing_ranked_scores_zero():
    assert recall_at([], 5) == reciprocal_rank([]) == ndcg_at([], 1, 5) == ndcg_at([], 0, 5) == 0.0
