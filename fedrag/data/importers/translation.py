"""The same articles in several languages, as XQuAD and MLQA have them: paired by place and by question id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fedrag.data.importers.squad_file import Article, SquadQuestion
from fedrag.data.splitting import normalise_question
from fedrag.errors import DataError


def translated_articles(
    articles: Sequence[Article], originals: Sequence[Article], path: Path, original: Path
) -> list[Article]:
    """Return the articles of a translation under the titles of the originals, so that ids are the same.

    Raises:
        DataError: Articles, paragraphs or questions are not those of the originals, in the same order.
    """
    if len(articles) != len(originals):
        raise DataError(
            f"{path}: holds {len(articles)} articles, and {original} {len(originals)}; it is no translation"
        )
    for number, (article, first) in enumerate(zip(articles, originals, strict=True), start=1):
        if len(article.paragraphs) != len(first.paragraphs) or _passages(article) != _passages(first):
            raise DataError(
                f"{path}: article {number} has not the paragraphs and questions, by their ids, of article {number} of "
                f"{original}; a translation holds the same in the same order"
            )
    return [replace(article, title=first.title) for article, first in zip(articles, originals, strict=True)]


def _passages(article: Article) -> list[list[str]]:
    """Return the ids of the questions of each paragraph; paragraphs of the same text share theirs."""
    found: dict[str, list[str]] = {}
    for paragraph in article.paragraphs:
        found.setdefault(paragraph.context, []).extend(question.id for question in paragraph.questions)
    return list(found.values())


def split_texts(versions: Sequence[Sequence[Article]]) -> dict[str, str]:
    """Return for each question id the text whose split it and its translations take.

    Questions that read the same in any language stand together with all their translations: else one of them could be
    trained on and the other measured.

    Args:
        versions: The articles in each language, the originals first.
    """
    groups: dict[str, set[str]] = {}
    for version in versions:
        first_of: dict[str, str] = {}
        for question in _questions(version):
            own = groups.setdefault(question.id, {question.id})
            other = groups[first_of.setdefault(normalise_question(question.text), question.id)]
            if own is not other:
                own |= other
                for identity in other:
                    groups[identity] = own
    texts = {question.id: question.text for question in _questions(versions[0])}
    return {identity: texts[min(group)] for identity, group in groups.items()}


def _questions(articles: Sequence[Article]) -> Iterator[SquadQuestion]:
    for article in articles:
        for paragraph in article.paragraphs:
            yield from paragraph.questions
