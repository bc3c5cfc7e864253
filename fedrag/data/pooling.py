"""Several sites' data in one place: for a mixture that is dealt anew, and for the pooled arm of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedrag.types import SPLITS, Passage, Question, Site

POOLED = "pooled"
"""Name of the pooled site."""


def pool_sites(sites: Sequence[Site]) -> Site:
    """Return all sites' data as one site's; ids are prefixed with the site's name.

    Its `parts` are the sites it is made of: a question is searched among the passages of its own.
    """
    parts = tuple(prefix_ids(site) for site in sites)
    return replace(merge_sites(POOLED, parts), parts=parts)


def merge_sites(name: str, sites: Sequence[Site]) -> Site:
    """Return one site with the data of several, whose ids must differ; its language is theirs if they share one."""
    languages = {site.language for site in sites}
    passages = tuple(passage for site in sites for passage in site.passages)
    train, validation, test = (tuple(q for site in sites for q in site.split(split)) for split in SPLITS)
    language = languages.pop() if len(languages) == 1 else ""
    unanswered = tuple(question for site in sites for question in site.unanswered)
    return Site(name, passages, train, validation, test, language, unanswered=unanswered)


def prefix_ids(site: Site) -> Site:
    """Return a site whose ids begin with its name, so that they differ from those of other sites."""

    def prefixed(identity: str) -> str:
        return f"{site.name}/{identity}"

    def question_of(question: Question) -> Question:
        return replace(
            question,
            id=prefixed(question.id),
            passage_ids=tuple(map(prefixed, question.passage_ids)),
            hard_negative_ids=tuple(map(prefixed, question.hard_negative_ids)),
        )

    def passage_of(passage: Passage) -> Passage:
        return replace(passage, id=prefixed(passage.id))

    train, validation, test = (tuple(map(question_of, site.split(split))) for split in SPLITS)
    passages, unanswered = tuple(map(passage_of, site.passages)), tuple(map(question_of, site.unanswered))
    return replace(site, passages=passages, train=train, validation=validation, test=test, unanswered=unanswered)
