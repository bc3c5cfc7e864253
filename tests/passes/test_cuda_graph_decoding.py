"""Decoding in steps that stay in place finds what the model's own `generate` finds."""

from __future__ import annotations

import pytest
import torch

from fedrag.models.generator import Generator
from fedrag.passes.cuda_graph import Recorder, rounded_up
from fedrag.passes.cuda_graph_decoding import RecordedDecoding
from fedrag.passes.decoding import decode
from fedrag.types import Example

PROMPTS = [Example([5, 6, 7, 8, *range(10, 12 + row)]) for row in range(11)]


def decoding(generator: Generator) -> RecordedDecoding:
    return RecordedDecoding(generator.model, generator.pad_id, generator.end_ids, Recorder(torch.device("cpu")))


def cut(answer: list[int], ends: list[int]) -> list[int]:
    """Leave out what follows the end."""
    return next((answer[: i + 1] for i, token in enumerate(answer) if token in ends), answer)


def assert_same(ours: list[list[int]], theirs: list[list[int]], ends: list[int]) -> None:
    assert [cut(row, ends) for row in ours] == [cut(row, ends) for row in theirs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_are_those_of_generate_whatever_came_before(load_generator, random_tensors, dtype):
    generator = load_generator(dtype=dtype)
    recorded = decoding(generator)
    for seed, most in ((0, 12), (1, 12), (2, 30)):
        generator.set_adapter(random_tensors(generator.parameters(), seed=seed, scale=0.5))
        for some in (PROMPTS[:3], PROMPTS, PROMPTS[4:7], PROMPTS[10:]):
            ours = recorded.generate([example.prompt for example in some], most)
            assert_same(ours, decode(generator, some, most), generator.end_ids)
            with generator.untouched():
                ours = recorded.generate([example.prompt for example in some], most)
                assert_same(ours, decode(generator, some, most), generator.end_ids)


def test_an_answer_ends_with_its_end_token_and_padding(load_generator, random_tensors):
    generator = load_generator()
    generator.set_adapter(random_tensors(generator.parameters(), seed=1, scale=0.5))
    plain = decode(generator, PROMPTS, 20)
    second = plain[0][1]
    recorded = RecordedDecoding(generator.model, 0, [second], Recorder(torch.device("cpu")))
    found = recorded.generate([example.prompt for example in PROMPTS], 20)
    assert found[0][: 1 + (plain[0][0] != second)] == plain[0][: 1 + (plain[0][0] != second)]
    for ours, theirs in zip(found, plain, strict=True):
        expected = cut(theirs, [second])
        assert ours == (expected + [0] * 20)[: len(ours)]


def test_it_stops_when_all_answers_have_ended(load_generator):
    generator = load_generator()
    every = list(range(generator.model.config.vocab_size))
    recorded = RecordedDecoding(generator.model, 0, every, Recorder(torch.device("cpu")))
    assert len(recorded.generate([[5, 6]], 40)[0]) <= 4


def test_a_model_with_rules_of_its_own_is_left_to_generate(load_generator):
    model = load_generator().model
    assert RecordedDecoding.suits(model)
    model.generation_config.no_repeat_ngram_size = 2
    assert not RecordedDecoding.suits(model)


def test_few_shapes_serve_all():
    shapes = [rounded_up(number) for number in range(1, 2000)]
    assert len(set(shapes)) == 22
    assert all(number <= shape <= 1.5 * number for number, shape in enumerate(shapes, start=1))
