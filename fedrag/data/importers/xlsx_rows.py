"""Reads the rows of an Excel sheet (.xlsx)."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Callable, Iterator
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
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        raise DataError(f"{path}: not a readable Excel file (.xlsx); an encrypted one must be saved without") from None
    try:
        if len(book.worksheets) > 1:
            on_note(f'{path} has {len(book.worksheets)} sheets; the first one, "{book.worksheets[0].title}", was read.')
        yield from _rows(path, book.worksheets[0])
    finally:
        book.close()


def _rows(path: Path, sheet: Any) -> Iterator[XlsxRow]:
    sheet.reset_dimensions()  # some programs write wrong ones
    names: list[str] = []
    for number, cells in enumerate(sheet.iter_rows(), start=1):
        texts = [_text(cell) for cell in cells]
        if not any(texts):
            continue
        if not names:
            names = texts
            for name in filter(None, names):
                if names.count(name) > 1:
                    raise DataError(f'{path}: two columns are called "{name}"')
            continue
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
