"""Measures models on a site: retrieval and answers for every distinct question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions
from fedrag.evaluation.answers import exact_match, rouge_l, token_f1
from fedrag.evaluation.ranking import ndcg_at, recall_at, reciprocal_rank
from fedrag.evaluation.records import CUTS, METRICS, Measured
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import Answered, Retrieved, answer_temperature, generate_answers, rank
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.types import CANARY, Question, Site, Split

MeasuredSplit = Split | Literal["all"]
"""Questions to measure; all: those of every split."""

OnProgress = Callable[[str, int, int], None]


def measure_site(
    site: Site,
    split: MeasuredSplit,
    config: Config,
    retriever: Retriever | None,
    generator: Generator | None,
    on_progress: OnProgress = lambda what, done, total: None,
    indexes: Path | None = None,
) -> list[Measured]:
    """Measure one site's questions against its own passages.

    Args:
        site: The site.
        split: Questions to measure.
        config: Prompt settings and batch sizes.
        retriever: In the state to measure; None: no retrieval, for a closed book.
        generator: In the state to measure; None: retrieval only.
        on_progress: Called with a description, the number done and the total while answers are generated.
        indexes: The folder of indexes; None: none are kept.
    """
    chosen = site.questions if split == "all" else site.split(split)
    questions = distinct_questions(question for question in chosen if question.origin != CANARY)
    if not questions:
        return []
    index: PassageIndex | None = None
    rankings = [Ranking((), (), ()) for _ in questions]
    if retriever is not None:
        index = build_index(retriever, site.passages, config.rag.chunk_overlap, indexes, config.rag.search)
        rankings = rank(retriever, index, questions, config.rag.passages)
    passages = {passage.id: passage for passage in site.passages}
    answers: Sequence[Answered | None] = [None] * len(questions)
    if generator is not None:
        asked = [
            Retrieved.of(question.question, ranking.best, passages, index)
            for question, ranking in zip(questions, rankings, strict=True)
            if question.answers  # an answer to the others could not be measured
        ]
        told = generate_answers(
            generator,
            asked,
            config.rag,
            config.evaluation.batch_tokens,
            answer_temperature(retriever, config.rag, config.retriever.lsr.tau_r),
            lambda done, total: on_progress(f"answers of {site.name}", done, total),
        )
        left = iter(told)
        answers = [next(left) if question.answers else None for question in questions]
    return [
        Measured(
            site.name,
            question.id,
            tuple(hit.passage_id for hit in ranking.best),
            answer.text if answer else None,
            _metrics(
                question,
                ranking.ranks if index is not None else None,
                answer.text if answer else None,
                site.language or config.evaluation.language,
            ),
            _cut(answer),
        )
        for question, ranking, answer in zip(questions, rankings, answers, strict=True)
    ]


def _cut(answer: Answered | None) -> dict[str, int]:
    """Return what of a question's texts was cut, by `CUTS`."""
    if answer is None:
        return {}
    counts = zip(CUTS, (answer.cut_prompts, answer.cut_passages, int(answer.is_cut)), strict=True)
    return {what: count for what, count in counts if count}


def _metrics(
    question: Question, ranks: Sequence[int] | None, answer: str | None, language: str
) -> dict[str, float | None]:
    metrics: dict[str, float | None] = dict.fromkeys(METRICS)
    if answer is not None and question.answers:
        metrics["exact_match"] = exact_match(answer, question.answers, language)
        metrics["f1"] = token_f1(answer, question.answers, language)
        metrics["rouge_l"] = rouge_l(answer, question.answers)
    if question.passage_ids and ranks is not None:
        metrics["recall_at_1"] = recall_at(ranks, 1)
        metrics["recall_at_5"] = recall_at(ranks, 5)
        metrics["mrr"] = reciprocal_rank(ranks)
        metrics["ndcg_at_10"] = ndcg_at(ranks, len(set(question.passage_ids)), 10)
    return metrics
