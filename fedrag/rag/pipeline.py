"""The pipeline that answers questions: encode, retrieve, prompt, generate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedrag.config.rag_settings import RagConfig, Search
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.passes.batch_invariant import decode_invariant, invariant_batches
from fedrag.passes.batches import plan_batches
from fedrag.passes.decoding import Leads, answer_length, decode
from fedrag.passes.memory_estimate import tokens_at_a_time
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.prompt import Fitted, PromptBuilder
from fedrag.rag.window import Shown, shown_hits
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.types import Array, Example, Hit, Passage, Question

OnProgress = Callable[[int, int], None]
OnText = Callable[[int, str, float], None]
"""Takes the number of a question, its answer so far, and the smallest lead so far."""
OnTokens = Callable[[int, list[int], float], None]
"""Takes the number of a prompt, the tokens of its answer so far, and the smallest lead so far."""

_BATCH_TOKENS = 16_384


def retrieve(retriever: Retriever, index: PassageIndex, questions: Sequence[str], k: int) -> list[list[Hit]]:
    """Return the k best passages of each question; repeated questions are encoded once."""
    distinct = list(dict.fromkeys(questions))
    found = index.search(_vectors(retriever, index, distinct), k, distinct) if distinct else []
    by_text = dict(zip(distinct, found, strict=True))
    return [by_text[question] for question in questions]


def rank(retriever: Retriever, index: PassageIndex, questions: Sequence[Question], k: int) -> list[Ranking]:
    """Return the k best passages of each question, and the ranks of its labelled ones."""
    texts = [question.question for question in questions]
    return index.rank(_vectors(retriever, index, texts), k, [question.passage_ids for question in questions], texts)


def _vectors(retriever: Retriever, index: PassageIndex, questions: Sequence[str]) -> Array:
    """Return the vectors of questions (questions, dim), of no dimension where an index needs none."""
    return np.zeros((len(questions), 0), np.float32) if index.by == "bm25" else encode_questions(retriever, questions)


def encode_questions(retriever: Retriever, questions: Sequence[str]) -> Array:
    """Return the vectors of questions (questions, dim); repeated ones are encoded once."""
    distinct = {question: row for row, question in enumerate(dict.fromkeys(questions))}
    if not distinct:
        return np.zeros((0, 0), np.float32)
    return retriever.encode_queries(list(distinct))[[distinct[question] for question in questions]]


def prompt_builder(generator: Generator, config: RagConfig) -> PromptBuilder:
    """Return the prompt builder of a generator."""
    return PromptBuilder(generator.tokenizer, config, seq2seq=generator.seq2seq)


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A question with the passages that were found for it, best first."""

    question: str
    passages: tuple[Shown, ...]
    scores: tuple[float, ...]

    @classmethod
    def of(
        cls, question: str, hits: Sequence[Hit], passages: Mapping[str, Passage], index: PassageIndex | None
    ) -> Retrieved:
        """Return a question with its hits, each passage with its best chunk; without an index there are no hits."""
        shown = shown_hits(hits, passages, index) if index is not None else []
        return cls(question, tuple(shown), tuple(hit.score for hit in hits))


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question, and what of its texts was cut.

    Attributes:
        text: The answer.
        cut_prompts: Prompts of the question in which it, or one of the passages, does not stand whole.
        cut_passages: Passages of which a prompt shows a part.
        is_cut: Whether the answer was stopped before it ended.
        lead: The smallest lead of a chosen token over the next best, as a part of the largest score; only where asked.
        prompt_tokens: Tokens of the question's prompts.
        answer_tokens: Tokens of the answer, with the one that ends it.
        unread_tokens: The last tokens of a long question, for which the prompt had no room.
    """

    text: str
    cut_prompts: int = 0
    cut_passages: int = 0
    is_cut: bool = False
    lead: float = math.inf
    prompt_tokens: int = 0
    answer_tokens: int = 0
    unread_tokens: int = 0


def generate_answers(
    generator: Generator,
    asked: Sequence[Retrieved],
    config: RagConfig,
    batch_tokens: int,
    temperature: float,
    on_progress: OnProgress | None = None,
    *,
    watch: OnText | None = None,
    batch_invariant: bool = False,
) -> list[Answered]:
    """Return the generator's answer to each question, decoded greedily in batches of similar length.

    If a question has several prompts (`passages_per_prompt` below `passages`), each yields an answer; the one with the
    highest p(passages | question) p(answer | passages, question) is returned.

    Args:
        generator: Answers with its current adapter.
        asked: Questions with their passages.
        config: Prompt settings.
        batch_tokens: Padded prompt tokens of a batch; 0: what suits the device.
        temperature: Temperature of the softmax over retrieval scores, for questions with several prompts.
        on_progress: Called after each batch with (prompts done, prompts in all).
        watch: Called for each question after each token of its answer, where each has one prompt; with it,
            `Answered.lead` is noted.
        batch_invariant: Decode so that no answer depends on the other questions; every lead is then infinite. For
            questions with one prompt each, and a generator that `can_be_batch_invariant`.
    """
    builder = prompt_builder(generator, config)
    owners: list[int] = []
    fits: list[Fitted] = []
    weights: list[float] = []
    for i, item in enumerate(asked):
        for start, group in prompt_groups(item.passages, config):
            owners.append(i)
            fits.append(builder.fit(item.question, group))
            weights.append(log_weight(item.scores[start], config.search, temperature) if item.scores else 0.0)
    prompts = [builder.fitted_example(fitted) for fitted in fits]
    most = tokens_at_a_time(generator, batch_tokens, _BATCH_TOKENS)

    def on_tokens(row: int, ids: list[int], lead: float) -> None:
        if watch is not None and len(owners) == len(asked):
            watch(row, builder.text(ids), lead)

    watched = on_tokens if watch is not None else None
    if batch_invariant:
        decoded, leads = _decode_invariant(generator, prompts, config.answer_tokens, watched)
    else:
        decoded, leads = _decode_all(generator, prompts, config.answer_tokens, most, on_progress, watched)
    texts = [builder.text(ids[: config.answer_tokens]) for ids in decoded]
    ended = [builder.is_whole(ids, generator.end_ids) for ids in decoded]
    best = list(range(len(asked)))
    if len(owners) > len(asked):
        # An answer of nothing but special tokens has no text, and may not end either: then these tokens are the answer.
        answers = [
            builder.answer(text, end=end) or ids[: config.answer_tokens]
            for text, end, ids in zip(texts, ended, decoded, strict=True)
        ]
        examples = [replace(prompt, answer=answer) for prompt, answer in zip(prompts, answers, strict=True)]
        means = score_answers(generator, examples, batch_tokens)
        best = _likeliest(
            owners, [w + float(m) * len(e.answer) for w, m, e in zip(weights, means, examples, strict=True)]
        )
    own: list[list[Fitted]] = [[] for _ in asked]
    read = [0] * len(asked)
    for owner, fitted, prompt in zip(owners, fits, prompts, strict=True):
        own[owner].append(fitted)
        read[owner] += prompt.length
    return [
        Answered(
            texts[row],
            sum(fitted.cuts_question or fitted.cut_passages > 0 for fitted in mine),
            sum(fitted.cut_passages for fitted in mine),
            not ended[row],
            leads[row],
            n_read,
            min(answer_length(decoded[row], generator.end_ids), config.answer_tokens),
            mine[0].question_tokens - len(mine[0].question),
        )
        for row, mine, n_read in zip(best, own, read, strict=True)
    ]


def _likeliest(owners: Sequence[int], scores: Sequence[float]) -> list[int]:
    """Return the row of the best score of each owner, the first of equals.

    >>> _likeliest([0, 0, 1], [-3.0, -2.0, -5.0])
    [1, 2]
    """
    best: dict[int, int] = {}
    for row, owner in enumerate(owners):
        if owner not in best or scores[row] > scores[best[owner]]:
            best[owner] = row
    return [best[owner] for owner in sorted(best)]


def log_weight(score: float, search: Search, temperature: float) -> float:
    """Return log p(passages | question), up to a constant, of the score of the first of them.

    A similarity is divided by the temperature. BM25 is a sum of log odds already (Robertson and Zaragoza 2009). A
    joined rank is taken as the probability itself.
    """
    if search == "hybrid":
        return math.log(score)
    return score if search == "bm25" else score / temperature


def answer_temperature(retriever: Retriever | None, config: RagConfig, tau_r: float | Literal["auto"]) -> float:
    """Return the temperature by which `generate_answers` weighs several prompts of a question.

    Args:
        retriever: Found the passages; None: nothing was searched.
        config: Says whether questions have several prompts, and how passages are searched; where each has one prompt,
            or similarities are not what ranks, no temperature need be found.
        tau_r: The scenario's setting.
    """
    several = 0 < config.passages_per_prompt < config.passages and config.search == "dense"
    return retriever.tau_r(tau_r) if retriever is not None and several else 1.0


def prompt_groups(passages: Sequence[Shown], config: RagConfig) -> list[tuple[int, Sequence[Shown]]]:
    """Return the passages of each prompt, with the rank of the first of them."""
    size = config.passages_per_prompt or max(len(passages), 1)
    return [(start, passages[start : start + size]) for start in range(0, max(len(passages), 1), size)]


def _decode_invariant(
    generator: Generator,
    prompts: Sequence[Example],
    answer_tokens: int,
    on_tokens: OnTokens | None,
) -> tuple[list[list[int]], list[float]]:
    """Return what `_decode_all` does, none of which depends on the other prompts."""
    answers: list[list[int]] = [[] for _ in prompts]
    for rows in invariant_batches(prompts):

        def tell(so_far: list[list[int]], rows: list[int] = rows) -> None:
            for row, ids in zip(rows, so_far, strict=True):
                if on_tokens is not None:
                    on_tokens(row, ids, math.inf)

        watched = tell if on_tokens is not None else None
        with generator.at_rest():
            output = decode_invariant(generator, [prompts[i] for i in rows], answer_tokens + 1, watched)
        for i, ids in zip(rows, output, strict=True):
            answers[i] = ids
    return answers, [math.inf] * len(prompts)


def _decode_all(
    generator: Generator,
    prompts: Sequence[Example],
    answer_tokens: int,
    batch_tokens: int,
    on_progress: OnProgress | None,
    on_tokens: OnTokens | None,
) -> tuple[list[list[int]], list[float]]:
    """Return at most one token more than an answer may have for each prompt, and the smallest lead of each.

    The one more tells whether the answer ends.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    smallest = [math.inf] * len(prompts)
    done = 0
    for rows in plan_batches([prompt.length + answer_tokens for prompt in prompts], batch_tokens):

        def tell(so_far: list[list[int]], smallest: list[float], rows: list[int] = rows) -> None:
            for row, ids, lead in zip(rows, so_far, smallest, strict=True):
                if on_tokens is not None:
                    on_tokens(row, ids, lead)

        leads = Leads(tell) if on_tokens is not None else None
        with generator.at_rest():
            output = decode(generator, [prompts[i] for i in rows], answer_tokens + 1, leads)
        for i, ids in zip(rows, output, strict=True):
            answers[i] = ids
        if leads is not None:
            for i, lead in zip(rows, leads.smallest(output, generator.end_ids), strict=True):
                smallest[i] = lead
        done += len(rows)
        if on_progress:
            on_progress(done, len(prompts))
    return answers, smallest
