"""What is protected as a whole: one question with its answer or, where questions name it, one subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fedrag.types import Question, Site


def units_of(questions: Iterable[Question]) -> list[list[Question]]:
    """Return the questions by subject; one that names none stands alone.

    Two questions with the same text are two units: whoever asked both is protected by a subject alone.
    """
    units: list[list[Question]] = []
    by_subject: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if not question.subject:
            units.append([question])
            continue
        if question.subject not in by_subject:
            units.append(by_subject[question.subject])
        by_subject[question.subject].append(question)
    return units


def count_units(questions: Iterable[Question]) -> int:
    """Return how many subjects, and questions without one, there are."""
    return len(units_of(questions))


def protected_units(sites: Sequence[Site]) -> int:
    """Return how many training questions or subjects of sites are protected."""
    return sum(count_units(site.train) for site in sites)


def unit_word(questions: Iterable[Question]) -> str:
    """Return what is protected, in a word: "question" or, where any question names one, "subject"."""
    return "subject" if any(question.subject for question in questions) else "question"
