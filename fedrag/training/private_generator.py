"""RALT with noise: the generator learns from questions of which none can be told from what leaves the site."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from contextlib import nullcontext

import torch

from fedrag.config.training_settings import GeneratorConfig
from fedrag.models.adapter_rows import AdapterRows
from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.choose import ReadingPath
from fedrag.passes.memory_estimate import tokens_at_a_time
from fedrag.passes.reading import TRAINING_TOKENS, reader_of
from fedrag.passes.threads import thread_pool
from fedrag.training.losses import AnswerLoss, answer_loss
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.private_steps import NoisedSteps, train_with_noise
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.unit_gradients import UnitGradients
from fedrag.types import Example, Tensors

Unit = Sequence[Example]
"""The prompts and answers of one question, or of one subject."""


def train_generator_privately(
    generator: Generator,
    units: Sequence[Unit],
    settings: GeneratorConfig,
    steps: NoisedSteps,
    *,
    progress: Progress = Progress(),
    received: Tensors | None = None,
    proximal_mu: float = 0.0,
    trained: Collection[str] | None = None,
    loss: AnswerLoss = answer_loss,
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train the adapter for one round with noise, and return its update.

    Args:
        generator: Holds the received state at the start and the trained one at the end.
        units: What is protected as a whole.
        settings: The optimizer; its batch size and epochs are those of `steps`.
        steps: How many, and their noise.
        progress: The part of the whole training that this round is.
        received: The exact float32 state; the generator may compute in a shorter format.
        proximal_mu: Strength of FedProx.
        trained: Names of the adapter's tensors that are trained; None: all.
        loss: Sums over answer tokens.
        on_step: Called after each step.

    Raises:
        TrainingDiverged: The noised gradient is not finite.
    """
    torch.manual_seed(secrets.randbits(63))  # dropout by a seed would tell how many passes came before one's own
    generator.dropout = settings.dropout
    optimizer = MasterOptimizer(generator.parameters(), settings, received, proximal_mu, trained)
    threads = reader_of(generator).paths.training.threads
    gradients = unit_gradients(generator, optimizer, settings, loss)
    checkpointed = settings.activation_checkpointing == "on"
    generator.model.train(settings.dropout)
    try:
        with (
            gradients.ready(),
            layers_checkpointed(generator.model) if checkpointed else nullcontext(),
            thread_pool(threads) as run,
        ):
            train_with_noise(gradients, units, steps, run, threads, progress, on_step)
    finally:
        generator.model.train(False)
    return TrainingResult.untold(optimizer.update(), steps.event.steps)


def unit_gradients(
    generator: Generator, optimizer: MasterOptimizer, settings: GeneratorConfig, loss: AnswerLoss = answer_loss
) -> UnitGradients[Example]:
    """Return what computes gradients of the mean loss of an answer's tokens, in padded rows.

    Args:
        generator: The generator.
        optimizer: Holds the trained parameters.
        settings: Its `micro_batch_tokens` are those of a pass.
        loss: Sums over answer tokens; it is given one example at a time.
    """
    reader = reader_of(generator)
    plain = ReadingPath("plain", 1, {})

    def loss_of(examples: Sequence[Example]) -> torch.Tensor:
        lengths = [len(example.answer) for example in examples]
        logits, labels = (torch.split(part, lengths) for part in reader.answer_logits(examples, plain))
        return torch.stack([loss(*part) / len(part[1]) for part in zip(logits, labels, strict=True)]).sum()

    rows = AdapterRows.of(generator.model, optimizer.parameters)
    tokens = tokens_at_a_time(generator, settings.micro_batch_tokens, TRAINING_TOKENS) // reader.paths.training.threads
    return UnitGradients(optimizer, loss_of, rows, lambda example: example.length, tokens)
