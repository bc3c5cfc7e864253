"""Measures models on sites: retrieval and answers for every distinct question, then means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedrag.config import Config
from fedrag.evaluation.answers import exact_match, rouge_l, token_f1
from fedrag.evaluation.ranking import ndcg_at, recall_at, reciprocal_rank
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.rag.pipeline import Retrieved, answer_questions, build_index, retrieve
from fedrag.training.retriever_examples import question_key
from fedrag.types import SPLITS, Question, Site, Split

ANSWER_METRICS = ("exact_match", "f1", "rouge_l")
RETRIEVAL_METRICS = ("recall_at_1", "recall_at_5", "mrr", "ndcg_at_10")
METRICS = ANSWER_METRICS + RETRIEVAL_METRICS

MeasuredSplit = Split | Literal["all"]
"""Questions that are measured; all: those of every split."""

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One question's result; a metric that was not measured is None.

    Attributes:
        site: Name of its site.
        question_id: Its id there.
        retrieved: Ids of the passages that were put before the generator, best first.
        answer: What the generator said, or None.
        metrics: Values by name, each in [0, 1].
    """

    site: str
    question_id: str
    retrieved: tuple[str, ...]
    answer: str | None
    metrics: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def distinct_questions(questions: Iterable[Question]) -> list[Question]:
    """Merge questions with the same text: all their answers and labelled passages are right."""
    merged: dict[str, Question] = {}
    for question in questions:
        key = question_key(question.question)
        before = merged.get(key)
        if before is None:
            merged[key] = question
        else:
            answers = tuple(dict.fromkeys(before.answers + question.answers))
            passages = tuple(dict.fromkeys(before.passage_ids + question.passage_ids))
            merged[key] = Question(before.id, before.question, answers, passages)
    return list(merged.values())


def measure_site(
    site: Site,
    split: MeasuredSplit,
    config: Config,
    retriever: Retriever,
    generator: Generator | None,
    on_progress: OnProgress = lambda what, done, total: None,
) -> list[Measured]:
    """Measure one site's questions against its own passages.

    Args:
        site: The site.
        split: Questions to measure.
        config: Prompt settings and batch sizes.
        retriever: In the state to measure.
        generator: In the state to measure; None: retrieval only.
        on_progress: Called with (what, done, in all) while answers are generated.
    """
    chosen = [q for s in SPLITS for q in site.split(s)] if split == "all" else site.split(split)
    questions = distinct_questions(chosen)
    if not questions:
        return []
    index = build_index(retriever, site.passages, config.rag.chunk_overlap)
    hits = retrieve(retriever, index, [question.question for question in questions], len(index))
    passages = {passage.id: passage for passage in site.passages}
    shown = [found[: config.rag.passages] for found in hits]
    answers: Sequence[str | None] = [None] * len(questions)
    if generator is not None:
        asked = [
            Retrieved(q.question, tuple(passages[h.passage_id] for h in top), tuple(h.score for h in top))
            for q, top in zip(questions, shown, strict=True)
        ]
        answers = answer_questions(
            generator,
            asked,
            config.rag,
            config.evaluation.batch_tokens,
            config.retriever.lsr.tau_r,
            lambda done, total: on_progress(f"answers of {site.name}", done, total),
        )
    return [
        Measured(
            site.name,
            question.id,
            tuple(hit.passage_id for hit in top),
            answer,
            _metrics(question, [hit.passage_id for hit in found], answer),
        )
        for question, found, top, answer in zip(questions, hits, shown, answers, strict=True)
    ]


def summarise(measured: Sequence[Measured]) -> dict[str, float | int | None]:
    """Return the mean of each metric over the questions that have it, and the number of questions."""
    summary: dict[str, float | int | None] = {"n_questions": len(measured)}
    for name in METRICS:
        values = [value for item in measured if (value := item.metrics[name]) is not None]
        summary[name] = sum(values) / len(values) if values else None
    return summary


def summarise_by_site(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return `overall` over all questions and `sites.<name>`."""
    names = sorted({item.site for item in measured})
    return {
        "overall": summarise(measured),
        "sites": {name: summarise([item for item in measured if item.site == name]) for name in names},
    }


def _metrics(question: Question, ranked: Sequence[str], answer: str | None) -> dict[str, float | None]:
    metrics: dict[str, float | None] = dict.fromkeys(METRICS)
    if answer is not None:
        metrics["exact_match"] = exact_match(answer, question.answers)
        metrics["f1"] = token_f1(answer, question.answers)
        metrics["rouge_l"] = rouge_l(answer, question.answers)
    if question.passage_ids:
        metrics["recall_at_1"] = recall_at(ranked, question.passage_ids, 1)
        metrics["recall_at_5"] = recall_at(ranked, question.passage_ids, 5)
        metrics["mrr"] = reciprocal_rank(ranked, question.passage_ids)
        metrics["ndcg_at_10"] = ndcg_at(ranked, question.passage_ids, 10)
    return metrics
