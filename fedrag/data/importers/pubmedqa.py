"""Import PubMedQA (Jin et al. 2019), as in its file `ori_pqal.json`: questions that titles of abstracts ask.

The file is one object with an entry for each article, by its PubMed id: `QUESTION`, the sections of the abstract
without its conclusion (`CONTEXTS`, and their headings in `LABELS`), the conclusion (`LONG_ANSWER`), and
`final_decision`: yes, no or maybe. A section becomes a passage, and all of an article are right for its question.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, slug
from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.text_file import read_text
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError

PubmedAnswer = Literal["decision", "long"]
_KEYS: dict[PubmedAnswer, str] = {"decision": "final_decision", "long": "LONG_ANSWER"}


def import_pubmedqa(
    path: Path,
    answer: PubmedAnswer = "decision",
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read a file of PubMedQA's into one site, which `fedrag data partition` deals to several.

    Args:
        path: The file, such as ori_pqal.json.
        answer: What is learnt to be answered: "decision" (yes, no, maybe), or "long", the conclusion.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of the file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: It has another shape, or no question has an answer.
    """
    skipped: Counter[str] = Counter()
    draft = SiteDraft(slug(path.stem))
    for identity, row in _articles(path, encoding).items():
        _add(draft, identity, row, f'{path}: article "{identity}"', _KEYS[answer], skipped)
    return build_sites([draft], skipped, path, fractions, seed)


def _articles(path: Path, encoding: str | None) -> Mapping[str, Any]:
    try:
        articles = json.loads(read_text(path, encoding))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(articles, dict) or not all(isinstance(row, dict) for row in articles.values()):
        raise DataError(f"{path}: expected one JSON object with an article for each PubMed id, as in ori_pqal.json")
    return articles


def _add(draft: SiteDraft, identity: str, row: Mapping[str, Any], place: str, key: str, skipped: Counter[str]) -> None:
    """Add an article's sections and, if it has an answer, its question."""
    sections, labels = row.get("CONTEXTS"), row.get("LABELS")
    if not isinstance(sections, list) or not isinstance(row.get("QUESTION"), str):
        raise DataError(f'{place}: "QUESTION" and "CONTEXTS", a list of texts, were expected')
    titles = labels if isinstance(labels, list) and len(labels) == len(sections) else [None] * len(sections)
    right = [
        draft.add_passage(text, identity, str(title).capitalize() if title else None)
        for section, title in zip(sections, titles, strict=True)
        for text in texts_of(section)
    ]
    answers = texts_of(row.get(key))
    if not row["QUESTION"].strip() or not answers or not right:
        skipped[f"articles without a question, a section or a {key}"] += 1
        return
    draft.add_question(row["QUESTION"], answers, right, identity)
