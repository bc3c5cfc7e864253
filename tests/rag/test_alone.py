"""Questions that are answered together get the answers that they get alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from tiny_federation import SHIPPED, tiny_config

from fedrag.data.site_folder import load_site
from fedrag.models.resident import RoundModels
from fedrag.passes import decoding
from fedrag.passes.batch_invariant import ROWS, decode_invariant, invariant_batches
from fedrag.passes.decoding import Leads
from fedrag.rag import alone
from fedrag.rag.alone import SURE_LEAD, answer_as_if_alone
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import Retrieved, generate_answers, prompt_builder, retrieve
from fedrag.types import Example

SITE = load_site(SHIPPED / "north")
QUESTIONS = [question.question for question in SITE.questions]
REAL = {"generator": "HuggingFaceTB/SmolLM2-135M-Instruct", "retriever": "sentence-transformers/all-MiniLM-L6-v2"}


def ask_all(config, count: int):
    """Return a generator, questions with their passages, and what else `generate_answers` is given."""
    models = RoundModels(config, {})
    index = build_index(models.retriever, SITE.passages, config.rag.chunk_overlap)
    passages = {passage.id: passage for passage in SITE.passages}
    hits = retrieve(models.retriever, index, QUESTIONS[:count], config.rag.passages)
    asked = [Retrieved.of(q, found, passages, index) for q, found in zip(QUESTIONS, hits, strict=False)]
    return models.generator, asked, config.rag, 16_384, 1.0


@pytest.mark.parametrize("generator", ["fedrag/tiny-causal", "fedrag/tiny-seq2seq"])
def test_each_answer_is_that_of_the_question_alone(tiny_home: Path, generator: str):
    model, asked, *settings = ask_all(tiny_config(models={"generator": generator}), 16)
    expected = [generate_answers(model, [one], *settings)[0].text for one in asked]
    assert [reply.text for reply in answer_as_if_alone(model, asked, *settings)] == expected


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that takes the number of questions of each call."""
    calls: list[int] = []

    def count(generator, asked, *settings, **options):
        calls.append(len(asked))
        return generate_answers(generator, asked, *settings, **options)

    monkeypatch.setattr(alone, "generate_answers", count)
    return calls


