"""What a labelled question of a batch is told apart from, and which questions of a batch teach something.

In a batch the columns are the labelled passages of its questions, then their hard negatives; column i is the positive
of row i. A column that is right for a question, or that the guide finds more similar to it than its positive, is no
negative of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.data.questions import question_key
from fedrag.training.guide import Guide
from fedrag.training.retriever_examples import PassageText, RetrieverExample


def contrasted_passages(batch: Sequence[RetrieverExample]) -> list[PassageText]:
    """Return the columns of a batch of labelled examples."""
    positives = [example.positive for example in batch if example.positive]
    return positives + [wrong for example in batch for wrong in example.hard_negatives]


def false_negatives(
    batch: Sequence[RetrieverExample], columns: Sequence[PassageText], guide: Guide | None
) -> torch.Tensor:
    """Return (rows, columns) booleans: passages, but for each row's positive, that are no negatives of it."""
    masked = [
        [column != row and passage.passage_id in example.right_ids for column, passage in enumerate(columns)]
        for row, example in enumerate(batch)
    ]
    mask = torch.tensor(masked)
    return mask if guide is None else mask | guide.vetoes([example.question for example in batch], columns)


def teaching_questions(examples: Iterable[RetrieverExample], settings: RetrieverConfig) -> int:
    """Return how many distinct questions have what one of the losses in use learns from."""
    labelled = settings.uses_contrastive
    teaching = (e for e in examples if (labelled and e.positive) or _is_ranked(e, settings))
    return len({question_key(example.question) for example in teaching})


def questions_behind(
    batches: Iterable[Sequence[RetrieverExample]], settings: RetrieverConfig, guide: Guide | None
) -> int:
    """Return how many distinct questions have a part in the loss of one of these batches.

    A question without a negative in any of its batches, and with fewer than two candidates, has a loss of zero
    whatever the encoder does.
    """
    taught = {
        question_key(example.question)
        for batch in batches
        for example in [*_contrasted(batch, settings, guide), *(e for e in batch if _is_ranked(e, settings))]
    }
    return len(taught)


def _is_ranked(example: RetrieverExample, settings: RetrieverConfig) -> bool:
    return settings.learns_from_scores and len(example.candidates) > 1


def _contrasted(
    batch: Sequence[RetrieverExample], settings: RetrieverConfig, guide: Guide | None
) -> list[RetrieverExample]:
    """Return the examples of a batch that have a negative."""
    labelled = [example for example in batch if example.positive] if settings.uses_contrastive else []
    columns = contrasted_passages(labelled)
    if guide is None:  # the mask would say the same, and takes a step for each of its entries
        passages = {passage.passage_id for passage in columns}
        return [example for example in labelled if not passages <= example.right_ids]
    if not labelled:
        return []
    n_negatives = (~false_negatives(labelled, columns, guide)).sum(dim=1) - 1  # its positive is no negative
    return [example for example, count in zip(labelled, n_negatives.tolist(), strict=True) if count > 0]
