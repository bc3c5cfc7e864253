"""The untouched retriever as a guide that takes false negatives out of a batch (GISTEmbed; Solatorio 2024).

A passage that the guide finds more similar to a question than the question's own positive is probably right as well.
The paper also contrasts questions with questions and passages with passages; here a question meets passages only, its
in-batch and hard negatives, as in a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedrag.models.retriever import Retriever
from fedrag.training.retriever_examples import PassageText, RetrieverExample
from fedrag.types import Array


@dataclass(frozen=True, slots=True)
class Guide:
    """The vectors that the untouched retriever gives to all texts of a training.

    Attributes:
        questions: Vector of each question.
        passages: Vector of each passage's text.
    """

    questions: dict[str, Array]
    passages: dict[str, Array]

    @classmethod
    def of(cls, retriever: Retriever, examples: Sequence[RetrieverExample]) -> Guide:
        """Encode the labelled examples' texts once, with the base weights; the retriever's state stays as it is."""
        labelled = [example for example in examples if example.positive]
        questions = list(dict.fromkeys(example.question for example in labelled))
        shown = [text for example in labelled for text in (example.positive, *example.hard_negatives) if text]
        passages = list(dict.fromkeys(passage.text for passage in shown))
        with retriever.untouched():
            return cls(
                dict(zip(questions, retriever.encode_queries(questions), strict=True)),
                dict(zip(passages, retriever.encode_passages(passages), strict=True)),
            )

    def vetoes(self, questions: Sequence[str], passages: Sequence[PassageText]) -> torch.Tensor:
        """Return (questions, passages) booleans: passages that are more similar to a question than its positive.

        Args:
            questions: The questions of a batch.
            passages: At least as many; the positive of row i is column i.
        """
        rows = np.stack([self.questions[question] for question in questions])
        columns = np.stack([self.passages[passage.text] for passage in passages])
        similarities = torch.from_numpy(rows @ columns.T)
        return similarities > similarities.diagonal()[:, None]
