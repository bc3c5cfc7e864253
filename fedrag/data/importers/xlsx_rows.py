"""Reads the rows of an Excel sheet (.xlsx)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import Any

from fedrag.errors import ConfigError, DataError

XlsxRow = tuple[str, dict[str, str]]
"""A row's place, for messages, and the text of each cell by the name of its column."""


def read_sheet(path: Path, on_note: Callable[[str], None]) -> Iterator[XlsxRow]:
    """Yield the rows below the header of a file's first sheet, without the blank ones.

    Args:
        path: The file.
        on_note: Told of further sheets, which are not read.

    Raises:
        ConfigError: The library is not installed.
        DataError: It cannot be read, or two columns share a name.
    """
    if importlib.util.find_spec("openpyxl") is None:
        raise ConfigError(f"{path}: to read Excel files run: pip install 'fedrag[documents]'")
    import openpyxl  # an extra

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        titles = [sheet.title for sheet in book.worksheets]
        rows = _texts(book.worksheets[0])
        book.close()
    except Exception:  # on a damaged file the library fails in many ways
        raise DataError(f"{path}: not a readable Excel file (.xlsx); an encrypted one must be saved without") from None
    if len(titles) > 1:
        on_note(f'{path} has {len(titles)} sheets; the first one, "{titles[0]}", was read.')
    yield from _named(path, rows)


def _texts(sheet: Any) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, with their numbers."""
    sheet.reset_dimensions()  # some programs write wrong ones
    rows = [(number, [_text(cell) for cell in cells]) for number, cells in enumerate(sheet.iter_rows(), start=1)]
    return [(number, texts) for number, texts in rows if any(texts)]


def _named(path: Path, rows: Sequence[tuple[int, list[str]]]) -> Iterator[XlsxRow]:
    """Yield the rows below the header by the names of their columns; columns without a name are left out."""
    names = rows[0][1] if rows else []
    for name in filter(None, names):
        if names.count(name) > 1:
            raise DataError(f'{path}: two columns are called "{name}"')
    for number, texts in rows[1:]:
        padded = texts + [""] * (len(names) - len(texts))
        yield f"{path}, row {number}", {name: text for name, text in zip(names, padded, strict=False) if name}


def _text(cell: Any) -> str:
    """Return a cell's text about as Excel shows it."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, float) and "%" in str(cell.number_format):
        return f"{100 * value:.12g}%"
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).strip()
