"""Answers the questions of a site that nobody answered, and adds those answers that the models are sure of."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fedrag.augmentation.added_questions import AddedQuestions
from fedrag.augmentation.pseudo_labels import WHY_NOT, answer_questions
from fedrag.augmentation.tried_texts import TriedTexts
from fedrag.config.scenario import Config
from fedrag.data.site_folder import PASSAGES_FILE
from fedrag.display import Display
from fedrag.files import sha256_of
from fedrag.models.resident import RoundModels
from fedrag.retrieval.index import PassageIndex
from fedrag.types import Site

KEPT = "kept"
_AT_ONCE = 32  # questions that are answered between two writes


@dataclass(frozen=True, slots=True)
class PseudoAnswered:
    """What became of a site's unanswered questions.

    Attributes:
        unanswered: How many there were.
        results: How many answers were kept, or left out by why, those of earlier calls with the same models counted.
        added: Answers that this call added.
    """

    unanswered: int
    results: Counter[str]
    added: int

    @property
    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        lines = [f"{self.added:,} of {self.unanswered:,} questions that nobody answered have an answer now"]
        return lines + [f"  {why}: {self.results[code]:,}" for code, why in WHY_NOT.items() if self.results[code]]


def add_answers(
    folder: Path,
    site: Site,
    models: RoundModels,
    index: PassageIndex,
    config: Config,
    *,
    confidence: float,
    limit: int | None,
    display: Display,
) -> PseudoAnswered:
    """Answer a site's unanswered questions from what is found, and add what is sure to its train.jsonl.

    The file of unanswered questions stays as it is: one whose text stands in train.jsonl is no longer unanswered.

    Args:
        folder: The site's folder.
        site: Its data.
        models: Search and answer.
        index: The index of its passages.
        config: How passages are found and shown.
        confidence: The least confidence of an answer that is kept; see `fedrag.augmentation.pseudo_labels`.
        limit: Most answers to add; None: no limit.
        display: Shows progress.

    Raises:
        StorageError: A file cannot be written; what was added stays.
    """
    passages = sha256_of(folder / PASSAGES_FILE)
    state = hashlib.sha256(models.retriever.passage_key().encode()).hexdigest()
    settings = f"answers|{models.generator_key(untouched=False)}|{state}|{passages}|{config.rag}|{confidence}"
    tried = TriedTexts(folder, settings)
    added, n_added = AddedQuestions(folder, site), 0
    texts = [question.question for question in site.unanswered]
    left = [question for question in site.unanswered if tried.result(question.question) is None]
    for start in range(0, len(left), _AT_ONCE):
        if limit is not None and n_added >= limit:
            break
        display.progress("questions", start, len(left))
        batch = left[start : start + _AT_ONCE]
        answers = answer_questions(models, index, site.passages, batch, config, confidence)
        sure = [answer for answer in answers if not answer.why_not]
        if limit is not None and len(sure) > limit - n_added:
            sure = sure[: limit - n_added]
            answers = answers[: answers.index(sure[-1]) + 1]  # the rest counts as not tried
        added.add([answer.labelled for answer in sure])
        tried.record({answer.question.question: answer.why_not or KEPT for answer in answers})
        n_added += len(sure)
    display.progress("questions", len(left), len(left))
    return PseudoAnswered(len(site.unanswered), tried.count(texts), n_added)
