"""Gradient caching: the gradient of the whole batch, in memory that does not grow with the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import nn
from torch.nn import functional

from fedrag.models.retriever import Retriever
from fedrag.training.grad_cache import cached_backward
from fedrag.training.losses import Losses
from fedrag.training.optimizer import MasterOptimizer
from fedrag.training.retriever_examples import PassageText, RetrieverExample
from fedrag.training.retriever_loss import BatchLoss
from fedrag.training.retriever_training import train_retriever

CPU = torch.device("cpu")
PLAIN = {"schedule": "constant", "warmup": 0.0, "clip_norm": 1e9}
TEXTS = (  # from short to long: the order in which parts are made
    "Tram line 3 runs to the zoo.",
    "A copper owl sits on the roof.",
    "The rye dough rests for eighteen hours.",
    "The chess club meets in the old tea house.",
    "A flat tyre is repaired for four crowns and a smile.",
    "The library lends saws, drills and ladders, but no books.",
)
PASSAGES = tuple(PassageText(str(number), text) for number, text in enumerate(TEXTS))
QUESTIONS = ("Who?", "Where does the tram run?", "How long?", "What does the repair of a tyre cost?")


def examples_of(n_hard: int = 0, scored: bool = False) -> list[RetrieverExample]:
    """Labelled questions; with `scored`, some have candidates, one has no label."""
    labelled = [
        RetrieverExample(
            question,
            frozenset({str(number)}),
            PASSAGES[number],
            hard_negatives=tuple(PASSAGES[(number + 1 + k) % len(PASSAGES)] for k in range(n_hard)),
        )
        for number, question in enumerate(QUESTIONS)
    ]
    if not scored:
        return labelled
    candidates = {"candidates": PASSAGES[2:5], "answer_scores": (-0.2, -1.0, -0.7)}
    return [*[replace(e, **candidates) for e in labelled[:2]], labelled[2], RetrieverExample("What?", **candidates)]


def gradients(retriever: Retriever, examples: list[RetrieverExample], **changes: Any) -> dict[str, np.ndarray]:
    """Return the gradient of one batch by the names of the weights, and the loss as "loss"."""
    settings = retriever.config.model_copy(update=changes)
    batch_loss = BatchLoss.over(retriever, examples, settings, Losses())
    if frozen := batch_loss.passages.frozen:
        batch_loss.passages.frozen = replace(frozen, vectors=frozen.vectors.to(retriever.learner.dtype))
    optimizer = MasterOptimizer(retriever.parameters(), settings)
    torch.manual_seed(3)
    retriever.learner.train(settings.dropout)
    loss = batch_loss.backward(examples, optimizer)
    retriever.learner.eval()
    found = dict(zip(retriever.parameters(), optimizer.masters, strict=True))
    return {"loss": loss.numpy(), **{name: m.grad.numpy() for name, m in found.items() if m.grad is not None}}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert max(np.abs(tensor).max() for name, tensor in expected.items() if name != "loss") > 1e-2
    for name, tensor in expected.items():
        np.testing.assert_allclose(found.get(name, np.zeros_like(tensor)), tensor, atol=1e-6, err_msg=name)


@pytest.fixture
def load64(load_retriever, random_tensors, monkeypatch) -> Callable[..., Retriever]:
    """Return a function that loads the tiny retriever in float64, with a state that is not the start."""

    def kept64(vectors: torch.Tensor, encoder: object) -> torch.Tensor:
        return functional.normalize(vectors, dim=-1)

    def load(**settings: Any) -> Retriever:
        retriever = load_retriever(**PLAIN, **settings)
        scale = 0.1 if retriever.config.weights == "lora" else 0.02
        retriever.set_state(random_tensors(retriever.initial_state(0), scale=scale))
        retriever.encoder.double()
        retriever._passage_encoder.double()
        monkeypatch.setattr("fedrag.models.retriever.kept", kept64)
        return retriever

    return load


# The gradient


def encoder64(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 5)).double()


def infonce(vectors: list[torch.Tensor]) -> torch.Tensor:
    """Six questions, their passages, and a hard negative each."""
    queries, passages = functional.normalize(torch.cat(vectors), dim=-1).split([6, 12])
    return functional.cross_entropy(20.0 * queries @ passages.T, torch.arange(6))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("size", [1, 4, 5, 18])
def test_in_float64_it_is_the_gradient_of_all_parts_at_once(dropout, size):
    encoder, texts = encoder64(dropout), torch.randn(18, 7, dtype=torch.float64)
    parts = [partial(encoder, texts[i : i + size]) for i in range(0, 18, size)]
    weights = list(encoder.parameters())
    torch.manual_seed(1)
    loss = infonce([embed() for embed in parts])
    loss.backward()
    expected = [weight.grad for weight in weights]
    after = torch.rand(1)
    encoder.zero_grad()
    torch.manual_seed(1)
    found = cached_backward(parts, infonce, lambda number: number.backward(), CPU)
    assert torch.equal(torch.rand(1), after)  # chance goes on as if nothing had been embedded twice
    assert found.item() == loss.item()
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-12, rtol=1e-12)


def test_without_dropout_parts_give_the_gradient_of_the_plain_batch_in_float64():
    encoder, texts = encoder64(), torch.randn(18, 7, dtype=torch.float64)
    weights = list(encoder.parameters())
    expected = torch.autograd.grad(infonce([encoder(texts)]), weights)
    parts = [partial(encoder, texts[i : i + 4]) for i in range(0, 18, 4)]
    cached_backward(parts, infonce, lambda number: number.backward(), CPU)
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-12, rtol=1e-12)


def test_a_part_that_the_loss_does_not_depend_on_is_not_embedded_again():
    encoder, calls = encoder64(0.3), [0, 0]

    def embed(number: int) -> torch.Tensor:
        calls[number] += 1
        return encoder(torch.ones(2, 7, dtype=torch.float64))

    parts = [partial(embed, 0), partial(embed, 1)]
    torch.manual_seed(1)
    _ = [part() for part in parts]
    after = torch.rand(1)
    torch.manual_seed(1)
    cached_backward(parts, lambda vectors: vectors[0].sum(), lambda number: number.backward(), CPU)
    assert calls == [1 + 2, 1 + 1]
    assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("n_hard", [0, 2])
@pytest.mark.parametrize(("weights", "side"), [(w, s) for w in ("lora", "full") for s in ("query", "both")])
def test_a_retrievers_gradient_is_that_of_the_plain_batch(load64, weights, side, n_hard):
    retriever = load64(weights=weights, contrastive={"side": side})
    examples = examples_of(n_hard)
    assert_same(gradients(retriever, examples, mini_batch_size=3), gradients(retriever, examples))


@pytest.mark.parametrize(("contrastive", "lsr"), [("both", "both"), ("both", "query"), ("query", "both")])
def test_so_it_is_for_both_losses_together_whichever_side_each_trains(load64, contrastive, lsr):
    sides = {"contrastive": {"side": contrastive, "guide": "untouched"}, "lsr": {"side": lsr}}
    retriever = load64(loss="both", lsr_weight=0.3, **sides)
    examples = examples_of(1, scored=True)
    assert_same(gradients(retriever, examples, mini_batch_size=2), gradients(retriever, examples))


def test_with_dropout_both_passes_draw_the_same(load64):
    """In one part a side, dropout draws what it draws in the plain batch; drawn anew, gradients differ."""
    retriever = load64(dropout=True)
    for module in retriever.learner.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    examples = examples_of()
    plain = gradients(retriever, examples)
    assert_same(gradients(retriever, examples, mini_batch_size=len(TEXTS)), plain)
    without = gradients(retriever, examples, dropout=False)
    assert abs(plain["loss"] - without["loss"]) > 1e-3


@pytest.mark.parametrize("n_hard", [0, 1])
def test_it_is_the_cached_loss_of_sentence_transformers(load64, n_hard):
    retriever = load64(weights="full")
    examples = examples_of()
    columns = [list(QUESTIONS), list(TEXTS[:4])]
    if n_hard:  # two questions, each with a negative that is right for neither
        examples = [
            replace(examples[0], hard_negatives=(PASSAGES[4],)),
            replace(examples[1], hard_negatives=(PASSAGES[5],)),
        ]
        columns = [list(QUESTIONS[:2]), list(TEXTS[:2]), list(TEXTS[4:6])]
    found = gradients(retriever, examples, mini_batch_size=2)
    scale = retriever.fitting_scale
    theirs = CachedMultipleNegativesRankingLoss(retriever.encoder, scale=scale, mini_batch_size=2)
    features = [retriever.encoder.preprocess(texts) for texts in columns]
    loss = theirs(features, labels=torch.zeros(0))
    loss.backward()
    expected = {n: p.grad.numpy() for n, p in retriever.parameters().items() if p.grad is not None}
    assert found["loss"].item() == pytest.approx(loss.item(), rel=1e-9)
    assert_same(found, expected)


def test_training_by_parts_follows_training_by_whole_batches(load_retriever):
    curves: list[list[float]] = []
    for size in (0, 2):
        losses: list[float] = []
        retriever = load_retriever(**PLAIN, learning_rate=1e-3, epochs=5, mini_batch_size=size)
        train_retriever(
            retriever,
            examples_of(1),
            retriever.config,
            seed=0,
            on_step=lambda done, of, loss, kept=losses: kept.append(loss),
        )
        curves.append(losses)
    assert len(curves[0]) == 5
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
    assert curves[0][-1] < curves[0][0] - 0.01


# Its memory


@dataclass
class Bytes:
    """Those that are kept for backward passes now, and the most that were at a time."""

    now: int = 0
    most: int = 0


class Kept:
    """A tensor that is kept for a backward pass; its bytes count while it lives."""

    def __init__(self, counted: Bytes, tensor: torch.Tensor) -> None:
        self.tensor, self._counted, self._bytes = tensor, counted, tensor.numel() * tensor.element_size()
        counted.now += self._bytes
        counted.most = max(counted.most, counted.now)

    def __del__(self) -> None:
        self._counted.now -= self._bytes


def most_bytes_kept(work: Callable[[], object]) -> int:
    """Return the most bytes that are kept for backward passes at a time."""
    counted = Bytes()
    with torch.autograd.graph.saved_tensors_hooks(partial(Kept, counted), lambda kept: kept.tensor):
        work()
    return counted.most


def numbered(count: int) -> list[RetrieverExample]:
    """Questions and passages of one length."""
    passages = [PassageText(str(n), f"In room {n:03} there is a copper owl.") for n in range(count)]
    return [RetrieverExample(f"What is in room {n:03}?", frozenset({p.passage_id}), p) for n, p in enumerate(passages)]


def test_four_times_the_batch_takes_no_more_memory(load_retriever):
    retriever = load_retriever(**PLAIN)
    plain, cached = (
        [most_bytes_kept(partial(gradients, retriever, numbered(count), mini_batch_size=size)) for count in (16, 64)]
        for size in (0, 8)
    )
    assert plain[1] > 3.5 * plain[0]
    assert cached[1] < 1.1 * cached[0]
    assert cached[1] < plain[1] / 10
