"""Cuts documents into passages: a section, or a part of one, with its title and where a reader finds it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import PurePosixPath

from fedrag.data.documents.document import Block, Document
from fedrag.data.words import count_words, word_ends

PASSAGE_WORDS = 150
"""Most words of a passage, or characters in scripts without spaces: about what a retriever reads at a time."""
_REST_WORDS = 25  # what is left of a section joins the passage before it rather than stand alone
_TITLE_WORDS = 20
_HEADING_LETTERS = 80  # of a heading in a source
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])")


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage without an id; the fields are those of `fedrag.types.Passage`."""

    text: str
    title: str
    source: str


@dataclass(frozen=True, slots=True)
class _Section:
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


def cut_document(document: Document) -> list[Cut]:
    """Cut a document at its headings and, where a section is long, between paragraphs or else sentences.

    A passage's title is that of the document and the headings above it. Its source is the file and the page on which
    it begins, or the heading where there are no pages.
    """
    title = document_title(document)
    cuts = []
    for section in _sections(document.blocks):
        headings = tuple(heading for heading in section.headings if heading != title)
        for blocks in _packed(section.blocks):
            text = "\n".join(block.text for block in blocks)
            cuts.append(Cut(text, _passage_title(title, headings), _source(document, headings, blocks[0].page)))
    return cuts


def document_title(document: Document) -> str:
    """Return what a document calls itself, its only heading of the highest level, or else the name of its file.

    >>> document_title(Document("rules/visiting_hours.txt", (Block("They end at eight."),)))
    'visiting hours'
    """
    highest = min((block.level for block in document.blocks if block.level), default=0)
    top = [block.text for block in document.blocks if highest and block.level == highest]
    if len(top) == 1:
        return top[0]
    return document.title or " ".join(re.split(r"[\s_]+|(?<=\w)-(?=\w)", PurePosixPath(document.path).stem))


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    """Yield what stands between two headings, with the headings above it."""
    above: list[Block] = []
    body: list[Block] = []
    for block in blocks:
        if not block.level:
            body.append(block)
            continue
        if body:
            yield _Section(tuple(heading.text for heading in above), tuple(body))
            body = []
        above = [heading for heading in above if heading.level < block.level] + [block]
    if body:
        yield _Section(tuple(heading.text for heading in above), tuple(body))


def _packed(blocks: Sequence[Block]) -> list[list[Block]]:
    """Group paragraphs, in order, into passages of at most `PASSAGE_WORDS`; a short rest joins the last one."""
    groups: list[list[Block]] = []
    room = 0
    for block in chain.from_iterable(map(_pieces, blocks)):
        words = count_words(block.text)
        if not groups or words > room:
            groups.append(_announcing(groups))
            room = PASSAGE_WORDS - sum(count_words(before.text) for before in groups[-1])
        groups[-1].append(block)
        room -= words
    if len(groups) > 1 and sum(count_words(block.text) for block in groups[-1]) < _REST_WORDS:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def _announcing(groups: list[list[Block]]) -> list[Block]:
    """Take the last paragraph out of the last group if it announces what follows, such as a list."""
    announces = groups and len(groups[-1]) > 1 and groups[-1][-1].text.endswith((":", "："))
    return [groups[-1].pop()] if announces else []


def _pieces(block: Block) -> Iterator[Block]:
    """Yield a paragraph, or parts of about the same length where it is too long for a passage."""
    words = count_words(block.text)
    n_parts = -(-words // PASSAGE_WORDS)
    if n_parts <= 1:
        yield block
        return
    wanted = words / n_parts
    part = ""
    for sentence in _sentences(block.text):
        if part and count_words(part) + count_words(sentence) / 2 > wanted:
            yield Block(part.strip(), 0, block.page)
            part = ""
        part += sentence
    yield Block(part.strip(), 0, block.page)


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, each with the space after it; of one that is too long, parts between words."""
    start = 0
    for end in [*(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]:
        sentence = text[start:end]
        start = end
        cuts = word_ends(sentence)[PASSAGE_WORDS - 1 : -1 : PASSAGE_WORDS]
        for begin, stop in pairwise([0, *cuts, len(sentence)]):
            yield sentence[begin:stop]


def _passage_title(title: str, headings: Sequence[str]) -> str:
    """Join title and headings; where that is too long, leave out the headings in the middle.

    >>> _passage_title("Handbook", ("3 Visits", "3.1 Hours"))
    'Handbook – 3 Visits – 3.1 Hours'
    """
    parts = [title, *headings]
    while len(parts) > 2 and sum(map(count_words, parts)) > _TITLE_WORDS:
        del parts[1]
    return " – ".join(parts)


def _source(document: Document, headings: Sequence[str], page: int) -> str:
    if page:
        return f"{document.path}, page {page}"
    return f"{document.path}, {headings[-1][:_HEADING_LETTERS]}" if headings else document.path
