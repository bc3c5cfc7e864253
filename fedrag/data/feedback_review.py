"""What a reviewer sees of a piece of feedback: its passages, and others that may hold the answer."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.data.feedback_row import STATES, Feedback, State
from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.words import holds_words
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.types import Passage

MOST_FOUND = 8


@dataclass(frozen=True, slots=True)
class Beside:
    """A passage beside a piece of feedback.

    Attributes:
        passage: The passage.
        is_right: Whether the person, or the reviewer, picked it.
        is_wrong: Whether the person marked it as wrong.
        holds_answer: Whether the right answer stands in it word for word.
    """

    passage: Passage
    is_right: bool
    is_wrong: bool
    holds_answer: bool


def passages_beside(row: Feedback, passages: Mapping[str, Passage]) -> list[Beside]:
    """Return the passages that were shown, best first, then others that were picked; those that are gone are left out.

    Args:
        row: The feedback.
        passages: The site's passages by id.
    """
    ids = dict.fromkeys((*row.shown, *row.right_ids))
    return [
        Beside(
            passages[identity],
            identity in row.right_ids,
            identity in row.wrong_ids,
            holds_words(passages[identity].full_text, row.right_answer),
        )
        for identity in ids
        if identity in passages
    ]


def find_passages(passages: Iterable[Passage], words: str, most: int = MOST_FOUND) -> list[Passage]:
    """Return the passages that hold most of some words, the best first; in a tie, the site's order.

    >>> find_passages([Passage("a", "The library."), Passage("b", "A late book.")], "late books or a book")
    [Passage(id='b', text='A late book.', title=None, source='')]
    """
    wanted = set(words.split())

    def held(passage: Passage) -> int:
        return sum(holds_words(passage.full_text, word) for word in wanted)

    counted = ((held(passage), -place, passage) for place, passage in enumerate(passages))
    best = heapq.nlargest(most, counted, key=lambda found: found[:2])
    return [passage for count, _, passage in best if count]


def accept(store: FeedbackStore, row: Feedback) -> Feedback:
    """Take a row as it stands; one that was edited stays marked as such.

    Raises:
        DataError: It is exported already, or has nothing to learn from.
        StorageError: It cannot be written.
    """
    state: State = "edited" if row.state == "edited" else "accepted"
    return store.review(row.id, state)


def counts_text(rows: Sequence[Feedback], words: Words = ENGLISH) -> str:
    """Say how many rows there are in each state.

    >>> counts_text([Feedback("Who?", "I", (), "right"), Feedback("Why?", "So", (), "wrong", state="dropped")])
    '2 in all: 1 new, 1 dropped; 0 training questions from them'
    """
    by_state = Counter(row.state for row in rows)
    states = [words(f"feedback.{state}", count=by_state[state]) for state in STATES if by_state[state]]
    exported = words("count.training_questions", n=sum(row.exported for row in rows))
    return words("feedback.counts", all=len(rows), states=words.listed(states), exported=exported)
