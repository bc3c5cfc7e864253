"""On a GPU the same code computes what it computes on a CPU, without a flag."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedrag.config.training_settings import GeneratorConfig, LoraSection, RetrieverConfig
from fedrag.models.generator import Generator
from fedrag.passes.cuda_graph import GraphCapture
from fedrag.passes.cuda_graph_training import CapturedPasses
from fedrag.passes.decoding import decode
from fedrag.passes.reading import answer_logits, reader_of
from fedrag.rag.answer_scores import score_answers
from fedrag.retrieval.index import PassageIndex
from fedrag.training.losses import answer_loss
from fedrag.training.ralt import train_generator
from fedrag.types import Example, Tensors
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import find_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")

EXAMPLES = [Example([5, 6, 7, 8, *range(10, 12 + row)], [40 + row, 41, 2][: 1 + row % 3]) for row in range(22)]


def cut(answer: list[int]) -> list[int]:
    """Return an answer up to its end token."""
    return answer[: answer.index(2)] if 2 in answer else answer


def trained(generator: Generator, **settings) -> Tensors:
    config = GeneratorConfig.model_validate({"batch_size": 4, "epochs": 3, "learning_rate": 1e-3} | settings)
    return train_generator(generator, EXAMPLES, config, seed=5).update


def assert_close(ours: Tensors, theirs: Tensors, most: float = 0.02) -> None:
    """Compare by the norm of the difference: a weight whose gradient is nearly zero may go either way."""
    assert list(ours) == list(theirs)
    one, other = (np.concatenate([part.ravel() for part in update.values()]) for update in (ours, theirs))
    assert np.linalg.norm(one - other) <= most * np.linalg.norm(other)


def test_without_a_setting_the_gpu_is_used_and_computes_in_bfloat16():
    assert best_device() == "cuda"
    assert computing_dtype("auto", "cuda") == torch.bfloat16


def test_training_is_the_same_as_on_a_cpu(load_generator):
    on_a_gpu = load_generator(device="cuda")
    assert_close(trained(on_a_gpu), trained(load_generator()))
    assert reader_of(on_a_gpu).graph_capture.captured > 0


def test_training_after_answers_is_the_same(load_generator):
    generator = load_generator(device="cuda")
    decode(generator, EXAMPLES, 5)
    assert_close(trained(generator), trained(load_generator()))
    assert reader_of(generator).graph_capture.captured > 0


def test_in_small_parts_it_is_the_same(load_generator):
    assert_close(trained(load_generator(device="cuda"), micro_batch_tokens=50), trained(load_generator()))


@pytest.mark.parametrize("more", [{"activation_checkpointing": "on"}, {}])
def test_passes_without_graphs_compute_the_same(load_generator, monkeypatch, more):
    monkeypatch.setattr("fedrag.passes.cuda_graph_training.MOST_GRAPHS", 0)
    generator = load_generator(device="cuda")
    assert_close(trained(generator, **more), trained(load_generator()))
    assert reader_of(generator).graph_capture.captured == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_replayed_pass_computes_what_it_computed_before(load_generator, random_tensors, dtype):
    generator = load_generator(device="cuda", dtype=dtype)
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    graph_capture = GraphCapture(generator.model.device)
    passes = CapturedPasses(generator.model, 0, graph_capture)
    states = [random_tensors(generator.parameters(), seed=seed) for seed in range(3)]

    def learned(batch: list[Example]) -> list[torch.Tensor]:
        loss, gradients = passes.forward_backward(batch, answer_loss, 7)
        return [loss.clone(), *(gradient.clone() for gradient in gradients if gradient is not None)]

    before = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrag.passes.cuda_graph_training.MOST_GRAPHS", 0)
        for state in states:
            generator.set_adapter(state)
            before.append((learned(EXAMPLES[:3]), learned(EXAMPLES[3:7])))
    passes._graphs.clear()
    for state, (one, other) in zip(states, before, strict=True):
        generator.set_adapter(state)
        for batch, expected in ((EXAMPLES[:3], one), (EXAMPLES[3:7], other)):
            for again, first in zip(learned(batch), expected, strict=True):
                torch.testing.assert_close(again, first, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-5)
    assert graph_capture.captured == 2


def test_a_model_that_reads_its_results_back_is_not_captured(load_generator):
    generator = load_generator(device="cuda")
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    graph_capture = GraphCapture(generator.model.device)
    passes = CapturedPasses(generator.model, 0, graph_capture)

    def reading_back(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return answer_loss(logits, labels) * (1.0 if logits.sum().item() < 1e30 else 0.0)

    losses = [passes.forward_backward(EXAMPLES[:3], reading_back, 7)[0].item() for _ in range(5)]
    assert losses == pytest.approx([losses[0]] * 5)
    assert graph_capture.captured == 0
    torch.cuda.synchronize()
    assert passes.forward_backward(EXAMPLES[:3], answer_loss, 7)[0].item() == pytest.approx(losses[0])


def test_from_the_question_on_it_is_the_same(load_generator, monkeypatch):
    monkeypatch.setattr("test_gpu.EXAMPLES", [replace(example, prefix_ends=(2, 4)) for example in EXAMPLES])
    assert_close(trained(load_generator(device="cuda", prefix_bytes=1e8)), trained(load_generator(prefix_bytes=1e8)))


def test_a_seq2seq_model_trains_the_same(load_generator):
    generators = [load_generator("seq2seq", device=device) for device in ("cuda", "cpu")]
    for generator in generators:
        for module in generator.model.modules():  # the two devices draw other random numbers
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert_close(*(trained(generator) for generator in generators))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_scores_and_answers_are_the_same(load_generator, kind):
    ours, theirs = load_generator(kind, device="cuda"), load_generator(kind)
    np.testing.assert_allclose(score_answers(ours, EXAMPLES), score_answers(theirs, EXAMPLES), rtol=1e-4, atol=1e-4)
    answers = [[row[:6] for row in decode(generator, EXAMPLES, 6)] for generator in (ours, theirs)]
    assert (reader_of(ours).paths.training.name == "cuda graph") == (kind == "causal")
    assert [cut(row) for row in answers[0]] == [cut(row) for row in answers[1]]


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_retriever_encodes_and_trains_the_same(load_retriever, weights):
    from fedrag.training.retriever_examples import PassageText, RetrieverExample
    from fedrag.training.retriever_training import train_retriever

    texts = [f"passage {number} on moon {number * 7}" for number in range(12)]
    updates = []
    for device in ("cuda", "cpu"):
        retriever = load_retriever(device=device, weights=weights)
        vectors = retriever.encode_passages(texts)
        index = PassageIndex(texts, texts, vectors)
        assert [hits[0].passage_id for hits in index.search(retriever.encode_passages(texts), 1)] == texts
        examples = [
            RetrieverExample(f"which moon {i}?", positive=PassageText(text, text)) for i, text in enumerate(texts)
        ]
        settings = RetrieverConfig.model_validate({"weights": weights, "batch_size": 6, "learning_rate": 1e-3})
        updates.append((vectors, train_retriever(retriever, examples, settings, seed=3).update))
    np.testing.assert_allclose(updates[0][0], updates[1][0], atol=1e-5)
    assert_close(updates[0][1], updates[1][1])


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_four_bits_say_and_learn_what_they_do_on_a_cpu(wide_home, monkeypatch, random_tensors, kind):
    monkeypatch.setenv("FEDRAG_HOME", str(wide_home))
    fetched, lora = find_model(f"fedrag/tiny-{kind}"), LoraSection(rank=4, alpha=8.0)
    generators = [Generator.load(fetched, lora, torch.float32, device, four_bits=True) for device in ("cuda", "cpu")]
    for generator in generators:
        generator.set_adapter(random_tensors(generator.parameters(), seed=1))
        for module in generator.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    with torch.no_grad():
        ours, theirs = (answer_logits(generator, EXAMPLES)[0].cpu() for generator in generators)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert_close(*(trained(generator) for generator in generators))
