"""Counts questions by where they come from; see `fedrag.types.ORIGINS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.types import ORIGINS, Question


def count_origins(questions: Iterable[Question]) -> dict[str, int]:
    """Return how many questions come from where, in the order of `ORIGINS`; {} where all come from people."""
    counts = Counter(question.origin for question in questions)
    return {origin: counts[origin] for origin in ORIGINS if counts[origin]} if set(counts) - {""} else {}


def sum_origins(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up counts by origin.

    >>> sum_origins([{"": 2, "feedback": 1}, {"feedback": 3}])
    {'': 2, 'feedback': 4}
    """
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return {origin: total[origin] for origin in ORIGINS if total[origin]}


def origins_text(counts: Mapping[str, int], what: str = "questions", words: Words = ENGLISH) -> str:
    """Say how many questions come from where; "" where all come from people.

    >>> origins_text({"": 200, "generated": 30, "feedback": 1}, "training_questions")
    '231 training questions: 200 from people, 30 generated, 1 from feedback'
    """
    if not set(counts) - {""}:
        return ""
    parts = [words(f"origin.{origin or 'people'}", count=count) for origin, count in counts.items()]
    return words("origin.all", questions=words(f"count.{what}", n=sum(counts.values())), parts=words.listed(parts))
