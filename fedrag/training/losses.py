"""Losses, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

AnswerLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ContrastiveLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LsrLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def answer_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of the answer tokens, summed (RALT; Lin et al. 2023, eq. 2).

    The sum, not the mean: the trainer divides by the answer tokens of the whole batch, so that the gradients of its
    parts add up to those of the batch.

    Args:
        logits: (tokens, vocabulary), at the positions that predict the answer.
        labels: (tokens,) ids of the answer and its end token.
    """
    return functional.cross_entropy(logits.float(), labels, reduction="sum")


def contrastive_loss(logits: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Return InfoNCE with in-batch negatives (van den Oord et al. 2018; Henderson et al. 2017).

    Row i's positive is column i; further columns are hard negatives.

    Args:
        logits: (queries, passages), scaled similarities, at least as many columns as rows.
        masked: (queries, passages) booleans: columns that are right for a row without being its positive; they do not
            count as negatives.
    """
    labels = torch.arange(len(logits), device=logits.device)
    return functional.cross_entropy(logits.masked_fill(masked, float("-inf")), labels)


def lsr_loss(
    logits: torch.Tensor,
    target_logits: torch.Tensor,
    valid: torch.Tensor,
    divergence: Literal["forward", "reverse"] = "forward",
) -> torch.Tensor:
    """Return the mean divergence between the retriever's and the generator's preferences.

    forward: KL(target || retriever), as in Atlas (Izacard et al. 2022); reverse: KL(retriever ||
    target), as in REPLUG (Shi et al. 2023, eq. 5).

    Args:
        logits: (questions, k) similarities divided by tau_r.
        target_logits: (questions, k) mean log-probabilities of the answer divided by tau_lm.
        valid: (questions, k) booleans: candidates that exist.
        divergence: Direction of the divergence.
    """
    absent = ~valid
    log_p = functional.log_softmax(logits.masked_fill(absent, float("-inf")), dim=-1)
    log_target = functional.log_softmax(target_logits.masked_fill(absent, float("-inf")), dim=-1)
    first, second = (log_target, log_p) if divergence == "forward" else (log_p, log_target)
    # An absent candidate has probability 0 on both sides and adds nothing; -inf minus -inf would be NaN.
    terms = first.exp() * (first.masked_fill(absent, 0.0) - second.masked_fill(absent, 0.0))
    return terms.sum(dim=-1).mean()


def rank_logits(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return target logits whose softmax is one over the rank: target_j = (1 / r_j) / sum_i (1 / r_i).

    The highest score has rank 1, and equal scores share the mean of their ranks (Kendall 1945). A softmax of scores is
    as sharp as they lie apart, which differs from question to question; this one has one shape for all.

    Args:
        scores: (questions, k), higher is better.
        valid: (questions, k) booleans: candidates that exist.
    """
    others = valid[:, None, :]
    higher = (scores[:, None, :] > scores[:, :, None]) & others
    equal = (scores[:, None, :] == scores[:, :, None]) & others
    ranks = higher.sum(dim=-1) + (equal.sum(dim=-1).clamp(min=1) + 1) / 2
    return -ranks.to(torch.promote_types(scores.dtype, torch.float32)).log()


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss functions of a run; a caller may replace each of them.

    Attributes:
        answer: (logits, labels) -> sum over tokens; see `answer_loss`.
        contrastive: (logits, masked) -> mean over queries; see `contrastive_loss`.
        lsr: (logits, target_logits, valid) -> mean over questions; None: `lsr_loss` with the divergence of the
            scenario.
    """

    answer: AnswerLoss = answer_loss
    contrastive: ContrastiveLoss = contrastive_loss
    lsr: LsrLoss | None = None
