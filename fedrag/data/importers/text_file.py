"""Reads the text of a file that somebody else wrote: its encoding, and rows as JSON lines or as one JSON array."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedrag.errors import ConfigError, DataError

Row = tuple[str, Mapping[str, Any]]
"""A row's place, for messages, and its columns."""

OnNote = Callable[[str], None]
"""Told what was read otherwise than its name says, in one sentence."""

_MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UTF16 = "it looks like UTF-16 without a byte order mark: give --encoding utf-16-le or utf-16-be, or save it as UTF-8"


def read_text(path: Path, encoding: str | None = None) -> str:
    """Return the text of a file, in UTF-8 or in the encoding that its byte order mark names.

    Args:
        path: The file.
        encoding: Name of its encoding, such as "cp1252"; None: what its first bytes say, else UTF-8.

    Raises:
        DataError: The file cannot be read, or is not text in this encoding.
        ConfigError: There is no such encoding.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    mark = next((name for start, name in _MARKS.items() if raw.startswith(start)), None)
    try:
        text = raw.decode(encoding or mark or "utf-8").removeprefix("\ufeff")
    except LookupError:
        raise ConfigError(f'--encoding {encoding}: no such encoding; "cp1252" and "utf-16" are two') from None
    except UnicodeDecodeError as error:
        if encoding or mark:
            raise DataError(f"{path}: not {encoding or mark} text (byte {error.start + 1})") from None
        raise DataError(f"{path}: not UTF-8 text (byte {error.start + 1}); {_way_out(raw)}") from None
    if "\0" in text and not encoding:  # ASCII in UTF-16 is valid UTF-8, with a null character after each letter
        raise DataError(f"{path}: holds null characters; {_UTF16}")
    return text


def read_rows(path: Path, encoding: str | None, on_note: OnNote) -> Iterator[Row]:
    """Yield the rows of a file of JSON lines or of one JSON array.

    Raises:
        DataError: A row is not a JSON object.
    """
    text = read_text(path, encoding)
    if _is_array(text):
        on_note(f"{path} is one JSON array, not JSON lines; its items were read as lines.")
        rows = ((f"{path}: [{i}]", row) for i, row in enumerate(_parse_array(path, text)))
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = ((f"{path}:{i}", _parse_line(path, i, line)) for i, line in lines if line.strip())
        if text.count("\n") < 2 and (columns := _columns(text)):
            on_note(f"{path} is one JSON object of columns, not JSON lines; their items were read as lines.")
            names = list(columns)
            values = zip(*(column.values() for column in columns.values()), strict=True)
            rows = ((f"{path}: row {i}", dict(zip(names, row, strict=True))) for i, row in enumerate(values))
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f'{place}: must be a JSON object such as {{"question": "..."}}')
        yield place, row


def read_json_or_lines(path: Path, encoding: str | None, on_note: OnNote) -> Any:
    """Return the content of a JSON file; of JSON lines, the list of what they hold.

    Raises:
        DataError: It cannot be read or is not JSON.
    """
    text = read_text(path, encoding)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if error.msg != "Extra data" or not _is_json(lines[0]):
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}: not valid JSON: nested too deeply") from None
    rows = [_parse_line(path, i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip()]
    on_note(f"{path} is JSON lines, not one JSON document; its lines were read as the items of a list.")
    return rows


def _is_array(text: str) -> bool:
    return text.lstrip().startswith("[")


def _columns(text: str) -> dict[str, dict[str, Any]] | None:
    """Return the columns of a table as pandas writes it: an object for each column, all with the same keys."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    columns = list(content.values()) if isinstance(content, dict) else []
    if len(columns) < 2 or not all(isinstance(column, dict) and column for column in columns):
        return None
    return content if all(column.keys() == columns[0].keys() for column in columns) else None


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse_array(path: Path, text: str) -> list[Any]:
    try:
        rows: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        more = "; each line may hold one object, no array" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}{more}") from None
    except RecursionError:
        raise DataError(f"{path}: not valid JSON: nested too deeply") from None
    return rows


def _parse_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        more = "; JSON lines hold one whole object a line" if line.strip() in "{}" else ""
        raise DataError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}{more}") from None
    except RecursionError:
        raise DataError(f"{path}:{number}: not valid JSON: nested too deeply") from None


def _way_out(raw: bytes) -> str:
    """Say how a file in another encoding is read."""
    if b"\0" in raw[:2] or raw.count(b"\0") > len(raw) // 8:
        return _UTF16
    return "if it comes from Excel or an older Windows program, give --encoding cp1252, or save it as UTF-8"