def test_what_a_batch_could_turn_round_is_decoded_again_alone(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    model, asked, *settings = ask_all(tiny_config(), 6)
    leads = [reply.lead for reply in generate_answers(model, asked, *settings, watch=lambda *_: None)]
    assert all(0 < lead < 2 for lead in leads)
    calls = counted(monkeypatch)
    monkeypatch.setattr(alone, "SURE_LEAD", sorted(leads)[2])  # the third smallest is not sure either
    answer_as_if_alone(model, asked, *settings)
    assert calls == [6, 1, 1, 1]


def test_questions_with_several_prompts_are_answered_one_by_one(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    model, asked, *settings = ask_all(tiny_config(rag={"passages_per_prompt": 1}), 3)
    calls = counted(monkeypatch)
    answer_as_if_alone(model, asked, *settings)
    assert calls == [1, 1, 1]


def test_a_lead_is_a_part_of_the_largest_score_and_ends_with_the_answer():
    leads = Leads()
    for scores in ([[1.0, 5.0, -10.0], [4.0, -float("inf"), 2.0]], [[0.0, 8.0, 7.0], [1.0, 1.0, 0.5]]):
        leads(torch.zeros(2, 1), torch.tensor(scores))
    assert leads.smallest([[1, 1], [0, 2]], end_ids=[0]) == [0.125, 0.5]
    assert leads.smallest([[1, 1], [0, 2]], end_ids=[7]) == [0.125, 0.0]


def test_what_is_told_of_an_answer_begins_it_and_never_changes(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where an answer is in doubt, and is decoded again alone."""
    model, asked, *settings = ask_all(tiny_config(), 6)
    leads = sorted(reply.lead for reply in generate_answers(model, asked, *settings, watch=lambda *_: None))
    monkeypatch.setattr(alone, "SURE_LEAD", leads[2])
    told: dict[int, list[str]] = {row: [] for row in range(6)}
    replies = answer_as_if_alone(model, asked, *settings, lambda row, text: told[row].append(text))
    for row, reply in enumerate(replies):
        assert len(told[row]) >= settings[0].answer_tokens - 1
        assert all(reply.text.startswith(text) for text in told[row])


@pytest.mark.parametrize("adapter_from", ["start", "question"])
def test_in_bfloat16_nothing_is_decoded_twice(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch, adapter_from: Literal["start", "question"]
):
    config = tiny_config(models={"generator_dtype": "bfloat16"}, generator={"adapter_from": adapter_from})
    model, asked, *settings = ask_all(config, 2 * ROWS + 1)
    expected = [answer_as_if_alone(model, [one], *settings)[0].text for one in asked]
    calls = counted(monkeypatch)
    told: dict[int, list[str]] = {row: [] for row in range(len(asked))}
    replies = answer_as_if_alone(model, asked, *settings, lambda row, text: told[row].append(text))
    assert [reply.text for reply in replies] == expected
    assert calls == [len(asked)]
    for row, text in enumerate(expected):
        assert len(told[row]) >= settings[0].answer_tokens - 1
        assert all(text.startswith(begun) for begun in told[row])


def test_in_bfloat16_a_model_that_keeps_no_keys_answers_one_by_one(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    config = tiny_config(models={"generator": "fedrag/tiny-seq2seq", "generator_dtype": "bfloat16"})
    model, asked, *settings = ask_all(config, 3)
    calls = counted(monkeypatch)
    answer_as_if_alone(model, asked, *settings)
    assert calls == [1, 1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_scores_of_the_real_models_are_the_same_bits_however_many_ask():
    """By batch-invariant decoding, in what the machine computes in, at whatever place of a batch a prompt stands."""
    model, asked, rag, *_ = ask_all(tiny_config(models=REAL, rag={"prompt_tokens": 1024}), 12)
    builder = prompt_builder(model, rag)
    prompts = [builder.fitted_example(builder.fit(one.question, one.passages)) for one in asked]
    rows = max(invariant_batches(prompts), key=len)
    assert len(rows) > 4
    seen: list[torch.Tensor] = []
    handle = model.model.get_output_embeddings().register_forward_hook(lambda *each: seen.append(each[2].clone()))

    def scores(rows: list[int]) -> list[torch.Tensor]:
        """Return the scores (steps, vocabulary) of each row."""
        seen.clear()
        decode_invariant(model, [prompts[row] for row in rows], 3)
        return [torch.stack([step[place, -1] for step in seen]) for place in range(len(rows))]

    together, turned = scores(rows), scores(rows[::-1])[::-1]
    for place, row in enumerate(rows):
        assert torch.equal(together[place], turned[place])
        if place < 2:
            assert torch.equal(scores([row])[0], together[place])
    handle.remove()


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_a_batch_moves_no_score_of_the_real_models_by_half_of_a_sure_lead():
    """Then the token of a sure lead is the best one alone too."""
    config = tiny_config(models=REAL | {"generator_dtype": "float32"}, rag={"prompt_tokens": 1024})
    model, asked, rag, *_ = ask_all(config, 8)
    builder = prompt_builder(model, rag)
    prompts = [builder.fitted_example(builder.fit(one.question, one.passages)) for one in asked]

    def scores(batch: list[Example]) -> torch.Tensor:
        """Return the scores of the first token of each answer (rows, vocabulary)."""
        seen = []

        class Seeing(Leads):
            def __call__(self, input_ids, scores):
                seen.append(scores.float().clone())
                return scores

        with model.at_rest():
            decoding.decode(model, batch, 1, Seeing())
        return seen[0]

    together, apart = scores(prompts), torch.cat([scores([prompt]) for prompt in prompts])
    moved = (together - apart).abs().amax(dim=-1) / apart.abs().amax(dim=-1)
    assert 0 < moved.max().item() < SURE_LEAD / 2


def test_the_padding_of_a_batch_is_no_part_of_an_answer(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    """A token that ends one answer early, while the others of its batch go on."""
    model, asked, *settings = ask_all(tiny_config(rag={"prompt_tokens": 256, "answer_tokens": 8}), 4)
    prompts = [prompt_builder(model, settings[0]).example(one.question, one.passages) for one in asked]
    first, *others = decoding.decode(model, prompts, 8)
    ending = next(token for token in first[:6] if not any(token in ids for ids in others))
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [ending])
    together = [answered.answer_tokens for answered in generate_answers(model, asked, *settings)]
    assert together == [first.index(ending) + 1, 8, 8, 8]
