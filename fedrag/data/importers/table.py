"""Import a table, one question per row, from JSON lines, CSV, Excel or Parquet, by a mapping of its columns."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.data.importers.candidates import Candidates, read_candidates
from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    holding,
    told_answers,
    unique_slugs,
)
from fedrag.data.importers.fields import look_up
from fedrag.data.importers.row_file import open_rows
from fedrag.data.importers.text_file import Row
from fedrag.data.splitting import Fractions
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a table.

    Attributes:
        rows: One question each.
        name: Name of the site where no column names it.
        source: Name of the table in messages.
        notes: What is told of the file while its rows are read.
    """

    rows: Iterable[Row]
    name: str
    source: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what. `answers.text` is the field `text` of the column `answers`."""

    question: str
    answer: str | None = None
    """One answer, or a list of them; None: rows are queries with their right passages."""
    passage: str | None = None
    """The text of a passage, or a list; ids where the passages come from a file of their own."""
    site: str | None = None
    """Name of the site; None: all rows belong to one site."""
    id: str | None = None
    subject: str | None = None
    """Whom the row is about, such as a patient's number; None: nobody is named."""


@dataclass(frozen=True, slots=True)
class _ParsedRow:
    """A row's values, and its place for messages."""

    place: str
    site: str
    id: str
    question: str
    answers: list[str]
    passages: Candidates
    subject: str = ""


def open_table(path: Path, file_format: str | None = None, encoding: str | None = None) -> Table:
    """Return the table in a file, which is read later, row by row.

    Args:
        path: The file.
        file_format: A key of READERS; None: the file's ending.
        encoding: Encoding of a text file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: There is no reader for this format.
    """
    notes: list[str] = []
    return Table(open_rows(path, file_format, encoding, notes.append), path.stem, str(path), notes)


def import_table(
    table: Table,
    columns: Columns,
    corpus: Sequence[Passage] = (),
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Imported:
    """Turn a table into sites. Rows without a question or an answer are left out and counted.

    Passages of the same text are merged. With a corpus, every site gets all of it, and the ids in a row are its
    labels. Otherwise a question is labelled with its only passage; of several, with those that the table marks as
    right (MS MARCO's `is_selected`), else with those that hold an answer as whole words.

    Args:
        table: The table.
        columns: Which columns hold what.
        corpus: Passages that the rows name by id.
        fractions: Shares of the splits.
        seed: Seed of the splits.

    Raises:
        ConfigError: There is neither a passage column nor a corpus, or neither answers nor passages.
        DataError: A column is missing, a passage id is unknown, or a row's passages cannot be told apart.
    """
    if columns.passage is None and not corpus:
        raise ConfigError("passages are needed: name their column (--passage) or give a file of them (--passages)")
    if columns.passage is None and columns.answer is None:
        raise ConfigError("answers are needed (--answer), or the right passages of each question (--passage)")
    skipped: Counter[str] = Counter()
    records = [_read_row(place, row, columns, table.name) for place, row in table.rows]
    slugs = unique_slugs(record.site for record in records)
    drafts = {site: SiteDraft(slugs[site], corpus) for site in slugs}
    lost = 0
    for record in records:
        if reason := _reason_to_skip(record, columns):
            skipped[reason] += 1
            continue
        draft = drafts[record.site]
        labels = _known_ids(record, draft) if corpus else _labels(record, draft)
        draft.add_question(record.question, told_answers(record.answers), labels, record.id, subject=record.subject)
        lost += bool(record.passages.texts) and not labels
    return build_sites(
        drafts.values(), skipped, table.source, fractions, seed, [*table.notes, *_notes(records, columns, lost)]
    )


def _reason_to_skip(record: _ParsedRow, columns: Columns) -> str:
    """Return why a row is left out, or ""."""
    if columns.answer is None:
        return "" if record.question and record.passages.right else "rows without question or right passage"
    if not record.question or not record.answers:
        return "rows without question or answer"
    return "" if told_answers(record.answers) else "rows whose answer says that there is none"


def _labels(record: _ParsedRow, draft: SiteDraft) -> list[str]:
    """Add a row's passages; return the ids of the right ones."""
    ids = [draft.add_passage(text) for text in record.passages.texts]
    texts = dict(zip(ids, record.passages.texts, strict=True))
    if record.passages.marked_by or not record.answers:
        return [identity for identity, text in texts.items() if text in record.passages.right]
    return holding(texts, told_answers(record.answers))


def _known_ids(record: _ParsedRow, draft: SiteDraft) -> list[str]:
    for label in record.passages.texts:
        if not draft.has_passage(label):
            raise DataError(f'{record.place}: unknown passage id "{label}"')
    return record.passages.right


def _notes(records: Sequence[_ParsedRow], columns: Columns, lost: int) -> list[str]:
    """Tell how passages were labelled where more than one way is thinkable."""
    notes = []
    marks = sorted({record.passages.marked_by for record in records if record.passages.marked_by})
    if columns.answer is None:
        notes.append("Without --answer, questions have no answer: the retriever alone learns from their passages.")
        several = sum(len(r.passages.texts) > 1 and not r.passages.marked_by for r in records)
        if several:
            notes.append(f"{several:,} questions have several passages; without an answer, all of them count as right.")
    if marks:
        notes.append(f"Of several passages, those are right that {', '.join(marks)} marks.")
    if lost:
        notes.append(f"{lost:,} questions are labelled with no passage: none of theirs is marked or holds the answer.")
    return notes


def _read_row(place: str, row: Mapping[str, Any], columns: Columns, name: str) -> _ParsedRow:
    def read(column: str | None) -> list[str]:
        if column is None:
            return []
        try:
            return look_up(row, column)
        except KeyError:
            raise DataError(f'{place}: no column "{column}"{_nearest(column, row)}') from None

    read(columns.passage)
    site = " ".join(read(columns.site)) if columns.site else name
    if not site:
        raise DataError(f'{place}: the column "{columns.site}" names no site')
    return _ParsedRow(
        place=place,
        site=site,
        id="".join(read(columns.id)[:1]),
        question=" ".join(read(columns.question)),
        answers=read(columns.answer),
        passages=read_candidates(row, columns.passage, place) if columns.passage else Candidates(),
        subject=" ".join(read(columns.subject)),
    )


def _nearest(column: str, row: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(column, map(str, row), n=1, cutoff=0.0)
    return f" (nearest: {matches[0]}; all: {', '.join(map(str, row))})" if matches else ""
