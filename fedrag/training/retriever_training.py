"""The retriever's training loop: contrastive, LSR, or their sum."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import TrainingDiverged
from fedrag.models.retriever import Retriever
from fedrag.training.guide import Guide
from fedrag.training.losses import Losses, lsr_loss
from fedrag.training.negatives import contrasted_passages, false_negatives, questions_behind
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.process_group import ALONE, Group
from fedrag.training.ralt import epoch_batches
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.retriever_batches import distinct_batches
from fedrag.training.retriever_examples import PassageText, RetrieverExample
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
    guided = settings.uses_contrastive and settings.contrastive.guide == "untouched"
    guide = Guide.of(retriever, examples) if guided else None
    start = received if settings.weights == "lora" else None
    optimizer = MasterOptimizer(retriever.parameters(), settings, start, proximal_mu, trained)
    passages = TrainingPassages(retriever, examples, group)
    torch.manual_seed(seed + group.rank)  # dropout differs from share to share
    batches = _batches(examples, settings, seed)
    temperatures = temperatures_of(retriever, settings)  # found by encoding some texts, so before training begins
    history: list[float] = []
    retriever.learner.train(settings.dropout)
    try:
        for step, rows in enumerate(batches):
            loss = batch_loss(retriever, passages, [examples[i] for i in rows], settings, losses, guide, group)
            optimizer.add(optimizer.gradients(loss))
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
    behind = questions_behind(([examples[i] for i in rows] for rows in batches), settings, guide)
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


def batch_loss(
    retriever: Retriever,
    passages: TrainingPassages,
    batch: Sequence[RetrieverExample],
    settings: RetrieverConfig,
    losses: Losses,
    guide: Guide | None = None,
    group: Group = ALONE,
) -> torch.Tensor:
    """Return the loss of one batch; each part uses the questions that have its inputs."""
    queries = group.embed(retriever.embed_queries, [example.question for example in batch])
    vectors = passages.embed(batch)
    total = queries.sum() * 0.0  # a batch without inputs for either loss still has a graph
    labelled = [i for i, example in enumerate(batch) if example.positive]
    if settings.uses_contrastive and labelled:
        examples = [batch[i] for i in labelled]
        total = total + _contrastive(retriever, queries[labelled], vectors, examples, settings, losses, guide)
    scored = [i for i, example in enumerate(batch) if len(example.candidates) > 1]
    if settings.uses_lsr and scored:
        weight = settings.lsr_weight if settings.loss == "both" else 1.0
        examples = [batch[i] for i in scored]
        total = total + weight * _lsr(retriever, queries[scored], vectors, examples, settings, losses)
    return total


def _contrastive(
    retriever: Retriever,
    queries: torch.Tensor,
    vectors: _Embedded,
    batch: Sequence[RetrieverExample],
    settings: RetrieverConfig,
    losses: Losses,
    guide: Guide | None,
) -> torch.Tensor:
    columns = contrasted_passages(batch)
    keys = vectors.of(columns, frozen=settings.contrastive.side == "query")
    mask = false_negatives(batch, columns, guide)
    logits = retriever.scale(settings.contrastive.scale) * queries @ keys.T
    return losses.contrastive(logits, mask.to(logits.device))


def _lsr(
    retriever: Retriever,
    queries: torch.Tensor,
    vectors: _Embedded,
    batch: Sequence[RetrieverExample],
    settings: RetrieverConfig,
    losses: Losses,
) -> torch.Tensor:
    most = max(len(example.candidates) for example in batch)
    padded = [_padded(example, most) for example in batch]
    flat = [candidate for candidates, _, _ in padded for candidate in candidates]
    keys = vectors.of(flat, frozen=settings.lsr.side == "query").view(len(batch), most, -1)
    similarities = torch.einsum("qd,qkd->qk", queries, keys)
    scores = torch.tensor([scores for _, scores, _ in padded], device=queries.device)
    valid = torch.tensor([valid for _, _, valid in padded], device=queries.device)
    logits, targets = similarities / retriever.tau_r(settings.lsr.tau_r), scores / settings.lsr.tau_lm
    if losses.lsr is not None:
        return losses.lsr(logits, targets, valid)
    return lsr_loss(logits, targets, valid, settings.lsr.divergence)


def _padded(example: RetrieverExample, most: int) -> tuple[list[PassageText], list[float], list[bool]]:
    missing = most - len(example.candidates)
    candidates = [*example.candidates, *[example.candidates[0]] * missing]
    scores = [*example.answer_scores, *[0.0] * missing]
    return candidates, scores, [True] * len(example.candidates) + [False] * missing


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The vectors of passages, by their texts."""

    rows: dict[str, int]
    vectors: torch.Tensor

    def of(self, passages: Sequence[PassageText], *, frozen: bool) -> torch.Tensor:
        """Return the vectors (passages, dim), without gradient if the side is frozen."""
        vectors = self.vectors.detach() if frozen else self.vectors
        return vectors[[self.rows[passage.text] for passage in passages]]


class TrainingPassages:
    """Embeds the passages of a batch: in each step if their side is trained, else once."""

    def __init__(self, retriever: Retriever, examples: Sequence[RetrieverExample], group: Group = ALONE) -> None:
        self._retriever = retriever
        self._group = group
        self._settings = retriever.config
        self._all: _Embedded | None = None
        if not retriever.config.trains_passage_side:
            texts = self._texts(examples)
            vectors = group.embed(self._encode, texts)
            self._all = _Embedded({text: row for row, text in enumerate(texts)}, vectors)

    def embed(self, batch: Sequence[RetrieverExample]) -> _Embedded:
        """Return the vectors of all passages of a batch; each text is encoded once."""
        if self._all is not None:
            return self._all
        texts = self._texts(batch)
        vectors = self._group.embed(self._retriever.embed_passages, texts)
        return _Embedded({text: row for row, text in enumerate(texts)}, vectors)

    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(self._retriever.encode_passages(texts)).to(self._retriever.encoder.device)

    def _texts(self, examples: Sequence[RetrieverExample]) -> list[str]:
        passages: list[PassageText] = []
        for example in examples:
            if self._settings.uses_contrastive:
                passages += [example.positive] if example.positive else []
                passages += example.hard_negatives
            if self._settings.uses_lsr:
                passages += example.candidates
        return list(dict.fromkeys(passage.text for passage in passages))
