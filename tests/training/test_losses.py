"""The losses against other implementations and sums by hand, gradients included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch.nn import functional

from fedrag.training.losses import answer_loss, contrastive_loss, lsr_loss, rank_logits


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax64(row: list[float]) -> np.ndarray:
    powers = np.exp(np.array(row, np.float64) - max(row))
    return powers / powers.sum()


def kl64(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))


def test_the_answer_loss_is_the_sum_over_tokens():
    logits, labels = normal(3, 5), torch.tensor([4, 0, 2])
    by_hand = -sum(math.log(softmax64(row.tolist())[label]) for row, label in zip(logits, labels, strict=True))
    assert answer_loss(logits, labels).item() == pytest.approx(by_hand, rel=1e-6)


def test_the_answer_loss_is_computed_in_float32():
    logits = normal(4, 50).bfloat16()
    labels = torch.arange(4)
    assert answer_loss(logits, labels).dtype == torch.float32
    assert answer_loss(logits, labels) == answer_loss(logits.float(), labels)


def test_the_contrastive_loss_is_the_cross_entropy_of_the_diagonal():
    logits = normal(3, 5)
    masked = torch.zeros(3, 5, dtype=torch.bool)
    by_hand = -np.mean([math.log(softmax64(row.tolist())[i]) for i, row in enumerate(logits)])
    assert contrastive_loss(logits, masked).item() == pytest.approx(by_hand, rel=1e-6)


def test_a_masked_passage_is_as_if_it_were_not_there():
    logits = normal(2, 4).requires_grad_()
    masked = torch.tensor([[False, True, False, False], [False, False, False, True]])
    loss = contrastive_loss(logits, masked)
    rows = [logits.detach()[0, [0, 2, 3]].tolist(), logits.detach()[1, [0, 1, 2]].tolist()]
    by_hand = -(math.log(softmax64(rows[0])[0]) + math.log(softmax64(rows[1])[1])) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[masked].any()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_lsr_is_the_kl_divergence_of_torch_and_of_the_definition(divergence):
    logits, targets = normal(4, 6, seed=1), 3 * normal(4, 6, seed=2)
    valid = torch.ones(4, 6, dtype=torch.bool)
    loss = lsr_loss(logits, targets, valid, divergence).item()
    log_p, log_target = logits.log_softmax(-1), targets.log_softmax(-1)
    first, second = (log_target, log_p) if divergence == "forward" else (log_p, log_target)
    theirs = functional.kl_div(second, first, reduction="batchmean", log_target=True)  # KL(first || second)
    assert loss == pytest.approx(theirs.item(), rel=1e-5)
    rows = [(softmax64(t), softmax64(r)) for t, r in zip(targets.tolist(), logits.tolist(), strict=True)]
    by_hand = np.mean([kl64(t, p) if divergence == "forward" else kl64(p, t) for t, p in rows])
    assert loss == pytest.approx(by_hand, rel=1e-5)


def test_the_two_directions_differ():
    logits, targets, valid = normal(4, 6, seed=1), 3 * normal(4, 6, seed=2), torch.ones(4, 6, dtype=torch.bool)
    forward, reverse = (lsr_loss(logits, targets, valid, d).item() for d in ("forward", "reverse"))
    assert abs(forward - reverse) > 0.1


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_absent_candidates_add_nothing_to_loss_or_gradient(divergence):
    valid = torch.tensor([[True] * 5, [True, True, False, False, False], [True, True, True, False, False]])
    logits, targets = normal(3, 5, seed=1).requires_grad_(), normal(3, 5, seed=2)
    loss = lsr_loss(logits, targets, valid, divergence)
    loss.backward()
    single = []
    for i, count in enumerate((5, 2, 3)):
        part = logits.detach()[i : i + 1, :count].clone().requires_grad_()
        row = lsr_loss(part, targets[i : i + 1, :count], valid[i : i + 1, :count], divergence)
        row.backward()
        single.append(row.item())
        torch.testing.assert_close(logits.grad[i, :count], part.grad[0] / 3, atol=1e-7, rtol=1e-5)
    assert loss.item() == pytest.approx(np.mean(single), rel=1e-6)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[~valid].any()


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_what_stands_at_an_absent_candidate_does_not_matter(divergence):
    valid = torch.tensor([[True, True, False]])
    one = lsr_loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 5.0]]), valid, divergence)
    other = lsr_loss(torch.tensor([[1.0, 2.0, -9.0]]), torch.tensor([[0.0, 1.0, -50.0]]), valid, divergence)
    assert one == other


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_targets_far_apart_give_finite_loss_and_gradient(divergence):
    """A target probability of exp(-500) is 0 in float32; its logarithm is not."""
    logits = torch.tensor([[3.0, -2.0, 0.5]], requires_grad=True)
    loss = lsr_loss(logits, torch.tensor([[0.0, -500.0, -30.0]]), torch.ones(1, 3, dtype=torch.bool), divergence)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 1e-3


def test_equal_preferences_have_no_loss_and_no_gradient():
    logits = normal(2, 4).requires_grad_()
    for divergence in ("forward", "reverse"):
        loss = lsr_loss(logits, logits.detach() + 7.0, torch.ones(2, 4, dtype=torch.bool), divergence)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
        assert gradient.abs().max() < 1e-6


# The generator's ranks


def test_a_rank_target_is_one_over_the_rank():
    scores = torch.tensor([[-0.3, -2.0, -0.9, -0.1]], dtype=torch.float64)
    found = rank_logits(scores, torch.ones(1, 4, dtype=torch.bool)).softmax(-1)
    by_hand = np.array([1 / 2, 1 / 4, 1 / 3, 1]) / (1 / 2 + 1 / 4 + 1 / 3 + 1)
    np.testing.assert_allclose(found[0].numpy(), by_hand, atol=1e-15)


def test_ranks_with_ties_and_absent_candidates_are_those_of_scipy():
    scores = (3 * normal(6, 7, seed=3).double()).round()  # many are equal
    valid = torch.ones(6, 7, dtype=torch.bool)
    valid[1, 3:] = valid[4, 1:] = False
    scores[~valid] = 99.0  # what stands there does not matter
    found = rank_logits(scores, valid)
    assert found.dtype == torch.float64
    for row, own, given in zip(found, scores, valid, strict=True):
        ranks = rankdata(-own[given].numpy(), method="average")
        np.testing.assert_allclose(row[given].exp().numpy(), 1 / ranks, atol=1e-15)
    assert torch.isfinite(found).all()


def test_a_rank_target_is_the_same_however_far_the_scores_lie_apart():
    scores, valid = normal(3, 5), torch.ones(3, 5, dtype=torch.bool)
    assert torch.equal(rank_logits(scores, valid), rank_logits(100 * scores + 7, valid))
