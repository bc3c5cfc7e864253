"""What a generator says of the data by itself: answers from the question alone, and passages from their first half."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.config.scenario import Config
from fedrag.evaluation.answers import exact_match
from fedrag.models.generator import Generator
from fedrag.models.resident import RoundModels
from fedrag.passes.decoding import decode
from fedrag.privacy.audited import Audited
from fedrag.rag.pipeline import Retrieved, generate_answers
from fedrag.types import Example, Passage, Question, State

GIVEN_TOKENS = 32
"""Tokens of a passage that are given."""
CONTINUED_TOKENS = 16
"""Tokens that must follow word for word: too many to be chance, as few as a name with an address has."""
MOST_PASSAGES = 200
AT_A_TIME = 16


def answered_by_heart(audited: Audited, config: Config, state: State) -> dict[Question, bool]:
    """Return of each question with an answer whether the generator answers it right without any passage."""
    questions = [question for question in audited.questions if question.answers]
    closed = config.rag.model_copy(update={"passages": 0, "passages_per_prompt": 0})
    told = generate_answers(
        RoundModels(config, state).generator,
        [Retrieved(question.question, (), ()) for question in questions],
        closed,
        config.evaluation.batch_tokens,
        temperature=1.0,
    )
    language = audited.site.language or config.evaluation.language
    return {
        question: exact_match(answer.text, question.answers, language) == 1.0
        for question, answer in zip(questions, told, strict=True)
    }


def passages_by_heart(passages: Sequence[Passage], config: Config, state: State) -> tuple[int, int]:
    """Return how many passages a generator goes on with word for word, and how many were tried.

    Given are the first tokens of a passage, of at most `MOST_PASSAGES`; one that is too short is not tried.
    """
    generator = RoundModels(config, state).generator
    if generator.seq2seq:
        return 0, 0  # an encoder reads the beginning: there is no text to go on with
    texts = [_ids(generator, passage) for passage in passages]
    tried = [ids for ids in texts if len(ids) >= GIVEN_TOKENS + CONTINUED_TOKENS][:MOST_PASSAGES]
    by_heart = 0
    for start in range(0, len(tried), AT_A_TIME):
        block = tried[start : start + AT_A_TIME]
        # An adapter that acts from the question on acts from the second token on: there is no question here.
        prompts = [Example(ids[:GIVEN_TOKENS], prefix_ends=(1,)) for ids in block]
        told = decode(generator, prompts, CONTINUED_TOKENS)
        wanted = [ids[GIVEN_TOKENS : GIVEN_TOKENS + CONTINUED_TOKENS] for ids in block]
        by_heart += sum(list(a[:CONTINUED_TOKENS]) == b for a, b in zip(told, wanted, strict=True))
    return by_heart, len(tried)


def _ids(generator: Generator, passage: Passage) -> list[int]:
    return list(generator.tokenizer(passage.full_text, add_special_tokens=False)["input_ids"])
