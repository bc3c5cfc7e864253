"""Trees read shared beginnings once, with the logits and the gradients of whole prompts."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrag.config.training_settings import GeneratorConfig, LoraSection
from fedrag.models.adapters import add_lora
from fedrag.models.attention import use_cpu_attention
from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.reading import answer_logits, reader_of
from fedrag.passes.tree import PromptTree, plan_tree_passes, reading, tree_attention
from fedrag.training.losses import answer_loss
from fedrag.training.ralt import train_generator
from fedrag.types import Example

INSTRUCTION, PASSAGE, OTHER = list(range(10, 40)), list(range(40, 60)), list(range(60, 75))
BATCH = [
    Example([*INSTRUCTION, *PASSAGE, 5, 6, 7], [40, 41]),
    Example([*INSTRUCTION, *OTHER, *PASSAGE, 8], [77, 78, 79]),
    Example([*INSTRUCTION, *PASSAGE, 9, 3], [4]),
    Example([*INSTRUCTION, *OTHER, 2], [90, 91]),
]


# The tree


def test_what_is_shared_stands_once_and_each_text_is_whole():
    tree = PromptTree.of(BATCH)
    assert [(len(segment.tokens), segment.start, segment.before) for segment in tree.segments] == [
        (30, 0, ()),
        (20, 30, (0,)),
        (4, 50, (0, 1)),  # the last token of an answer predicts nothing
        (2, 50, (0, 1)),
        (15, 30, (0,)),
        (23, 45, (0, 4)),
        (2, 45, (0, 4)),
    ]
    tokens, positions = tree.tokens, tree.positions
    assert len(tokens) == len(positions) == 96
    places = iter(tree.places)
    for example in BATCH:
        for t in range(len(example.answer)):
            place = next(places)
            assert tokens[place] == [*example.prompt, *example.answer][len(example.prompt) - 1 + t]
            assert positions[place] == len(example.prompt) - 1 + t


def test_a_token_sees_its_own_text_up_to_itself():
    tree = PromptTree.of(BATCH)
    tokens = torch.tensor(tree.tokens)
    for row in range(len(BATCH)):
        place = tree.places[sum(len(example.answer) for example in BATCH[:row])]
        assert tokens[tree.mask()[place]].tolist() == BATCH[row].prompt


def test_the_same_prompt_twice_shares_all_but_its_last_token():
    tree = PromptTree.of([Example(INSTRUCTION, [1, 2]), Example(INSTRUCTION, [3])])
    assert tree.lengths == [29, 2, 1]


def test_few_tokens_alike_are_read_with_each():
    assert PromptTree.of([Example([1, 2, 3, 4], [5]), Example([1, 2, 3, 6], [7])]).lengths == [4, 4]


# What it computes


def ready(generator: Generator, random_tensors: Any) -> Generator:
    generator.set_adapter(random_tensors(generator.parameters(), seed=3))
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    return generator


def one_at_a_time(generator: Generator) -> torch.Tensor:
    """Return the logits of each example, read whole and alone by the plain model."""
    logits = []
    for example in BATCH:
        whole = generator.model(input_ids=torch.tensor([example.prompt + example.answer])).logits[0]
        logits.append(whole[len(example.prompt) - 1 : -1])
    return torch.cat(logits)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_logits_and_gradients_are_those_of_each_text_alone(load_generator, random_tensors, checkpointed):
    generator = ready(load_generator(dtype=torch.float64), random_tensors)
    parameters = list(generator.parameters().values())
    expected = one_at_a_time(generator)
    generator.model.train()
    with layers_checkpointed(generator.model) if checkpointed else nullcontext():
        logits, labels = answer_logits(generator, BATCH)
        torch.testing.assert_close(logits, expected)
        ours = torch.autograd.grad(answer_loss(logits.sin(), labels), parameters)
    theirs = torch.autograd.grad(answer_loss(expected.sin(), labels), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_in_bfloat16_it_is_no_further_from_the_exact_logits_than_each_text_alone(load_generator, random_tensors):
    exact = ready(load_generator(dtype=torch.float32), random_tensors)
    short = ready(load_generator(dtype=torch.bfloat16), random_tensors)
    with torch.no_grad():
        right = one_at_a_time(exact)
        off = [(found.float() - right).abs().mean() for found in (answer_logits(short, BATCH)[0], one_at_a_time(short))]
    assert off[0] < 1.2 * off[1]


SIZES = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
HALF = {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 256}
ARCHITECTURES = {
    "Llama": HALF,
    "Qwen2": HALF,
    "Qwen3": HALF,
    "Gemma": HALF,
    "Mistral": HALF | {"sliding_window": None},
    "Phi3": HALF | {"sliding_window": None, "pad_token_id": 0},
    "Mixtral": HALF,
    "Granite": HALF,
    "OPT": {"dropout": 0.0},
    "GPT2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "GPTBigCode": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "Falcon": {},
    "GptOss": HALF
    | {
        "num_local_experts": 4,
        "head_dim": 8,
        "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}


def of_architecture(name: str) -> Generator:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **ARCHITECTURES[name])
    model = transformers.AutoModelForCausalLM.from_config(config)
    targets = add_lora(model, LoraSection(rank=2))
    use_cpu_attention(model)
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    return Generator(model, tokenizer, SimpleNamespace(kind="causal", name=name), targets)


def reads_trees(generator: Generator) -> bool:
    return reader_of(generator).paths.training.name == "tree"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_says_what_it_says_of_each_text_alone(name):
    generator = of_architecture(name)
    assert reads_trees(generator) == (name not in ("Falcon", "GptOss"))
    with torch.no_grad():
        torch.testing.assert_close(answer_logits(generator, BATCH)[0], one_at_a_time(generator), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_with_options_of_its_own_gets_the_trees_mask(dtype):
    tree = PromptTree.of(BATCH)
    random = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 96, 16, generator=random, dtype=dtype) for _ in range(3))
    layer = torch.nn.Module()
    layer.num_key_value_groups = 1
    bias = torch.randn(1, 2, 96, 96, generator=random, dtype=dtype)
    with reading(tree):
        plain = tree_attention(layer, query, key, value, None)[0]
        biased = tree_attention(layer, query, key, value, None, position_bias=bias)[0]
    kernel = torch.nn.functional.scaled_dot_product_attention
    hidden = torch.zeros(96, 96, dtype=dtype).masked_fill(~tree.mask(), torch.finfo(dtype).min)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(plain, kernel(query, key, value, attn_mask=hidden).transpose(1, 2), **tolerance)
    expected = kernel(query, key, value, attn_mask=(hidden + bias).clamp(min=torch.finfo(dtype).min)).transpose(1, 2)
    torch.testing.assert_close(biased, expected, **tolerance)


@pytest.mark.parametrize("kind", ["seq2seq", "causal"])
def test_it_is_left_out_where_texts_would_not_be_read_alike(load_generator, kind):
    assert reads_trees(load_generator(kind)) == (kind == "causal")
    generator = load_generator(kind)
    generator.model.config.attention_dropout = 0.1
    generator.dropout = True
    assert not reads_trees(generator)
    if kind == "causal":
        assert not reads_trees(load_generator(kind, prefix_bytes=1e6))


# What it saves


def trained(generator: Generator, *, trees: bool) -> tuple[dict[str, Any], int]:
    """Train some steps; return the update and how many tokens the first layer read."""
    read: list[int] = []
    first = generator.model.model.layers[0]
    first.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[0] * inputs[0].shape[1]))
    reader = reader_of(generator)
    reader.traits = replace(reader.traits, other_attention=not trees)
    update = train_generator(generator, BATCH, GeneratorConfig(epochs=3, learning_rate=1e-3), seed=0).update
    return update, sum(read)


def test_training_learns_the_same_and_reads_less(load_generator):
    tree, read_once = trained(load_generator(), trees=True)
    padded, read_each = trained(load_generator(), trees=False)
    for name, tensor in tree.items():
        assert abs(tensor - padded[name]).max() < 1e-5, name
        assert abs(tensor).max() > 1e-3
    assert (read_once, read_each) == (3 * 96, 3 * 4 * 68)


# Passes


examples = st.lists(
    st.builds(
        lambda shared, own, answer: Example([*range(shared), *([500] * own)], [7] * answer),
        st.integers(0, 60),
        st.integers(1, 40),
        st.integers(1, 5),
    ),
    min_size=1,
    max_size=24,
)


@given(examples, st.integers(1, 3), st.integers(40, 400))
@settings(max_examples=60)
def test_each_example_is_in_one_pass_and_no_pass_reads_too_much(batch, at_a_time, most):
    plan = plan_tree_passes(batch, at_a_time, most)
    assert sorted(row for rows in plan for row in rows) == list(range(len(batch)))
    for rows in plan:
        assert len(rows) == 1 or sum(PromptTree.of([batch[row] for row in rows]).lengths) <= most


def test_passes_that_run_at_a_time_end_together():
    lengths = [90, 70, 60, 60, 50, 40, 30, 20]
    batch = [Example([row] * length, [1]) for row, length in enumerate(lengths)]
    sizes = [sum(len(batch[row].prompt) for row in rows) for rows in plan_tree_passes(batch, 2, 1000)]
    assert sizes == [210, 210]


def test_what_has_a_passage_in_common_meets():
    assert sorted(map(sorted, plan_tree_passes(BATCH, 2, 1000))) == [[0, 2], [1, 3]]
