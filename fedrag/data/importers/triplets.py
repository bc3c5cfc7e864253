"""Import triplets of a query, a right passage and wrong ones, as sentence-transformers and FlagEmbedding read them.

The wrong ones are kept as hard negatives. There are no answers, so the retriever alone learns from them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites
from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.row_file import open_rows
from fedrag.data.importers.site_rows import rows_by_site
from fedrag.data.questions import question_key
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError

_NAMES = {
    "query": re.compile(r"anchor|query|question", re.IGNORECASE),
    "right": re.compile(r"(positives?|pos)(_\d+)?|positive_passages?", re.IGNORECASE),
    "wrong": re.compile(r"(negatives?|neg|hard_negatives?)(_\d+)?|negative_passages?", re.IGNORECASE),
}
"""Names of the columns: of the query, of the right passages, of the wrong ones."""


@dataclass
class _Gathered:
    """All that the rows of one query say."""

    draft: SiteDraft
    text: str
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add_to_draft(self) -> None:
        """Add the query and its passages to its site."""
        right, wrong = ([self.draft.add_passage(text) for text in texts] for texts in (self.right, self.wrong))
        self.draft.add_question(self.text, [], right, hard_negative_ids=wrong)


def import_triplets(
    path: Path,
    site: str | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read triplets into sites. Rows of the same query are merged: a passage that one calls right is never wrong.

    A row has the query under `anchor`, `query` or `question`, right passages under `positive` or `pos`, wrong ones
    under `negative`, `negative_1`, ... or `neg`; each may be a text or a list.

    Args:
        path: JSON lines, a JSON array, CSV or Parquet.
        site: Column that names the site; None: one site, named after the file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of a text file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: A row lacks a query or a right passage's column, or has two of the query.
    """
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    drafts, rows = rows_by_site(open_rows(path, None, encoding, notes.append), site, path.stem)
    queries: dict[tuple[str, str], _Gathered] = {}
    for draft, place, row in rows:
        query, right, wrong = _read(row, place, site)
        if not query or not right:
            skipped["rows without query or right passage"] += 1
            continue
        gathered = queries.setdefault((draft.name, question_key(query)), _Gathered(draft, query))
        gathered.right += right
        gathered.wrong += wrong
    for gathered in queries.values():
        gathered.add_to_draft()
    return build_sites(drafts, skipped, path, fractions, seed, notes)


def _read(row: Mapping[str, Any], place: str, site: str | None) -> tuple[str, list[str], list[str]]:
    """Return the query, the right and the wrong passages of a row."""
    found = {
        part: [name for name in row if name != site and pattern.fullmatch(str(name))]
        for part, pattern in _NAMES.items()
    }
    columns = ", ".join(map(str, row))
    if len(found["query"]) != 1:
        many = f"{' and '.join(found['query'])} are two" if found["query"] else "there is none"
        raise DataError(f"{place}: one column must be the query (anchor, query or question); {many} (all: {columns})")
    if not found["right"]:
        raise DataError(f"{place}: no column of the right passage (positive or pos; all: {columns})")
    texts = {part: [text for name in names for text in _texts(row[name], place)] for part, names in found.items()}
    return " ".join(texts["query"]), texts["right"], texts["wrong"]


def _texts(value: Any, place: str) -> list[str]:
    """Return the texts of a cell; a passage may be an object with `text` and perhaps `title`, as Tevatron's."""
    items = value if isinstance(value, list) else [value]
    texts = []
    for item in items:
        if isinstance(item, Mapping):
            if "text" not in item:
                raise DataError(
                    f'{place}: an object must hold the passage as "text"; it has {", ".join(map(str, item))}'
                )
            texts += [" ".join([*texts_of(item.get("title")), *texts_of(item["text"])])]
        else:
            texts += texts_of(item)
    return texts
