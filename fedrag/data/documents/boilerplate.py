"""Drops what recurs across documents: the same paragraph in most of them, and the same passage twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fedrag.data.documents.document import Document
from fedrag.data.documents.sections import Cut

_DOCUMENTS = 3  # in which a paragraph must recur
_SHARE = 0.5  # of all documents of its kind


def without_boilerplate(documents: Sequence[Document]) -> tuple[list[Document], int]:
    """Drop the paragraphs that most documents of a kind hold, such as a notice at their end.

    Returns:
        The documents, and how many paragraphs were dropped.
    """
    kinds = Counter(_kind(document) for document in documents)
    holding: Counter[tuple[str, str]] = Counter()
    for document in documents:
        holding.update({(_kind(document), key) for key in map(text_key, _paragraphs(document))})
    dropped = 0
    kept = []
    for document in documents:
        kind = _kind(document)
        needed = max(_DOCUMENTS, _SHARE * kinds[kind])
        blocks = tuple(
            block for block in document.blocks if block.level or holding[kind, text_key(block.text)] < needed
        )
        dropped += len(document.blocks) - len(blocks)
        kept.append(replace(document, blocks=blocks))
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


def _paragraphs(document: Document) -> list[str]:
    return [block.text for block in document.blocks if not block.level]
