"""The retriever's examples: no right passage ever counts as wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import ContrastiveConfig, LsrConfig
from fedrag.rag.indexing import build_index
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.training.retriever_examples import (
    PassageText,
    RetrieverExample,
    add_hard_negatives,
    choose_candidates,
    draw_hard_negatives,
    draw_questions,
    labelled_examples,
    lsr_pairs,
    merge_examples,
    scored_examples,
    shortener,
)
from fedrag.types import Hit, Passage, Question


def index_of(*names: str) -> PassageIndex:
    return PassageIndex(names, [f"text of {name}" for name in names], np.eye(len(names), dtype=np.float32))


INDEX = index_of("p0", "p1", "p2", "p3", "p4")
HITS = [Hit(f"p{i}", score, i) for i, score in enumerate((0.9, 0.8, 0.7, 0.6, 0.5))]


# Labelled examples


def test_there_is_an_example_for_every_question_and_labelled_passage(load_retriever):
    questions = [
        Question("a", "Who is it?", ("x",), ("p1", "p2")),
        Question("b", "Where?", ("y",)),
        Question("c", "who  is IT?", ("x",), ("p0",)),
    ]
    passages = [Passage(f"p{i}", f"passage {i}") for i in range(4)]
    examples = labelled_examples(load_retriever(), questions, passages, 0, train_tokens=32)
    assert [(e.question, e.positive) for e in examples] == [
        ("Who is it?", PassageText("p1", "passage 1")),
        ("Who is it?", PassageText("p2", "passage 2")),
        ("who  is IT?", PassageText("p0", "passage 0")),
    ]
    # The same question in another spelling has the right passages of both.
    assert all(example.right_ids == {"p0", "p1", "p2"} for example in examples)


def test_a_long_passage_stands_for_itself_by_its_chunk_with_the_answer(load_retriever):
    retriever = load_retriever()
    text = "The dough rests. " * 6 + "Caraway is added on Fridays. " + "The oven is hot. " * 6
    question = Question("q", "When?", ("on  Mondays", "FRIDAYS"), ("p",))
    (example,) = labelled_examples(retriever, [question], [Passage("p", text)], 0, train_tokens=34)
    assert example.positive is not None
    assert "Fridays" in example.positive.text
    assert len(example.positive.text) <= 32  # a token a byte, two of them special
    lost = Question("q", "When?", ("nowhere to be found",), ("p",))
    (example,) = labelled_examples(retriever, [lost], [Passage("p", text)], 0, train_tokens=34)
    assert example.positive is not None
    assert text.startswith(example.positive.text)


LONG = Passage("p", "The dough rests. " * 6 + "Caraway is added on Fridays. " + "The oven is hot. " * 6, "Rye bread")


@pytest.mark.parametrize("chunk_tokens", [0, 40])
def test_training_reads_the_chunks_of_the_index(load_retriever, chunk_tokens):
    """Labelled passages were once cut to 128 tokens in training, whatever was searched and put against them."""
    retriever = load_retriever(chunk_tokens=chunk_tokens)
    size = chunk_tokens or 62
    index = build_index(retriever, (LONG,), 8)
    assert max(map(len, index.texts)) in range(size - 8, size + 1)  # a token a byte; chunks end between words
    (example,) = labelled_examples(retriever, [Question("q", "When?", ("Fridays",), ("p",))], [LONG], 8)
    assert example.positive is not None
    assert example.positive.text in list(index.texts)
    assert "Fridays" in example.positive.text
    candidates = scored_examples([Question("q", "When?", ("x",))], [[Hit("p", 1.0, 1)]], [-1.0], index)
    assert candidates[0].candidates == (PassageText("p", index.texts[1]),)


def test_a_hard_negative_is_as_long_as_a_labelled_passage(load_retriever):
    """Hard negatives were whole chunks beside labelled passages of half their size."""
    retriever = load_retriever()
    index = build_index(retriever, (LONG, Passage("other", "short")), 8)
    question = Question("q", "When?", ("short",), ("other",))
    for train_tokens, most in ((0, 62), (34, 32)):
        examples = labelled_examples(retriever, [question], [LONG, Passage("other", "short")], 8, train_tokens)
        shorten, queries = shortener(retriever, train_tokens), retriever.encode_queries(["When?"])
        settings = ContrastiveConfig(hard_negatives=1, hard_negative_margin=0.0)
        (found,) = add_hard_negatives(examples, queries, index, settings, shorten)
        (negative,) = found.hard_negatives
        assert len(negative.text) <= most
        assert any(text.startswith(negative.text) for text in index.texts)
        assert (negative.text in list(index.texts)) == (train_tokens == 0)


# Hard negatives


def example_with(right: frozenset[str], positive: str) -> RetrieverExample:
    return RetrieverExample("Who?", right, PassageText(positive, f"text of {positive}"))


def hard_ids(example: RetrieverExample, **config: float) -> list[str]:
    settings = ContrastiveConfig.model_validate(config)
    query = np.array([[hit.score for hit in HITS]], np.float32)  # the vectors of the passages are unit vectors
    (found,) = add_hard_negatives([example], query, INDEX, settings)
    assert all(negative.text == f"text of {negative.passage_id}" for negative in found.hard_negatives)
    return [negative.passage_id for negative in found.hard_negatives]


def test_hard_negatives_are_the_best_retrieved_that_are_not_labelled():
    assert hard_ids(example_with(frozenset({"p0"}), "p0"), hard_negatives=2, hard_negative_margin=0) == ["p1", "p2"]
    assert hard_ids(example_with(frozenset({"p0", "p1", "p3"}), "p3"), hard_negatives=3, hard_negative_margin=0) == [
        "p2",
        "p4",
    ]
    assert hard_ids(example_with(frozenset({"p2"}), "p2"), hard_negatives=2, hard_negative_margin=0) == ["p0", "p1"]
    assert hard_ids(example_with(frozenset({"p0"}), "p0"), hard_negatives=0) == []


@pytest.mark.parametrize(("margin", "expected"), [(0.05, ["p2", "p3", "p4"]), (0.15, ["p3", "p4"]), (0.5, [])])
def test_a_hard_negative_is_less_similar_by_a_share_of_the_right_passages_similarity(margin, expected):
    example = example_with(frozenset({"p1"}), "p1")  # its similarity is 0.8
    assert hard_ids(example, hard_negatives=4, hard_negative_margin=margin) == expected


@pytest.mark.parametrize(("margin", "expected"), [(0, ["b", "c"]), (0.05, ["c"]), (0.5, ["d"]), (1.0, [])])
def test_the_share_of_a_negative_dot_product_lies_below_it_too(margin, expected):
    """95 % of -10 is -9.5, above it: every passage as similar as the right one would have been a hard negative."""
    index = PassageIndex(list("abcd"), list("abcd"), np.array([[-10.0], [-10.2], [-11.0], [-16.0]], np.float32))
    example = RetrieverExample("Who?", frozenset("a"), PassageText("a", "a"))
    settings = ContrastiveConfig(hard_negatives=2 if not margin else 1, hard_negative_margin=margin)
    (found,) = add_hard_negatives([example], np.ones((1, 1), np.float32), index, settings)
    assert [negative.passage_id for negative in found.hard_negatives] == expected


def test_the_sites_own_hard_negatives_come_first_and_are_not_found_again():
    named = (PassageText("p4", "text of p4"), PassageText("p1", "text of p1"))
    example = replace(example_with(frozenset({"p0"}), "p0"), hard_negatives=named)
    assert hard_ids(example, hard_negatives=3, hard_negative_margin=0) == ["p4", "p1", "p2"]
    assert hard_ids(example, hard_negatives=1, hard_negative_margin=0) == ["p4", "p1"]


def test_of_many_hard_negatives_that_a_site_names_as_many_as_the_scenario_says_are_drawn():
    """All were used, whatever their number: thirty for each question make a batch that fits nowhere."""
    named = tuple(PassageText(f"p{i}", f"text of p{i}") for i in range(30))
    many, few = replace(example_with(frozenset(), "q"), hard_negatives=named), example_with(frozenset(), "q")
    drawn = [draw_hard_negatives([many, few, many], 3, seed) for seed in range(20)]
    assert drawn == [draw_hard_negatives([many, few, many], 3, seed) for seed in range(20)]
    first, second, third = drawn[0]
    assert (len(first.hard_negatives), second, len(third.hard_negatives)) == (3, few, 3)
    assert {text for some in drawn for example in some for text in example.hard_negatives} == set(named)
    assert [len(example.hard_negatives) for example in draw_hard_negatives([many, few], 0, 0)] == [0, 0]
    assert draw_hard_negatives([many], 30, 0) == [many]


# Candidates and scores


def ranking_of(*labelled: str) -> Ranking:
    ranks = [rank for rank, hit in enumerate(HITS, start=1) if hit.passage_id in labelled]
    return Ranking(tuple(HITS[:3]), tuple(HITS[rank - 1] for rank in ranks), tuple(ranks))


def test_candidates_are_the_best_retrieved():
    assert choose_candidates(ranking_of("p4"), LsrConfig(candidates=3)) == HITS[:3]


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [
        (("p4",), {"p0", "p1", "p4"}),
        (("p0",), {"p0", "p1", "p2"}),
        (("p2", "p4"), {"p0", "p2", "p4"}),
        (("p1", "p3", "p4"), {"p1", "p3", "p4"}),
        ((), {"p0", "p1", "p2"}),
    ],
)
def test_labelled_passages_take_the_place_of_the_last_others(labelled, expected):
    """A labelled passage that was retrieved last was once pushed out by one that was not retrieved."""
    chosen = choose_candidates(ranking_of(*labelled), LsrConfig(candidates=3, include_labelled=True))
    assert {hit.passage_id for hit in chosen} == expected
    assert len(chosen) == 3


def test_a_pair_is_one_passage_and_the_first_answer_without_end_token(load_generator):
    generator = load_generator()
    passages = {name: Passage(name, f"text of {name}") for name in ("p0", "p1")}
    questions = [Question("a", "Who?", ("Ada", "Bob")), Question("b", "Where?", ("Rome",))]
    pairs = lsr_pairs(generator, questions, [HITS[:2], HITS[1:2]], passages, INDEX, RagConfig())
    texts = [(generator.tokenizer.decode(p.prompt), generator.tokenizer.decode(p.answer)) for p in pairs]
    assert [answer for _, answer in texts] == ["Ada", "Ada", "Rome"]
    asked = [("p0", "Who?"), ("p1", "Who?"), ("p1", "Where?")]
    for (prompt, _), (name, question) in zip(texts, asked, strict=True):
        assert f"Passage: text of {name}\n\nQuestion: {question}<|im_end|>" in prompt
        assert prompt.count("Passage:") == 1


def test_scores_are_dealt_to_the_questions_they_belong_to():
    questions = [Question("a", "Who?", ("x",)), Question("b", "Where?", ("y",))]
    examples = scored_examples(questions, [HITS[:3], HITS[3:5]], [-1.0, -2.0, -3.0, -4.0, -5.0], INDEX)
    assert [e.answer_scores for e in examples] == [(-1.0, -2.0, -3.0), (-4.0, -5.0)]
    assert [c.passage_id for c in examples[1].candidates] == ["p3", "p4"]
    assert examples[1].candidates[0].text == "text of p3"


def test_a_question_carries_its_scores_once_and_its_labels_as_often_as_it_has_them():
    labelled = [
        RetrieverExample("Who?", frozenset({"p0", "p1"}), PassageText("p0", "0")),
        RetrieverExample("Who?", frozenset({"p0", "p1"}), PassageText("p1", "1")),
    ]
    scored = [
        RetrieverExample("Who?", candidates=(PassageText("p2", "2"),), answer_scores=(-1.0,)),
        RetrieverExample("Where?", candidates=(PassageText("p3", "3"),), answer_scores=(-2.0,)),
    ]
    merged = merge_examples(labelled, scored)
    assert [(e.question, e.positive is not None, e.answer_scores) for e in merged] == [
        ("Who?", True, (-1.0,)),
        ("Who?", True, ()),
        ("Where?", False, (-2.0,)),
    ]
    assert merge_examples([], scored) == scored
    assert merge_examples(labelled, []) == labelled


def test_questions_are_drawn_with_the_seed_and_keep_their_order():
    questions = [Question(str(i), "Who?", ("x",)) for i in range(50)]
    drawn = draw_questions(questions, 10, seed=3)
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=lambda q: int(q.id))
    assert drawn == draw_questions(questions, 10, seed=3)
    assert drawn != draw_questions(questions, 10, seed=4)
    assert draw_questions(questions, 0, seed=3) == draw_questions(questions, 99, seed=3) == questions


def test_the_hard_negatives_that_a_site_names_come_first_and_none_is_right_for_the_same_question(load_retriever):
    passages = [Passage(f"p{i}", f"passage {i}") for i in range(4)]
    questions = [
        Question("a", "Who?", (), ("p0",), ("p3", "p1")),
        Question("b", "who?", ("x",), ("p1",), ("p2",)),
    ]
    first, second = labelled_examples(load_retriever(), questions, passages, 0, train_tokens=32)
    assert first.hard_negatives == (PassageText("p3", "passage 3"),)
    assert second.hard_negatives == (PassageText("p2", "passage 2"),)
