"""Asks a question three ways: with the passages that were found, with the labelled ones, and with none.

What an answer gains from the labelled passage is the most that a better retriever can bring to this generator; what is
wrong even then is the generator's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fedrag.config.rag_settings import RagConfig
from fedrag.config.scenario import Config
from fedrag.diagnosis.answer_cache import AnswerCache
from fedrag.diagnosis.diagnosed import Generated, Given, Trial
from fedrag.evaluation.answers import exact_match, token_f1
from fedrag.models.generator import Generator
from fedrag.rag.pipeline import Retrieved, generate_answers
from fedrag.types import Question

AT_A_TIME = 64
"""Questions that are answered before their answers are kept: as many are lost when the process dies."""


def rag_settings(rag: RagConfig, given: Given) -> RagConfig:
    """Return the settings of the prompts of a trial: with a passage at least, or in a closed book."""
    if given == "closed_book":
        return rag.model_copy(update={"passages": 0, "passages_per_prompt": 0})
    return rag.model_copy(update={"passages": max(rag.passages, 1)}) if given == "labelled" else rag


def answers_of(
    generator: Generator,
    asked: Sequence[Retrieved],
    config: Config,
    given: Given,
    temperature: float,
    cache: AnswerCache,
    on_progress: Callable[[int, int], None],
) -> list[Generated]:
    """Return the answer to each question, from the cache where it is there.

    Args:
        generator: Answers in its current state.
        asked: Questions with their passages.
        config: The scenario.
        given: What the passages are.
        temperature: Weighs the prompts of a question that has several.
        cache: Of answers with the same settings.
        on_progress: Called with (questions done, questions in all).
    """
    missing = [one for one in asked if cache.get(one) is None]
    done = len(asked) - len(missing)
    on_progress(done, len(asked))
    for start in range(0, len(missing), AT_A_TIME):
        part = missing[start : start + AT_A_TIME]
        began = time.monotonic()
        told = generate_answers(
            generator, part, rag_settings(config.rag, given), config.evaluation.batch_tokens, temperature
        )
        each = round((time.monotonic() - began) / len(part), 4)
        cache.add(
            (one, Generated(answer.text, answer.prompt_tokens, answer.answer_tokens, each, answer.is_cut))
            for one, answer in zip(part, told, strict=True)
        )
        done += len(part)
        on_progress(done, len(asked))
    answers = [cache.get(one) for one in asked]
    assert None not in answers
    return [answer for answer in answers if answer is not None]


def scored(question: Question, generated: Generated, language: str) -> Trial:
    """Score an answer."""
    return Trial(
        exact_match(generated.text, question.answers, language),
        token_f1(generated.text, question.answers, language),
        generated,
    )
