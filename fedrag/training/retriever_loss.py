"""The loss of one of the retriever's batches, and its gradient: of the whole batch at once, or part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.models.retriever import Retriever
from fedrag.training.grad_cache import Embed, cached_backward
from fedrag.training.guide import Guide
from fedrag.training.losses import Losses, lsr_loss, rank_logits
from fedrag.training.negatives import contrasted_passages, false_negatives
from fedrag.training.optimizer import MasterOptimizer
from fedrag.training.process_group import ALONE, Group
from fedrag.training.retriever_examples import PassageText, RetrieverExample

Embedding = Callable[[Sequence[str]], torch.Tensor]
"""Embeds texts: vectors (texts, dim)."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """The loss of any batch of some examples; each part of it uses the questions that have its inputs.

    Attributes:
        retriever: The encoder that learns.
        passages: Embeds the passages of a batch.
        settings: The losses and their settings.
        losses: The loss functions.
        guide: Vetoes negatives; None: there is none.
        group: The processes that train together; each encodes its share of the texts and is handed all vectors.
    """

    retriever: Retriever
    passages: TrainingPassages
    settings: RetrieverConfig
    losses: Losses
    guide: Guide | None
    group: Group = ALONE

    @classmethod
    def over(
        cls,
        retriever: Retriever,
        examples: Sequence[RetrieverExample],
        settings: RetrieverConfig,
        losses: Losses,
        group: Group = ALONE,
    ) -> BatchLoss:
        """Return the loss of batches of these examples; what is frozen is encoded now, once for all."""
        guided = settings.uses_contrastive and settings.contrastive.guide == "untouched"
        guide = Guide.of(retriever, examples) if guided else None
        return cls(retriever, TrainingPassages(retriever, examples, group), settings, losses, guide, group)

    def of(self, batch: Sequence[RetrieverExample]) -> torch.Tensor:
        """Return the loss of one batch, with its graph."""
        queries = self.group.embed(self.retriever.embed_queries, [example.question for example in batch])
        return self._of_vectors(batch, queries, self.passages.embed(batch))

    def of_each(self, examples: Sequence[RetrieverExample]) -> torch.Tensor:
        """Return the sum of the losses of batches of one example each, whose questions are encoded in one pass."""
        queries = self.retriever.embed_queries([example.question for example in examples])
        passages = self.passages.embed(examples)
        alone = zip(examples, torch.split(queries, 1), strict=True)
        return torch.stack([self._of_vectors([example], query, passages) for example, query in alone]).sum()

    def backward(self, batch: Sequence[RetrieverExample], optimizer: MasterOptimizer) -> torch.Tensor:
        """Add the gradients of one batch to the optimizer's and return the loss."""
        if not self.settings.mini_batch_size:
            loss = self.of(batch)
            optimizer.add(optimizer.gradients(loss))
            return loss.detach()
        size, frozen, group = self.settings.mini_batch_size, self.passages.frozen, self.group
        questions = [example.question for example in batch]
        # Sorted, so that texts of a length are padded together.
        texts = [] if frozen else sorted(self.passages.texts(batch), key=len)
        asked = _parts(self.retriever.embed_queries, group.own_texts(questions), size)
        shown = _parts(self.retriever.embed_passages, group.own_texts(texts), size)

        def loss_of(vectors: list[torch.Tensor]) -> torch.Tensor:
            queries = group.gathered(torch.cat(vectors[: len(asked)]), len(questions))
            passages = frozen or Embedded.of_texts(texts, group.gathered(torch.cat(vectors[len(asked) :]), len(texts)))
            return self._of_vectors(batch, queries, passages)

        def add(number: torch.Tensor) -> None:
            optimizer.add(optimizer.gradients(number))

        return cached_backward([*asked, *shown], loss_of, add, self.retriever.learner.device)

    def _of_vectors(self, batch: Sequence[RetrieverExample], queries: torch.Tensor, passages: Embedded) -> torch.Tensor:
        total = queries.sum() * 0.0  # a batch without inputs for either loss still has a graph
        settings = self.settings
        labelled = [i for i, example in enumerate(batch) if example.positive]
        if settings.uses_contrastive and labelled:
            total = total + self._contrastive(queries[labelled], passages, [batch[i] for i in labelled])
        scored = [i for i, example in enumerate(batch) if len(example.candidates) > 1]
        if settings.uses_lsr and scored:
            weight = settings.lsr_weight if settings.loss == "both" else 1.0
            total = total + weight * self._lsr(queries[scored], passages, [batch[i] for i in scored])
        return total

    def _contrastive(
        self, queries: torch.Tensor, passages: Embedded, batch: Sequence[RetrieverExample]
    ) -> torch.Tensor:
        settings = self.settings.contrastive
        columns = contrasted_passages(batch)
        keys = passages.of(columns, frozen=settings.side == "query")
        mask = false_negatives(batch, columns, self.guide)
        logits = self.retriever.scale(settings.scale) * queries @ keys.T
        return self.losses.contrastive(logits, mask.to(logits.device))

    def _lsr(self, queries: torch.Tensor, passages: Embedded, batch: Sequence[RetrieverExample]) -> torch.Tensor:
        settings = self.settings.lsr
        most = max(len(example.candidates) for example in batch)
        padded = [_padded(example, most) for example in batch]
        flat = [candidate for candidates, _, _ in padded for candidate in candidates]
        keys = passages.of(flat, frozen=settings.side == "query").view(len(batch), most, -1)
        similarities = torch.einsum("qd,qkd->qk", queries, keys)
        scores = torch.tensor([scores for _, scores, _ in padded], device=queries.device)
        valid = torch.tensor([valid for _, _, valid in padded], device=queries.device)
        logits = similarities / self.retriever.tau_r(settings.tau_r)
        targets = rank_logits(scores, valid) if settings.target == "rank" else scores / settings.tau_lm
        if self.losses.lsr is not None:
            return self.losses.lsr(logits, targets, valid)
        return lsr_loss(logits, targets, valid, settings.divergence)


