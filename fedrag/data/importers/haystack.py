"""Import what Haystack's annotation tool exports, its labels, and its documents where they hold questions.

The export is SQuAD's format without titles, a document after the other. A document store's questions lie elsewhere, so
its documents may be added to any of them as further passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    slug,
    told_answers,
)
from fedrag.data.importers.fields import texts_of
from fedrag.data.importers.squad import grouped_articles, site_drafts
from fedrag.data.importers.squad_file import read_articles
from fedrag.data.importers.text_file import OnNote, read_json_or_lines
from fedrag.data.questions import question_key
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


@dataclass
class _Gathered:
    """All that is said of one question."""

    text: str
    answers: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def import_haystack(
    path: Path,
    documents: Path | None = None,
    groups: int | None = None,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read an annotation export, a list of labels, or documents with questions in their `meta`, into sites.

    Args:
        path: The file with the questions.
        documents: A file of documents that every site gets as passages.
        groups: Number of sites among which the documents of an export are dealt; None: one, named after the file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of the files; None: what their byte order marks say, else UTF-8.

    Raises:
        DataError: A file has none of these shapes, or there is no question.
    """
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    content = read_json_or_lines(path, encoding, notes.append)
    if isinstance(content, dict) and "data" in content:
        articles = read_articles(content, str(path), skipped, notes.append)
        drafts = site_drafts([(path.stem, articles)] if groups is None else grouped_articles(path, articles, groups))
    elif groups is not None:
        raise DataError(
            f"{path}: --groups deals the documents of an annotation export; fedrag data partition deals sites"
        )
    else:
        drafts = [_draft_of_items(path, _items(content, path), skipped)]
    for draft in drafts:
        for text, title in _documents(documents, encoding, notes.append):
            if not draft.has_text(text):
                draft.add_passage(text, title=title)
    return build_sites(drafts, skipped, path, fractions, seed, notes)


def _items(content: Any, path: Path) -> list[Mapping[str, Any]]:
    """Return the labels or documents of a file: a list, or what a document store wrote around it."""
    if isinstance(content, dict):
        content = next((content[key] for key in ("documents", "labels") if key in content), [content])
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DataError(f'{path}: "data" as in SQuAD, a list of labels or a list of documents was expected')
    return content


def _draft_of_items(path: Path, items: list[Mapping[str, Any]], skipped: Counter[str]) -> SiteDraft:
    draft = SiteDraft(slug(path.stem))
    asked: dict[str, _Gathered] = {}
    for i, item in enumerate(items):
        add = _add_label if "query" in item and "document" in item else _add_document
        add(draft, asked, item, f"{path}: [{i}]", skipped)
    if not asked:
        raise DataError(
            f"{path}: holds documents and no question; import the file of the questions, and give this one with "
            "--documents"
        )
    for question in asked.values():
        answers = told_answers(question.answers)
        right = list(dict.fromkeys(question.right))
        if answers or right:
            draft.add_question(question.text, answers, right, hard_negative_ids=question.wrong)
        else:
            skipped["questions without answer or right document"] += 1
    return draft


def _add_label(
    draft: SiteDraft, asked: dict[str, _Gathered], label: Mapping[str, Any], place: str, skipped: Counter[str]
) -> None:
    """Add what one label says: a question, and whether a document and an answer are right for it."""
    text, _ = _document(label["document"], f"{place}.document")
    question = " ".join(texts_of(label["query"]))
    if not question or not text:
        skipped["labels without query or document"] += 1
        return
    gathered = asked.setdefault(question_key(question), _Gathered(question))
    is_right = label.get("is_correct_document", True)
    (gathered.right if is_right else gathered.wrong).append(draft.add_passage(text))
    answer = label.get("answer")
    if label.get("is_correct_answer", True) and not label.get("no_answer"):
        gathered.answers += texts_of(answer.get("answer") if isinstance(answer, Mapping) else answer)


def _add_document(
    draft: SiteDraft, asked: dict[str, _Gathered], document: Mapping[str, Any], place: str, skipped: Counter[str]
) -> None:
    """Add a document, and the question that its meta holds; of a pair of frequent questions the answer is the text."""
    text, title = _document(document, place)
    meta = _meta(document)
    questions = texts_of(meta.get("question", meta.get("query", meta.get("questions"))))
    answers = texts_of(meta.get("answer", meta.get("answers")))
    if not text:
        skipped["blank documents"] += 1
        return
    if answers and not questions:
        questions, text, title = [text], answers[0], None
    identity = draft.add_passage(text, title=title)
    for question in questions:
        gathered = asked.setdefault(question_key(question), _Gathered(question))
        gathered.answers += answers
        gathered.right.append(identity)


def _documents(path: Path | None, encoding: str | None, on_note: OnNote) -> Iterable[tuple[str, str | None]]:
    if path is None:
        return []
    items = _items(read_json_or_lines(path, encoding, on_note), path)
    read = (_document(item, f"{path}: [{i}]") for i, item in enumerate(items))
    return [(text, title) for text, title in read if text]


def _document(document: Any, place: str) -> tuple[str, str | None]:
    """Return text and title of a document, of Haystack 1 or 2."""
    if not isinstance(document, Mapping) or not ("content" in document or "text" in document):
        raise DataError(f'{place}: a document with its text as "content" was expected')
    text = document.get("content", document.get("text"))
    title = " ".join(texts_of(_meta(document).get("title")))
    return (text.strip() if isinstance(text, str) else ""), title or None


def _meta(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the meta data: an object of its own, or, as Haystack 2 writes it, keys beside the content."""
    meta = document.get("meta")
    return meta if isinstance(meta, Mapping) else document
