"""Reads the text of a file that somebody else wrote: its encoding, and rows as JSON lines or as one JSON array."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fedrag.errors import ConfigError, DataError

OnNote = Callable[[str], None]
"""Told what was read otherwise than its name says, in one sentence."""

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


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
        return raw.decode(encoding or mark or "utf-8")
    except LookupError:
        raise ConfigError(f'--encoding {encoding}: no such encoding; "cp1252" and "utf-16" are two') from None
    except UnicodeDecodeError as error:
        if encoding or mark:
            raise DataError(f"{path}: not {encoding or mark} text (byte {error.start + 1})") from None
        raise DataError(f"{path}: not UTF-8 text (byte {error.start + 1}); {_ways_out(raw)}") from None


def read_rows(
    path: Path, encoding: str | None = None, on_note: OnNote = lambda note: None
) -> Iterator[tuple[str, Any]]:
    """Yield the place, for messages, and the object of each row of a file of JSON lines or of one JSON array.

    Raises:
        DataError: A row is not a JSON object.
    """
    text = read_text(path, encoding)
    if text.lstrip().startswith("["):
        on_note(f"{path}: is one JSON array, where JSON lines are expected; its items were read as lines")
        rows = ((f"{path}: [{i}]", row) for i, row in enumerate(_parse_array(path, text)))
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = ((f"{path}:{i}", _parse_line(path, i, line)) for i, line in lines if line.strip())
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f'{place}: must be a JSON object such as {{"question": "..."}}')
        yield place, row


def read_json_file(path: Path, encoding: str | None = None) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: It cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path, encoding))
    except json.JSONDecodeError as error:
        more = "; it looks like JSON lines" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}{more}") from None
    except RecursionError:
        raise DataError(f"{path}: not valid JSON: nested too deeply") from None


def _parse_array(path: Path, text: str) -> list[Any]:
    try:
        rows: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    return rows


def _parse_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        more = "; JSON lines hold one whole object a line" if line.strip() in "{}" else ""
        raise DataError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}{more}") from None
    except RecursionError:
        raise DataError(f"{path}:{number}: not valid JSON: nested too deeply") from None


def _ways_out(raw: bytes) -> str:
    """Say how a file in another encoding is read."""
    if raw[1:2] == b"\0" or raw[:1] == b"\0" or raw.count(b"\0") > len(raw) // 8:
        return "it looks like UTF-16 without a byte order mark: give --encoding utf-16-le or utf-16-be"
    return "if it comes from Excel or an older Windows program, give --encoding cp1252, or save it as UTF-8"
