"""The pipeline: finds chunks of passages, distributes passages over prompts, returns the likeliest answer."""

from __future__ import annotations

import numpy as np
import pytest

from fedrag.config.rag_settings import RagConfig
from fedrag.passes.decoding import decode
from fedrag.rag.answer_scores import mean_log_probabilities
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import Retrieved, generate_answers, prompt_builder, prompt_groups, retrieve
from fedrag.rag.window import shown_passage
from fedrag.types import Example, Passage

PASSAGES = [
    Passage("rye", "The rye dough rests for eighteen hours. " * 5, "Rye bread"),
    Passage("tram", "Tram line 3 runs to the zoo."),
    Passage("owl", "A copper owl sits on the roof of the clock tower."),
]
SHOWN = [shown_passage(passage) for passage in PASSAGES]


def answer_texts(*given):
    return [answered.text for answered in generate_answers(*given)]


def test_a_long_passage_is_found_by_its_best_chunk(load_retriever):
    retriever = load_retriever()
    index = build_index(retriever, PASSAGES, overlap=8)
    assert len(index) == 3
    assert len(index.texts) > 3
    assert all(
        text.startswith("Rye bread\n") for text, p in zip(index.texts, index.passage_ids, strict=True) if p == "rye"
    )
    question = "How long does the dough rest?"
    query = retriever.encoder.encode_query([question], normalize_embeddings=True)[0]
    chunks = retriever.encoder.encode_document(list(index.texts), normalize_embeddings=True)
    similarities = chunks @ query
    best = {
        p: max(s for s, q in zip(similarities, index.passage_ids, strict=True) if q == p) for p in index.passage_ids
    }
    (hits,) = retrieve(retriever, index, [question], 3)
    assert [hit.passage_id for hit in hits] == sorted(best, key=lambda p: -best[p])
    np.testing.assert_allclose([hit.score for hit in hits], sorted(best.values(), reverse=True), atol=1e-5)


def test_retrieval_answers_every_question_also_one_that_is_asked_twice(load_retriever):
    retriever = load_retriever()
    index = build_index(retriever, PASSAGES, overlap=8)
    one, two, again = retrieve(retriever, index, ["When?", "Where?", "When?"], 2)
    assert one == again
    assert one != two
    assert retrieve(retriever, index, [], 2) == []


@pytest.mark.parametrize(("size", "expected"), [(0, [(0, 3)]), (1, [(0, 1), (1, 1), (2, 1)]), (2, [(0, 2), (2, 1)])])
def test_passages_are_dealt_to_prompts(size, expected):
    config = RagConfig(passages=3, passages_per_prompt=size)
    assert [(start, len(group)) for start, group in prompt_groups(SHOWN, config)] == expected


def test_a_question_without_passages_still_has_one_prompt():
    for size in (0, 1):
        groups = prompt_groups((), RagConfig(passages=3, passages_per_prompt=size))
        assert [(start, len(group)) for start, group in groups] == [(0, 0)]


QUESTIONS = ["Who?", "What sits on the roof of the clock tower?", "When does the last tram leave?"]


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_answers_in_batches_are_those_of_one_question_at_a_time(load_generator, kind):
    generator = load_generator(kind)
    config = RagConfig(answer_tokens=6)
    asked = [Retrieved(q, tuple(SHOWN[i:]), (0.9, 0.5, 0.1)[i:]) for i, q in enumerate(QUESTIONS)]
    together = answer_texts(generator, asked, config, 100_000, 0.05)
    alone = [answer_texts(generator, [item], config, 1, 0.05)[0] for item in asked]
    assert together == alone
    assert any(together)


