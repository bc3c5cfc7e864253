"""Answer scores against the model's own loss, a softmax by hand, and a known fact."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fedrag.config.scenario import Config
from fedrag.config.training_settings import LoraSection
from fedrag.models.generator import Generator
from fedrag.models.resident import RoundModels
from fedrag.rag.answer_scores import ScoreCache, mean_log_probabilities, score_answers
from fedrag.types import Example
from fedrag.weights.store import find_model

KINDS = ("causal", "seq2seq")


def examples_of(generator: Generator) -> list[Example]:
    end = generator.tokenizer.eos_token_id
    ids = [generator.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Where is it?", "Who", "A b")]
    return [Example(ids[0], [40, 41, end]), Example(ids[1], [end]), Example(ids[2] * 3, [50, end, 51, 52, 53])]


def score_by_hand(generator: Generator, example: Example) -> float:
    """Compute (1/T) sum log p(y_t | prompt, y_<t): one whole pass per token, softmax in float64."""
    total = 0.0
    for t, token in enumerate(example.answer):
        said = example.answer[:t]
        if generator.seq2seq:
            decoder = torch.tensor([[generator.model.config.decoder_start_token_id, *said]])
            output = generator.model(input_ids=torch.tensor([example.prompt]), decoder_input_ids=decoder)
        else:
            output = generator.model(input_ids=torch.tensor([example.prompt + said]))
        logits = output.logits[0, -1].detach().double().numpy()
        powers = np.exp(logits - logits.max())
        total += np.log(powers[token] / powers.sum())
    return total / len(example.answer)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_a_softmax_by_hand_one_example_and_token_at_a_time(load_generator, kind):
    generator = load_generator(kind)
    batch = examples_of(generator)
    expected = [score_by_hand(generator, example) for example in batch]
    np.testing.assert_allclose(mean_log_probabilities(generator, batch), expected, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_times_tokens_equal_the_models_own_loss(load_generator, kind):
    generator = load_generator(kind)
    for example in examples_of(generator):
        prompt, answer = torch.tensor([example.prompt]), torch.tensor([example.answer])
        if generator.seq2seq:
            loss = generator.model(input_ids=prompt, labels=answer).loss
        else:
            labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
            loss = generator.model(input_ids=torch.cat([prompt, answer], dim=1), labels=labels).loss
        ours = mean_log_probabilities(generator, [example])[0] * len(example.answer)
        assert ours == pytest.approx(-loss.item() * len(example.answer), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_scores_alone_as_it_does_among_longer_ones(load_generator, kind):
    generator = load_generator(kind)
    batch = examples_of(generator)
    alone = [mean_log_probabilities(generator, [example])[0] for example in batch]
    np.testing.assert_allclose(mean_log_probabilities(generator, batch), alone, atol=2e-6)
    np.testing.assert_allclose(score_answers(generator, batch, 12), alone, atol=2e-6)


def test_scores_come_in_the_order_of_the_examples_whatever_the_batches(load_generator):
    generator = load_generator()
    batch = examples_of(generator) * 3
    one_by_one = [mean_log_probabilities(generator, [example])[0] for example in batch]
    done: list[tuple[int, int]] = []
    scores = score_answers(generator, batch, 40, on_batch=lambda so_far, total: done.append((so_far, total)))
    np.testing.assert_allclose(scores, one_by_one, atol=2e-6)
    assert done[-1] == (9, 9)
    assert len(done) > 1


def examples_on_passages(generator: Generator, passages: int, questions: int) -> list[Example]:
    """Return an example for every passage and question; those on the same passage share their beginning."""
    examples = []
    for q in range(questions):
        for p in range(passages):
            shared = generator.tokenizer(f"Passage {p}: " + "text " * p, add_special_tokens=False)["input_ids"]
            own = generator.tokenizer("Why? " * (q + 1), add_special_tokens=False)["input_ids"]
            examples.append(Example(shared + own, [50 + p, 60 + q, 70][: 1 + q % 3], (len(shared),)))
    return examples


def test_a_passage_read_once_for_all_its_questions_gives_the_scores_of_whole_prompts(load_generator):
    generator = load_generator()
    examples = examples_on_passages(generator, passages=3, questions=4)
    by_hand = [score_by_hand(generator, example) for example in examples]
    np.testing.assert_allclose(score_answers(generator, examples, 400), by_hand, atol=2e-6)
    for p in range(3):
        batch = examples[p::3]
        np.testing.assert_allclose(mean_log_probabilities(generator, batch), by_hand[p::3], atol=2e-6)
    np.testing.assert_allclose(mean_log_probabilities(generator, examples), by_hand, atol=2e-6)


def test_a_long_answer_does_not_underflow(load_generator):
    generator = load_generator()
    answer = [int(token) for token in np.random.default_rng(0).integers(10, 200, 400)]
    prompts = [generator.tokenizer(text)["input_ids"] for text in ("Mars has two moons.", "x")]
    scores = mean_log_probabilities(generator, [Example(prompt, answer) for prompt in prompts])
    assert np.exp(np.float64(scores[0]) * len(answer)) == 0.0  # what a product of probabilities would give
    assert np.isfinite(scores).all()
    assert abs(scores[0] - scores[1]) > 1e-4


@pytest.mark.slow
def test_the_real_generator_knows_the_capital_of_france(real_models):
    model = find_model("HuggingFaceTB/SmolLM2-135M-Instruct")
    generator = Generator.load(model, LoraSection(), torch.float32, "cpu")
    prompt = generator.tokenizer("The capital of France is")["input_ids"]
    paris = generator.tokenizer(" Paris")["input_ids"]
    assert len(paris) == 1
    assert np.exp(mean_log_probabilities(generator, [Example(prompt, paris)])[0]) > 0.5


# The cache


class Forbidden(AssertionError):
    """A forward pass that must not happen."""


def forbid_forward(generator: Generator) -> None:
    def refuse(*_: object) -> None:
        raise Forbidden

    generator.model.register_forward_pre_hook(refuse)


@pytest.fixture
def scored(load_generator, tmp_path: Path) -> tuple[Generator, list[Example], ScoreCache, np.ndarray]:
    """Score nine examples with a cache; any further forward pass fails."""
    generator = load_generator()
    batch = examples_of(generator) * 3
    cache = ScoreCache(tmp_path, "a key")
    scores = score_answers(generator, batch, 40, cache)
    forbid_forward(generator)
    return generator, batch, cache, scores


def test_a_second_call_reads_everything_from_disk(scored, tmp_path: Path):
    generator, batch, cache, scores = scored
    np.testing.assert_array_equal(score_answers(generator, batch, 40, cache), scores)
    again = ScoreCache(tmp_path, "a key")  # as after a restart
    np.testing.assert_array_equal(score_answers(generator, batch, 40, again), scores)


def test_scores_are_kept_by_whole_batch(scored):
    generator, batch, cache, _ = scored
    with pytest.raises(Forbidden):
        score_answers(generator, batch, 1000, cache)  # the same examples in another batch
    with pytest.raises(Forbidden):
        score_answers(generator, batch[:-1], 40, cache)


def test_another_prompt_answer_or_order_is_another_batch(scored):
    generator, _, cache, _ = scored
    batch = [Example([1, 2], [3]), Example([4], [5, 6])]
    cache.write(batch, np.array([-1.0, -2.0], np.float32))
    for other in (
        [Example([1, 9], [3]), batch[1]],
        [Example([1, 2], [9]), batch[1]],
        [Example([1], [2, 3]), batch[1]],
        batch[::-1],
        batch[:1],
    ):
        assert cache.read(other) is None
    assert cache.read(batch).tolist() == [-1.0, -2.0]


def test_a_truncated_file_is_computed_again(tmp_path: Path, load_generator):
    cache = ScoreCache(tmp_path, "a key")
    batch = [Example([1, 2], [3]), Example([4], [5, 6])]
    cache.write(batch, np.array([-1.0, -2.0], np.float32))
    (file,) = tmp_path.rglob("*.npy")
    whole = file.read_bytes()
    for broken in [whole[:length] for length in range(len(whole))] + [b"PK\x03\x04garbage", b"\x80\x04garbage"]:
        file.write_bytes(broken)
        assert cache.read(batch) is None
    generator = load_generator()
    scores = score_answers(generator, batch, 1000, cache)
    np.testing.assert_array_equal(cache.read(batch), scores)


def test_no_partial_file_is_left_beside_the_scores(scored, tmp_path: Path):
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} == {".npy"}


def test_pruning_removes_the_scores_of_generators_that_nobody_asked_for_in_a_week(tmp_path: Path):
    batch = [Example([1], [2])]
    caches = {name: ScoreCache(tmp_path, name) for name in ("six days", "eight days", "in use")}
    for cache in caches.values():
        cache.write(batch, np.array([-1.0], np.float32))
    for name, days in (("six days", 6), ("eight days", 8), ("in use", 9)):
        unused_since(caches[name], days)
    caches["in use"].prune()
    assert [cache.read(batch) is not None for cache in caches.values()] == [True, False, True]


def test_a_generator_that_is_asked_for_again_is_in_use(tmp_path: Path):
    batch = [Example([1], [2])]
    old = ScoreCache(tmp_path, "old")
    old.write(batch, np.array([-1.0], np.float32))
    unused_since(old, 8)
    ScoreCache(tmp_path, "old")
    ScoreCache(tmp_path, "other").prune()
    assert old.read(batch) is not None


def unused_since(cache: ScoreCache, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(cache.folder, (then, then))


@pytest.fixture
def key_of(tiny_home, load_generator, random_tensors):
    """Return a function: the cache key of a generator with a random adapter of this seed and scale."""
    shapes = load_generator(rank=2).parameters()

    def key(seed: int, untouched: bool = False, b_scale: float = 0.1, alpha: float = 4.0) -> str:
        tree = {
            "name": "keys",
            "data": {"sites": "nowhere"},
            "models": {"generator": "fedrag/tiny-causal", "generator_dtype": "float32"},
            "generator": {"lora": {"rank": 2, "alpha": alpha}},
        }
        tensors = random_tensors(shapes, seed)
        tensors = {n: t * np.float32(b_scale if ".lora_B." in n else 1) for n, t in tensors.items()}
        return RoundModels(Config.from_dict(tree), {"generator": tensors}).generator_key(untouched)

    return key


def test_another_adapter_or_scale_has_another_key(key_of):
    assert key_of(0) == key_of(0)
    assert len({key_of(0), key_of(1), key_of(0, alpha=8.0), key_of(0, untouched=True)}) == 4


def test_an_adapter_that_changes_nothing_has_the_key_of_the_base(key_of):
    assert key_of(0, b_scale=0.0) == key_of(1, b_scale=0.0) == key_of(2, untouched=True)


def test_another_number_of_threads_has_another_key(key_of):
    before, threads = key_of(0), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert key_of(0) != before
    finally:
        torch.set_num_threads(threads)
