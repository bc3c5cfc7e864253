"""Import question answering in SQuAD's format, versions 1.1 and 2.0 (Rajpurkar et al. 2016, 2018).

An article is a site, or articles are grouped into sites; a paragraph is a passage. `squad_file` reads the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    unique_slugs,
)
from fedrag.data.importers.squad_file import Article, read_articles
from fedrag.data.importers.text_file import read_json_or_lines
from fedrag.data.importers.translation import (
    named_as,
    require_same_labels,
    require_translation,
    split_texts,
    with_own_ids,
)
from fedrag.data.partition import balanced_groups, numbered_names
from fedrag.data.splitting import Fractions
from fedrag.errors import DataError


def import_squad(
    path: Path,
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    groups: int | None = None,
    encoding: str | None = None,
    language: str = "",
    translations: Mapping[str, Path] = {},
) -> Imported:
    """Read a SQuAD file into sites.

    Questions that are marked impossible or have no answer are left out and counted; their paragraphs stay. An article
    without a title is a site of its own, named by its place in the file.

    Args:
        path: The JSON file.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        groups: Number of sites, balanced by number of questions; None: each article is a site.
        encoding: Encoding of the files; None: what its byte order mark says, else UTF-8.
        language: Code of the file's language; its sites say so, and begin with it if there are translations.
        translations: Files that hold the same in other languages, by the codes of these: each gives as many sites more,
            with the ids of the first file. A question and its translations are in the same split.

    Raises:
        DataError: A file is not in SQuAD's format, has fewer articles than groups, or is no translation of the first.
    """
    skipped: Counter[str] = Counter()
    notes: list[str] = []

    def read(file: Path) -> list[Article]:
        return read_articles(read_json_or_lines(file, encoding, notes.append), str(file), skipped, notes.append)

    articles = read(path)
    translated = {code: read(file) for code, file in translations.items()}
    if translations:
        for code, found in translated.items():
            require_translation(found, articles, translations[code], path)
        articles = with_own_ids(articles)
    if groups is None:
        sites = [(article.title, [article]) for article in articles]
    else:
        sites = grouped_articles(path, articles, groups)
    own = site_drafts(sites, language, f"{language}-" if translations else "")
    drafts, versions = list(own), [articles]
    for code, found in translated.items():
        counterpart = {first.title: named_as(new, first) for new, first in zip(found, articles, strict=True)}
        there = [(title, [counterpart[article.title] for article in members]) for title, members in sites]
        others = site_drafts(there, code, f"{code}-")
        require_same_labels(others, own, translations[code], path)
        drafts += others
        versions.append(list(counterpart.values()))
    originals = split_texts(versions) if translations else {}
    return build_sites(drafts, skipped, path, fractions, seed, notes, originals)


def site_drafts(
    sites: Sequence[tuple[str, Sequence[Article]]], language: str = "", before: str = ""
) -> list[SiteDraft]:
    """Return a draft for each site, given its title and its articles; passages are numbered article by article.

    Args:
        sites: Title and articles of each.
        language: Code of their language; empty: not told.
        before: What the sites' names begin with.
    """
    names = unique_slugs(title for title, _ in sites)
    prefixes = unique_slugs(article.title for _, articles in sites for article in articles)
    drafts = []
    for title, articles in sites:
        draft = SiteDraft(f"{before}{names[title]}", language=language)
        for article in articles:
            for paragraph in article.paragraphs:
                passage_id = draft.add_passage(paragraph.context, prefix=prefixes[article.title])
                for question in paragraph.questions:
                    draft.add_question(question.text, question.answers, [passage_id], question.id)
        drafts.append(draft)
    return drafts


def grouped_articles(path: Path, articles: Sequence[Article], groups: int) -> list[tuple[str, list[Article]]]:
    """Return the groups by name, each with its articles in the file's order.

    Raises:
        DataError: There are fewer articles than groups.
    """
    if not 1 <= groups <= len(articles):
        raise DataError(f"{path}: its {len(articles)} articles cannot be put into {groups} groups")
    members = balanced_groups([article.n_questions for article in articles], groups)
    names = numbered_names("group", groups)
    return [(name, [articles[i] for i in group]) for name, group in zip(names, members, strict=True)]
