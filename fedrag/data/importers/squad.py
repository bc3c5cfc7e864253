"""Import question answering in SQuAD's format, versions 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).

An article is a site, or articles are grouped into sites; a paragraph is a passage.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    unique_slugs,
)
from fedrag.data.partition import balanced_groups, numbered_names
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError
from fedrag.files import reading_errors


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    text: str
    answers: list[str]


@dataclass(frozen=True, slots=True)
class _Article:
    """The paragraphs under one title, each with its questions that have answers."""

    title: str
    paragraphs: list[tuple[str, list[_Question]]] = field(default_factory=list)

    @property
    def n_questions(self) -> int:
        return sum(len(questions) for _, questions in self.paragraphs)


def import_squad(
    path: Path, fractions: Fractions = DEFAULT_FRACTIONS, seed: int = 0, groups: int | None = None
) -> Imported:
    """Read a SQuAD file into sites.

    Questions that are marked impossible or have no answer are left out and counted; their paragraphs stay.

    Args:
        path: The JSON file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        groups: Number of sites, balanced by number of questions; None: each article is a site.

    Raises:
        DataError: The file is not in SQuAD's format, or has fewer articles than groups.
    """
    skipped: Counter[str] = Counter()
    articles = _read_articles(path, skipped)
    slugs = unique_slugs(article.title for article in articles)
    if groups is None:
        sites = [(slugs[article.title], [article]) for article in articles]
    else:
        sites = _group(path, articles, groups)
    drafts = [_draft(name, members, slugs) for name, members in sites]
    return build_sites(drafts, skipped, path, fractions, seed)


def _group(path: Path, articles: Sequence[_Article], groups: int) -> list[tuple[str, list[_Article]]]:
    """Return the groups by name, each with its articles in the file's order."""
    if not 1 <= groups <= len(articles):
        raise DataError(f"{path}: its {len(articles)} articles cannot be put into {groups} groups")
    members = balanced_groups([article.n_questions for article in articles], groups)
    names = numbered_names("group", groups)
    return [(name, [articles[i] for i in group]) for name, group in zip(names, members, strict=True)]


def _draft(name: str, articles: Sequence[_Article], slugs: Mapping[str, str]) -> SiteDraft:
    """Fill one site; passages are numbered article by article."""
    draft = SiteDraft(name)
    for article in articles:
        for context, questions in article.paragraphs:
            passage_id = draft.add_passage(context, prefix=slugs[article.title])
            for question in questions:
                draft.add_question(question.text, question.answers, [passage_id], question.id)
    return draft


def _read_articles(path: Path, skipped: Counter[str]) -> list[_Article]:
    """Read the articles; merge those of the same title."""
    articles: dict[str, _Article] = {}
    tree = _read_json(path)
    for place, article in _objects(tree, "data", str(path)):
        title = _string(article, "title", place).strip()
        merged = articles.setdefault(title, _Article(title))
        for paragraph_place, paragraph in _objects(article, "paragraphs", place):
            context = _string(paragraph, "context", paragraph_place)
            if not context.strip():
                skipped["blank paragraphs"] += 1
                continue
            questions = _read_questions(paragraph, paragraph_place, skipped)
            merged.paragraphs.append((context, questions))
    return list(articles.values())


def _read_questions(paragraph: dict[str, Any], place: str, skipped: Counter[str]) -> list[_Question]:
    """Read the answerable questions of a paragraph."""
    questions = []
    for where, row in _objects(paragraph, "qas", place):
        text = _string(row, "question", where)
        answers = [_string(answer, "text", spot) for spot, answer in _objects(row, "answers", where)]
        answers = [answer for answer in answers if answer.strip()]
        if row.get("is_impossible"):
            skipped["impossible questions"] += 1
        elif not answers or not text.strip():
            skipped["questions without text or answer"] += 1
        else:
            questions.append(_Question(str(row.get("id", "")), text, answers))
    return questions


def _read_json(path: Path) -> Any:
    with reading_errors(path, DataError):
        text = path.read_text(encoding="utf-8-sig")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None


def _objects(node: Any, key: str, place: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a list below `node`, each with its place for messages."""
    children = node.get(key) if isinstance(node, dict) else None
    if not isinstance(children, list) or not all(isinstance(child, dict) for child in children):
        raise DataError(f'{place}: "{key}" must be a list of objects, as in SQuAD files')
    separator = ": " if key == "data" else "."
    return [(f"{place}{separator}{key}[{i}]", child) for i, child in enumerate(children)]


def _string(node: dict[str, Any], key: str, place: str) -> str:
    value = node.get(key)
    if not isinstance(value, str):
        raise DataError(f'{place}: "{key}" must be a string')
    return value
