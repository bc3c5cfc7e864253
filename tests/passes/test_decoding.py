"""Decoding from prompts that two threads read gives the answers that transformers gives on its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import LoraSection
from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.batch_invariant import decode_invariant, invariant_batches
from fedrag.passes.decoding import decode, read_prompts
from fedrag.passes.reading import reader_of
from fedrag.rag.pipeline import prompt_builder
from fedrag.types import Example
from fedrag.weights.store import find_model

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


@pytest.mark.usefixtures("two_threads")
def test_prompts_read_in_two_threads_are_as_each_alone(load_generator):
    generator = load_generator()
    prompts = prompts_of(generator)
    read: list[int] = []
    handle = generator.model.base_model.register_forward_pre_hook(
        lambda _, __, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    cache, real = read_prompts(generator.model, prompts, threads=2)
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


@pytest.mark.usefixtures("tiny_home")
def test_a_models_own_generation_settings_change_nothing_unless_they_are_kept(tmp_path):
    fetched = find_model("fedrag/tiny-causal")
    folder = tmp_path / "model"
    shutil.copytree(fetched.folder, folder)
    loaded = {"plain": fetched, "own": replace(fetched, folder=folder)}
    plain = Generator.load(fetched, LoraSection(), torch.float32, "cpu")
    prompts = prompts_of(plain)
    expected = decode(plain, prompts, 8)
    first = expected[0][0]
    settings = {"eos_token_id": plain.tokenizer.eos_token_id, "suppress_tokens": [first], "no_repeat_ngram_size": 1}
    (folder / "generation_config.json").write_text(json.dumps(settings | {"stop_strings": ["e"], "min_length": 99}))
    assert decode(Generator.load(loaded["own"], LoraSection(), torch.float32, "cpu"), prompts, 8) == expected
    kept = Generator.load(loaded["own"], LoraSection(), torch.float32, "cpu", own_settings=True)
    assert decode(kept, prompts, 8)[0][0] != first


@pytest.mark.parametrize("from_question", [False, True])
@pytest.mark.usefixtures("two_threads")
def test_settings_against_repetition_see_the_whole_prompt_on_every_path(load_generator, from_question):
    generator = load_generator(prefix_bytes=1e9 if from_question else None)
    generator.set_adapter(generator.initial_state(seed=0))  # changes nothing: transformers reads the base alone
    own = generator.model.generation_config
    own.no_repeat_ngram_size, own.repetition_penalty, own.return_dict_in_generate = 1, 3.0, True
    own.cache_implementation = "static"
    prompts = prompts_of(generator)
    answers = decode(generator, prompts, 8)
    own.return_dict_in_generate, own.cache_implementation = False, None
    for prompt, ids in zip(prompts, answers, strict=True):
        expected = generator.model.generate(
            input_ids=torch.tensor([prompt.prompt]),
            attention_mask=torch.ones(1, prompt.length, dtype=torch.long),
            max_new_tokens=8,
            pad_token_id=generator.tokenizer.pad_token_id,
        )[0, prompt.length :].tolist()
        assert ids[: len(expected)] == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_a_prompt_of_one_token_is_answered_too(load_generator, monkeypatch, threads: int):
    """Nothing of it is left to be read before the first step."""
    generator = load_generator()
    prompts = [Example([5]), Example([6]), Example([5, 6, 7])]
    alone = [
        generator.model.generate(
            input_ids=torch.tensor([prompt.prompt]),
            attention_mask=torch.ones(1, prompt.length, dtype=torch.long),
            max_new_tokens=3,
            do_sample=False,
            pad_token_id=generator.pad_id,
        )[0, prompt.length :].tolist()
        for prompt in prompts
    ]
    monkeypatch.setattr("fedrag.passes.choose.passes_at_a_time", lambda **_: threads)
    for answers in (decode(generator, prompts, 3), decode(generator, prompts[:2], 3)):
        assert answers == alone[: len(answers)]
    invariant = {
        row: ids
        for rows in invariant_batches(prompts)
        for row, ids in zip(rows, decode_invariant(generator, [prompts[row] for row in rows], 3), strict=True)
    }
    assert [invariant[row] for row in range(3)] == alone


class Joined(TorchDispatchMode):
    """Counts how often keys or values (rows, heads, tokens, dim) of so many tokens are joined with others."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.count = tokens, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.cat.default:
            self.count += any(part.ndim == 4 and part.shape[2] >= self.tokens for part in args[0])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("way", ["plain", "shared", "from the question", "batch-invariant"])
def test_no_step_copies_the_keys_and_values_of_the_prompts(load_generator, monkeypatch, way: str):
    """The cache of transformers joins them with the new token's in new memory, at each step and in each layer."""
    generator = load_generator(prefix_bytes=1e9 if way == "from the question" else None)
    prompts = prompts_of(generator)
    paths = reader_of(generator).paths
    if way == "batch-invariant":
        prompts = [prompts[row] for row in invariant_batches(prompts)[0]]
    elif way == "plain":
        plain = replace(paths, decoding=replace(paths.decoding, name=way))
        monkeypatch.setattr("fedrag.passes.reading.paths_of", lambda _: plain)
    elif way == "shared":
        assert paths.decoding.name == way

    def joined(tokens: int) -> int:
        with Joined(min(prompt.length for prompt in prompts)) as seen:
            (decode_invariant if way == "batch-invariant" else decode)(generator, prompts, tokens)
        return seen.count

    joined(1)  # what is kept of the prompts is kept now
    assert joined(8) == joined(2)
