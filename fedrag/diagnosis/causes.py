"""Why an answer is wrong: each wrong answer has exactly one cause, the first of these that holds.

An answer is wrong if it does not match a right one exactly (`exact_match`). Its cause is the first of

1. `worded_otherwise`: it says what is right in other words. A right answer stands in it word for word, or it has a
   token F1 of at least 0.8 with one that has the same numbers.
2. `not_in_corpus`: no passage of the site holds the answer. A passage holds it if the question labels it; of a question
   that labels none, if a right answer stands in it word for word.
3. `not_found`: such a passage is there, but none was given to the generator.
4. `cut`: such a passage was given, but the limits left no room. The prompt shows no part of it with the right answer
   (`rag.prompt_tokens`), or not the whole question; or no right answer fits into `rag.answer_tokens`.
5. `not_used`: the generator was given what it needs, and answered wrong.

So an answer is judged along the way that it takes: from the corpus through search and prompt to the generator. An
answer that runs into `rag.answer_tokens` although a right one would have fitted is the generator's doing, not the
limit's: it is `not_used`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fedrag.data.words import holds_words
from fedrag.evaluation.answers import exact_match, token_f1
from fedrag.evaluation.normalisation import answer_tokens
from fedrag.types import Passage, Question

Cause = Literal["worded_otherwise", "not_in_corpus", "not_found", "cut", "not_used"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
"""The causes, in the order in which they are decided."""

ALIKE_F1 = 0.8
"""Least token F1 of an answer that says the same as a right one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the answer to a question.

    Attributes:
        answer: The generated answer.
        right_answers: The right ones.
        in_corpus: Whether a passage of the site holds the answer.
        found: Whether such a passage was given to the generator.
        fits: Whether what it was given, and a right answer, fit into the limits.
        language: Code of the language of the answers.
    """

    answer: str
    right_answers: tuple[str, ...]
    in_corpus: bool
    found: bool
    fits: bool
    language: str = "en"


def cause_of(evidence: Evidence) -> Cause | None:
    """Return why an answer is wrong; None: it is right.

    >>> known = {"in_corpus": True, "found": True, "fits": True}
    >>> cause_of(Evidence("It costs two coins.", ("two coins",), **known))
    'worded_otherwise'
    >>> cause_of(Evidence("three coins", ("two coins",), **known))
    'not_used'
    """
    if exact_match(evidence.answer, evidence.right_answers, evidence.language):
        return None
    if says_the_same(evidence.answer, evidence.right_answers, evidence.language):
        return "worded_otherwise"
    if not evidence.in_corpus:
        return "not_in_corpus"
    if not evidence.found:
        return "not_found"
    return "not_used" if evidence.fits else "cut"


def says_the_same(answer: str, right_answers: Sequence[str], language: str = "en") -> bool:
    """Return whether an answer says a right one in other words.

    >>> says_the_same("It was founded on 29 July 1958.", ["29 July 1958"])
    True
    >>> says_the_same("the 29th of July in 1959", ["29 July 1958"])
    False
    """
    given = answer_tokens(answer, language)
    for right in right_answers:
        wanted = answer_tokens(right, language)
        if wanted and _stands_in(wanted, given):
            return True
        if _numbers(wanted) == _numbers(given) and token_f1(answer, [right], language) >= ALIKE_F1:
            return True
    return False


def holds_answer(text: str, right_answers: Sequence[str]) -> bool:
    """Return whether a right answer stands in a text word for word, whatever the case."""
    return any(holds_words(text, answer) for answer in right_answers)


def answer_passages(question: Question, passages: Sequence[Passage]) -> frozenset[str]:
    """Return the ids of the passages that hold the answer: the labelled ones, or else those in which it stands."""
    if question.passage_ids:
        return frozenset(question.passage_ids) & {passage.id for passage in passages}
    return frozenset(passage.id for passage in passages if holds_answer(passage.full_text, question.answers))


def _stands_in(wanted: Sequence[str], given: Sequence[str]) -> bool:
    """Return whether some tokens stand side by side in others."""
    return any(list(given[i : i + len(wanted)]) == list(wanted) for i in range(len(given) - len(wanted) + 1))


def _numbers(tokens: Sequence[str]) -> list[str]:
    return sorted(_with_digits(tokens))


def _with_digits(tokens: Sequence[str]) -> Iterator[str]:
    return (token for token in tokens if any(char.isdigit() for char in token))
