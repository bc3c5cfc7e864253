"""Reads SQuAD's format, and how it is spelt elsewhere: the hub's rows, files without titles, version 2.0's variants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedrag.data.importers.draft import told_answers
from fedrag.data.importers.text_file import OnNote
from fedrag.errors import DataError


@dataclass(frozen=True, slots=True)
class SquadQuestion:
    """A question with its answers; its id may be empty."""

    id: str
    text: str
    answers: list[str]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A passage with its questions that have answers."""

    context: str
    questions: list[SquadQuestion]


@dataclass(frozen=True, slots=True)
class Article:
    """The paragraphs under one title."""

    title: str
    paragraphs: list[Paragraph] = field(default_factory=list)

    @property
    def n_questions(self) -> int:
        """Number of questions that have answers."""
        return sum(len(paragraph.questions) for paragraph in self.paragraphs)


def read_articles(tree: Any, source: str, skipped: Counter[str], on_note: OnNote) -> list[Article]:
    """Read the articles; merge those of the same title, and number those without.

    Args:
        tree: What the file holds: `{"data": [articles]}`, a list of articles, or a list of the hub's rows.
        source: The file's name in messages.
        skipped: Counts what is left out.
        on_note: Told if the file does not have SQuAD's own shape.

    Raises:
        DataError: It is none of these.
    """
    place = f"{source}: data"
    if isinstance(tree, list) and len(tree) == 1 and isinstance(tree[0], dict) and "data" in tree[0]:
        tree = tree[0]
    if isinstance(tree, list) and tree and all(isinstance(item, dict) for item in tree):
        if all("context" in item and "question" in item for item in tree):
            on_note(f"{source} is a list of questions, as the hub has SQuAD; they were read by title and context.")
            return _articles_of_rows(tree, source, skipped)
        if all("paragraphs" in item for item in tree):
            on_note(f'{source} is a list of articles without SQuAD\'s "data" around it, and was read as such.')
            tree, place = {"data": tree}, f"{source}: "
        if all("question" in item for item in tree):
            raise DataError(
                f'{source}: holds rows of questions without "context", no articles; fedrag data import jsonl reads them'
            )
    articles: dict[str, Article] = {}
    for i, (_, article) in enumerate(_objects(tree, "data", source)):
        where = f"{place}[{i}]"
        title = _title(article, i)
        merged = articles.setdefault(title, Article(title))
        for spot, paragraph in _objects(article, "paragraphs", where):
            context = _string(paragraph, "context", spot)
            if not context.strip():
                skipped["blank paragraphs"] += 1
                continue
            asked = [] if paragraph.get("qas") is None else _objects(paragraph, "qas", spot)
            read = [_read_question(row, at, skipped) for at, row in asked]
            merged.paragraphs.append(Paragraph(context, [question for question in read if question]))
    return list(articles.values())


def _articles_of_rows(rows: list[dict[str, Any]], source: str, skipped: Counter[str]) -> list[Article]:
    """Group rows with title, context, question and answers, as the hub's SQuAD has them."""
    paragraphs: dict[tuple[str, str], Paragraph] = {}
    articles: dict[str, Article] = {}
    for i, row in enumerate(rows):
        where = f"{source}: [{i}]"
        title, context = str(row.get("title") or "").strip() or "untitled", _string(row, "context", where)
        if not context.strip():
            skipped["blank paragraphs"] += 1
            continue
        if (title, context) not in paragraphs:
            paragraphs[title, context] = Paragraph(context, [])
            articles.setdefault(title, Article(title)).paragraphs.append(paragraphs[title, context])
        if question := _read_question(row, where, skipped):
            paragraphs[title, context].questions.append(question)
    return list(articles.values())


def _title(article: Mapping[str, Any], index: int) -> str:
    """Return the title; an article without one is named by its place, counted from 1."""
    title = article.get("title")
    if title is not None and not isinstance(title, str | int | float):
        title = None
    return str("" if title is None else title).strip() or f"article-{index + 1}"


def _read_question(row: Mapping[str, Any], where: str, skipped: Counter[str]) -> SquadQuestion | None:
    """Read a question; count it if it has no answer."""
    text = _string(row, "question", where)
    answers = told_answers(_answers(row.get("answers"), where))
    if _is_true(row.get("is_impossible")):
        skipped["impossible questions"] += 1
    elif not answers or not text.strip():
        skipped["questions without text or answer"] += 1
    else:
        identity = row.get("id")
        return SquadQuestion("" if identity is None else str(identity), text, answers)
    return None


def _answers(node: Any, where: str) -> list[str]:
    """Return the answers' texts: SQuAD's objects, the hub's lists side by side, or plain texts."""
    if node is None or node == "":
        return []
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict):
        texts = node.get("text", [])
        return _answers(texts, where) if isinstance(texts, str | list) or texts is None else _refuse_answers(where)
    if not isinstance(node, list):
        return _refuse_answers(where)
    answers: list[str] = []
    for i, item in enumerate(node):
        if isinstance(item, str):
            answers.append(item)
        elif isinstance(item, dict):
            answers.append(_string(item, "text", f"{where}.answers[{i}]"))
        else:
            return _refuse_answers(where)
    return answers


def _refuse_answers(where: str) -> list[str]:
    raise DataError(f'{where}: "answers" must be a list of objects with "text", or an object of lists')


def _is_true(value: Any) -> bool:
    """Return whether a flag is set, however it is spelt: true, "true", 1, "1", "yes"."""
    return str(value).strip().casefold() in ("true", "1", "1.0", "yes")


def _objects(node: Any, key: str, place: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects of a list below `node`, each with its place for messages."""
    children = node.get(key) if isinstance(node, dict) else None
    if not isinstance(children, list) or not all(isinstance(child, dict) for child in children):
        raise DataError(f'{place}: "{key}" must be a list of objects, as in SQuAD files')
    return [(f"{place}.{key}[{i}]", child) for i, child in enumerate(children)]


def _string(node: Mapping[str, Any], key: str, place: str) -> str:
    value = node.get(key)
    if not isinstance(value, str):
        raise DataError(f'{place}: "{key}" must be a string')
    return value
