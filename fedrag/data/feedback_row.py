"""What a person says about one answer, and what a reviewer makes of it."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal, get_args

from fedrag.errors import DataError

Verdict = Literal["right", "wrong"]
State = Literal["new", "accepted", "edited", "dropped"]
STATES: tuple[State, ...] = get_args(State)
"""What a reviewer made of a row: nothing yet; taken as it is; taken with another answer or passage; not taken."""
TAKEN: frozenset[State] = frozenset(["accepted", "edited"])
"""States of rows that become training questions."""

MOST_CHARACTERS = 20_000
"""Longest question or answer that is kept."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a person said about one answer.

    Attributes:
        question: What was asked.
        answer: What was answered; empty where nothing was.
        shown: Ids of the passages that were shown, best first.
        verdict: Whether the answer was right.
        correction: The right answer, where the person gave one.
        right_ids: Passages that the person, or the reviewer, picked as holding the answer; shown ones or others.
        wrong_ids: Shown passages that the person marked as wrong.
        day: Day on which it was said, as 2026-01-31.
        state: What a reviewer made of it.
        exported: Whether it has become a training question.
        id: Random; tells nothing of who or when.
    """

    question: str
    answer: str
    shown: tuple[str, ...]
    verdict: Verdict
    correction: str = ""
    right_ids: tuple[str, ...] = ()
    wrong_ids: tuple[str, ...] = ()
    day: str = field(default_factory=lambda: date.today().isoformat())
    state: State = "new"
    exported: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def right_answer(self) -> str:
        """The answer to learn: the correction, else what was answered if that was right, else nothing."""
        return self.correction or (self.answer if self.verdict == "right" else "")


def sound(feedback: Feedback) -> Feedback:
    """Return feedback without blank ends and control characters: those mean nothing to a reader, much to a terminal.

    Raises:
        DataError: It could never be a training question, or cannot be written; the message repeats no text.
    """
    cleaned = replace(
        feedback,
        question=_cleaned(feedback.question),
        answer=_cleaned(feedback.answer),
        correction=_cleaned(feedback.correction),
    )
    for name in ("question", "answer", "correction"):
        text = getattr(cleaned, name)
        if len(text) > MOST_CHARACTERS:
            raise DataError(f"feedback: the {name} is longer than {MOST_CHARACTERS:,} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(f"feedback: the {name} holds half a surrogate pair, which is no character") from None
    if not cleaned.question:
        raise DataError("feedback: the question is blank")
    if feedback.verdict not in get_args(Verdict):
        raise DataError(f"feedback: the verdict must be one of {', '.join(get_args(Verdict))}")
    return cleaned


def _cleaned(text: str) -> str:
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc").strip()
