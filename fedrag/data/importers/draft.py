"""What all importers share: name sites, number passages, split questions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.data.splitting import Fractions, split_of
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Question, Site, Split

DEFAULT_FRACTIONS: Fractions = (0.6, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class Imported:
    """The sites that an importer made, and how many rows it left out for each reason."""

    sites: list[Site]
    skipped: Mapping[str, int]


class SiteDraft:
    """A site that an importer fills."""

    def __init__(self, name: str, corpus: Sequence[Passage] = ()) -> None:
        self.name = name
        self._passages = {passage.id: passage for passage in corpus}
        self._ids_by_content = {(passage.title, passage.text): passage.id for passage in corpus}
        self._numbered: Counter[str] = Counter()
        self._questions: dict[str, Question] = {}

    def add_passage(self, text: str, prefix: str = "", title: str | None = None) -> str:
        """Add a passage unless the site has it already; return its id, `<prefix>-<n>` if it is new."""
        text, title = clean(text), clean(title or "") or None
        known = self._ids_by_content.get((title, text))
        if known is not None:
            return known
        prefix = prefix or self.name
        self._numbered[prefix] += 1
        identity = unique_name(f"{prefix}-{self._numbered[prefix]}", self._passages)
        self._passages[identity] = Passage(identity, text, title)
        self._ids_by_content[title, text] = identity
        return identity

    def has_passage(self, identity: str) -> bool:
        """Return whether the site has a passage of this id."""
        return identity in self._passages

    def add_question(
        self, text: str, answers: Iterable[str], passage_ids: Iterable[str], question_id: str = ""
    ) -> None:
        """Add a question; make its answers and its id unique."""
        wanted = clean(question_id) or f"{self.name}-q{len(self._questions) + 1}"
        identity = unique_name(wanted, self._questions)
        unique_answers = tuple(dict.fromkeys(map(clean, answers)))
        labels = tuple(dict.fromkeys(passage_ids))
        self._questions[identity] = Question(identity, clean(text), unique_answers, labels)

    def build(self, fractions: Fractions, seed: int) -> Site:
        """Split the questions and return the site."""
        questions: dict[Split, list[Question]] = {split: [] for split in SPLITS}
        for question in self._questions.values():
            questions[split_of(question.question, fractions, seed)].append(question)
        train, validation, test = (tuple(questions[split]) for split in SPLITS)
        return Site(self.name, tuple(self._passages.values()), train, validation, test)

    @property
    def n_questions(self) -> int:
        """Number of questions so far."""
        return len(self._questions)


def build_sites(
    drafts: Iterable[SiteDraft], skipped: Mapping[str, int], source: object, fractions: Fractions, seed: int
) -> Imported:
    """Build the sites that have a question; count the others as skipped.

    Raises:
        DataError: No site has a question.
    """
    drafts = list(drafts)
    sites = [draft.build(fractions, seed) for draft in drafts if draft.n_questions]
    if not sites:
        reasons = "".join(f"; {count:,} {reason}" for reason, count in skipped.items() if count)
        raise DataError(f"{source}: holds no question with an answer{reasons}")
    counts = {**skipped, "sites without a question": len(drafts) - len(sites)}
    return Imported(sites, {reason: count for reason, count in counts.items() if count})


def unique_slugs(titles: Iterable[str]) -> dict[str, str]:
    """Return a folder name for each distinct title, in order of appearance.

    >>> unique_slugs(["Super_Bowl_50", "Super Bowl 50", "Super_Bowl_50", "ted.com"])
    {'Super_Bowl_50': 'super-bowl-50', 'Super Bowl 50': 'super-bowl-50-2', 'ted.com': 'ted.com'}
    """
    slugs: dict[str, str] = {}
    for title in titles:
        if title not in slugs:
            slugs[title] = unique_name(slug(title), set(slugs.values()))
    return slugs


def slug(title: str) -> str:
    """Spell a title in small ASCII letters, digits, dots and hyphens; return "site" if nothing is left.

    >>> slug("  Sky_(United_Kingdom) ")
    'sky-united-kingdom'
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9.]+", "-", plain)[:80].strip("-.") or "site"


def unique_name(name: str, taken: Collection[str]) -> str:
    """Return the name, with -2, -3, ... appended if it is taken.

    >>> unique_name("a", {"a", "a-2"})
    'a-3'
    """
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def clean(text: str) -> str:
    """Strip a text, and replace halves of surrogate pairs, which UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()
