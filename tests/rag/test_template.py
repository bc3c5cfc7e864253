"""A prompt template of one's own: what it may be, and that a prompt is the text that LlamaIndex would make of it."""

from __future__ import annotations

import pytest
from tiny_federation import tiny_config
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.errors import ConfigError, ModelError
from fedrag.passes.decoding import decode
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.prompt import PromptBuilder
from fedrag.types import Example
from fedrag.weights.store import find_model

pytestmark = pytest.mark.usefixtures("tiny_home")

DEFAULT_OF_LLAMA_INDEX = (
    "Context information is below.\n---------------------\n{context_str}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {query_str}\nAnswer: "
)
ASKS_FIRST = "Read for this question: {query_str}\n\n{context_str}\n\nAnswer it: "
TEMPLATES = [DEFAULT_OF_LLAMA_INDEX, ASKS_FIRST, "{context_str}\n\n{query_str}", "{query_str} {context_str}"]
TEXTS = ["one", "two\n\nlines", "three"]


def builder_of(template: str, chat: bool = True, **rag) -> tuple[PromptBuilder, object]:
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    if not chat:
        tokenizer.chat_template = None
    return PromptBuilder(tokenizer, RagConfig(template=template, **rag), seq2seq=False), tokenizer


def filled(template: str, n_passages: int) -> str:
    return template.format(context_str="\n\n".join(TEXTS[:n_passages]), query_str="Who?")


@pytest.mark.parametrize("n_passages", [1, 2, 3])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_model_is_sent_the_filled_template_alone(template: str, n_passages: int):
    builder, tokenizer = builder_of(template, passages=n_passages)
    message = [{"role": "user", "content": filled(template, n_passages)}]
    expected = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(builder.example("Who?", TEXTS[:n_passages]).prompt) == expected


def test_an_instruction_of_ones_own_is_the_system_message():
    builder, tokenizer = builder_of(ASKS_FIRST, instruction="Be brief.")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": filled(ASKS_FIRST, 2)},
    ]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(builder.example("Who?", TEXTS[:2]).prompt) == expected


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_model_without_a_chat_template_reads_the_filled_template(template: str):
    """An answer brings the space before it along."""
    builder, tokenizer = builder_of(template, chat=False)
    prompt = builder.example("Who?", TEXTS[:2], builder.answer("Ann", end=False))
    assert tokenizer.decode(prompt.prompt + prompt.answer) == filled(template, 2).rstrip(" ") + " Ann"


def test_without_passages_a_template_has_the_question_alone():
    builder, tokenizer = builder_of("Quiz: {query_str}\nAnswer:", chat=False, passages=0)
    assert tokenizer.decode(builder.example("Who?", []).prompt) == "Quiz: Who?\nAnswer:"


@pytest.mark.parametrize(
    ("template", "passages", "told"),
    [
        ("{context}\n{question}", 2, "must have {context_str} and {query_str} once, .* it has {context}, {question}"),
        ("{context_str}", 2, "it has {context_str}"),
        ("{context_str} {query_str} {query_str}", 2, "once"),
        ("{context_str} {query_str} {date}", 2, "no other place in braces; it has .*{date}"),
        ("no place", 2, "it has none"),
        ("{context_str} {query_str}", 0, "rag.passages is 0: leave the place out"),
    ],
)
def test_a_template_without_its_places_is_refused(template: str, passages: int, told: str):
    with pytest.raises(ConfigError, match=told):
        tiny_config(rag={"template": template, "passages": passages}, federation={"schedule": "generator"})


def test_braces_that_are_no_places_stand_as_they_are():
    builder, tokenizer = builder_of('{context_str} {"q": "{query_str}", "n": {}}', chat=False)
    assert tokenizer.decode(builder.example("Who?", ["one"]).prompt) == 'one {"q": "Who?", "n": {}}'


@pytest.mark.parametrize("template", [ASKS_FIRST, "{context_str} -- {query_str}"])
def test_an_adapter_that_acts_from_the_question_on_needs_words_before_it(template: str):
    with pytest.raises(ConfigError, match='adapter_from = "question" needs .*; set "start"'):
        tiny_config(rag={"template": template}, generator={"adapter_from": "question"})


def test_a_chat_template_that_changes_the_words_is_refused():
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | replace('Answer', 'Reply') }}{% endfor %}"
    with pytest.raises(ModelError, match=r"it changes the words of rag\.template"):
        PromptBuilder(tokenizer, RagConfig(template=DEFAULT_OF_LLAMA_INDEX), seq2seq=False)


def test_words_that_a_chat_template_would_trim_are_trimmed():
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}"
    builder = PromptBuilder(tokenizer, RagConfig(template=DEFAULT_OF_LLAMA_INDEX), seq2seq=False)
    text = tokenizer.decode(builder.example("Who?", TEXTS[:2]).prompt)
    assert text == f"[{filled(DEFAULT_OF_LLAMA_INDEX, 2).strip()}]"


def test_what_does_not_fit_is_cut_and_the_template_stays_whole():
    for template in TEMPLATES:
        free, tokenizer = builder_of(template, prompt_tokens=100_000)
        builder, _ = builder_of(template, prompt_tokens=400)
        long = ["a" * 500, "b" * 500]
        prompt = builder.example("Who?", long).prompt
        assert len(prompt) <= 400 < len(free.example("Who?", long).prompt)
        text = tokenizer.decode(prompt)
        kept = text.replace("a" * text.count("aa"), "").replace("b" * text.count("bb"), "")
        for words in ("Who?", *RagConfig(template=template).template_parts):
            assert words.strip() in kept


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_fast_passes_give_what_plain_ones_give(template: str, load_generator):
    """A question before the passages leaves little to share; what is shared must be the beginning of both prompts."""
    generator = load_generator("causal")
    builder = PromptBuilder(generator.tokenizer, RagConfig(template=template), seq2seq=False)
    answer = builder.answer("Ann", end=True)
    asked = [("Who?", TEXTS[:2]), ("Who?", TEXTS[1:]), ("Where is it?", TEXTS[:2]), ("Where is it?", TEXTS[:1])]
    examples = [builder.example(question, passages, answer) for question, passages in asked]
    plain = [Example(example.prompt, example.answer) for example in examples]
    for one, other in zip(examples, plain, strict=True):
        alone = score_answers(generator, [other])
        assert score_answers(generator, [one]) == pytest.approx(alone, abs=1e-4)
    assert score_answers(generator, examples) == pytest.approx(score_answers(generator, plain), abs=1e-4)
    prompts = [Example(example.prompt, prefix_ends=example.prefix_ends) for example in examples]
    assert decode(generator, prompts, 6) == decode(generator, [Example(example.prompt) for example in plain], 6)