@pytest.mark.parametrize("temperature", [0.01, 1e6])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_with_a_prompt_a_passage_the_likeliest_pair_of_passage_and_answer_wins(load_generator, kind, temperature):
    generator = load_generator(kind)
    config = RagConfig(passages=3, passages_per_prompt=1, answer_tokens=5)
    scores = (0.30, 0.29, 0.28)
    asked = [Retrieved(question, tuple(SHOWN), scores) for question in QUESTIONS]
    builder = prompt_builder(generator, config)
    expected = []
    for question in QUESTIONS:
        joint = {}
        for passage, score in zip(PASSAGES, scores, strict=True):
            prompt = builder.example(question, [passage.full_text]).prompt
            ids = decode(generator, [Example(prompt)], 6)[0]
            text = builder.text(ids[:5])
            answer = builder.answer(text, end=builder.end_id in ids) or ids[:5]
            p_passage = np.exp(score / temperature) / sum(np.exp(s / temperature) for s in scores)
            p_answer = np.exp(np.float64(mean_log_probabilities(generator, [Example(prompt, answer)])[0]) * len(answer))
            joint[text] = max(joint.get(text, 0.0), p_passage * p_answer)
        expected.append(max(joint, key=joint.__getitem__))
    assert answer_texts(generator, asked, config, 1000, temperature) == expected


def test_the_retriever_has_a_say_in_which_answer_wins(load_generator):
    """With a small temperature the best retrieved passage wins, whatever the generator scores."""
    generator = load_generator()
    config = RagConfig(passages=1, answer_tokens=5)
    alone = {
        p.id: answer_texts(generator, [Retrieved("Who?", (shown,), (0.5,))], config, 1000, 1.0)[0]
        for p, shown in zip(PASSAGES, SHOWN, strict=True)
    }
    assert len(set(alone.values())) > 1
    config = RagConfig(passages=3, passages_per_prompt=1, answer_tokens=5)
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        asked = [Retrieved("Who?", tuple(SHOWN[i] for i in order), (0.3, 0.2, 0.1))]
        assert answer_texts(generator, asked, config, 1000, 1e-4) == [alone[PASSAGES[order[0]].id]]


def test_progress_counts_prompts(load_generator):
    generator = load_generator()
    config = RagConfig(passages=2, passages_per_prompt=1, answer_tokens=2)
    asked = [Retrieved(question, tuple(SHOWN[1:]), (0.2, 0.1)) for question in QUESTIONS]
    done: list[tuple[int, int]] = []
    answer_texts(generator, asked, config, 400, 0.05, lambda so_far, total: done.append((so_far, total)))
    assert done[-1] == (6, 6)
    assert [so_far for so_far, _ in done] == sorted({so_far for so_far, _ in done})


@pytest.mark.parametrize(
    ("question", "passages", "size", "prompts", "cut_passages"),
    [
        ("Who?", SHOWN[1:], 0, 0, 0),
        ("Who?", SHOWN, 0, 1, 1),
        ("Who?", SHOWN, 1, 0, 0),
        ("Who? " * 60, SHOWN[1:], 0, 1, 0),
        ("Who? " * 60, SHOWN[1:], 1, 2, 0),
    ],
)
def test_what_is_cut_of_a_question_and_its_passages_is_counted(
    load_generator, question, passages, size, prompts, cut_passages
):
    generator = load_generator()
    config = RagConfig(instruction="Answer.", passages=3, passages_per_prompt=size, prompt_tokens=330, answer_tokens=3)
    scores = tuple(0.5 for _ in passages)
    [answered] = generate_answers(generator, [Retrieved(question, tuple(passages), scores)], config, 4000, 0.05)
    assert (answered.cut_prompts, answered.cut_passages) == (prompts, cut_passages)


def test_an_answer_is_cut_unless_it_ended_by_then(load_generator):
    generator = load_generator()
    asked = [Retrieved("Who?", tuple(SHOWN), (0.3, 0.2, 0.1))]
    [cut] = generate_answers(generator, asked, RagConfig(answer_tokens=3), 4000, 0.05)
    assert cut.is_cut
    third = decode(generator, [prompt_builder(generator, RagConfig()).example("Who?", SHOWN)], 3)[0][2]
    generator.model.generation_config.eos_token_id = third  # what it says third ends it
    [whole] = generate_answers(generator, asked, RagConfig(answer_tokens=3), 4000, 0.05)
    assert not whole.is_cut


def test_an_answer_has_at_most_the_tokens_that_were_asked_for(load_generator):
    generator = load_generator()
    config = RagConfig(answer_tokens=3)
    builder = prompt_builder(generator, config)
    ids = decode(generator, [builder.example("Who?", [])], 9)[0]
    assert generator.tokenizer.eos_token_id not in ids
    assert answer_texts(generator, [Retrieved("Who?", (), ())], config, 1000, 0.05) == [builder.text(ids[:3])]
