"""Models with a sliding window: an adapter that acts from the question on, where prompt and answer fit the window.

The measure is PEFT's activated LoRA on the model as the stock library loads it, window and all, one whole text after
the other: no cache, no padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tiny_federation import tiny_config
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from fedrag.components.generator_steps import STEPS
from fedrag.components.model_check import check_model
from fedrag.components.shipped import SHIPPED
from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import LoraSection
from fedrag.errors import ConfigError
from fedrag.models.adapters import save_adapter
from fedrag.models.attention_window import window_of, without_window
from fedrag.models.generator import Generator
from fedrag.passes.decoding import decode
from fedrag.passes.prefix import remembers_all
from fedrag.passes.reading import answer_logits
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.pipeline import prompt_builder
from fedrag.types import Example
from fedrag.weights.fetch import fetch_models
from fedrag.weights.store import FetchedModel, find_model

LORA = LoraSection(rank=4, alpha=8.0)
ANSWER_TOKENS = 12
RAG = RagConfig(instruction="Answer.", answer_tokens=ANSWER_TOKENS)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 2048}
SMALL = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64}
LONG = "A long passage about an astronomer who found the moon first, one night in August."
# Prefixes and questions of very different lengths: padding stands before and between them.
ASKED = [
    ("Where?", [LONG, "It orbits Mars."], "Mars"),
    ("Who found it first, and by which telescope, on which night of the year?", ["No."], "Hall"),
    ("When?", ["No."], "in 1877"),
    ("What is it called?", [LONG], "Phobos"),
]


def mistral(window: int) -> PreTrainedConfig:
    return MistralConfig(**SMALL, sliding_window=window)


def gemma(window: int) -> PreTrainedConfig:
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3TextConfig(**SMALL, sliding_window=window, layer_types=kinds, query_pre_attn_scalar=16)


def qwen(window: int) -> PreTrainedConfig:
    slides = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    return Qwen2Config(**SIZES, num_key_value_heads=1, intermediate_size=64, **slides)


def gpt_neo(window: int) -> PreTrainedConfig:
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 2048}
    return GPTNeoConfig(**sizes, attention_types=[[["global", "local"], 1]], window_size=window)


MAKERS = pytest.mark.parametrize("make", [mistral, gemma, qwen, gpt_neo])
Fetch = Callable[[PreTrainedConfig], FetchedModel]


@pytest.fixture
def fetch(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Return a function that makes a random model of a configuration, with the tiny generator's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("fedrag.models.resident._RESIDENT", {})

    def make(config: PreTrainedConfig) -> FetchedModel:
        config.vocab_size = len(tokenizer)
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        folder = tmp_path / "windowed"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return fetch_models([str(folder)], "path")[0]

    return make


def examples_of(tokenizer_of: Generator) -> list[Example]:
    builder = prompt_builder(tokenizer_of, RAG)
    return [builder.example(question, texts, builder.answer(text, end=True)) for question, texts, text in ASKED]


def longest_of(examples: Sequence[Example]) -> int:
    return max(len(example.prompt) for example in examples) + ANSWER_TOKENS


@pytest.fixture
def longest(load_generator) -> int:
    """Tokens of the longest prompt with its answer."""
    return longest_of(examples_of(load_generator()))


def pair_of(fetched: FetchedModel, random_tensors, folder: Path) -> tuple[Generator, PeftModel]:
    """Return fedrag's generator, whose adapter acts from the question on, and PEFT's model with the same adapter."""
    generator = Generator.load(fetched, LORA, torch.float32, "cpu", whole_texts=True)
    generator.prefix_bytes = 1e9
    tensors = random_tensors(generator.parameters(), seed=7)
    generator.set_adapter(tensors)
    mark = prompt_builder(generator, RAG).question_mark
    save_adapter(folder, tensors, LORA, generator.targets, fetched.name, "CAUSAL_LM", mark)
    base = AutoModelForCausalLM.from_pretrained(fetched.folder, dtype=torch.float32)
    return generator, PeftModel.from_pretrained(base, folder, is_trainable=True).eval()


def logits_by_peft(model: PeftModel, batch: Sequence[Example]) -> torch.Tensor:
    found = []
    for example in batch:
        ids = torch.tensor([example.prompt + example.answer])
        found.append(model(input_ids=ids, use_cache=False).logits[0, len(example.prompt) - 1 : -1])
    return torch.cat(found)


@MAKERS
def test_loss_gradients_and_answers_are_peft_s_where_prompt_and_answer_just_fit(
    longest, fetch: Fetch, make, random_tensors, tmp_path
):
    generator, model = pair_of(fetch(make(longest)), random_tensors, tmp_path / "adapter")
    batch = examples_of(generator)
    assert window_of(model.base_model.model.config) == longest == longest_of(batch)
    logits, labels = answer_logits(generator, batch)
    theirs = logits_by_peft(model, batch)
    torch.testing.assert_close(logits, theirs, atol=1e-4, rtol=1e-4)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(theirs, labels).backward()
    gradients = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    for name, parameter in generator.parameters().items():
        torch.testing.assert_close(parameter.grad, gradients[f"base_model.model.{name}"], atol=1e-5, rtol=1e-3)
    prompts = [replace(example, answer=[]) for example in batch]
    for example, ids in zip(prompts, decode(generator, prompts, ANSWER_TOKENS), strict=True):
        ended = ids[: ids.index(generator.end_ids[0]) + 1] if generator.end_ids[0] in ids else ids
        assert ended == greedy_by_peft(model, example.prompt)[: len(ended)]


def greedy_by_peft(model: PeftModel, prompt: list[int]) -> list[int]:
    """Return the likeliest tokens, one whole text after the other: no cache."""
    text = list(prompt)
    with torch.inference_mode():
        for _ in range(ANSWER_TOKENS):
            text.append(int(model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
    return text[len(prompt) :]


@MAKERS
def test_with_its_window_the_same_passes_would_answer_otherwise(
    longest, fetch: Fetch, make, random_tensors, tmp_path, monkeypatch
):
    """Padding between a cached beginning and a short question would push the beginning out of the window."""
    fetched = fetch(make(longest))
    generator, _ = pair_of(fetched, random_tensors, tmp_path / "adapter")
    monkeypatch.setattr("fedrag.passes.prefix.remembers_all", lambda config: True)
    windowed = Generator.load(fetched, LORA, torch.float32, "cpu")
    windowed.prefix_bytes = 1e9
    windowed.set_adapter({name: p.detach().numpy() for name, p in generator.parameters().items()})
    prompts = [replace(example, answer=[]) for example in examples_of(generator)]
    assert decode(windowed, prompts, ANSWER_TOKENS) != decode(generator, prompts, ANSWER_TOKENS)


@MAKERS
def test_an_adapter_on_whole_prompts_that_are_longer_than_the_window_computes_as_the_stock_library(
    fetch: Fetch, make, random_tensors
):
    """GPT-Neo's local layers were not known as a window: padding after a shared beginning took places in it."""
    fetched = fetch(make(120))
    generator = Generator.load(fetched, LORA, torch.float32, "cpu")
    builder = prompt_builder(generator, RAG)
    pairs = [
        builder.example(question, [passage], builder.answer("in 1877", end=False))
        for passage in ("The moon orbits Mars. " * 4, "The moon orbits Mars. " * 5)
        for question in ("When?", "What is it called, and by whom?")
    ]
    assert all(example.length > 120 for example in pairs)
    stock = AutoModelForCausalLM.from_pretrained(fetched.folder, dtype=torch.float32)
    with torch.no_grad():
        logits = torch.cat(
            [
                stock(torch.tensor([e.prompt + e.answer]), use_cache=False).logits[0, len(e.prompt) - 1 : -1]
                for e in pairs
            ]
        )
        tokens = torch.tensor([token for example in pairs for token in example.answer])
        expected = logits.log_softmax(dim=-1).gather(1, tokens[:, None]).view(len(pairs), -1).mean(dim=1)
    found = torch.from_numpy(score_answers(generator, pairs))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@MAKERS
