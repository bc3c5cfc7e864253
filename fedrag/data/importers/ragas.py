"""Import test sets of ragas (Es et al. 2023): questions with a reference answer and the contexts it stands on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, told_answers
from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.row_file import open_rows
from fedrag.data.importers.site_rows import rows_by_site
from fedrag.data.splitting import Fractions
from fedrag.data.words import holds_words
from fedrag.errors import DataError

_QUESTION = ("user_input", "question")
_ANSWER = ("reference", "ground_truth", "ground_truths")
_RIGHT = "reference_contexts"
_RETRIEVED = "retrieved_contexts"
_EITHER = "contexts"
"""In a test set of versions before 0.2 what the question was made from; beside a model's answer, what it retrieved."""
_MODELS_ANSWER = ("answer", "response")
_HOP = re.compile(r"^<\d+-hop>\s*")  # ragas marks the contexts of a question about several


def import_ragas(
    path: Path,
    site: str | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read a test set, of the names before version 0.2 or after, from JSON lines, a JSON array, CSV or Parquet.

    The reference is the answer, and all reference contexts are right. Contexts that were retrieved are right where
    they hold the reference as whole words.

    Args:
        path: The file.
        site: Column that names the site; None: one site, named after the file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of a text file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: A row has no question, reference or contexts under ragas' names.
    """
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    drafts, rows = rows_by_site(open_rows(path, None, encoding, notes.append), site, path.stem)
    unlabelled = 0
    for draft, place, row in rows:
        if isinstance(row.get("user_input"), list):
            skipped["conversations of several turns"] += 1
            continue
        question = " ".join(texts_of(_first(row, _QUESTION, place)))
        answers = told_answers(texts_of(_first(row, _ANSWER, place)))
        if not question or not answers:
            skipped["rows without question or reference"] += 1
            continue
        labels = _labels(draft, row, answers, place)
        draft.add_question(question, answers, labels)
        unlabelled += not labels
    if unlabelled:
        notes.append(
            f"{unlabelled:,} questions are labelled with no passage: none that was retrieved holds the reference."
        )
    return build_sites(drafts, skipped, path, fractions, seed, notes)


def _labels(draft: SiteDraft, row: Mapping[str, Any], answers: list[str], place: str) -> list[str]:
    """Add a row's contexts; return the ids of the right ones."""
    if row.get(_EITHER) is not None and not any(texts_of(row.get(name)) for name in _MODELS_ANSWER):
        right, retrieved = row[_EITHER], None
    else:
        right, retrieved = row.get(_RIGHT), row.get(_RETRIEVED, row.get(_EITHER))
    if right is None and retrieved is None:
        raise DataError(f"{place}: no {_RIGHT}, {_RETRIEVED} or {_EITHER} (all: {', '.join(map(str, row))})")
    right_ids = [draft.add_passage(_HOP.sub("", text)) for text in texts_of(right)]
    found = {draft.add_passage(text): text for text in texts_of(retrieved)}
    if right_ids:
        return right_ids
    return [identity for identity, text in found.items() if any(holds_words(text, answer) for answer in answers)]


def _first(row: Mapping[str, Any], names: tuple[str, ...], place: str) -> Any:
    for name in names:
        if name in row:
            return row[name]
    raise DataError(f"{place}: no column {' or '.join(names)} (all: {', '.join(map(str, row))})")
