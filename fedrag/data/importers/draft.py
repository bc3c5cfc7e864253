"""What all importers share: name sites, number passages, split questions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.data.splitting import Fractions, normalise_question, split_questions
from fedrag.data.words import holds_words
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Question, Site, Split

DEFAULT_FRACTIONS: Fractions = (0.6, 0.1, 0.3)

_NO_ANSWER = frozenset(("no answer present", "no answer", "unanswerable", "cannotanswer", "cannot answer"))
"""What stands for no answer in MS MARCO, QASPER, QuAC and their like."""
_NAMES_TOLD = 10
_NAME_BYTES = 80  # a file system allows 255, and what is written beside a folder adds to its name
# Windows has no folder of these names.
_RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))])


@dataclass(frozen=True, slots=True)
class Imported:
    """What an importer made.

    Attributes:
        sites: The sites.
        skipped: How many rows were left out, by reason.
        notes: What was read otherwise than one might expect, in one sentence each.
        warnings: What is lacking, in one sentence each.
    """

    sites: list[Site]
    skipped: Mapping[str, int]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class SiteDraft:
    """A site that an importer fills."""

    def __init__(self, name: str, corpus: Sequence[Passage] = (), language: str = "") -> None:
        self.name = name
        self.language = language
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

    def has_text(self, text: str) -> bool:
        """Return whether the site has a passage of this text without a title."""
        return (None, clean(text)) in self._ids_by_content

    def has_passage(self, identity: str) -> bool:
        """Return whether the site has a passage of this id."""
        return identity in self._passages

    def add_question(
        self,
        text: str,
        answers: Iterable[str],
        passage_ids: Iterable[str],
        question_id: str = "",
        hard_negative_ids: Iterable[str] = (),
        subject: str = "",
    ) -> None:
        """Add a question; make its answers and its id unique."""
        wanted = clean(question_id) or f"{self.name}-q{len(self._questions) + 1}"
        identity = unique_name(wanted, self._questions)
        unique_answers = tuple(filter(None, dict.fromkeys(map(clean, answers))))
        labels = tuple(dict.fromkeys(passage_ids))
        negatives = tuple(label for label in dict.fromkeys(hard_negative_ids) if label not in labels)
        self._questions[identity] = Question(
            identity, clean(text), unique_answers, labels, negatives, subject=clean(subject)
        )

    @property
    def questions(self) -> list[Question]:
        """The questions so far."""
        return list(self._questions.values())

    def build(self, split_by_text: Mapping[str, Split], originals: Mapping[str, str] = {}) -> Site:
        """Put the questions into the splits of their normalised texts, or of those of their originals by id."""
        questions: dict[Split, list[Question]] = {split: [] for split in SPLITS}
        for question in self._questions.values():
            text = originals.get(question.id, question.question)
            questions[split_by_text[normalise_question(text)]].append(question)
        train, validation, test = (tuple(questions[split]) for split in SPLITS)
        return Site(self.name, tuple(self._passages.values()), train, validation, test, self.language)

    @property
    def n_questions(self) -> int:
        """Number of questions so far."""
        return len(self._questions)


def build_sites(
    drafts: Iterable[SiteDraft],
    skipped: Mapping[str, int],
    source: object,
    fractions: Fractions,
    seed: int,
    notes: Iterable[str] = (),
    originals: Mapping[str, str] = {},
) -> Imported:
    """Build the sites that have a question; count the others as skipped, and tell which site a split leaves without.

    Args:
        drafts: The sites.
        skipped: How many rows were left out, by reason.
        source: What was read, for messages.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        notes: What was read otherwise than one might expect.
        originals: For a question that is a translation, by its id: the text whose split it takes.

    Raises:
        DataError: No site has a question.
    """
    drafts = list(drafts)
    asking = [draft for draft in drafts if draft.n_questions]
    if not asking:
        reasons = "".join(f"; {count:,} {reason}" for reason, count in skipped.items() if count)
        raise DataError(f"{source}: holds no question with an answer{reasons}")
    texts = {draft.name: [originals.get(asked.id, asked.question) for asked in draft.questions] for draft in asking}
    splits = split_questions(texts, fractions, seed)
    sites = [draft.build(splits.by_text, originals) for draft in asking]
    counts = {**skipped, "sites without a question": len(drafts) - len(asking)}
    counts = {reason: count for reason, count in counts.items() if count}
    warnings = lacking_splits(splits.lacking, "too few questions for every split")
    return Imported(sites, counts, tuple(notes), warnings)


def lacking_splits(lacking: Mapping[Split, Sequence[str]], reason: str) -> tuple[str, ...]:
    """Return a sentence for each split that sites have no question of, which names the sites and the reason."""
    told = []
    for split, names in lacking.items():
        more = f" and {len(names) - _NAMES_TOLD:,} more" if len(names) > _NAMES_TOLD else ""
        told.append(f"no {split} question at {', '.join(names[:_NAMES_TOLD])}{more}: {reason}")
    return tuple(told)


def holding(passages: Mapping[str, str], answers: Iterable[str]) -> list[str]:
    """Return which passages, texts by id, are right: the only one, or those that hold an answer word for word."""
    if len(passages) == 1:
        return list(passages)
    listed = list(answers)
    return [identity for identity, text in passages.items() if any(holds_words(text, answer) for answer in listed)]


def told_answers(answers: Iterable[str]) -> list[str]:
    """Return the answers without blanks and without those by which data sets say that there is none."""
    return [answer for answer in answers if answer.strip() and answer.strip(" .[]()").casefold() not in _NO_ANSWER]


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
    """Spell a title in small letters of its own script, digits, dots and hyphens; "site" if nothing is left.

    >>> slug("  Sky_(United_Kingdom) "), slug("Große Straße"), slug("北京协和医院")
    ('sky-united-kingdom', 'große-straße', '北京协和医院')
    """
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", title).lower())
    kept = "".join(char if char == "." or unicodedata.category(char)[0] in "LMN" else "-" for char in plain)
    name = re.sub(r"-+", "-", kept).encode()[:_NAME_BYTES].decode(errors="ignore").strip("-.")
    return f"site-{name}" if name.split(".")[0] in _RESERVED else name or "site"


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
