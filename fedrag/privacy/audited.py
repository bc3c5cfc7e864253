"""The questions of an audit: those that were trained on, those that were held back, and the canaries of both kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.data.canaries import Canaries
from fedrag.data.questions import distinct_questions, question_key
from fedrag.errors import DataError
from fedrag.types import TRAIN_ONLY, Question, Site

NO_CANARIES = Canaries((), ())


@dataclass(frozen=True, slots=True)
class Audited:
    """A site and its questions.

    Attributes:
        site: The site.
        members: Questions that it trained on.
        others: Questions of the same site on which nobody trained.
        canaries: Made-up questions, on some of which it trained.
    """

    site: Site
    members: tuple[Question, ...]
    others: tuple[Question, ...]
    canaries: Canaries = NO_CANARIES

    @property
    def questions(self) -> tuple[Question, ...]:
        """Those that people asked, members first."""
        return self.members + self.others

    @property
    def scored(self) -> tuple[Question, ...]:
        """All that are given a score: those that people asked, then canaries in an order that no coin decided."""
        return self.questions + self.canaries.in_order


def audited_questions(sites: Sequence[Site], canaries: Mapping[str, Canaries] | None = None) -> list[Audited]:
    """Return the questions of each site that has both kinds, or canaries of both kinds.

    A question that one site trained on and another holds back is neither.

    Args:
        sites: The sites.
        canaries: Those of each site that has some, by its name.

    Raises:
        DataError: No site has both.
    """
    trained = {question_key(question.question) for site in sites for question in site.train}
    found = []
    for site in sites:
        members = tuple(_by_people(site.train))
        others = tuple(q for q in _by_people(site.validation + site.test) if question_key(q.question) not in trained)
        asked = (members, others) if members and others else ((), ())
        planted = (canaries or {}).get(site.name, NO_CANARIES)
        audited = Audited(site, *asked, planted if planted.planted and planted.held_back else NO_CANARIES)
        if audited.scored:
            found.append(audited)
    if not found:
        raise DataError("an audit compares questions that were trained on with held-back ones, and no site has both")
    return found


def _by_people(questions: Iterable[Question]) -> list[Question]:
    return [question for question in distinct_questions(questions) if question.origin not in TRAIN_ONLY]
