"""Passes in two threads compute what they compute alone."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from fedrag.config.training_settings import GeneratorConfig
from fedrag.models.generator import Generator
from fedrag.passes.reading import reader_of
from fedrag.passes.threads import has_dynamic_rope, passes_at_a_time, thread_pool
from fedrag.rag.answer_scores import score_answers
from fedrag.training.ralt import train_generator
from fedrag.types import Example


def examples() -> list[Example]:
    return [Example([7 + i, 9, *range(20, 24 + 3 * i)], [40 + i, 41, 2], prefix_ends=(2,)) for i in range(12)]


def alone(generator: Generator) -> Generator:
    """Return a generator whose passes run one after the other."""
    reader = reader_of(generator)
    reader.traits = replace(reader.traits, dynamic_rope=True)
    return generator


@pytest.mark.usefixtures("two_threads")
def test_training_learns_the_same_and_the_same_bits_each_time(load_generator):
    settings = GeneratorConfig(batch_size=6, micro_batch_tokens=96, epochs=2)
    threaded, again, plain = load_generator(), load_generator(), alone(load_generator())
    assert [reader_of(g).paths.training.threads for g in (threaded, plain)] == [2, 1]
    results = [train_generator(g, examples(), settings, seed=1) for g in (threaded, again, plain)]
    for name, update in results[0].update.items():
        np.testing.assert_array_equal(update, results[1].update[name])
        np.testing.assert_allclose(update, results[2].update[name], atol=1e-5)
    assert results[0].loss == results[1].loss == pytest.approx(results[2].loss, rel=1e-6)
    assert any(update.any() for update in results[0].update.values())


@pytest.mark.usefixtures("two_threads")
def test_scores_are_the_same(load_generator):
    done: list[tuple[int, int]] = []
    found = score_answers(load_generator(), examples(), 60, on_batch=lambda so_far, total: done.append((so_far, total)))
    np.testing.assert_allclose(found, score_answers(alone(load_generator()), examples(), 60), atol=1e-6)
    assert len(done) > 2
    assert done == sorted(done)
    assert done[-1] == (12, 12)


@pytest.mark.usefixtures("two_threads")
def test_a_model_that_draws_random_numbers_trains_the_same_bits_each_time(load_generator):
    """In several threads dropout would draw in whatever order they run."""
    settings = GeneratorConfig(batch_size=6, micro_batch_tokens=96, epochs=2, dropout=True)
    generator = load_generator("seq2seq")
    generator.dropout = True
    assert reader_of(generator).paths.training.not_taken["threads"] == "dropout"
    first, second = (train_generator(load_generator("seq2seq"), examples(), settings, seed=1) for _ in range(2))
    for name, update in first.update.items():
        np.testing.assert_array_equal(update, second.update[name])


@pytest.mark.usefixtures("two_threads")
def test_passes_on_a_gpu_and_those_of_one_thread_run_one_by_one():
    assert [passes_at_a_time(on_gpu=False), passes_at_a_time(on_gpu=True)] == [2, 1]
    torch.set_num_threads(1)
    assert passes_at_a_time(on_gpu=False) == 1


@pytest.mark.parametrize(
    ("rope", "expected"),
    [({"rope_type": "default"}, False), ({"rope_type": "dynamic", "factor": 2.0}, True)],
)
def test_rotary_embeddings_that_grow_with_texts_are_told_apart(rope, expected):
    config = LlamaConfig(rope_parameters={"rope_theta": 10_000.0, **rope})
    assert has_dynamic_rope(config) is expected


@pytest.mark.usefixtures("two_threads")
def test_two_jobs_run_at_a_time_with_half_the_threads_each_and_one_alone_with_all():
    meeting = threading.Barrier(2, timeout=20)

    def job() -> int:
        meeting.wait()  # passes only where another job runs too
        return torch.get_num_threads()

    with thread_pool(2) as run:
        assert list(run([job, job, job, job])) == [1, 1, 1, 1]
        assert list(run([torch.get_num_threads])) == [2]
        assert torch.get_num_threads() == 2
    with thread_pool(2, same_threads=True) as run:
        assert list(run([torch.get_num_threads])) == [1]
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_error_of_a_job_comes_up_in_its_place_and_the_rest_is_dropped():
    begun: list[int] = []

    def fails() -> int:
        raise ValueError("this one")

    def slow(number: int) -> int:
        begun.append(number)
        threading.Event().wait(0.05)
        return number

    jobs = [lambda: 1, fails, *(lambda n=n: slow(n) for n in range(50))]
    with thread_pool(2) as run, pytest.raises(ValueError, match="this one"):
        list(run(jobs))
    assert len(begun) < 50
    assert torch.get_num_threads() == 2