def _parts(embed: Embedding, texts: Sequence[str], size: int) -> list[Embed]:
    return [partial(embed, texts[i : i + size]) for i in range(0, len(texts), size)]


def _padded(example: RetrieverExample, most: int) -> tuple[list[PassageText], list[float], list[bool]]:
    missing = most - len(example.candidates)
    candidates = [*example.candidates, *[example.candidates[0]] * missing]
    scores = [*example.answer_scores, *[0.0] * missing]
    return candidates, scores, [True] * len(example.candidates) + [False] * missing


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of passages, by their texts."""

    rows: dict[str, int]
    vectors: torch.Tensor

    @classmethod
    def of_texts(cls, texts: Sequence[str], vectors: torch.Tensor) -> Embedded:
        """Return vectors (texts, dim) by their texts, each of which occurs once."""
        return cls({text: row for row, text in enumerate(texts)}, vectors)

    def of(self, passages: Sequence[PassageText], *, frozen: bool) -> torch.Tensor:
        """Return the vectors (passages, dim), without gradient if the side is frozen."""
        vectors = self.vectors.detach() if frozen else self.vectors
        return vectors[[self.rows[passage.text] for passage in passages]]


class TrainingPassages:
    """Embeds the passages of a batch: in each step if their side is trained, else once."""

    def __init__(self, retriever: Retriever, examples: Sequence[RetrieverExample], group: Group = ALONE) -> None:
        self._retriever = retriever
        self._group = group
        self.frozen: Embedded | None = None
        """The vectors of all passages, where their side is not trained."""
        if not retriever.config.trains_passage_side:
            texts = self.texts(examples)
            self.frozen = Embedded.of_texts(texts, group.embed(self._encode, texts))

    def embed(self, batch: Sequence[RetrieverExample]) -> Embedded:
        """Return the vectors of all passages of a batch; each text is encoded once."""
        if self.frozen is not None:
            return self.frozen
        texts = self.texts(batch)
        return Embedded.of_texts(texts, self._group.embed(self._retriever.embed_passages, texts))

    def _encode(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(self._retriever.encode_passages(texts)).to(self._retriever.encoder.device)

    def texts(self, examples: Sequence[RetrieverExample]) -> list[str]:
        """Return the texts of all passages that the losses in use compare, each once."""
        passages: list[PassageText] = []
        for example in examples:
            if self._retriever.config.uses_contrastive:
                passages += [example.positive] if example.positive else []
                passages += example.hard_negatives
            if self._retriever.config.uses_lsr:
                passages += example.candidates
        return list(dict.fromkeys(passage.text for passage in passages))
