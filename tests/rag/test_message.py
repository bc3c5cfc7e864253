"""A prompt as one text, and back: what another library fills in becomes the prompt that was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from tiny_federation import SHIPPED, tiny_config

from fedrag.config.rag_settings import RagConfig
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError
from fedrag.evaluation.answerer import Answerer
from fedrag.rag.message import message_text, parse_message
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.wording import wording_of

RAGS = [
    {},
    {"labels": "zh"},
    {"template": "Read:\n{context_str}\nQuery: {query_str}\nAnswer: "},
    {"template": "Q: {query_str}\nRead: {context_str}\nA: "},
    {"template": "{context_str}\n{query_str}", "instruction": "Be brief."},
]


@pytest.mark.parametrize("texts", [["one"], ["one", "two\nlines", "three"]])
@pytest.mark.parametrize("rag", RAGS)
def test_a_message_is_taken_apart_as_it_was_put_together(rag: dict[str, str], texts: list[str]):
    wording = wording_of(RagConfig(**rag))
    assert parse_message(wording, message_text(wording, "Who is it?", texts)) == ("Who is it?", texts)


@pytest.mark.parametrize("message", ["Hello.", "Passage: one\n\nWho?", "Read:\none\nWho?\nAnswer: "])
def test_a_message_of_another_form_is_told_from_them(message: str):
    for rag in RAGS[:4]:
        assert parse_message(wording_of(RagConfig(**rag)), message) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rag", [RAGS[0], RAGS[2], RAGS[3]])
def test_a_message_gets_the_answer_that_its_question_gets(
    rag: dict[str, str], dtype: Literal["float32", "bfloat16"], tiny_home: Path
):
    site = load_site(SHIPPED / "north")
    config = tiny_config(rag={"prompt_tokens": 320, **rag}, models={"generator_dtype": dtype})
    answerer = Answerer(config, {}, site)
    questions = [question.question for question in site.test]
    for question, expected in zip(questions, answerer.answer(questions), strict=True):
        texts = [one.passage.full_text for one in expected.found]
        assert answerer.complete(message_text(wording_of(answerer.config.rag), question, texts)) == expected.answer


def test_another_message_is_the_users_own(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    answerer = Answerer(tiny_config(rag={"instruction": "Be brief."}), {}, load_site(SHIPPED / "north"))
    read: list[str] = []
    real = PromptBuilder.fitted_example

    def spy(builder, *given):
        example = real(builder, *given)
        read.append(builder._tokenizer.decode(example.prompt))
        return example

    monkeypatch.setattr(PromptBuilder, "fitted_example", spy)
    answerer.complete("Say something.")
    assert read == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay something.<|im_end|>\n<|im_start|>assistant\n"
    ]
    with pytest.raises(ConfigError, match="longer than the 192 tokens"):
        answerer.complete("Say something. " * 50)
