"""Import a table, one question per row, from JSON lines, CSV or Parquet, by a mapping of its columns."""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    holding,
    told_answers,
    unique_slugs,
)
from fedrag.data.importers.text_file import OnNote, read_rows, read_text
from fedrag.data.splitting import Fractions
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage

Row = tuple[str, Mapping[str, Any]]
"""A row's place, for messages, and its columns."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a table.

    Attributes:
        rows: One question each.
        name: Name of the site where no column names it.
        source: Name of the table in messages.
    """

    rows: Iterable[Row]
    name: str
    source: str
    notes: list[str] = field(default_factory=list)
    """What was read otherwise than expected; known when the rows were read."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what. `answers.text` is the field `text` of the column `answers`."""

    question: str
    answer: str | None = None
    """One answer, or a list of them; None: the rows are queries with their right passages, and no answers."""
    passage: str | None = None
    """The text of a passage, or a list; ids where the passages come from a file of their own."""
    site: str | None = None
    """Name of the site; None: all rows belong to one site."""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _ParsedRow:
    """A row's values, and its place for messages."""

    place: str
    site: str
    id: str
    question: str
    answers: list[str]
    passages: list[str]
    selected: list[bool] | None
    """Which passages are right, where the row says so."""


def open_table(path: Path, file_format: str | None = None, encoding: str | None = None) -> Table:
    """Return the table in a file, which is read later, row by row.

    Args:
        path: The file.
        file_format: A key of READERS; None: the file's ending.
        encoding: Name of a text file's encoding; see `read_text`.

    Raises:
        DataError: There is no reader for this format.
    """
    name = file_format or path.suffix.removeprefix(".").lower()
    if name not in READERS:
        raise DataError(f"{path}: a file of the kind {', '.join(READERS)} was expected")
    notes: list[str] = []
    return Table(READERS[name](path, encoding, notes.append), path.stem, str(path), notes)


def import_table(
    table: Table,
    columns: Columns,
    corpus: Sequence[Passage] = (),
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Imported:
    """Turn a table into sites. Rows without a question or an answer are left out and counted.

    Passages of the same text are merged. With a corpus, every site gets all of it. A question with one passage is
    labelled with it; one with several with those that are marked as selected or, without marks, hold an answer.

    Args:
        table: The table.
        columns: Which columns hold what.
        corpus: Passages that the rows name by id.
        fractions: Shares of the splits.
        seed: Seed of the splits.

    Raises:
        ConfigError: There is neither a passage column nor a corpus.
        DataError: A column is missing, or a passage id is unknown.
    """
    if columns.passage is None and not corpus:
        raise ConfigError("passages are needed: name their column (--passage) or give a file of them (--passages)")
    skipped: Counter[str] = Counter()
    records = [_read_row(place, row, columns, table.name) for place, row in table.rows]
    slugs = unique_slugs(record.site for record in records)
    drafts = {site: SiteDraft(slugs[site], corpus) for site in slugs}
    unlabelled = 0
    for record in records:
        if not record.question or not (record.answers or columns.answer is None and record.passages):
            skipped["rows without question or answer"] += 1
            continue
        draft = drafts[record.site]
        labels = _known_ids(record, draft) if corpus else _labels(record, draft, columns)
        unlabelled += bool(record.passages) and not labels
        draft.add_question(record.question, record.answers, labels, record.id)
    notes = list(table.notes)
    if unlabelled:
        notes.append(
            f"{unlabelled:,} questions have several passages, none of which holds an answer word for word: no label"
        )
    return build_sites(drafts.values(), skipped, table.source, fractions, seed, notes)


def look_up(row: Mapping[str, Any], column: str) -> list[str]:
    """Return the texts in a column, without blanks and nulls.

    A KeyError names the first step of a dotted path that is missing.

    >>> look_up({"answers": {"text": ["1908", "in 1908"]}}, "answers.text")
    ['1908', 'in 1908']
    """
    if column in row:
        return _texts(row[column])
    values: list[Any] = [row]
    for key in column.split("."):
        values = _flattened(values)
        if not all(isinstance(value, Mapping) and key in value for value in values):
            raise KeyError(key)
        values = [value[key] for value in values]
    return _texts(values)


def _flattened(values: list[Any]) -> list[Any]:
    """Return values with the items of each list in the list's place."""
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list) else [value]
    return flat