def test_the_trial_of_a_model_passes_with_an_adapter_from_the_question_on(fetch: Fetch, make):
    model = fetch(make(700))
    rag = {"prompt_tokens": 600, "answer_tokens": 16}
    config = tiny_config(models={"generator": model.name}, generator={"adapter_from": "question"}, rag=rag)
    findings = check_model(config, "generator", SHIPPED["generator"], model)
    assert [finding.text for finding in findings if not finding.is_ok] == []


@MAKERS
def test_longer_prompts_are_refused_with_the_numbers(fetch: Fetch, make):
    model = fetch(make(200))
    models = {"generator": model.name}
    settings = {"models": models, "generator": {"adapter_from": "question"}}
    STEPS.check_base(tiny_config(**settings), model)  # prompts of 192 tokens, answers of 8
    with pytest.raises(ConfigError) as caught:
        STEPS.check_base(tiny_config(**settings, rag={"answer_tokens": 9}), model)
    assert str(caught.value) == (
        'generator.adapter_from = "question" needs prompts and answers that fit the window of windowed, 200 tokens; '
        'rag.prompt_tokens = 192 and rag.answer_tokens = 9 are 201: lower them, or set "start"'
    )
    STEPS.check_base(tiny_config(models=models, rag={"answer_tokens": 9}), model)


@MAKERS
def test_the_window_alone_decides_whether_a_model_keeps_all_it_read(make):
    assert (window_of(make(64)), remembers_all(make(64))) == (64, False)
    assert (window_of(without_window(make(64))), remembers_all(without_window(make(64)))) == (None, True)


def test_a_model_without_window_stays_as_it_is():
    assert without_window(LlamaConfig()).to_dict() == LlamaConfig().to_dict()
    assert window_of(MistralConfig(sliding_window=None)) is None
    assert window_of(Qwen2Config(use_sliding_window=False, sliding_window=64)) is None
