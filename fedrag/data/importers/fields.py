"""Looks up a column of a row, or a field within it, such as `answers.text`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedrag.errors import DataError


def look_up(row: Mapping[str, Any], column: str) -> list[str]:
    """Return the texts in a column, without blanks and nulls.

    A KeyError names the first step of a dotted path that is missing.

    >>> look_up({"answers": {"text": ["1908", "in 1908"]}}, "answers.text")
    ['1908', 'in 1908']
    """
    return texts_of(values_of(row, column))


def values_of(row: Mapping[str, Any], column: str) -> list[Any]:
    """Return the values in a column: one, or one for each object of a list on the way to a field within a field.

    A KeyError names the first step of a dotted path that is missing.
    """
    if column in row:
        return [row[column]]
    values: list[Any] = [row]
    for key in column.split("."):
        values = _flattened(values)
        if not all(isinstance(value, Mapping) and key in value for value in values):
            raise KeyError(key)
        values = [value[key] for value in values]
    return values


def site_of(row: Mapping[str, Any], column: str | None, place: str, default: str) -> str:
    """Return the site that a column names, or the default where no column does.

    Raises:
        DataError: The row has no such column, or it is empty.
    """
    if column is None:
        return default
    try:
        name = " ".join(look_up(row, column))
    except KeyError:
        raise DataError(f'{place}: no key "{column}" that names the site (all: {", ".join(map(str, row))})') from None
    if not name:
        raise DataError(f'{place}: "{column}" names no site')
    return name


def texts_of(value: Any) -> list[str]:
    """Flatten lists, and turn numbers into texts."""
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts_of(item)]
    text = "" if value is None or isinstance(value, Mapping) else str(value).strip()
    return [text] if text else []


def _flattened(values: list[Any]) -> list[Any]:
    """Return values with the items of each list in the list's place."""
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list) else [value]
    return flat
