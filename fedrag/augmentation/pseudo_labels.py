"""Pseudo-labels (Lee 2013): answers and passages that the models themselves give to questions that have none.

A model's answer is kept where it stands, as whole words, in a passage that was found, and is confident:

    confidence = exp((1/T) sum_t log p(y_t | prompt, y_<t))

the geometric mean of the probabilities of its tokens and of its end. The passage that holds the answer becomes the
question's labelled one, for the retriever to learn from; so the generator teaches the retriever, and what the
retriever then finds, the generator.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fedrag.config.scenario import Config
from fedrag.data.words import holds_words
from fedrag.models.generator import Generator
from fedrag.models.resident import RoundModels
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.pipeline import (
    Answered,
    Retrieved,
    answer_temperature,
    generate_answers,
    prompt_builder,
    prompt_groups,
    retrieve,
)
from fedrag.retrieval.index import PassageIndex
from fedrag.types import Example, Hit, Passage, Question, Site

OnProgress = Callable[[str, int, int], None]

WHY_NOT = {
    "empty": "no answer",
    "cut": "an answer that did not end",
    "unsupported": "an answer that stands in no passage found",
    "unsure": "an answer below the confidence",
}
"""Why a model's answer is not taken, in words."""


@dataclass(frozen=True, slots=True)
class PseudoAnswer:
    """A model's answer to a question.

    Attributes:
        question: The question as it was asked.
        text: The answer.
        confidence: The geometric mean of the probabilities of its tokens and of its end, in [0, 1].
        passage_id: The best passage found that holds the answer; "" where none does.
        why_not: Why it is not taken, a key of `WHY_NOT`; "" where it is.
    """

    question: Question
    text: str
    confidence: float
    passage_id: str
    why_not: str = ""

    @property
    def labelled(self) -> Question:
        """The question with this answer; passages that people named stay."""
        labels = self.question.passage_ids or (self.passage_id,)
        return replace(self.question, answers=(self.text,), passage_ids=labels, origin="pseudo")


def answer_questions(
    models: RoundModels,
    index: PassageIndex,
    passages: Sequence[Passage],
    questions: Sequence[Question],
    config: Config,
    confidence: float,
    on_progress: OnProgress | None = None,
) -> list[PseudoAnswer]:
    """Search and answer questions, and say of each answer whether it can be a label.

    Args:
        models: Answer in their current state, greedily.
        index: The index of the passages.
        passages: The site's passages.
        questions: Those that have no answer.
        config: How passages are found and shown.
        confidence: The least that an answer must have.
        on_progress: Called with (what, done, in all).
    """
    by_id = {passage.id: passage for passage in passages}
    hits = retrieve(models.retriever, index, [question.question for question in questions], config.rag.passages)
    asked = [Retrieved.of(q.question, found, by_id, index) for q, found in zip(questions, hits, strict=True)]
    answered = generate_answers(
        models.generator,
        asked,
        config.rag,
        config.evaluation.batch_tokens,
        answer_temperature(models.retriever, config.rag, config.retriever.lsr.tau_r),
        lambda done, total: on_progress("answers", done, total) if on_progress else None,
    )
    confidences = _confidences(models.generator, asked, [answer.text for answer in answered], config)
    found = []
    for question, answer, sure, hit in zip(questions, answered, confidences, hits, strict=True):
        passage = first_holding(answer.text, hit, by_id)
        why_not = _why_not(answer, passage, sure >= confidence)
        found.append(PseudoAnswer(question, answer.text, sure, passage, why_not))
    return found


def _why_not(answer: Answered, passage: str, is_sure: bool) -> str:
    """Return why an answer is not taken, or ""."""
    reasons = {"empty": not answer.text, "cut": answer.is_cut, "unsupported": not passage, "unsure": not is_sure}
    return next((reason for reason, holds in reasons.items() if holds), "")


def count_verdicts(answers: Sequence[PseudoAnswer]) -> Counter[str]:
    """Return how many answers were taken, under "", and how many were not, by why."""
    return Counter(answer.why_not for answer in answers)


def first_holding(text: str, hits: Sequence[Hit], passages: dict[str, Passage]) -> str:
    """Return the id of the best passage that holds a text as whole words; "" where none does."""
    holding = (hit.passage_id for hit in hits if text and holds_words(passages[hit.passage_id].full_text, text))
    return next(holding, "")


def _confidences(generator: Generator, asked: Sequence[Retrieved], texts: Sequence[str], config: Config) -> list[float]:
    """Return the confidence in each answer; of several prompts, under the one that makes it likeliest."""
    builder = prompt_builder(generator, config.rag)
    owners: list[int] = []
    examples: list[Example] = []
    for row, (item, text) in enumerate(zip(asked, texts, strict=True)):
        for _, group in prompt_groups(item.passages, config.rag) if text else ():
            owners.append(row)
            examples.append(builder.example(item.question, group, builder.answer(text, end=True)))
    best = [0.0] * len(asked)
    scores = score_answers(generator, examples, config.evaluation.batch_tokens)
    for owner, score in zip(owners, scores.tolist(), strict=True):
        best[owner] = max(best[owner], math.exp(score))
    return best


def pseudo_labelled(
    site: Site,
    models: RoundModels,
    index: Callable[[], PassageIndex],
    config: Config,
    on_progress: OnProgress | None = None,
) -> Site:
    """Return a site that trains on its pseudo-labels too: answers to what nobody answered, passages to what has none.

    Args:
        site: The site, whose data stays as it is.
        models: The models of the round's start.
        index: Gives the index of its passages.
        config: The scenario.
        on_progress: Called with (what, done, in all).
    """
    train = tuple(_with_passages(site, models, index, config))
    if not site.unanswered:
        return replace(site, train=train)
    answers = answer_questions(
        models, index(), site.passages, site.unanswered, config, config.federation.pseudo_confidence, on_progress
    )
    taken = {question.id for question in train}
    new = [_with_id(answer.labelled, taken) for answer in answers if not answer.why_not]
    return replace(site, train=(*train, *new))


def _with_passages(
    site: Site, models: RoundModels, index: Callable[[], PassageIndex], config: Config
) -> Sequence[Question]:
    """Return the training questions; those that name no passage name the best one found that holds an answer."""
    bare = [question for question in site.train if question.answers and not question.passage_ids]
    if not bare:
        return site.train
    by_id = {passage.id: passage for passage in site.passages}
    hits = retrieve(models.retriever, index(), [question.question for question in bare], config.rag.passages)
    found = {}
    for question, hit in zip(bare, hits, strict=True):
        held = (first_holding(answer, hit, by_id) for answer in question.answers)
        if label := next(filter(None, held), ""):
            found[question.id] = replace(question, passage_ids=(label,))
    return [found.get(question.id, question) for question in site.train]


def _with_id(question: Question, taken: set[str]) -> Question:
    """Return a question with an id that no other training question has."""
    identity = question.id
    while identity in taken:
        identity = f"{identity}+"
    taken.add(identity)
    return replace(question, id=identity)