def _texts(value: Any) -> list[str]:
    """Flatten lists, and turn numbers into texts."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    text = "" if value is None or isinstance(value, Mapping) else str(value).strip()
    return [text] if text else []


def _read_row(place: str, row: Mapping[str, Any], columns: Columns, name: str) -> _ParsedRow:
    def field(column: str | None) -> list[str]:
        if column is None:
            return []
        try:
            return look_up(row, column)
        except KeyError:
            raise DataError(f'{place}: no column "{column}"{_nearest(column, row)}') from None

    site = " ".join(field(columns.site)) if columns.site else name
    if not site:
        raise DataError(f'{place}: the column "{columns.site}" names no site')
    return _ParsedRow(
        place=place,
        site=site,
        id="".join(field(columns.id)[:1]),
        question=" ".join(field(columns.question)),
        answers=told_answers(field(columns.answer)),
        passages=_passages(place, row, columns.passage, field(columns.passage)),
        selected=_selected(place, row, columns.passage, len(field(columns.passage))),
    )


def _passages(place: str, row: Mapping[str, Any], column: str | None, texts: list[str]) -> list[str]:
    """Return a row's passages; refuse lists within lists and objects, whose parts are no passages."""
    if column is None:
        return []
    value = row[column] if column in row else _values(row, column)
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | tuple | Mapping) for part in parts):
        raise DataError(
            f'{place}: the column "{column}" holds lists or objects within a list, of which not every part is a '
            f"passage; HotpotQA's files are read by: fedrag data import hotpotqa; else name one field, "
            f"as in --passage passages.passage_text"
        )
    return texts


def _selected(place: str, row: Mapping[str, Any], column: str | None, passages: int) -> list[bool] | None:
    """Return MS MARCO's marks: `is_selected` beside the field of the passages."""
    parent, dot, _ = (column or "").rpartition(".")
    if not dot or column in row:
        return None
    try:
        marks = look_up(row, f"{parent}.is_selected")
    except KeyError:
        return None
    if len(marks) != passages:
        raise DataError(f'{place}: "{parent}.is_selected" marks {len(marks)} passages, "{column}" holds {passages}')
    return [mark.lower() in ("1", "true") for mark in marks]


def _values(row: Mapping[str, Any], column: str) -> list[Any]:
    """Return what stands in a dotted column, lists flattened along the way but not at its end."""
    values: list[Any] = [row]
    for key in column.split("."):
        values = [value[key] for value in _flattened(values)]
    return values[0] if len(values) == 1 else values


def _labels(record: _ParsedRow, draft: SiteDraft, columns: Columns) -> list[str]:
    """Add a row's passages and return which of them are right."""
    ids = [draft.add_passage(text) for text in record.passages]
    if record.selected is not None:
        return [identity for identity, chosen in zip(ids, record.selected, strict=True) if chosen]
    if columns.answer is None:
        return ids
    return holding(dict(zip(ids, record.passages, strict=True)), record.answers)


def _known_ids(record: _ParsedRow, draft: SiteDraft) -> list[str]:
    for label in record.passages:
        if not draft.has_passage(label):
            raise DataError(f'{record.place}: unknown passage id "{label}"')
    return record.passages


def _nearest(column: str, row: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(column, map(str, row), n=1, cutoff=0.0)
    return f" (nearest: {matches[0]}; all: {', '.join(map(str, row))})" if matches else ""


def _jsonl_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    yield from read_rows(path, encoding, on_note)


def _csv_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long document
    text = read_text(path, encoding)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{place}: {len(reader.fieldnames or [])} columns were expected, as above")
            yield place, row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None


def _delimiter(text: str) -> str:
    """Return what separates the columns: that of comma, semicolon and tab by which the header has the most."""
    header = next(iter(text.splitlines()), "")
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def _parquet_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from None


READERS: dict[str, Callable[[Path, str | None, OnNote], Iterator[Row]]] = {
    "jsonl": _jsonl_rows,
    "csv": _csv_rows,
    "tsv": _csv_rows,
    "parquet": _parquet_rows,
}
