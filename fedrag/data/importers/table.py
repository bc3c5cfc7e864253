"""Import a table, one question per row, from JSON lines, CSV or Parquet, by a mapping of its columns."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    unique_slugs,
)
from fedrag.data.jsonl import read_objects
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


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what. `answers.text` is the field `text` of the column `answers`."""

    question: str
    answer: str
    """One answer, or a list of them."""
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


def open_table(path: Path, file_format: str | None = None) -> Table:
    """Return the table in a file, which is read later, row by row.

    Args:
        path: The file.
        file_format: A key of READERS; None: the file's ending.

    Raises:
        DataError: There is no reader for this format.
    """
    name = file_format or path.suffix.removeprefix(".").lower()
    if name not in READERS:
        raise DataError(f"{path}: a file of the kind {', '.join(READERS)} was expected")
    return Table(READERS[name](path), path.stem, str(path))


def import_table(
    table: Table,
    columns: Columns,
    corpus: Sequence[Passage] = (),
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Imported:
    """Turn a table into sites. Rows without a question or an answer are left out and counted.

    Passages of the same text are merged. With a corpus, every site gets all of it.

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
    for record in records:
        if not record.question or not record.answers:
            skipped["rows without question or answer"] += 1
            continue
        draft = drafts[record.site]
        labels = _known_ids(record, draft) if corpus else [draft.add_passage(text) for text in record.passages]
        draft.add_question(record.question, record.answers, labels, record.id)
    return build_sites(drafts.values(), skipped, table.source, fractions, seed)


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
        answers=field(columns.answer),
        passages=field(columns.passage),
    )


def _known_ids(record: _ParsedRow, draft: SiteDraft) -> list[str]:
    for label in record.passages:
        if not draft.has_passage(label):
            raise DataError(f'{record.place}: unknown passage id "{label}"')
    return record.passages


def _nearest(column: str, row: Mapping[str, Any]) -> str:
    matches = difflib.get_close_matches(column, map(str, row), n=1, cutoff=0.0)
    return f" (nearest: {matches[0]}; all: {', '.join(map(str, row))})" if matches else ""


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for line, row in read_objects(path):
        yield f"{path}:{line}", row


def _csv_rows(path: Path) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long document
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for row in reader:
                place = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{place}: {len(reader.fieldnames or [])} columns were expected, as above")
                yield place, row
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV: {error}") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
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


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "jsonl": _jsonl_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
}
