"""The retriever's training with noise: LSR, and the contrastive loss with each question's own negatives.

In-batch negatives would let a question act through the gradients of all others of its batch, which clipping its own
gradient does not bound (Kong et al. 2023, arXiv 2310.03104). So a question meets its labelled passage and its own hard
negatives alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.models.adapter_rows import AdapterRows
from fedrag.models.retriever import Retriever
from fedrag.passes.threads import thread_pool
from fedrag.training.losses import Losses
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.private_steps import NoisedSteps, train_with_noise
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.retriever_examples import RetrieverExample
from fedrag.training.retriever_loss import BatchLoss
from fedrag.training.retriever_training import temperatures_of
from fedrag.training.unit_gradients import UnitGradients
from fedrag.types import Tensors

_PASS_TOKENS = 2048  # padding included

Unit = Sequence[RetrieverExample]
"""The labelled pairs and scored candidates of one question, or of one subject."""


def train_retriever_privately(
    retriever: Retriever,
    units: Sequence[Unit],
    settings: RetrieverConfig,
    steps: NoisedSteps,
    *,
    progress: Progress = Progress(),
    received: Tensors | None = None,
    proximal_mu: float = 0.0,
    trained: Collection[str] | None = None,
    losses: Losses = Losses(),
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train the encoder for one round with noise, and return its update.

    Args:
        retriever: Holds the received state at the start and the trained one at the end.
        units: What is protected as a whole.
        settings: Losses and optimizer; its batch size and epochs are those of `steps`.
        steps: How many, and their noise.
        progress: The part of the whole training that this round is.
        received: The exact float32 state of a LoRA adapter.
        proximal_mu: Strength of FedProx.
        trained: Names of the tensors that are trained; None: all.
        losses: The loss functions.
        on_step: Called after each step.

    Raises:
        TrainingDiverged: The noised gradient is not finite.
    """
    start = received if settings.weights == "lora" else None
    optimizer = MasterOptimizer(retriever.parameters(), settings, start, proximal_mu, trained)
    gradients = unit_gradients(retriever, optimizer, [e for unit in units for e in unit], settings, losses)
    temperatures = temperatures_of(retriever, settings)
    torch.manual_seed(secrets.randbits(63))  # dropout by a seed would tell how many passes came before one's own
    retriever.learner.train(settings.dropout)
    try:
        with gradients.ready(), thread_pool(1) as run:
            train_with_noise(gradients, units, steps, run, 1, progress, on_step)
    finally:
        retriever.learner.eval()
    if settings.weights == "lora":
        retriever.set_state({**(start or {}), **optimizer.state()})
    return TrainingResult.untold(optimizer.update(), steps.event.steps, temperatures)


def unit_gradients(
    retriever: Retriever,
    optimizer: MasterOptimizer,
    examples: Sequence[RetrieverExample],
    settings: RetrieverConfig,
    losses: Losses = Losses(),
) -> UnitGradients[RetrieverExample]:
    """Return what computes gradients of the loss of batches that are one example each.

    Many questions are encoded in a pass, if an adapter alone is trained and passages stay as they are: a passage of
    several questions would belong to each of them.

    Args:
        retriever: Encodes the passages of all examples now, where their side is not trained.
        optimizer: Holds the trained parameters.
        examples: All that will be asked for.
        settings: Losses.
        losses: The loss functions; they are given one example at a time.
    """
    loss = BatchLoss.over(retriever, examples, settings, losses)
    tokens = _question_tokens(retriever, examples)
    rows = None if settings.trains_passage_side else AdapterRows.of(retriever.learner, optimizer.parameters)
    return UnitGradients(optimizer, loss.of_each, rows, lambda example: tokens[example.question], _PASS_TOKENS)


def _question_tokens(retriever: Retriever, examples: Sequence[RetrieverExample]) -> dict[str, int]:
    """Return how many tokens the encoder reads of each question."""
    questions = list(dict.fromkeys(example.question for example in examples))
    if not questions:
        return {}
    mask = retriever.query_features(questions)["attention_mask"]
    return dict(zip(questions, mask.sum(dim=1).tolist(), strict=True))
