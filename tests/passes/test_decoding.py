"""Decoding reads prompts beside one another into a cache with room, and says what transformers says by itself."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from fedrag.config.scenario import RagConfig
from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.decoding import decode, decoding_cache, read_beside
from fedrag.rag.pipeline import prompt_builder
from fedrag.types import Example

MARS, MOON = "Mars has two moons, and both are small.", "The Moon is alone."
ASKED = [
    ("Where?", [MARS]),
    ("Who found the larger one first?", [MARS, MOON]),
    ("When?", [MOON]),
    ("What is it called?", []),
    ("Why is that so?", [MARS, "Another."]),
]


def prompts_of(generator: Generator) -> list[Example]:
    builder = prompt_builder(generator, RagConfig(instruction="Answer."))
    return [builder.example(question, texts) for question, texts in ASKED]


def keys_and_values(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, count, 4, generator=random), torch.randn(2, 3, count, 4, generator=random)


def test_the_cache_holds_what_the_growing_one_holds(load_generator):
    cache, growing = decoding_cache(load_generator().model, room=3), DynamicCache()
    for step, count in enumerate((5, 1, 2, 1, 4)):  # the room for three is full after the third
        new = keys_and_values(count, step)
        for found, expected in zip(cache.update(*new, 0), growing.update(*new, 0), strict=True):
            assert torch.equal(found, expected)
        assert cache.get_seq_length() == growing.get_seq_length()
        assert cache.get_mask_sizes(1, 0) == growing.get_mask_sizes(1, 0)


def test_a_new_token_moves_nothing_while_there_is_room(load_generator):
    cache = decoding_cache(load_generator().model, room=2)
    places = {cache.update(*keys_and_values(count, 0), 0)[0].data_ptr() for count in (5, 1, 1)}
    assert len(places) == 1


@pytest.mark.usefixtures("two_threads")
def test_prompts_read_beside_one_another_are_as_each_alone(load_generator):
    generator = load_generator()
    prompts, cache = prompts_of(generator), decoding_cache(generator.model, room=1)
    read: list[int] = []
    handle = generator.model.base_model.register_forward_pre_hook(
        lambda _, __, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    real = read_beside(generator.model, prompts, cache, passes=2)
    handle.remove()
    assert sum(read) < sum(prompt.length for prompt in prompts)  # the passage of three questions was read once
    width = max(prompt.length for prompt in prompts)
    for row, prompt in enumerate(prompts):
        assert real[row].tolist() == [0] * (width - prompt.length) + [1] * prompt.length
        with torch.no_grad():
            alone = generator.model(input_ids=torch.tensor([prompt.prompt]), use_cache=True)[CACHE]
        for found, expected in zip(cache.layers, alone.layers, strict=True):
            for part in ("keys", "values"):
                own = getattr(found, part)[row, :, width - prompt.length :]
                torch.testing.assert_close(own, getattr(expected, part)[0], atol=1e-5, rtol=0)


@pytest.mark.usefixtures("two_threads")
def test_answers_are_those_of_transformers_one_at_a_time(load_generator, random_tensors):
    generator = load_generator()
    generator.set_adapter(random_tensors(generator.parameters(), seed=3, scale=0.5))
    prompts = prompts_of(generator)
    answers = decode(generator, prompts, 12)
    assert len({tuple(ids) for ids in answers}) > 1
    for prompt, ids in zip(prompts, answers, strict=True):
        expected = generator.model.generate(
            input_ids=torch.tensor([prompt.prompt]),
            attention_mask=torch.ones(1, prompt.length, dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=generator.tokenizer.pad_token_id,
        )[0, prompt.length :].tolist()
        assert ids[: len(expected)] == expected
