"""Drops what recurs across documents: the same paragraph in most of them, and the same passage twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fedrag.data.documents.document import Block, Document
from fedrag.data.documents.sections import Cut
from fedrag.data.words import count_words

_DOCUMENTS = 3  # in which a paragraph must recur
_SHARE = 0.5  # of all documents of its kind
_MOST_DROPPED = 0.3  # of the words of a document


def without_boilerplate(documents: Sequence[Document]) -> tuple[list[Document], int]:
    """Drop the paragraphs that most documents of a kind hold, such as a notice at their end.

    A document of which much would go, such as one of several versions of the same text, stays as it is.

    Returns:
        The documents, and how many paragraphs were dropped.
    """
    kinds = Counter(_kind(document) for document in documents)
    holding: Counter[tuple[str, str]] = Counter()
    for document in documents:
        holding.update({(_kind(document), text_key(block.text)) for block in document.blocks if not block.level})
    dropped = 0
    kept = []
    for document in documents:
        kind = _kind(document)
        needed = max(_DOCUMENTS, _SHARE * kinds[kind])
        recurring = [b for b in document.blocks if not b.level and holding[kind, text_key(b.text)] >= needed]
        if _words(recurring) <= _MOST_DROPPED * _words(document.blocks):
            dropped += len(recurring)
            document = replace(document, blocks=tuple(block for block in document.blocks if block not in recurring))
        kept.append(document)
    return kept, dropped


def without_duplicates(cuts: Iterable[Cut]) -> tuple[list[Cut], int]:
    """Drop each passage whose text an earlier one has; return the others, and how many were dropped."""
    first: dict[str, Cut] = {}
    n_cuts = 0
    for cut in cuts:
        n_cuts += 1
        first.setdefault(text_key(cut.text), cut)
    return list(first.values()), n_cuts - len(first)


def text_key(text: str) -> str:
    """Return what two texts share that differ in case and white space alone."""
    return " ".join(text.casefold().split())


def _kind(document: Document) -> str:
    return document.path.rpartition(".")[2].lower()


def _words(blocks: Iterable[Block]) -> int:
    return sum(count_words(block.text) for block in blocks)
