"""Reads JSON lines; every fault names its file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from fedrag.errors import DataError

OnProblem = Callable[[str], None]
"""Handles a fault: raises it (`raise_data_error`), or collects it (`list.append`)."""


def raise_data_error(message: str) -> NoReturn:
    """Raise the fault as a DataError."""
    raise DataError(message)


def read_objects(path: Path, on_problem: OnProblem = raise_data_error) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of every well-formed line; skip blank lines."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    on_problem(f"{path}: is UTF-16 text; save it as UTF-8")
                    return
                line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                if not line.strip():
                    continue
                try:
                    yield number, _parse(line)
                except ValueError as error:
                    on_problem(f"{path}:{number}: {error}")
    except FileNotFoundError:
        on_problem(f"{path}: no such file")
    except OSError as error:
        on_problem(f"{path}: cannot be read: {error.strerror}")


def _parse(line: bytes) -> dict[str, Any]:
    """Parse one line; a ValueError says what is wrong with it."""
    try:
        value = json.loads(line.decode("utf-8").rstrip())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start + 1} of the line)") from None
    except json.JSONDecodeError as error:
        # A line without its line end is the file's last.
        cut_off = "" if line.endswith(b"\n") else "; the file ends here, perhaps cut off"
        fault = error.msg.removesuffix(" at")
        raise ValueError(f"not valid JSON: {fault} at column {error.colno}{cut_off}") from None
    except RecursionError:
        raise ValueError("not valid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError('must be a JSON object such as {"id": "..."}')
    return value
