"""A site from what a program has in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.table import Columns, Table, import_table
from fedrag.data.importers.text_file import Row
from fedrag.data.splitting import parse_split
from fedrag.errors import ConfigError, DataError
from fedrag.types import SPLITS, Passage, Question, Split
from fedrag.types import Site as PlainSite

_QUESTION = ("question", "query")
_ANSWER = ("answers", "answer", "response")
_PASSAGE = ("context", "contexts", "passage", "passages")
_LABELS = ("passage_ids", "passage_id")
_ROW_ID = "fedrag row"
"""Key of the id that a row gets here, which names its split."""


@dataclass(frozen=True, slots=True)
class Site(PlainSite):
    """A partner's data, as `fedrag.types.Site`, which can be made from a data set."""

    @classmethod
    def from_dataset(
        cls,
        name: str,
        dataset: Any,
        *,
        question: str = "",
        answer: str = "",
        passage: str = "",
        corpus: Sequence[Passage] = (),
        split: str = "0.6/0.1/0.3",
        seed: int = 0,
        language: str = "",
    ) -> Site:
        """Make a site from a `datasets.Dataset` or `DatasetDict`, or from any rows that are dictionaries.

        Passages of the same text are merged. A question is labelled with its only passage; of several, with those that
        the rows mark as right, else with those that hold an answer as whole words.

        Args:
            name: Name of the site.
            dataset: Rows, or a dictionary of rows by split: "train", "validation", "test". Other splits are left out.
            question: Column of the question; empty: `question` or `query`.
            answer: Column of the answer or answers; `answers.text` is a field within a column. Empty: `answers`,
                `answer` or `response`, if there is one; without, the retriever alone can learn.
            passage: Column of the passage or passages; empty: `context`, `contexts`, `passage` or `passages`. With a
                corpus, that of their ids; empty: `passage_ids` or `passage_id`.
            corpus: All passages, where the rows name them by id.
            split: Shares of training, validation and test, where the data set is not split.
            seed: Seed of the split.
            language: Code of the language of the answers, such as "vi".

        Raises:
            DataError: A column is missing, a passage id is unknown, or no row is a question with an answer.
            ConfigError: The shares are not three numbers that sum to 1.
        """
        by_split = _rows_by_split(dataset)
        first = next((dict(row) for rows in by_split.values() for row in rows), None)
        if first is None:
            raise DataError("dataset: holds no row")
        columns = Columns(
            question=_column(first, "question", question, _QUESTION),
            answer=_column(first, "answer", answer, _ANSWER, needed=False) or None,
            passage=_column(first, "passage", passage, _LABELS if corpus else _PASSAGE),
            id=_ROW_ID,
        )
        is_split = isinstance(dataset, Mapping)
        fractions = (1.0, 0.0, 0.0) if is_split else parse_split(split)
        table = Table(_numbered(by_split), name, "dataset")
        [imported] = import_table(table, columns, corpus, fractions, seed).sites
        site = cls(name, imported.passages, imported.train, imported.validation, imported.test, language)
        return _as_split(site) if is_split else site


def _rows_by_split(dataset: Any) -> dict[Split, Iterable[Mapping[str, Any]]]:
    """Return the rows of each split; rows that are not split count as training."""
    if not isinstance(dataset, Mapping):
        return {"train": dataset if hasattr(dataset, "__len__") else list(dataset)}  # it is read twice
    found: dict[Split, Iterable[Mapping[str, Any]]] = {split: dataset[split] for split in SPLITS if split in dataset}
    if not found:
        raise DataError(f"dataset: has no split train, validation or test, only {', '.join(map(str, dataset))}")
    return found


def _numbered(by_split: Mapping[Split, Iterable[Mapping[str, Any]]]) -> Iterator[Row]:
    """Yield each row with its place for messages, and an id that names its split."""
    for split, rows in by_split.items():
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise DataError(f"dataset: row {number} is of type {type(row).__name__}; expected a dictionary")
            place = f"dataset[{split!r}][{number}]" if len(by_split) > 1 else f"dataset[{number}]"
            yield place, {**row, _ROW_ID: f"{split}-{number}"}


def _column(row: Mapping[str, Any], argument: str, named: str, usual: Sequence[str], needed: bool = True) -> str:
    """Return the column that was named, or the first usual one that a row has; empty: none, and none is needed."""
    if named and (named in row or named.partition(".")[0] in row):
        return named
    for name in () if named else usual:
        if name in row:
            holds = row[name]
            return f"{name}.text" if isinstance(holds, Mapping) and "text" in holds else name
    if not named and not needed:
        return ""
    wanted = named or " or ".join(usual)
    raise DataError(f"dataset: has no column {wanted} (all: {', '.join(row)}); name it with {argument}=")


def _as_split(site: Site) -> Site:
    """Put each question into the split that its id names."""
    questions: dict[str, list[Question]] = {split: [] for split in SPLITS}
    for question in site.questions:
        questions[question.id.partition("-")[0]].append(question)
    train, validation, test = (tuple(questions[split]) for split in SPLITS)
    return replace(site, train=train, validation=validation, test=test)


def as_passages(passages: Iterable[Passage | str]) -> tuple[Passage, ...]:
    """Return passages; a text becomes one, with its number as its id.

    Raises:
        ConfigError: One is neither, or blank.
    """
    found = []
    for number, passage in enumerate(passages):
        if isinstance(passage, str):
            passage = Passage(f"passage-{number + 1}", passage)
        if not isinstance(passage, Passage) or not texts_of(passage.text):
            raise ConfigError(f"passages[{number}]: expected a fedrag.Passage or a text")
        found.append(passage)
    return tuple(found)
