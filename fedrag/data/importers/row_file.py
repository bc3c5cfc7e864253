"""Reads the rows of a file: JSON lines, a JSON array, CSV with any usual separator, Excel, or Parquet."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fedrag.data.importers.text_file import OnNote, Row, read_rows, read_text
from fedrag.data.importers.xlsx_rows import read_sheet
from fedrag.errors import DataError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NUMPY_LIST = re.compile(r"""\[(['"]).*\1\s+(['"]).*\2\s*\]""", re.DOTALL)


def open_rows(path: Path, file_format: str | None, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    """Return the rows of a file, which is read as they are asked for.

    Args:
        path: The file.
        file_format: A key of READERS; None: the file's ending.
        encoding: Encoding of a text file; None: what its byte order mark says, else UTF-8.
        on_note: Told what was read otherwise than the format says.

    Raises:
        DataError: There is no reader for this format.
    """
    name = file_format or path.suffix.removeprefix(".").lower()
    if name not in READERS:
        raise DataError(f"{path}: a file of the kind {', '.join(READERS)} was expected")
    return READERS[name](path, encoding, on_note)


def _csv_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is less than a long document
    text = read_text(path, encoding)
    header, end, rest = text.partition("\n")
    told = re.fullmatch(r'"?sep=(.)"?\r?', header)  # Excel's own line
    separator, skipped = (told[1], 1) if told else (_separator(header), 0)
    if separator != ",":
        on_note(f"{path}: its columns are separated by {_SEPARATORS.get(separator, separator)}, and were read so.")
    reader = csv.DictReader(io.StringIO(rest if told else text, newline=""), delimiter=separator, strict=True)
    lists = False
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f'{path}: two columns are called "{name}"')
        reader.fieldnames = names
        for row in reader:
            place = f"{path}:{reader.line_num + skipped}"
            if None in row or None in row.values():
                raise DataError(f"{place}: {len(names)} columns were expected, as above")
            cells = {name: _cell(cell, f'{place}: "{name}"') for name, cell in row.items()}
            if not lists and cells != row:
                lists = True
                on_note(f"{path}: cells that hold a list or an object, as pandas writes them, were read as such.")
            yield place, cells
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + skipped}: not valid CSV: {error}") from None


def _separator(header: str) -> str:
    """Return the separator that gives a header the most columns, the comma if no other gives more."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(_SEPARATORS, key=bare.count)


def _cell(text: str, where: str) -> Any:
    """Return a cell, or the list of texts or the object that it spells."""
    bare = text.strip()
    if bare[:1] + bare[-1:] not in ("[]", "{}"):
        return text
    if _NUMPY_LIST.fullmatch(bare) and "," not in re.sub(r"""'[^']*'|"[^"]*\"""", "", bare):
        raise DataError(
            f"{where} holds a list without commas, as numpy writes it, which cannot be told apart; "
            "export JSON lines or Parquet"
        )
    value = _spelt(bare)
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    is_object = isinstance(value, dict) and bool(value) and all(isinstance(key, str) for key in value)
    return value if is_texts or is_object else text


def _spelt(text: str) -> Any:
    """Return the value that a text spells in JSON or in Python, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


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


def _xlsx_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    for place, row in read_sheet(path, on_note):
        yield place, {name: _cell(text, f'{place}: "{name}"') for name, text in row.items()}


READERS: dict[str, Callable[[Path, str | None, OnNote], Iterator[Row]]] = {
    "jsonl": read_rows,
    "json": read_rows,
    "csv": _csv_rows,
    "tsv": _csv_rows,
    "xlsx": _xlsx_rows,
    "parquet": _parquet_rows,
}
