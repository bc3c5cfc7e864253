"""Import question answering in SQuAD's format, versions 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).

An article is a site, or articles are grouped into sites; a paragraph is a passage.
"""

from __future__ import annotations

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
    told_answers,
    unique_slugs,
)
from fedrag.data.importers.text_file import read_json_file
from fedrag.data.partition import balanced_groups, numbered_names
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


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
    path: Path,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    groups: int | None = None,
    encoding: str | None = None,
) -> Imported:
    """Read a SQuAD file into sites.

    Questions that are marked impossible or have no answer are left out and counted; their paragraphs stay.

    Args:
        path: The JSON file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        groups: Number of sites, balanced by number of questions; None: each article is a site.
        encoding: Name of the file's encoding; see `read_text`.

    Raises:
        DataError: The file is not in SQuAD's format, or has fewer articles than groups.
    """
    skipped: Counter[str] = Counter()
    articles = _read_articles(path, encoding, skipped)
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


def _read_articles(path: Path, encoding: str | None, skipped: Counter[str]) -> list[_Article]:
    """Read the articles; merge those of the same title, and name one without a title by its place."""
    articles: dict[str, _Article] = {}
    tree = read_json_file(path, encoding)
    if isinstance(tree, list) or (isinstance(tree, dict) and "data" not in tree and "question" in tree):
        raise DataError(
            f"{path}: holds rows of questions, not SQuAD's articles; import them with: fedrag data import jsonl "
            f"{path} OUT --question question --answer answers.text --passage context --site title"
        )
    for i, (place, article) in enumerate(_objects(tree, "data", str(path)), start=1):
        given = article.get("title")
        if given is not None and not isinstance(given, str):
            raise DataError(f'{place}: "title" must be a string')
        title = (given or "").strip() or f"article {i}"
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
        answers = told_answers(_answers(row, where))
        if _is_impossible(row.get("is_impossible"), where):
            skipped["impossible questions"] += 1
        elif not answers or not text.strip():
            skipped["questions without text or answer"] += 1
        else:
            questions.append(_Question(str(row.get("id", "")), text, answers))
    return questions


def _answers(row: dict[str, Any], place: str) -> list[str]:
    """Return the answers' texts: objects as in SQuAD's files, or one object of lists as on the Hugging Face hub."""
    answers = row.get("answers")
    if answers is None:
        return []
    if isinstance(answers, dict):
        texts = answers.get("text", [])
        texts = [texts] if isinstance(texts, str) else texts
    elif isinstance(answers, list):
        texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
    else:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f'{place}: "answers" must be a list of objects with "text", or an object with a list "text"')
    return texts


def _is_impossible(value: Any, place: str) -> bool:
    """Return whether a question is marked as impossible, however that is spelt."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "none": False, "": False}
    spelt = str("" if value is None else value).strip().lower()
    if spelt not in known:
        raise DataError(f'{place}: "is_impossible" must be true or false')
    return known[spelt]


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
