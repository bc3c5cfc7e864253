"""Import HotpotQA (Yang et al. 2018) and its like, such as 2WikiMultihopQA: candidates with titles and sentences.

Of a question's candidate passages those are right whose titles its supporting facts name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, told_answers
from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.row_file import open_rows
from fedrag.data.importers.site_rows import rows_by_site
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


def import_hotpotqa(
    path: Path,
    site: str | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read questions with `context` and `supporting_facts`, as a JSON array, JSON lines or the hub's Parquet.

    Args:
        path: The file.
        site: Column that names the site; None: one site, named after the file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of the file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: A row does not have this shape.
    """
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    on_note = _say_nothing if path.suffix == ".json" else notes.append
    drafts, rows = rows_by_site(open_rows(path, _format(path), encoding, on_note), site, path.stem)
    for draft, place, row in rows:
        _add(draft, row, place, skipped)
    return build_sites(drafts, skipped, path, fractions, seed, notes)


def _format(path: Path) -> str:
    return "parquet" if path.suffix == ".parquet" else "jsonl"


def _say_nothing(note: str) -> None:
    """HotpotQA's own files are JSON arrays."""


def _add(draft: SiteDraft, row: Mapping[str, Any], place: str, skipped: Counter[str]) -> None:
    """Add a row's candidates and, if it has an answer, its question."""
    ids = [
        (title, draft.add_passage(text, title=title))
        for title, text in _pairs(row, "context", "sentences", place)
        if text
    ]
    question, answers = " ".join(texts_of(row.get("question"))), told_answers(texts_of(row.get("answer")))
    if not question or not answers:
        skipped["questions without text or answer"] += 1
        return
    supporting = {title for title, _ in _pairs(row, "supporting_facts", "sent_id", place)}
    if not supporting:
        skipped["questions without supporting facts"] += 1
        return
    right = [identity for title, identity in ids if title in supporting]
    if not right:
        skipped["questions whose supporting facts are not among their passages"] += 1
        return
    identity = next(iter(texts_of(row.get("_id")) or texts_of(row.get("id"))), "")
    draft.add_question(question, answers, right, identity)


def _pairs(row: Mapping[str, Any], key: str, second: str, place: str) -> list[tuple[str, str]]:
    """Return the pairs of title and sentences (or their numbers): HotpotQA's lists, or the hub's lists side by side."""
    value = row.get(key)
    if isinstance(value, str):  # 2WikiMultihopQA's Parquet file has them as JSON
        value = _parsed(value)
    if value is None and key == "supporting_facts":
        return []
    if isinstance(value, Mapping) and "title" in value and second in value:
        titles, contents = value["title"], value[second]
        if not isinstance(titles, list) or not isinstance(contents, list) or len(titles) != len(contents):
            raise DataError(f'{place}: "{key}" must hold as many "{second}" as "title"')
        value = [list(pair) for pair in zip(titles, contents, strict=True)]
    if not isinstance(value, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        raise DataError(f'{place}: "{key}" must be a list of titles with their {second}, as in HotpotQA')
    return [(str(title).strip(), " ".join(texts_of(content))) for title, content in value]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
