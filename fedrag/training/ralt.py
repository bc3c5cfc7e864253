"""RALT: the generator learns to answer from retrieved passages (Lin et al. 2023; RAFT, Zhang et al. 2024)."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from fedrag.config.scenario import GeneratorConfig, RagConfig
from fedrag.errors import TrainingDiverged
from fedrag.memory import free_memory
from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.cuda_graph_training import Pass
from fedrag.passes.memory_estimate import Footprint
from fedrag.passes.reading import Reader, reader_of
from fedrag.passes.threads import Run, thread_pool
from fedrag.rag.pipeline import prompt_builder, prompt_groups
from fedrag.seeding import derive_seed
from fedrag.text import size_text
from fedrag.training.losses import AnswerLoss, answer_loss
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.passage_batches import passage_batches
from fedrag.training.result import OnStep, TrainingResult
from fedrag.types import Example, Hit, Passage, Question, Tensors

log = logging.getLogger("fedrag.training")

Learn = Callable[[Sequence[Example], int], Pass]
"""Makes a forward and a backward pass over examples; the loss is divided by a number of answer tokens."""


def answer_examples(
    generator: Generator,
    questions: Sequence[Question],
    hits: Sequence[Sequence[Hit]],
    passages: Mapping[str, Passage],
    config: RagConfig,
    raft_drop: float,
    seed: int,
) -> list[Example]:
    """Tokenise each question with its retrieved passages and its first answer, once per round.

    Args:
        generator: Its tokenizer and chat template are used.
        questions: Training questions.
        hits: Passages retrieved for each question, best first.
        passages: The site's passages by id.
        config: Prompt settings; one example per prompt.
        raft_drop: Probability of leaving a question's labelled passages out.
        seed: Seed of that choice.
    """
    builder = prompt_builder(generator, config)
    chance = random.Random(seed)
    examples: list[Example] = []
    for question, found in zip(questions, hits, strict=True):
        dropped = set(question.passage_ids) if chance.random() < raft_drop else set()
        shown = [passages[hit.passage_id] for hit in found if hit.passage_id not in dropped]
        answer = builder.answer(question.answers[0], end=True)
        examples += [
            builder.example(question.question, [p.full_text for p in group], answer)
            for _, group in prompt_groups(shown, config)
        ]
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
    loss: AnswerLoss = answer_loss,
    on_step: OnStep | None = None,
    free_bytes: float | None = None,
) -> TrainingResult:
    """Train the adapter for one round and return its difference.

    Args:
        generator: Holds the received state; holds the trained one afterwards.
        examples: Prompts with answers and end tokens.
        settings: Optimizer, epochs and batch sizes.
        seed: Seed of the order of examples.
        progress: Which part of the whole training this round is.
        received: The exact float32 state, where the generator computes in a shorter format.
        proximal_mu: FedProx.
        loss: Summed over answer tokens; see `fedrag.training.losses.answer_loss`.
        on_step: Called after each step with (steps done, steps in all, loss).
        free_bytes: Memory it may take, for `activation_checkpointing = "auto"`; None: what the device has free.

    Raises:
        TrainingDiverged: A loss or gradient is not finite.
        ModelError: Activation checkpointing is on, and the generator's architecture has none.
    """
    torch.manual_seed(seed)
    optimizer = MasterOptimizer(generator.parameters(), settings, received, proximal_mu)
    batches = example_batches(examples, settings, seed)
    losses: list[float] = []
    reader = reader_of(generator)
    threads = reader.paths.training.threads
    split = [reader.training_passes([examples[i] for i in rows], settings.micro_batch_tokens) for rows in batches]
    checkpointed = _is_checkpointed(generator, split, settings, free_bytes)
    learn = _recorded(reader, loss) if _is_recorded(reader, checkpointed) else _computed(reader, optimizer, loss)
    with layers_checkpointed(generator.model) if checkpointed else nullcontext(), thread_pool(threads) as run:
        generator.model.train()
        try:
            for step, parts in enumerate(split):
                losses.append(_accumulate(parts, run, optimizer, learn))
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
    """Return the rows of every step: each epoch is shuffled anew and its last batch may be smaller."""
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
    """Choose whether layers compute their activations again, and log that they do."""
    again = "each layer computes its activations again in the backward pass"
    if settings.activation_checkpointing == "on":
        log.info("%s: the scenario says so", again)
    if settings.activation_checkpointing != "auto":
        return settings.activation_checkpointing == "on"
    free = free_memory(generator.model.device.type) if free_bytes is None else free_bytes
    path = reader_of(generator).paths.training
    if free is None or path.name == "prefix" or not generator.model.supports_gradient_checkpointing:
        return False
    need = Footprint.of(generator).step_bytes((part for parts in batches for part in parts), path.threads)
    if need > free:
        log.info("%s: a step needs up to %s more, and %s are free", again, size_text(need), size_text(free))
    return need > free


def _is_recorded(reader: Reader, checkpointed: bool) -> bool:
    return reader.paths.training.name == "cuda graph" and not checkpointed


def _recorded(reader: Reader, loss: AnswerLoss) -> Learn:
    return lambda part, answer_tokens: reader.recorded_passes.learn(part, loss, answer_tokens)


def _computed(reader: Reader, optimizer: MasterOptimizer, loss: AnswerLoss) -> Learn:
    def learn(part: Sequence[Example], answer_tokens: int) -> Pass:
        mean = loss(*reader.answer_logits(part)) / answer_tokens
        return mean.detach(), optimizer.gradients(mean)

    return learn


def _accumulate(parts: Sequence[Sequence[Example]], run: Run, optimizer: MasterOptimizer, learn: Learn) -> float:
    """Add up the gradients of one batch over its parts; return its mean loss per token."""
    answer_tokens = sum(len(example.answer) for part in parts for example in part)
    means = []
    for mean, gradients in run(partial(learn, part, answer_tokens) for part in parts):
        optimizer.add(gradients)
        means.append(mean.double())  # a copy: a recorded pass writes its loss to the same place
    total = float(sum(means))  # at the end: whoever asks a GPU for a number waits for all that it has to do
    if not math.isfinite(total):
        raise TrainingDiverged("the training diverged: its loss is not finite")
    return total
