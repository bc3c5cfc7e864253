"""The generator's logits at the answer positions are those of the plain model, in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.profiler import profile
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.attention import use_cpu_attention
from fedrag.models.generator import Generator, adapter_shapes
from fedrag.passes.decoding import decode
from fedrag.passes.reading import answer_logits
from fedrag.types import Example
from fedrag.weights.store import find_model

KINDS = ("causal", "seq2seq")
CLASSES = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}


def examples_of(generator: Generator) -> list[Example]:
    """Return examples of different lengths; two of the answers hold the end token, which also pads."""
    end = generator.tokenizer.eos_token_id
    ids = [generator.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Where is it?", "Who", "A b")]
    return [Example(ids[0], [40, 41, end]), Example(ids[1], [end]), Example(ids[2] * 3, [50, end, 51, 52, 53])]


def full_logits(model: torch.nn.Module, seq2seq: bool, example: Example) -> torch.Tensor:
    """Return the logits (positions, vocabulary) of a plain forward pass over one whole example."""
    with torch.no_grad():
        if seq2seq:
            start = model.config.decoder_start_token_id
            decoder = torch.tensor([[start, *example.answer]])
            return model(input_ids=torch.tensor([example.prompt]), decoder_input_ids=decoder).logits[0]
        return model(input_ids=torch.tensor([example.prompt + example.answer])).logits[0]


def first_position(example: Example, seq2seq: bool) -> int:
    """Return the position that predicts the first answer token, one before it."""
    return 0 if seq2seq else len(example.prompt) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_different_lengths_gives_the_logits_of_whole_single_passes(load_generator, kind):
    generator = load_generator(kind)
    batch = examples_of(generator)
    with torch.no_grad():
        logits, labels = answer_logits(generator, batch)
    expected = []
    for example in batch:
        full = full_logits(generator.model, generator.seq2seq, example)
        first = first_position(example, generator.seq2seq)
        expected.append(full[first : first + len(example.answer)])
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-5, rtol=0)
    assert labels.tolist() == [token for example in batch for token in example.answer]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-1, 1])
def test_logits_read_one_position_off_would_be_seen(load_generator, kind, shift):
    generator = load_generator(kind)
    example = Example(examples_of(generator)[0].prompt, [40, 41, 42])
    with torch.no_grad():
        logits, _ = answer_logits(generator, [example])
    full = full_logits(generator.model, generator.seq2seq, example)
    first = first_position(example, generator.seq2seq)
    steps = [t for t in range(3) if first + t + shift >= 0]
    shifted = full[[first + t + shift for t in steps]]
    assert (shifted - logits[steps]).abs().max(dim=1).values.min() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_answer_token_does_not_see_the_answer(load_generator, kind):
    generator = load_generator(kind)
    prompt = examples_of(generator)[0].prompt
    with torch.no_grad():
        one, _ = answer_logits(generator, [Example(prompt, [40, 41, 42])])
        other, _ = answer_logits(generator, [Example(prompt, [60, 61, 62])])
    torch.testing.assert_close(one[0], other[0], atol=1e-6, rtol=0)
    assert (one[1] - other[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_batched_generation_gives_what_one_prompt_at_a_time_gives(load_generator, kind):
    generator = load_generator(kind)
    end = generator.tokenizer.eos_token_id
    prompts = [example.prompt for example in examples_of(generator)]
    together = decode(generator, [Example(prompt) for prompt in prompts], 12)
    for prompt, ids in zip(prompts, together, strict=True):
        alone = decode(generator, [Example(prompt)], 12)[0]
        assert len(alone) <= 12
        assert ids[: len(alone)] == alone
        assert all(token in (end, generator.tokenizer.pad_token_id) for token in ids[len(alone) :])


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_greedy_step_by_step(load_generator, kind):
    generator = load_generator(kind)
    prompt = examples_of(generator)[0].prompt
    expected: list[int] = []
    for _ in range(8):
        position = len(expected) if generator.seq2seq else -1
        expected.append(
            int(full_logits(generator.model, generator.seq2seq, Example(prompt, expected))[position].argmax())
        )
        if expected[-1] == generator.tokenizer.eos_token_id:
            break
    assert decode(generator, [Example(prompt)], 8)[0] == expected


def base_of(generator: Generator, kind: str) -> PreTrainedModel:
    """Return the untouched base model, with the attention that a generator uses."""
    base = CLASSES[kind].from_pretrained(generator.fetched.folder, dtype=torch.float32).eval()
    use_cpu_attention(base)
    return base


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_adapter_it_is_the_base_bit_for_bit(load_generator, kind):
    generator = load_generator(kind)
    base = base_of(generator, kind)
    example = examples_of(generator)[0]
    trained = full_logits(generator.model, generator.seq2seq, example)
    with generator.untouched():
        untouched = full_logits(generator.model, generator.seq2seq, example)
    expected = full_logits(base, generator.seq2seq, example)
    assert torch.equal(untouched, expected)
    assert (trained - expected).abs().max() > 0.01
    assert torch.equal(full_logits(generator.model, generator.seq2seq, example), trained)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing(tiny_home, kind):
    generator = Generator.load(find_model(f"fedrag/tiny-{kind}"), LoraSection(rank=4), torch.float32, "cpu")
    base = base_of(generator, kind)
    example = examples_of(generator)[0]
    ours = full_logits(generator.model, generator.seq2seq, example)
    assert torch.equal(ours, full_logits(base, generator.seq2seq, example))


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_is_alpha_over_rank_times_b_a(load_generator, kind):
    generator = load_generator(kind, rank=4, alpha=6.0)
    merged = CLASSES[kind].from_pretrained(generator.fetched.folder, dtype=torch.float32).eval()
    tensors = {name: p.detach() for name, p in generator.parameters().items()}
    with torch.no_grad():
        for name, weight in merged.named_parameters():
            layer = name.removesuffix(".weight")
            if f"{layer}.lora_A.weight" in tensors:
                weight += 6.0 / 4 * tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
    example = examples_of(generator)[0]
    ours = full_logits(generator.model, generator.seq2seq, example)
    torch.testing.assert_close(ours, full_logits(merged, generator.seq2seq, example), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_can_be_trained_and_the_head_has_none(load_generator, kind):
    generator = load_generator(kind)
    trainable = {id(p) for p in generator.model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in generator.parameters().values()}
    assert generator.parameters()
    assert not any("lm_head" in name for name in generator.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_shapes_need_no_weights(load_generator, kind):
    generator = load_generator(kind, rank=3)
    shapes = adapter_shapes(generator.fetched, LoraSection(rank=3))
    assert list(shapes) == list(generator.parameters())
    assert shapes == {name: tuple(p.shape) for name, p in generator.parameters().items()}


def test_an_adapter_that_is_set_can_be_read_back(load_generator, random_tensors):
    generator = load_generator()
    tensors = random_tensors(generator.parameters(), seed=7)
    generator.set_adapter(tensors)
    for name, parameter in generator.parameters().items():
        np.testing.assert_array_equal(parameter.detach().numpy(), tensors[name])


def test_an_encoder_is_refused(tiny_home):
    encoder = find_model("fedrag/tiny-encoder")
    with pytest.raises(ModelError, match="fedrag/tiny-encoder is not a language model"):
        Generator.load(encoder, LoraSection(), torch.float32, "cpu")
    with pytest.raises(ModelError, match="fedrag/tiny-encoder is not a language model"):
        adapter_shapes(encoder, LoraSection())


def test_a_target_that_the_model_lacks_is_named_with_those_it_has(tiny_home):
    model = find_model("fedrag/tiny-causal")
    with pytest.raises(ModelError, match=r'"query" is not a linear layer of this model; it has down_proj, .*q_proj'):
        Generator.load(model, LoraSection(targets=("query",)), torch.float32, "cpu")


def test_an_adapter_that_changes_nothing_is_left_out_at_rest(load_generator, random_tensors):
    generator = load_generator()
    generator.set_adapter(generator.initial_state(seed=0))
    layers = [layer for layer in generator.model.modules() if isinstance(layer, BaseTunerLayer)]
    with torch.no_grad():
        plain, _ = answer_logits(generator, examples_of(generator))
        with generator.at_rest():
            assert all(layer.disable_adapters for layer in layers)
            assert torch.equal(answer_logits(generator, examples_of(generator))[0], plain)
        generator.set_adapter(random_tensors(generator.parameters(), seed=1))
        with generator.at_rest():
            assert not any(layer.disable_adapters for layer in layers)
            assert not torch.equal(answer_logits(generator, examples_of(generator))[0], plain)


def test_decoding_copies_no_weights_of_the_head(load_generator):
    """torch would, once for each row: the last position of each prompt is a slice of what was read."""
    generator = load_generator()
    vocabulary, dim = generator.model.get_output_embeddings().weight.shape
    with profile(record_shapes=True) as seen:
        decode(generator, [Example([5, 6, 7, 8]), Example([5, 6, 7, 9])], 1)
    shapes = [shape for event in seen.events() for shape in event.input_shapes]
    assert [vocabulary, dim] in shapes
    assert [2, dim, vocabulary] not in shapes
