"""Import what retrievers train on: an anchor, its right passages, and wrong ones as hard negatives. No answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, slug
from fedrag.data.importers.text_file import read_rows
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError

_ANCHORS = ("anchor", "query", "question")
_POSITIVE = re.compile(r"positive(_?\d+)?|pos|positives|positive_passages")
_NEGATIVE = re.compile(r"(hard_)?negative(_?\d+)?|neg|negatives|hard_negatives|negative_passages")


def import_triplets(
    path: Path, fractions: Fractions = DEFAULT_FRACTIONS, seed: int = 0, encoding: str | None = None
) -> Imported:
    """Read rows of anchor, positive and negatives into one site; the passages of all rows are its corpus.

    Raises:
        DataError: A row has no anchor or no positive, or a passage is no text.
    """
    draft, skipped, notes = SiteDraft(slug(path.stem)), Counter[str](), list[str]()
    for place, row in read_rows(path, encoding, notes.append):
        anchor = next((row[key] for key in _ANCHORS if key in row), None)
        if not isinstance(anchor, str):
            raise DataError(f'{place}: no text under "anchor" or "query"')
        right, wrong = _texts(row, _POSITIVE, place), _texts(row, _NEGATIVE, place)
        if not anchor.strip() or not right:
            skipped["rows without anchor or positive"] += 1
            continue
        labels = [draft.add_passage(text, title=title) for title, text in right]
        negatives = [draft.add_passage(text, title=title) for title, text in wrong]
        draft.add_question(anchor, (), labels, str(row.get("id") or row.get("_id") or ""), negatives)
    return build_sites([draft], skipped, path, fractions, seed, notes)


def _texts(row: Mapping[str, Any], keys: re.Pattern[str], place: str) -> list[tuple[str, str]]:
    """Return title and text of the passages under all keys that match; a passage may be an object with both."""
    found: list[tuple[str, str]] = []
    for key, value in row.items():
        if not keys.fullmatch(key):
            continue
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            title, text = (item.get("title") or "", item.get("text")) if isinstance(item, Mapping) else ("", item)
            if text is not None and not isinstance(text, str):
                raise DataError(f'{place}: "{key}" must be a text, or a list of texts')
            if text and text.strip():
                found.append((str(title), text))
    return found
