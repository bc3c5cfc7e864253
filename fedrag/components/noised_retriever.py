"""What the retriever learns from where noise covers single questions: each question's own passages, and none's else.

Without noise, questions with the same text share their labels, and draws run through all of them. Here nothing that a
question learns from may depend on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedrag.components.negatives_check import NO_NEGATIVES
from fedrag.components.work import NothingToLearn, Prepared, Work
from fedrag.config.training_settings import RetrieverConfig
from fedrag.data.questions import count_distinct
from fedrag.dp.units import units_of
from fedrag.rag.pipeline import encode_questions
from fedrag.seeding import derive_seed
from fedrag.training.private_retriever import train_retriever_privately
from fedrag.training.private_steps import NoisedSteps
from fedrag.training.result import TrainingResult
from fedrag.training.retriever_examples import (
    RetrieverExample,
    add_hard_negatives,
    draw_hard_negatives,
    labelled_examples,
    merge_examples,
    shortener,
)
from fedrag.types import Example, Hit, Question

_NAME = "retriever"


Score = Callable[[Work], Sequence[RetrieverExample]]
"""Lets the generator score the candidates of each answered question."""


def prepare_with_noise(work: Work, noise: NoisedSteps, score: Score) -> Prepared | None:
    """Collect what the retriever learns from in this round, by what is protected as a whole.

    Raises:
        NothingToLearn: It finds no hard negatives for any labelled question, and learns from nothing else.
    """
    taught, units = noised_units(work, score)
    if not units:
        contrasts = work.bench.config.retriever.uses_contrastive
        if contrasts and any(question.passage_ids for question in work.bench.site.train):
            raise NothingToLearn(NO_NEGATIVES)
        return None
    return Prepared(len(taught), lambda: _train(work, units, noise), count_distinct(taught))


def noised_units(work: Work, score: Score) -> tuple[list[Question], list[list[RetrieverExample]]]:
    """Return the questions that teach something, and the examples of each question or subject among them."""
    site, settings = work.bench.site, work.bench.config.retriever
    labelled = _labelled(work) if settings.uses_contrastive else {}
    scored: dict[str, list[RetrieverExample]] = {}
    if settings.uses_lsr:
        scored = {q.id: [example] for q, example in zip(site.answered, score(work), strict=True)}
    found = {
        q.id: _teaching(merge_examples(labelled.get(q.id, []), scored.get(q.id, [])), settings) for q in site.train
    }
    taught = [question for question in site.train if found[question.id]]
    return taught, [[example for question in unit for example in found[question.id]] for unit in units_of(taught)]


def split_pairs(pairs: Sequence[Example], candidates: Sequence[Sequence[Hit]]) -> list[list[Example]]:
    """Return the pairs of each question; they come question after question."""
    parts: list[list[Example]] = []
    start = 0
    for hits in candidates:
        parts.append([*pairs[start : start + len(hits)]])
        start += len(hits)
    return parts


def _labelled(work: Work) -> dict[str, list[RetrieverExample]]:
    """Return the labelled pairs of each question, with its own hard negatives."""
    bench, retriever = work.bench, work.models.retriever
    settings, overlap = bench.config.retriever, bench.config.rag.chunk_overlap
    size, most = settings.train_tokens, settings.contrastive.named_negatives
    by_id = {passage.id: passage for passage in bench.site.passages}
    pairs: list[tuple[str, RetrieverExample]] = []
    for question in bench.site.train:
        named = [by_id[one] for one in (*question.passage_ids, *question.hard_negative_ids)]
        seed = derive_seed(work.seed(_NAME), "hard", question.id)
        found = labelled_examples(retriever, [question], named, overlap, size)
        pairs += [(question.id, example) for example in draw_hard_negatives(found, most, seed)]
    examples = [example for _, example in pairs]
    queries = encode_questions(retriever, [example.question for example in examples])
    shorten = shortener(retriever, size)
    filled = add_hard_negatives(examples, queries, work.index(), settings.contrastive, shorten) if examples else []
    by_question: dict[str, list[RetrieverExample]] = {}
    for (identity, _), example in zip(pairs, filled, strict=True):
        by_question.setdefault(identity, []).append(example)
    return by_question


def _teaching(examples: Sequence[RetrieverExample], settings: RetrieverConfig) -> list[RetrieverExample]:
    """Return the examples from which one of the losses in use learns."""
    contrasts, ranks = settings.uses_contrastive, settings.learns_from_scores
    return [
        example
        for example in examples
        if (contrasts and example.positive and example.hard_negatives) or (ranks and len(example.candidates) > 1)
    ]


def _train(work: Work, units: Sequence[Sequence[RetrieverExample]], noise: NoisedSteps) -> TrainingResult:
    bench = work.bench
    return train_retriever_privately(
        work.models.retriever,
        units,
        bench.config.retriever,
        noise,
        losses=bench.losses,
        on_step=work.on_step(_NAME),
        **work.terms(_NAME),
    )
