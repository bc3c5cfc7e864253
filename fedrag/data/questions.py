"""Finds questions with the same text."""

from __future__ import annotations

from collections.abc import Iterable

from fedrag.types import ORIGINS, Question, Site


def question_key(text: str) -> str:
    """Return a key that two questions to be merged share; stricter than `normalise_question`, it keeps punctuation.

    >>> question_key("Who  is it?") == question_key("who is it?")
    True
    """
    return " ".join(text.casefold().split())


def distinct_questions(questions: Iterable[Question]) -> list[Question]:
    """Merge questions with the same text; all their answers and labelled passages count as right.

    What a person asked is asked by a person, whoever else has it; it is about whom the first says that names somebody.
    """
    merged: dict[str, Question] = {}
    for question in questions:
        key = question_key(question.question)
        before = merged.get(key)
        if before is None:
            merged[key] = question
        else:
            answers = tuple(dict.fromkeys(before.answers + question.answers))
            passages = tuple(dict.fromkeys(before.passage_ids + question.passage_ids))
            wrong = dict.fromkeys(before.hard_negative_ids + question.hard_negative_ids)
            negatives = tuple(identity for identity in wrong if identity not in passages)
            origin = min(before.origin, question.origin, key=ORIGINS.index)
            subject = before.subject or question.subject
            merged[key] = Question(before.id, before.question, answers, passages, negatives, origin, subject)
    return list(merged.values())


def count_distinct(questions: Iterable[Question]) -> int:
    """Return how many questions are measured: those with the same text count once."""
    return len({question_key(question.question) for question in questions})


def question_counts(site: Site, *, with_unanswered: bool = False) -> dict[str, int]:
    """Return what a site tells of its questions: how many there are of each sort.

    Args:
        site: The site.
        with_unanswered: Count those that nobody answered as training questions of every sort: a run that answers them
            itself may learn from each.
    """
    further = len(site.unanswered) if with_unanswered else 0
    return {
        "train_questions": len(site.train) + further,
        "answered_questions": len(site.answered) + further,
        "labelled_questions": sum(bool(question.passage_ids) for question in site.train) + further,
        "validation_questions": len(site.validation),
    }


def trained_elsewhere(site: Site, questions: Iterable[Question], training: Iterable[Site]) -> frozenset[str]:
    """Return the ids of those questions of a site whose text is a training question at another site.

    Args:
        site: Where the questions are from.
        questions: Distinct ones.
        training: The sites that train; the site itself may be among them.
    """
    seen = {question_key(q.question) for other in training if other.name != site.name for q in other.train}
    return frozenset(question.id for question in questions if question_key(question.question) in seen)


def count_lines(sites: Iterable[Site], split: str) -> int:
    """Return how many questions sites have in a split, or in "all" of them, with those that recur."""
    return sum(len(site.questions if split == "all" else getattr(site, split)) for site in sites)


def distinct_lines(n_distinct: int, n_lines: int) -> list[str]:
    """Say how many questions are distinct where some recur; no line where none does.

    >>> distinct_lines(2643, 4152)
    ['2,643 distinct questions, in 4,152 lines']
    """
    return [f"{n_distinct:,} distinct questions, in {n_lines:,} lines"] if n_distinct < n_lines else []
