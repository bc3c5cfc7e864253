"""Reads the passages of a row, of which not all need be right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedrag.data.importers.fields import texts_of, values_of
from fedrag.errors import DataError

_MARKS = ("is_selected", "is_supporting", "is_relevant", "is_positive", "is_correct", "is_gold")
"""Fields by which data sets say of each candidate whether it is right: MS MARCO's, MuSiQue's and their like."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The passages of a row.

    Attributes:
        texts: All of them, or their ids.
        right: Those that are marked as right; all of them where nothing is marked.
        marked_by: The field that marks them, or "".
    """

    texts: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    marked_by: str = ""


def read_candidates(row: Mapping[str, Any], column: str, place: str) -> Candidates:
    """Return the passages in a column, and which of them the fields beside it mark.

    >>> read_candidates({"p": {"text": ["A.", "B."], "is_selected": [0, 1]}}, "p.text", "line 1").right
    ['B.']

    Raises:
        DataError: The column holds objects, or lists within lists: what of it is a passage cannot be told.
    """
    values = _listed(values_of(row, column))
    for value in values:
        if isinstance(value, Mapping):
            fields = ", ".join(f"{column}.{key}" for key in value)
            raise DataError(f'{place}: "{column}" holds objects; name the field that is the text: {fields}')
        if isinstance(value, list):
            raise DataError(
                f'{place}: "{column}" holds lists within lists, such as titles with their sentences, of which not all '
                "are right; fedrag data import hotpotqa reads HotpotQA's and its like"
            )
    texts = [text for value in values for text in texts_of(value) or [""]]
    marks, name = _marks(row, column, len(texts))
    right = [text for text, mark in zip(texts, marks, strict=True) if mark and text]
    return Candidates([text for text in texts if text], right, name)


def _listed(values: Sequence[Any]) -> list[Any]:
    """Return the items: those of a single list, or one of each object on the way."""
    return list(values[0]) if len(values) == 1 and isinstance(values[0], list) else list(values)


def _marks(row: Mapping[str, Any], column: str, n_texts: int) -> tuple[list[bool], str]:
    """Return whether each candidate is right, and the name of the field that says so."""
    parent = "" if column in row else column.rpartition(".")[0]
    for mark in _MARKS:
        name = f"{parent}.{mark}" if parent else mark
        try:
            values = _listed(values_of(row, name))
        except KeyError:
            continue
        if len(values) == n_texts:
            return [str(value).strip().casefold() in ("1", "1.0", "true", "yes") for value in values], name
    return [True] * n_texts, ""
