"""The retriever's training loop: contrastive, LSR, or their sum."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import TrainingDiverged
from fedrag.models.retriever import Retriever
from fedrag.training.losses import Losses
from fedrag.training.negatives import questions_behind
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.process_group import ALONE, Group
from fedrag.training.ralt import epoch_batches
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.retriever_batches import distinct_batches
from fedrag.training.retriever_examples import RetrieverExample
from fedrag.training.retriever_loss import BatchLoss
from fedrag.types import Tensors


def train_retriever(
    retriever: Retriever,
    examples: Sequence[RetrieverExample],
    settings: RetrieverConfig,
    *,
    seed: int,
    progress: Progress = Progress(),
    received: Tensors | None = None,
    proximal_mu: float = 0.0,
    trained: Collection[str] | None = None,
    losses: Losses = Losses(),
    on_step: OnStep | None = None,
    group: Group = ALONE,
) -> TrainingResult:
    """Train the encoder for one round and return its update.

    Args:
        retriever: Holds the received state at the start and the trained one at the end.
        examples: Labelled or scored questions, or both.
        settings: Losses, optimizer, epochs and batch size.
        seed: Seed of the order of examples and of dropout.
        progress: The part of the whole training that this round is.
        received: The exact float32 state of a LoRA adapter.
        proximal_mu: Strength of FedProx.
        trained: Names of the tensors that are trained; None: all.
        losses: The loss functions.
        on_step: Called after each step with (steps done, steps in all, loss).
        group: The processes that train together; each calls this with the same examples, settings, seed and state.

    Raises:
        TrainingDiverged: A loss or gradient is not finite.
    """
    batch_loss = BatchLoss.over(retriever, examples, settings, losses, group)
    start = received if settings.weights == "lora" else None
    optimizer = MasterOptimizer(retriever.parameters(), settings, start, proximal_mu, trained)
    torch.manual_seed(seed + group.rank)  # dropout differs from share to share
    batches = _batches(examples, settings, seed)
    temperatures = temperatures_of(retriever, settings)  # found by encoding some texts, so before training begins
    history: list[float] = []
    retriever.learner.train(settings.dropout)
    try:
        for step, rows in enumerate(batches):
            loss = batch_loss.backward([examples[i] for i in rows], optimizer)
            group.add_up(optimizer.masters)
            history.append(loss.item())  # after the backward pass: reading a number waits for the GPU
            if not math.isfinite(history[-1]):
                raise TrainingDiverged("the training diverged: its loss is not finite")
            optimizer.step(progress.at(step, len(batches)))
            if on_step:
                on_step(step + 1, len(batches), history[-1])
    finally:
        retriever.learner.eval()
    if settings.weights == "lora":
        retriever.set_state(
            {**(start or {}), **optimizer.state()}
        )  # the float32 encoder, which searches, takes over what its short copy has learnt
    behind = questions_behind(([examples[i] for i in rows] for rows in batches), settings, batch_loss.guide)
    return TrainingResult.of(optimizer.update(), history, temperatures=temperatures, questions=behind)


def temperatures_of(retriever: Retriever, settings: RetrieverConfig) -> dict[str, float]:
    """Return the scale and the temperature of the losses in use."""
    used: dict[str, float] = {}
    if settings.uses_contrastive:
        used["scale"] = retriever.scale(settings.contrastive.scale)
    if settings.uses_lsr:
        used["tau_r"] = retriever.tau_r(settings.lsr.tau_r)
    return used


def _batches(examples: Sequence[RetrieverExample], settings: RetrieverConfig, seed: int) -> list[list[int]]:
    if settings.uses_contrastive:
        return distinct_batches(examples, settings.batch_size, settings.epochs, seed)
    return epoch_batches(len(examples), settings.batch_size, settings.epochs, seed)
