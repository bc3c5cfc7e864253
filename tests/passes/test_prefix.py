"""An adapter that acts from the question on, compared with PEFT's activated LoRA.

PEFT reads whole texts and looks for the question's first tokens in them. Here the base model reads what comes before
on its own and remembers it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, T5Config

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.adapters import save_adapter
from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.decoding import decode
from fedrag.passes.prefix import PrefixReader, remembers_all
from fedrag.passes.reading import answer_logits, reader_of
from fedrag.rag.answer_scores import mean_log_probabilities, score_answers
from fedrag.rag.pipeline import prompt_builder
from fedrag.types import Example, Tensors

PLENTY = 1e9
ASKED = [
    ("Where?", ["It orbits Mars."], "Mars"),
    ("Who found it first?", ["A long passage about an astronomer.", "Another."], "Hall"),
    ("When?", [], "in 1877"),
    ("What is it called?", ["It orbits Mars."], "Phobos"),
]
LORA = LoraSection(rank=4, alpha=8.0)


def examples_of(generator: Generator) -> list[Example]:
    builder = prompt_builder(generator, RagConfig(instruction="Answer.", answer_tokens=12))
    return [builder.example(question, texts, builder.answer(text, end=True)) for question, texts, text in ASKED]


def peft_model(generator: Generator, tensors: Tensors, folder: Path) -> PeftModel:
    """Load the adapter with PEFT, which acts from given tokens on."""
    mark = prompt_builder(generator, RagConfig()).question_mark
    name = generator.fetched.name
    save_adapter(folder, tensors, LORA, generator.targets, name, "CAUSAL_LM", mark)
    base = AutoModelForCausalLM.from_pretrained(generator.fetched.folder, dtype=torch.float32)
    return PeftModel.from_pretrained(base, folder, is_trainable=True).eval()


def logits_by_peft(model: PeftModel, batch: Sequence[Example]) -> torch.Tensor:
    """Return the logits of PEFT's model at the answer positions, one whole text after the other."""
    found = []
    for example in batch:
        ids = torch.tensor([example.prompt + example.answer])
        found.append(model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1])
    return torch.cat(found)


@pytest.fixture
def pair(load_generator, random_tensors, tmp_path):
    """Return a generator whose adapter acts from the question on, and PEFT's model with the same adapter."""
    generator = load_generator(prefix_bytes=PLENTY)
    tensors = random_tensors(generator.parameters(), seed=7)
    generator.set_adapter(tensors)
    return generator, peft_model(generator, tensors, tmp_path / "adapter")


def test_logits_and_gradients_are_those_of_peft(pair):
    generator, model = pair
    batch = examples_of(generator)
    logits, labels = answer_logits(generator, batch)
    theirs = logits_by_peft(model, batch)
    torch.testing.assert_close(logits, theirs, atol=1e-5, rtol=0)
    torch.nn.functional.cross_entropy(logits, labels).backward()
    torch.nn.functional.cross_entropy(theirs, labels).backward()
    gradients = {n.replace(".default.", "."): p.grad for n, p in model.named_parameters() if p.requires_grad}
    for name, parameter in generator.parameters().items():
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, gradients[f"base_model.model.{name}"], atol=1e-6, rtol=1e-4)


def test_an_adapter_on_whole_prompts_says_something_else(pair, load_generator):
    generator, model = pair
    whole = load_generator()
    whole.set_adapter({name: p.detach().numpy() for name, p in generator.parameters().items()})
    batch = examples_of(generator)
    with torch.no_grad():
        assert (answer_logits(whole, batch)[0] - logits_by_peft(model, batch)).abs().max() > 0.01


def test_answers_are_those_of_peft_one_at_a_time(pair):
    generator, model = pair
    batch = [replace(example, answer=[]) for example in examples_of(generator)]
    for example, ids in zip(batch, decode(generator, batch, 10), strict=True):
        expected = model.generate(
            input_ids=torch.tensor([example.prompt]),
            attention_mask=torch.ones(1, len(example.prompt), dtype=torch.long),
            max_new_tokens=10,
            do_sample=False,
            pad_token_id=generator.tokenizer.pad_token_id,
        )[0, len(example.prompt) :].tolist()
        assert ids[: len(expected)] == expected


