"""The questions of an audit: those that were trained on, and those that were held back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedrag.data.questions import distinct_questions, question_key
from fedrag.errors import DataError
from fedrag.types import MADE_BY_A_MODEL, Question, Site


@dataclass(frozen=True, slots=True)
class Audited:
    """A site and its questions.

    Attributes:
        site: The site.
        members: Questions that it trained on.
        others: Questions of the same site on which nobody trained.
    """

    site: Site
    members: tuple[Question, ...]
    others: tuple[Question, ...]

    @property
    def questions(self) -> tuple[Question, ...]:
        """Both, members first."""
        return self.members + self.others


def audited_questions(sites: Sequence[Site]) -> list[Audited]:
    """Return the questions of each site that has both kinds.

    A question that one site trained on and another holds back is neither.

    Raises:
        DataError: No site has both.
    """
    trained = {question_key(question.question) for site in sites for question in site.train}
    found = []
    for site in sites:
        held_back = [q for q in _by_people(site.validation + site.test) if question_key(q.question) not in trained]
        audited = Audited(site, tuple(_by_people(site.train)), tuple(held_back))
        if audited.members and audited.others:
            found.append(audited)
    if not found:
        raise DataError("an audit compares questions that were trained on with held-back ones, and no site has both")
    return found


def _by_people(questions: Iterable[Question]) -> list[Question]:
    return [question for question in distinct_questions(questions) if question.origin not in MADE_BY_A_MODEL]
