"""The same articles in several languages, as XQuAD and MLQA have them: paired by place and by question id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fedrag.data.importers.draft import SiteDraft, clean, slug, unique_name
from fedrag.data.importers.squad_file import Article, Paragraph, SquadQuestion
from fedrag.data.splitting import normalise_question
from fedrag.errors import DataError


def with_own_ids(articles: Sequence[Article]) -> list[Article]:
    """Return the articles with an id for each question that no other has, from its title where the file has none."""
    taken: set[str] = set()

    def identified(article: Article, question: SquadQuestion) -> SquadQuestion:
        identity = unique_name(clean(question.id) or f"{slug(article.title)}-q{len(taken) + 1}", taken)
        taken.add(identity)
        return replace(question, id=identity)

    return [
        replace(
            article,
            paragraphs=[
                replace(paragraph, questions=[identified(article, question) for question in paragraph.questions])
                for paragraph in article.paragraphs
            ],
        )
        for article in articles
    ]


def require_translation(articles: Sequence[Article], originals: Sequence[Article], path: Path, original: Path) -> None:
    """Require the paragraphs and questions of the originals, as both files have them.

    Raises:
        DataError: Articles, paragraphs or questions are not those of the originals, in the same order.
    """
    if len(articles) != len(originals):
        raise DataError(
            f"{path}: holds {len(articles)} articles, and {original} {len(originals)}; it is no translation"
        )
    for number, (article, first) in enumerate(zip(articles, originals, strict=True), start=1):
        if _ids(article) != _ids(first):
            raise DataError(
                f"{path}: article {number} has not the paragraphs and questions, by their ids, of article {number} of "
                f"{original}; a translation holds the same in the same order"
            )


def named_as(article: Article, original: Article) -> Article:
    """Return the translation of an article with its title and with the ids of its questions."""
    return Article(
        original.title, [_named(*pair) for pair in zip(article.paragraphs, original.paragraphs, strict=True)]
    )


def require_same_labels(
    drafts: Sequence[SiteDraft], originals: Sequence[SiteDraft], path: Path, original: Path
) -> None:
    """Require that each question names the passage of the same id in either language.

    Raises:
        DataError: Paragraphs are one passage, since their texts are the same, in one of the languages alone.
    """
    for draft, first in zip(drafts, originals, strict=True):
        for question, other in zip(draft.questions, first.questions, strict=True):
            if question.passage_ids != other.passage_ids:
                raise DataError(
                    f'{path}: question "{question.id}" and those after it stand in other passages than in {original}, '
                    "since paragraphs before it are the same text in one of the two files alone"
                )


def split_texts(versions: Sequence[Sequence[Article]]) -> dict[str, str]:
    """Return for each question id the text whose split it and its translations take.

    Questions that read the same in any language stand together with all their translations: else one of them could be
    trained on and the other measured.

    Args:
        versions: The articles in each language, the originals first; no two questions of one have the same id.
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


def _ids(article: Article) -> list[list[str]]:
    return [[question.id for question in paragraph.questions] for paragraph in article.paragraphs]


def _named(paragraph: Paragraph, original: Paragraph) -> Paragraph:
    asked = zip(paragraph.questions, original.questions, strict=True)
    return replace(paragraph, questions=[replace(question, id=first.id) for question, first in asked])


def _questions(articles: Sequence[Article]) -> Iterator[SquadQuestion]:
    for article in articles:
        for paragraph in article.paragraphs:
            yield from paragraph.questions
