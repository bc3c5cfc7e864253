"""Checks site folders: what they hold, what is wrong, and which questions leak across the split."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.origins import count_origins
from fedrag.data.questions import count_distinct
from fedrag.data.site_folder import QUESTION_FILES, NumberedRows, read_site, site_name
from fedrag.data.splitting import normalise_question
from fedrag.data.words import count_words
from fedrag.types import SPLITS, Passage, Question, Split

CountTokens = Callable[[Sequence[str]], list[int]]
"""Returns the number of tokens of each text."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of texts, in words, or in tokens of a model; see `fedrag.data.words` for what a word is."""

    median: float
    longest: int


@dataclass(frozen=True, slots=True)
class SiteReport:
    """What is in one site's folder."""

    name: str
    folder: str
    n_passages: int
    language: str
    """The language that the site names; "" where it names none."""
    n_questions: dict[Split, int]
    """Lines of each question file."""
    n_distinct: dict[Split, int]
    """Distinct questions of each question file."""
    n_by_origin: dict[str, int]
    """Questions by where they come from, of a site with others than people's; "" is from people."""
    n_with_subject: int
    """Questions that name whom they are about."""
    n_subjects: int
    """Different subjects among them."""
    n_unlabelled: int
    """Questions that name no passage."""
    n_unanswered: int
    """Questions without an answer, which have their passages alone."""
    n_waiting: int
    """Questions that nobody answered, in a file of their own."""
    n_repeated_passages: int
    """Passages with the title and text of an earlier one of the site."""
    n_repeated_questions: int
    """Questions with the text of an earlier one of the same split."""
    passage_lengths: Lengths
    question_lengths: Lengths
    answer_lengths: Lengths


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


def check_sites(folders: Sequence[Path], count_tokens: CountTokens | None = None) -> Report:
    """Check site folders one by one and against each other; collect faults instead of raising them.

    Args:
        folders: The folders of the sites.
        count_tokens: Measures texts; None: in words.

    Raises:
        DataError: A folder does not exist.
    """
    errors: list[str] = []
    sites: list[SiteReport] = []
    places: _Places = defaultdict(list)
    for folder in folders:
        rows = read_site(folder, errors.append)
        sites.append(_describe(folder, rows, count_tokens or _words_of))
        for split, questions in rows.questions.items():
            for line, question in questions.items():
                places[normalise_question(question.question)].append(_Place(folder, split, line))
    within, across = _overlaps(places, _shared_within), _overlaps(places, _shared_across)
    warnings = tuple(_warnings(sites, within, across))
    return Report(tuple(sites), tuple(errors), warnings, within, across)


def _describe(folder: Path, rows: NumberedRows, count: CountTokens) -> SiteReport:
    """Count and measure the readable rows of one site."""
    splits = {split: list(questions.values()) for split, questions in rows.questions.items()}
    questions = [question for split in SPLITS for question in splits[split]]
    passages = list(rows.passages.values())
    return SiteReport(
        name=site_name(folder),
        folder=str(folder),
        n_passages=len(passages),
        language=rows.language,
        n_questions={split: len(splits[split]) for split in SPLITS},
        n_distinct={split: count_distinct(splits[split]) for split in SPLITS},
        n_by_origin=count_origins(questions),
        n_with_subject=sum(bool(question.subject) for question in questions),
        n_subjects=len({question.subject for question in questions} - {""}),
        n_unlabelled=sum(not question.passage_ids for question in questions),
        n_unanswered=sum(not question.answers for question in questions),
        n_waiting=len(rows.unanswered),
        n_repeated_passages=_n_repeated(map(_content, passages)),
        n_repeated_questions=sum(_n_repeated(map(_asked, splits[split])) for split in SPLITS),
        passage_lengths=_lengths((passage.full_text for passage in passages), count),
        question_lengths=_lengths((question.question for question in questions), count),
        answer_lengths=_lengths((answer for question in questions for answer in question.answers), count),
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
    silent = [site.name for site in sites if not any(site.n_questions.values())]
    if silent:
        warnings.append(
            f"sites without a question, which can be asked and not trained: {', '.join(silent)}; questions with their "
            f"answers stand in {QUESTION_FILES['train']}, and fedrag data update --qa takes them from a table"
        )
    no_training = [site.name for site in sites if not site.n_questions["train"] and site.name not in silent]
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
        (
            "questions without an answer",
            "the retriever alone learns from them and is measured on them",
            [s.n_unanswered for s in sites],
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


def _lengths(texts: Iterable[str], count: CountTokens) -> Lengths:
    lengths = count(list(texts))
    return Lengths(statistics.median(lengths), max(lengths)) if lengths else Lengths(0.0, 0)


def _words_of(texts: Sequence[str]) -> list[int]:
    return [count_words(text) for text in texts]


def _n_repeated(keys: Iterable[str]) -> int:
    listed = list(keys)
    return len(listed) - len(set(listed))


def _content(passage: Passage) -> str:
    return " ".join(passage.full_text.split())


def _asked(question: Question) -> str:
    return normalise_question(question.question)
