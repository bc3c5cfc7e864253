"""RALT: trains the generator to answer from retrieved passages (Lin et al. 2023; RAFT, Zhang et al. 2024)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import GeneratorConfig
from fedrag.errors import TrainingDiverged
from fedrag.memory import free_memory
from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.cuda_graph_training import LossAndGradients
from fedrag.passes.memory_estimate import Footprint
from fedrag.passes.reading import Reader, reader_of
from fedrag.passes.threads import RunJobs, thread_pool
from fedrag.rag.pipeline import prompt_builder, prompt_groups
from fedrag.rag.window import Shown
from fedrag.seeding import derive_seed
from fedrag.text import size_text
from fedrag.training.losses import AnswerLoss, answer_loss
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.passage_batches import passage_batches
from fedrag.training.process_group import ALONE, Group
from fedrag.training.result import OnStep, TrainingResult
from fedrag.types import Example, Question, Tensors

log = logging.getLogger("fedrag.training")

ForwardBackward = Callable[[Sequence[Example], int], LossAndGradients]
"""Runs a forward and a backward pass over examples; the loss is divided by a number of answer tokens."""


def answer_examples(
    generator: Generator, questions: Sequence[Question], shown: Sequence[Sequence[Shown]], config: RagConfig
) -> list[Example]:
    """Tokenise each question with its passages and its first answer.

    Args:
        generator: The owner of the tokenizer and the chat template.
        questions: Training questions.
        shown: The passages of each, in the order in which they stand in the prompt.
        config: Prompt settings; each prompt becomes an example.
    """
    builder = prompt_builder(generator, config)
    examples: list[Example] = []
    for question, passages in zip(questions, shown, strict=True):
        answer = builder.answer(question.answers[0], end=True)
        examples += [builder.example(question.question, group, answer) for _, group in prompt_groups(passages, config)]
    return examples


def train_generator(
    generator: Generator,
    examples: Sequence[Example],
    settings: GeneratorConfig,
    *,
    seed: int,
    progress: Progress = Progress(),
    received: Tensors | None = None,
    proximal_mu: float = 0.0,
    trained: Collection[str] | None = None,
    loss: AnswerLoss = answer_loss,
    on_step: OnStep | None = None,
    free_bytes: float | None = None,
    group: Group = ALONE,
) -> TrainingResult:
    """Train the adapter for one round and return its update.

    Args:
        generator: Holds the received state at the start and the trained one at the end.
        examples: Prompts with answers and end tokens.
        settings: Optimizer, epochs and batch sizes.
        seed: Seed of the order of examples.
        progress: The part of the whole training that this round is.
        received: The exact float32 state; the generator may compute in a shorter format.
        proximal_mu: Strength of FedProx.
        trained: Names of the adapter's tensors that are trained; None: all.
        loss: Sums over answer tokens; see `fedrag.training.losses.answer_loss`.
        on_step: Called after each step with (steps done, steps in all, loss).
        free_bytes: Memory that training may take, for `activation_checkpointing = "auto"`; None: all that is free.
        group: The processes that train together; each calls this with the same examples, settings, seed and state.

    Raises:
        TrainingDiverged: A loss or gradient is not finite.
        ModelError: Activation checkpointing is on, and the generator's architecture does not support it.
    """
    torch.manual_seed(seed + group.rank)  # dropout differs from share to share
    generator.dropout = settings.dropout
    optimizer = MasterOptimizer(generator.parameters(), settings, received, proximal_mu, trained)
    batches = example_batches(examples, settings, seed)
    losses: list[float] = []
    reader = reader_of(generator)
    threads = reader.paths.training.threads
    answer_tokens = [sum(len(examples[i].answer) for i in rows) for rows in batches]
    shares = [[examples[i] for i in group.share(rows)] for rows in batches]
    split = [reader.training_passes(share, settings.micro_batch_tokens) if share else [] for share in shares]
    checkpointed = _is_checkpointed(generator, split, settings, free_bytes)
    replayed = reader.paths.training.name == "cuda graph" and not checkpointed
    forward_backward = _replayed(reader, optimizer, loss) if replayed else _computed(reader, optimizer, loss)
    generator.model.train(settings.dropout)
    try:
        with layers_checkpointed(generator.model) if checkpointed else nullcontext(), thread_pool(threads) as run:
            for step, parts in enumerate(split):
                loss_here = _accumulate(parts, answer_tokens[step], run, optimizer, forward_backward)
                losses.append(_finite(group.add_up(optimizer.masters, loss_here)))
                optimizer.step(progress.at(step, len(batches)))
                if on_step:
                    on_step(step + 1, len(batches), losses[-1])
    finally:
        generator.model.train(False)
    tokens = settings.epochs * sum(example.length for example in examples)
    return TrainingResult.of(optimizer.update(), losses, tokens)


def example_batches(examples: Sequence[Example], settings: GeneratorConfig, seed: int) -> list[list[int]]:
    """Return the rows of every step."""
    if settings.group_by_passage and settings.adapter_from == "start":
        return passage_batches(examples, settings.batch_size, settings.epochs, seed)
    return epoch_batches(len(examples), settings.batch_size, settings.epochs, seed)


def epoch_batches(examples: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the rows of every step; each epoch has an order of its own, and its last batch may be smaller."""
    batches: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(examples))
        random.Random(derive_seed(seed, "epoch", epoch)).shuffle(order)
        batches += [order[i : i + batch_size] for i in range(0, examples, batch_size)]
    return batches


