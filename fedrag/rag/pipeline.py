"""The pipeline that answers questions: encode, retrieve, prompt, generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedrag.config.scenario import RagConfig
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.passes.batches import plan_batches
from fedrag.passes.decoding import decode
from fedrag.passes.memory_estimate import tokens_at_a_time
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import Shown, shown_hits
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.types import Array, Example, Hit, Passage, Question

OnProgress = Callable[[int, int], None]

_BATCH_TOKENS = 16_384


def retrieve(retriever: Retriever, index: PassageIndex, questions: Sequence[str], k: int) -> list[list[Hit]]:
    """Return the k best passages of each question; repeated questions are encoded once."""
    distinct = list(dict.fromkeys(questions))
    found = index.search(retriever.encode_queries(distinct), k) if distinct else []
    by_text = dict(zip(distinct, found, strict=True))
    return [by_text[question] for question in questions]


def rank(retriever: Retriever, index: PassageIndex, questions: Sequence[Question], k: int) -> list[Ranking]:
    """Return the k best passages of each question, and the ranks of its labelled ones."""
    queries = encode_questions(retriever, [question.question for question in questions])
    return index.rank(queries, k, [question.passage_ids for question in questions])


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


def answer_questions(
    generator: Generator,
    asked: Sequence[Retrieved],
    config: RagConfig,
    batch_tokens: int,
    temperature: float,
    on_progress: OnProgress | None = None,
) -> list[str]:
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
    """
    builder, end_ids = prompt_builder(generator, config), set(generator.end_ids)
    owners: list[int] = []
    prompts: list[Example] = []
    weights: list[float] = []
    for i, item in enumerate(asked):
        for start, group in prompt_groups(item.passages, config):
            owners.append(i)
            prompts.append(builder.example(item.question, group))
            weights.append(item.scores[start] / temperature if item.scores else 0.0)
    most = tokens_at_a_time(generator, batch_tokens, _BATCH_TOKENS)
    decoded = _decode_all(generator, prompts, config.answer_tokens, most, on_progress)
    texts = [builder.text(ids[: config.answer_tokens]) for ids in decoded]
    if len(owners) == len(asked):
        return texts
    ended = [not end_ids.isdisjoint(ids) for ids in decoded]
    # An answer of nothing but special tokens has no text, and may not end either: then these tokens are the answer.
    answered = [
        builder.answer(text, end=end) or ids[: config.answer_tokens]
        for text, end, ids in zip(texts, ended, decoded, strict=True)
    ]
    examples = [replace(prompt, answer=answer) for prompt, answer in zip(prompts, answered, strict=True)]
    means = score_answers(generator, examples, batch_tokens)
    answers = [""] * len(asked)
    best = np.full(len(asked), -np.inf)
    for owner, text, example, mean, weight in zip(owners, texts, examples, means, weights, strict=True):
        score = weight + float(mean) * len(example.answer)
        if score > best[owner]:
            best[owner], answers[owner] = score, text
    return answers


def prompt_groups(passages: Sequence[Shown], config: RagConfig) -> list[tuple[int, Sequence[Shown]]]:
    """Return the passages of each prompt, with the rank of the first of them."""
    size = config.passages_per_prompt or max(len(passages), 1)
    return [(start, passages[start : start + size]) for start in range(0, max(len(passages), 1), size)]


def _decode_all(
    generator: Generator,
    prompts: Sequence[Example],
    answer_tokens: int,
    batch_tokens: int,
    on_progress: OnProgress | None,
) -> list[list[int]]:
    """Return at most one token more than an answer may have for each prompt: it tells whether the answer ends."""
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    for rows in plan_batches([prompt.length + answer_tokens for prompt in prompts], batch_tokens):
        with generator.at_rest():
            output = decode(generator, [prompts[i] for i in rows], answer_tokens + 1)
        for i, ids in zip(rows, output, strict=True):
            answers[i] = ids
        done += len(rows)
        if on_progress:
            on_progress(done, len(prompts))
    return answers
