"""Scores that are larger for questions that a model was trained on: what training added, over the untouched model.

    generator   (1/T) sum_t log p(y_t | prompt, y_<t), trained minus untouched
    retriever   similarity of question and labelled passage, trained minus untouched

The untouched model takes out what is easy for any model (difficulty calibration, Watson et al. 2022); it takes two
passes an item, and no training of models of one's own (EZ-MIA, arXiv 2601.12104, compares the same two).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedrag.config.scenario import Config
from fedrag.models.resident import RoundModels
from fedrag.privacy.audited import Audited
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import encode_questions, prompt_builder, retrieve
from fedrag.rag.window import Shown, shown_hits
from fedrag.types import Array, Example, Question, State


def generator_gains(
    audited: Audited, config: Config, state: State, indexes: Path | None = None
) -> dict[Question, float]:
    """Return what training added to the mean log-probability of each answer, in nats a token.

    Both models read the same prompt: with the passages that the trained retriever finds.
    """
    questions = [question for question in audited.scored if question.answers]
    examples = _prompts_with_answers(audited, questions, config, state, indexes)
    scores = [
        score_answers(RoundModels(config, used).generator, examples, config.evaluation.batch_tokens)
        for used in (state, {})
    ]
    return dict(zip(questions, (scores[0] - scores[1]).tolist(), strict=True))


def retriever_gains(audited: Audited, config: Config, state: State) -> dict[Question, float]:
    """Return what training added to the similarity of each question and its labelled passage.

    The passage is read as one text, from its beginning on.
    """
    known = {passage.id for passage in audited.site.passages}
    questions = [question for question in audited.scored if known.intersection(question.passage_ids[:1])]
    trained, untouched = (_similarities(audited, questions, config, used) for used in (state, {}))
    return dict(zip(questions, (trained - untouched).tolist(), strict=True))


def _prompts_with_answers(
    audited: Audited, questions: Sequence[Question], config: Config, state: State, indexes: Path | None
) -> list[Example]:
    models = RoundModels(config, state)
    builder = prompt_builder(models.generator, config.rag)
    shown: list[list[Shown]] = [[] for _ in questions]
    if config.rag.passages:
        passages = {passage.id: passage for passage in audited.site.passages}
        index = build_index(
            models.retriever, audited.site.passages, config.rag.chunk_overlap, indexes, config.rag.search
        )
        found = retrieve(models.retriever, index, [question.question for question in questions], config.rag.passages)
        shown = [shown_hits(hits, passages, index) for hits in found]
    return [
        builder.example(question.question, given, builder.answer(question.answers[0], end=False))
        for question, given in zip(questions, shown, strict=True)
    ]


def _similarities(audited: Audited, questions: Sequence[Question], config: Config, state: State) -> Array:
    if not questions:
        return np.zeros(0, np.float32)
    retriever = RoundModels(config, state).retriever
    texts = {passage.id: passage.full_text for passage in audited.site.passages}
    labelled = list(dict.fromkeys(question.passage_ids[0] for question in questions))
    rows = {identity: row for row, identity in enumerate(labelled)}
    passages = retriever.encode_passages([texts[identity] for identity in labelled])
    queries = encode_questions(retriever, [question.question for question in questions])
    found: Array = np.einsum(
        "qd,qd->q", queries, passages[[rows[question.passage_ids[0]] for question in questions]]
    ).astype(np.float32)
    return found
