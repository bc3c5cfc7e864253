"""Batches for the contrastive loss without duplicate positives, as sentence-transformers' NO_DUPLICATES has them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fedrag.seeding import derive_seed
from fedrag.training.retriever_examples import RetrieverExample


def distinct_batches(examples: Sequence[RetrieverExample], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the rows of every step; in a batch each labelled passage is the positive of one question.

    A site has few passages, and some answer many of its questions. If such a passage is right for several questions of
    a batch and wrong for few, an encoder can win by learning that it is popular. So a question whose passage is already
    in the batch waits for the next one. The last batches may be smaller; a single question without negatives teaches
    nothing and is left out.
    """
    batches: list[list[int]] = []
    for epoch in range(epochs):
        waiting = list(range(len(examples)))
        random.Random(derive_seed(seed, "epoch", epoch)).shuffle(waiting)
        while waiting:
            batch, waiting = _next_batch(examples, waiting, batch_size)
            if len(batch) > 1 or _learns_alone(examples[batch[0]]):
                batches.append(batch)
    return batches or [list(range(len(examples)))]


def _next_batch(
    examples: Sequence[RetrieverExample], waiting: Sequence[int], batch_size: int
) -> tuple[list[int], list[int]]:
    """Return the first rows with different passages, and the rows that still wait."""
    batch: list[int] = []
    others: list[int] = []
    taken: set[str] = set()
    for row in waiting:
        positive = examples[row].positive
        if len(batch) < batch_size and (positive is None or positive.passage_id not in taken):
            batch.append(row)
            taken |= {positive.passage_id} if positive else set()
        else:
            others.append(row)
    return batch, others


def _learns_alone(example: RetrieverExample) -> bool:
    return bool(example.hard_negatives) or len(example.candidates) > 1
