"""The budget of a prompt: it holds whatever the lengths, and one that holds nothing useful is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.errors import ConfigError
from fedrag.rag.budget import LEAST_TOKENS, check_budget, share_out
from fedrag.rag.prompt import PromptBuilder
from fedrag.weights.store import find_model


def builder_of(kind: str = "causal", **rag: Any) -> tuple[PromptBuilder, Any]:
    tokenizer = AutoTokenizer.from_pretrained(find_model(f"fedrag/tiny-{kind}").folder)
    return PromptBuilder(tokenizer, RagConfig(instruction="Answer.", **rag), seq2seq=kind == "seq2seq"), tokenizer


@given(st.integers(0, 5000), st.lists(st.integers(0, 5000), max_size=6), st.integers(0, 400))
def test_question_and_passages_never_take_more_than_the_room(question, passages, spare):
    room = LEAST_TOKENS * (1 + len(passages)) + spare
    most, limit = share_out(room, question, passages)
    read, shown = min(question, most), [min(passage, limit) for passage in passages]
    assert read + sum(shown) <= room
    assert read >= min(question, LEAST_TOKENS)
    assert all(s >= min(p, LEAST_TOKENS) for s, p in zip(shown, passages, strict=True))
    if question + sum(passages) <= room:
        assert (read, shown) == (question, passages)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("letters", [10, 300, 20_000])
@pytest.mark.usefixtures("tiny_home")
def test_a_prompt_is_never_longer_than_its_budget(kind, letters):
    """A question of 20,000 characters once made a prompt of its own length, without a passage."""
    builder, tokenizer = builder_of(kind, prompt_tokens=400)
    question = ("Who is it? " * 2000)[:letters].strip()
    prompt = builder.example(question, ["a" * 9000, "b" * 9000]).prompt
    text = tokenizer.decode(prompt)
    assert 300 < len(prompt) <= 400
    assert f"Question: {question[:100]}" in text
    assert text.count("aaa") == text.count("bbb") > 10


@pytest.mark.usefixtures("tiny_home")
def test_a_long_question_has_half_of_the_room_and_more_where_passages_leave_it():
    builder, _ = builder_of(prompt_tokens=400)
    question = "a" * 1000
    for passages, expected in ((["p" * 900] * 2, builder.room // 2), (["pp"], builder.room - 13), ([], builder.room)):
        fitted = builder.fit(question, passages)
        assert (len(fitted.question), fitted.question_tokens) == (expected, 1001)  # with the space before it


@pytest.mark.usefixtures("tiny_home")
def test_a_budget_that_cannot_hold_a_useful_piece_of_each_passage_is_refused():
    around = 400 - builder_of(prompt_tokens=400)[0].room
    with pytest.raises(ConfigError) as caught:
        builder_of(prompt_tokens=1)
    assert str(caught.value) == (
        f"rag.prompt_tokens = 1 cannot hold the instruction and its surroundings ({around} tokens), a question and 2 "
        f"passages with 16 tokens or more of each; expected at least {around + 48}"
    )
    builder_of(prompt_tokens=around + 48)
    for settings in ({"passages": 3}, {"prompt_tokens": around + 47}):
        with pytest.raises(ConfigError):
            builder_of(**{"prompt_tokens": around + 48} | settings)
    builder_of(prompt_tokens=around + 32, passages=3, passages_per_prompt=1)
    builder_of(prompt_tokens=around + 16, passages=0)


@pytest.mark.parametrize(("passages", "text"), [(0, "a question, with 16"), (1, "a question and a passage with 16")])
def test_the_refusal_counts_the_passages(passages, text):
    with pytest.raises(ConfigError, match=text):
        check_budget(10, 5, passages)
