"""Checks site folders: what they hold, what is wrong, and which questions leak across the split."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.site_folder import QUESTION_FILES, NumberedRows, read_site, site_name
from fedrag.data.splitting import normalise_question
from fedrag.types import SPLITS, Passage, Question, Split


@dataclass(frozen=True, slots=True)
class Words:
    """Lengths of texts, in words separated by white space."""

    median: float
    longest: int


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What is in one site's folder."""

    name: str
    folder: str
    n_passages: int
    n_questions: dict[Split, int]
    n_unlabelled: int
    """Questions that name no passage."""
    n_repeated_passages: int
    """Passages with the title and text of an earlier one of the site."""
    n_repeated_questions: int
    """Questions with the text of an earlier one of the same split."""
    passage_words: Words
    question_words: Words
    answer_words: Words


@dataclass(frozen=True, slots=True)
class Overlap:
    """The text of a question in more than one split, and the lines that hold it."""

    question: str
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check. Sites with errors cannot be loaded; warnings are for the reader to judge."""

    sites: tuple[SiteReport, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    overlaps_within: tuple[Overlap, ...]
    """Questions in two splits of the same site."""
    overlaps_across: tuple[Overlap, ...]
    """Questions in train at one site, in validation or test at another."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The line that holds a question."""

    folder: Path
    split: Split
    line: int

    def __str__(self) -> str:
        return f"{self.folder / QUESTION_FILES[self.split]}:{self.line}"


_Places = dict[str, list[_Place]]  # by normalised text


def check_sites(folders: Sequence[Path]) -> Report:
    """Check site folders one by one and against each other; collect faults instead of raising them.

    Raises:
        DataError: A folder does not exist.
    """
    errors: list[str] = []
    sites: list[SiteReport] = []
    places: _Places = defaultdict(list)
    for folder in folders:
        rows = read_site(folder, errors.append)
        sites.append(_describe(folder, rows))
        for split, questions in rows.questions.items():
            for line, question in questions.items():
                places[normalise_question(question.question)].append(_Place(folder, split, line))
    within, across = _overlaps(places, _shared_within), _overlaps(places, _shared_across)
    warnings = tuple(_warnings(sites, within, across))
    return Report(tuple(sites), tuple(errors), warnings, within, across)


def _describe(folder: Path, rows: NumberedRows) -> SiteReport:
    """Count and measure the readable rows of one site."""
    splits = {split: list(questions.values()) for split, questions in rows.questions.items()}
    questions = [question for split in SPLITS for question in splits[split]]
    passages = list(rows.passages.values())
    return SiteReport(
        name=site_name(folder),
        folder=str(folder),
        n_passages=len(passages),
        n_questions={split: len(splits[split]) for split in SPLITS},
        n_unlabelled=sum(not question.passage_ids for question in questions),
        n_repeated_passages=_n_repeated(map(_content, passages)),
        n_repeated_questions=sum(_n_repeated(map(_asked, splits[split])) for split in SPLITS),
        passage_words=_words(passage.full_text for passage in passages),
        question_words=_words(question.question for question in questions),
        answer_words=_words(answer for question in questions for answer in question.answers),
    )


def _warnings(sites: Sequence[SiteReport], within: Sequence[Overlap], across: Sequence[Overlap]) -> list[str]:
    """Return a line for each kind of warning."""
    warnings = []
    for what, advice, overlaps in (
        ("questions in two splits of the same site", "leave each in one", within),
        (
            "questions in train at one site and in validation or test at another",
            "leave each on one side, or the figures flatter",
            across,
        ),
    ):
        if overlaps:
            first = overlaps[0]
            places = ", ".join(first.places[:4]) + (", ..." if len(first.places) > 4 else "")
            warnings.append(f"{what}: {len(overlaps):,}, for example {first.question!r} ({places}); {advice}")
    no_training = [site.name for site in sites if not site.n_questions["train"]]
    if no_training:
        warnings.append(f"sites without training questions, which sit out training: {', '.join(no_training)}")
    counts = (
        (
            "passages with the same text as another of their site",
            "one of them is enough",
            [s.n_repeated_passages for s in sites],
        ),
        (
            "questions with the same text as another of their split",
            "one line can hold all answers",
            [s.n_repeated_questions for s in sites],
        ),
        (
            "questions that name no passage",
            "with passage_ids the retriever learns from them and is measured on them",
            [s.n_unlabelled for s in sites],
        ),
    )
    for what, advice, numbers in counts:
        if sum(numbers):
            concerned = sum(number > 0 for number in numbers)
            warnings.append(f"{what}: {sum(numbers):,}, in {concerned} of {len(sites)} sites; {advice}")
    return warnings


def _overlaps(places: _Places, is_shared: Callable[[Sequence[_Place]], bool]) -> tuple[Overlap, ...]:
    return tuple(Overlap(question, tuple(map(str, found))) for question, found in places.items() if is_shared(found))


def _shared_within(places: Sequence[_Place]) -> bool:
    """Return whether two splits of one site hold the question."""
    splits: dict[Path, set[Split]] = defaultdict(set)
    for place in places:
        splits[place.folder].add(place.split)
    return any(len(found) > 1 for found in splits.values())


def _shared_across(places: Sequence[_Place]) -> bool:
    """Return whether one site trains on the question and another one holds it out."""
    train = {place.folder for place in places if place.split == "train"}
    held_out = {place.folder for place in places if place.split != "train"}
    return any(one != other for one in train for other in held_out)


def _words(texts: Iterable[str]) -> Words:
    lengths = [len(text.split()) for text in texts]
    return Words(statistics.median(lengths), max(lengths)) if lengths else Words(0.0, 0)


def _n_repeated(keys: Iterable[str]) -> int:
    listed = list(keys)
    return len(listed) - len(set(listed))


def _content(passage: Passage) -> str:
    return " ".join(passage.full_text.split())


def _asked(question: Question) -> str:
    return normalise_question(question.question)
