"""Import HotpotQA (Yang et al. 2018): questions over several paragraphs, with supporting facts.

Every paragraph of a question is a passage; those that hold a supporting fact are labelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import DEFAULT_FRACTIONS, Imported, SiteDraft, build_sites, slug, told_answers
from fedrag.data.importers.text_file import read_rows
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


def import_hotpotqa(
    path: Path, fractions: Fractions = DEFAULT_FRACTIONS, seed: int = 0, encoding: str | None = None
) -> Imported:
    """Read HotpotQA's file, a JSON array or JSON lines, or rows of the Hugging Face hub's form, into one site.

    Raises:
        DataError: A row has no question or no paragraphs.
    """
    draft, skipped = SiteDraft(slug(path.stem)), Counter[str]()
    for place, row in read_rows(path, encoding):
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str | None):
            raise DataError(f'{place}: "question" and "answer" must be strings, as in HotpotQA')
        paragraphs, supporting = _paragraphs(row, place), _supporting(row, place)
        answers = told_answers([answer or ""])
        if not question.strip() or not answers:
            skipped["rows without question or answer"] += 1
            continue
        ids = {title: draft.add_passage(text, title=title) for title, text in paragraphs.items() if text.strip()}
        labels = [ids[title] for title in ids if title in supporting]
        draft.add_question(question, answers, labels, str(row.get("_id") or row.get("id") or ""))
    return build_sites([draft], skipped, path, fractions, seed)


def _paragraphs(row: Mapping[str, Any], place: str) -> dict[str, str]:
    """Return the text of each paragraph by its title."""
    context = row.get("context")
    if isinstance(context, dict):  # the form of the hub: a list of titles and one of lists of sentences
        context = list(zip(context.get("title", ()), context.get("sentences", ()), strict=False))
    try:
        return {str(title).strip(): "".join(sentences) for title, sentences in context or ()}
    except (TypeError, ValueError):
        raise DataError(f'{place}: "context" must hold pairs of a title and its sentences, as in HotpotQA') from None


def _supporting(row: Mapping[str, Any], place: str) -> set[str]:
    """Return the titles of the paragraphs that hold a supporting fact."""
    facts = row.get("supporting_facts") or ()
    if isinstance(facts, dict):
        return {str(title).strip() for title in facts.get("title", ())}
    try:
        return {str(title).strip() for title, _ in facts}
    except (TypeError, ValueError):
        raise DataError(f'{place}: "supporting_facts" must hold pairs of a title and a number') from None