def _is_checkpointed(
    generator: Generator,
    batches: Sequence[Sequence[Sequence[Example]]],
    settings: GeneratorConfig,
    free_bytes: float | None,
) -> bool:
    """Return whether layers recompute their activations; if so, log why."""
    checkpointed = "each layer computes its activations again in the backward pass"
    if settings.activation_checkpointing == "off":
        return False
    if settings.activation_checkpointing == "on":
        log.info("%s: the scenario says so", checkpointed)
        return True
    free = free_memory(generator.model.device.type) if free_bytes is None else free_bytes
    path = reader_of(generator).paths.training
    if free is None or path.name == "prefix" or not generator.model.supports_gradient_checkpointing:
        return False
    need = Footprint.of(generator).step_bytes((part for parts in batches for part in parts), path.threads)
    if need > free:
        log.info("%s: a step needs up to %s more, and %s are free", checkpointed, size_text(need), size_text(free))
    return need > free


def _replayed(reader: Reader, optimizer: MasterOptimizer, loss: AnswerLoss) -> ForwardBackward:
    def forward_backward(part: Sequence[Example], answer_tokens: int) -> LossAndGradients:
        mean, gradients = reader.captured_passes.forward_backward(part, loss, answer_tokens)
        return mean, optimizer.of_trained(gradients)

    return forward_backward


def _computed(reader: Reader, optimizer: MasterOptimizer, loss: AnswerLoss) -> ForwardBackward:
    def forward_backward(part: Sequence[Example], answer_tokens: int) -> LossAndGradients:
        mean = loss(*reader.answer_logits(part)) / answer_tokens
        return mean.detach(), optimizer.gradients(mean)

    return forward_backward


def _accumulate(
    parts: Sequence[Sequence[Example]],
    answer_tokens: int,
    run: RunJobs,
    optimizer: MasterOptimizer,
    forward_backward: ForwardBackward,
) -> float:
    """Add up the gradients of the parts of a batch; return their sum of losses over the batch's answer tokens."""
    means = []
    for mean, gradients in run(partial(forward_backward, part, answer_tokens) for part in parts):
        optimizer.add(gradients)
        means.append(mean.double())  # a copy: the next replay overwrites the loss
    return float(sum(means))  # once, at the end: reading a number waits for all work of the GPU


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise TrainingDiverged("the training diverged: its loss is not finite")
    return loss