def test_answer_scores_are_those_of_peft(pair):
    generator, model = pair
    builder = prompt_builder(generator, RagConfig(instruction="Answer."))
    answer = builder.answer("in 1877", end=False)
    pairs = [builder.example(q, [text], answer) for q in ("When?", "In what year?") for text in ("It was 1877.", "No.")]
    with torch.no_grad():
        logits = logits_by_peft(model, pairs).log_softmax(dim=-1)
    expected = logits.gather(1, torch.tensor(answer * len(pairs))[:, None]).view(len(pairs), -1).mean(dim=1)
    found = torch.from_numpy(mean_log_probabilities(generator, pairs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_what_stands_in_memory_for_a_batch_of_scores_is_bounded(pair):
    """Each pair of a batch has a copy of its passage in memory, even if all have the same one."""
    generator, _ = pair
    builder = prompt_builder(generator, RagConfig(instruction="Answer."))
    passage, answer = "It was 1877. " * 8, builder.answer("in 1877", end=False)
    pairs = [builder.example(f"When was it, {n}?", [passage], answer) for n in range(40)]
    in_memory: list[int] = []
    generator.model.base_model.register_forward_pre_hook(
        lambda _, __, named: in_memory.append(named["input_ids"].shape[0] * named[CACHE].get_seq_length()),
        with_kwargs=True,
    )
    score_answers(generator, pairs, batch_tokens=4 * pairs[0].length)
    assert 0 < max(in_memory) <= 2 * 4 * pairs[0].length


def test_without_its_adapter_it_reads_whole_prompts_as_the_base_does(pair, load_generator):
    generator, _ = pair
    base, batch = load_generator(), examples_of(generator)
    with torch.no_grad(), generator.untouched(), base.untouched():
        torch.testing.assert_close(answer_logits(generator, batch)[0], answer_logits(base, batch)[0], atol=1e-5, rtol=0)


def test_a_prefix_is_read_once_and_serves_every_adapter(pair, random_tensors):
    generator, _ = pair
    passes = []
    generator.model.base_model.register_forward_pre_hook(lambda *_: passes.append(1))
    batch = examples_of(generator)
    distinct = len({tuple(example.prompt[:end]) for example in batch for end in example.prefix_ends})
    assert distinct == 4
    with torch.no_grad():
        answer_logits(generator, batch)
        assert len(passes) == distinct + 1
        generator.set_adapter(random_tensors(generator.parameters(), seed=8))
        answer_logits(generator, batch)
        assert len(passes) == distinct + 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("most_bytes", [0, 60_000, PLENTY])
def test_what_is_forgotten_is_read_again_to_the_same_bits(load_generator, most_bytes):
    generator, plenty = load_generator(prefix_bytes=most_bytes), load_generator(prefix_bytes=PLENTY)
    batch = examples_of(generator)
    sizes = set()
    with torch.no_grad():
        for _ in range(3):
            for rows in ([0, 1, 2, 3], [3], [1, 0]):
                some = [batch[row] for row in rows]
                assert torch.equal(answer_logits(generator, some)[0], answer_logits(plenty, some)[0])
                sizes.add(kept_bytes(reader_of(generator).prefixes))
    assert max(sizes) <= most_bytes
    whole = kept_bytes(reader_of(plenty).prefixes)
    assert whole > 60_000
    assert max(sizes) == whole if most_bytes > whole else max(sizes) < whole
    assert (max(sizes) > 0) == (most_bytes > 0)


def kept_bytes(reader: PrefixReader) -> int:
    return sum(part.nbytes for read in reader._known.values() for layer in read for part in layer)


def test_what_was_read_while_answering_can_be_trained_on(load_generator):
    """Autograd refuses to save tensors that were made in inference mode."""
    generator = load_generator(prefix_bytes=PLENTY)
    batch = examples_of(generator)
    with torch.inference_mode():
        answer_logits(generator, batch)
    answer_logits(generator, batch)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters().values())


def test_the_base_reads_without_dropout_in_the_middle_of_a_training(load_generator):
    generator, still = load_generator(prefix_bytes=PLENTY), load_generator(prefix_bytes=PLENTY)
    for module in generator.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    generator.model.train()
    batch = examples_of(generator)[1:2]
    ours, theirs = reader_of(generator).prefixes.read(batch)[0], reader_of(still).prefixes.read(batch)[0]
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(ours.layers, theirs.layers, strict=True))
    assert generator.model.training


