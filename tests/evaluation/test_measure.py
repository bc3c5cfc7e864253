"""Measuring: distinct questions, each metric where it can be measured, means by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions
from fedrag.evaluation.measure import measure_site
from fedrag.evaluation.records import METRICS, Measured, summarise, summarise_by_site
from fedrag.rag.indexing import build_index
from fedrag.types import Passage, Question, Site

PASSAGES = (
    Passage("rye", "The rye dough rests for eighteen hours. " * 4, "Rye bread"),
    Passage("tyre", "A flat tyre is repaired for four crowns."),
    Passage("tram", "Tram line 3 runs to the zoo."),
)
QUESTIONS = (
    Question("q1", "How long does it rest?", ("eighteen hours",), ("rye",)),
    Question("q2", "Where does the tram go?", ("to the zoo",), ("tram", "rye")),
    Question("q3", "how long  does it REST?", ("18 hours", "eighteen hours"), ("tyre",)),
    Question("q4", "Who is the mayor?", ("nobody",)),
)
SITE = Site("east", PASSAGES, test=QUESTIONS)


def config_of(**sections: Any) -> Config:
    models = {"generator": "fedrag/tiny-causal", "retriever": "fedrag/tiny-encoder", "generator_dtype": "float32"}
    rag = {"passages": 2, "chunk_overlap": 8, "answer_tokens": 4}
    return Config.from_dict({"name": "m", "data": {"sites": "x"}, "models": models, "rag": rag, **sections})


def test_questions_with_the_same_text_are_one_with_the_answers_and_passages_of_all():
    assert distinct_questions(QUESTIONS) == [
        Question("q1", "How long does it rest?", ("eighteen hours", "18 hours"), ("rye", "tyre")),
        QUESTIONS[1],
        QUESTIONS[3],
    ]


def test_retrieval_metrics_are_those_of_brute_force(load_retriever):
    retriever = load_retriever()
    measured = measure_site(SITE, "test", config_of(), retriever, None)
    assert [item.question_id for item in measured] == ["q1", "q2", "q4"]
    encoder = retriever.encoder
    texts = {p.id: p.full_text for p in PASSAGES}
    index = build_index(retriever, PASSAGES, 8)
    vectors = encoder.encode_document(list(index.texts), normalize_embeddings=True)
    for item, question in zip(measured, distinct_questions(QUESTIONS), strict=True):
        similarities = vectors @ encoder.encode_query([question.question], normalize_embeddings=True)[0]
        best = {p: max(s for s, q in zip(similarities, index.passage_ids, strict=True) if p == q) for p in texts}
        ranked = sorted(best, key=lambda p: -best[p])
        assert item.retrieved == tuple(ranked[:2])
        assert item.answer is None
        assert [item.metrics[name] for name in ("exact_match", "f1", "rouge_l")] == [None] * 3
        if not question.passage_ids:
            assert all(value is None for value in item.metrics.values())
            continue
        ranks = [ranked.index(p) + 1 for p in question.passage_ids]
        gain = sum(1 / np.log2(rank + 1) for rank in ranks)
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, len(ranks) + 1))
        assert item.metrics["recall_at_1"] == float(min(ranks) == 1)
        assert item.metrics["recall_at_5"] == 1.0
        assert item.metrics["mrr"] == pytest.approx(1 / min(ranks))
        assert item.metrics["ndcg_at_10"] == pytest.approx(gain / ideal)


def test_with_a_generator_every_question_has_an_answer_and_its_metrics(load_retriever, load_generator):
    done: list[tuple[str, int, int]] = []
    measured = measure_site(
        SITE, "test", config_of(), load_retriever(), load_generator(), lambda *told: done.append(told)
    )
    assert all(isinstance(item.answer, str) for item in measured)
    assert all(item.metrics["f1"] is not None for item in measured)
    assert measured[2].metrics["mrr"] is None
    assert measured[0].metrics["mrr"] is not None
    assert done[-1] == ("answers of east", 3, 3)


def test_what_was_cut_is_counted_where_answers_are_generated(load_retriever, load_generator):
    retriever, generator = load_retriever(), load_generator()
    config = config_of(rag={"passages": 2, "chunk_overlap": 8, "prompt_tokens": 330, "answer_tokens": 4})
    items = measure_site(SITE, "test", config, retriever, generator)
    rye = [item.question_id for item in items if "rye" in item.retrieved]
    assert rye  # the only passage that does not fit beside another
    assert [item.question_id for item in items if item.cut.get("passages")] == rye
    assert summarise(items)["cut"] == {"prompts": len(rye), "passages": len(rye), "answers": 3}
    assert all(item.cut == {} for item in measure_site(SITE, "test", config, retriever, None))


def test_a_split_without_questions_measures_nothing(load_retriever):
    assert measure_site(SITE, "validation", config_of(), load_retriever(), None) == []


def measured(site: str, **metrics: float | None) -> Measured:
    return Measured(site, "q", (), None, dict.fromkeys(METRICS) | metrics)


def test_means_are_over_the_questions_that_have_the_metric():
    items = [measured("a", f1=1.0, mrr=0.5), measured("a", f1=0.0, mrr=None), measured("b", f1=0.5, mrr=0.0)]
    summary = summarise_by_site(items)
    assert summary["overall"]["n_questions"] == 3
    assert summary["overall"]["f1"] == 0.5
    assert summary["overall"]["mrr"] == 0.25
    assert summary["overall"]["exact_match"] is None
    assert summary["sites"]["a"] == {**dict.fromkeys(METRICS), "n_questions": 2, "f1": 0.5, "mrr": 0.5}
    assert summary["sites"]["b"]["mrr"] == 0.0  # measured, and zero
    assert list(summary["sites"]) == ["a", "b"]


def test_nothing_measured_has_no_means():
    assert summarise([]) == {"n_questions": 0, **dict.fromkeys(METRICS)}


def test_without_a_right_answer_retrieval_alone_is_measured(load_retriever, load_generator):
    pair = Question("q5", "Where is it repaired?", (), ("tyre",))
    site = Site("east", PASSAGES, test=(pair, *QUESTIONS))
    first, *others = measure_site(site, "test", config_of(), load_retriever(), load_generator())
    assert first.answer is None
    assert [name for name in METRICS if first.metrics[name] is None] == ["exact_match", "f1", "rouge_l"]
    alone = measure_site(SITE, "test", config_of(), load_retriever(), load_generator())
    assert [item.answer for item in others] == [item.answer for item in alone]