def test_prefixes_of_a_batch_are_padded_on_the_left(load_generator):
    generator = load_generator(prefix_bytes=PLENTY)
    long, short = Example([5, 6, 7, 9], prefix_ends=(2, 3)), Example([5, 9], prefix_ends=(1,))
    cache, real = reader_of(generator).prefixes.read([long, short])
    assert real.tolist() == [[1, 1, 1], [0, 0, 1]]
    keys = cache.layers[0].keys
    assert torch.equal(keys[1, :, 2], reader_of(generator).prefixes.read([short])[0].layers[0].keys[0, :, 0])
    assert keys[0].any(dim=-1).all()
    assert not keys[1, :, :2].any()


@pytest.mark.usefixtures("two_threads")
def test_two_passages_are_read_at_a_time_and_one_alone_with_as_many_threads(load_generator):
    generator = load_generator(prefix_bytes=PLENTY)
    meeting = threading.Barrier(2, timeout=20)
    threads: list[int] = []

    def meet(_: torch.nn.Module, args: object) -> None:
        if len(threads) < 2:
            meeting.wait()  # passes only where another passage is being read
        threads.append(torch.get_num_threads())

    generator.model.base_model.register_forward_pre_hook(meet)
    reader_of(generator).prefixes.read([Example([5, 6, 9], prefix_ends=(2,)), Example([7, 8, 9], prefix_ends=(2,))])
    reader_of(generator).prefixes.read([Example([3, 4, 9], prefix_ends=(2,))])
    assert threads == [1, 1, 1]
    assert torch.get_num_threads() == 2


def test_what_prompts_begin_with_alike_is_read_and_kept_once(load_generator):
    generator = load_generator(prefix_bytes=PLENTY)
    one, other = Example([5, 6, 7, 8, 9], prefix_ends=(2, 4)), Example([5, 6, 3, 9], prefix_ends=(2, 3))
    read: list[int] = []
    generator.model.base_model.register_forward_pre_hook(
        lambda _, __, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    cache, _ = reader_of(generator).prefixes.read([one, other])
    assert read == [2, 2, 1]
    kept = kept_bytes(reader_of(generator).prefixes)
    assert kept == cache.layers[0].keys[0, :, 0].nbytes * 2 * len(cache.layers) * 5
    reader_of(generator).prefixes.read([other, one])
    assert read == [2, 2, 1]


def test_passage_by_passage_is_as_all_at_once(load_generator):
    generator = load_generator(prefix_bytes=PLENTY)
    prompt = list(range(20, 50))
    parts, whole = (Example(prompt, prefix_ends=ends) for ends in ((7, 19, 29), (29,)))
    for a, b in zip(
        *(reader_of(generator).prefixes.read([example])[0].layers for example in (parts, whole)), strict=True
    ):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), True),
        (Qwen2Config(), True),
        (Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=0), False),
        (MistralConfig(sliding_window=64), False),
        (MistralConfig(sliding_window=None), True),
        (T5Config(), False),
    ],
)
def test_only_models_that_keep_all_keys_and_values_can_remember(config, expected):
    assert remembers_all(config) is expected


def test_other_models_are_refused(load_generator):
    with pytest.raises(ModelError, match="T5ForConditionalGeneration does not keep the keys and values of all tokens"):
        reader_of(load_generator("seq2seq", prefix_bytes=PLENTY))
