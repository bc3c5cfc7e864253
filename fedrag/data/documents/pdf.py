"""Puts the lines of a PDF together to headings and paragraphs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fedrag.data.documents.document import Block, Document, UnreadableDocument
from fedrag.data.documents.pdf_lines import Line, Page, read_pages
from fedrag.data.documents.running_heads import without_running_heads
from fedrag.data.words import UNSPACED, count_words
from fedrag.text import plural

_LARGER = 1.14  # a heading's size, as a multiple of the text's
_HEADING_WORDS = 20
_SHORT = 0.7  # of the width of its column: a line that ends there ends its paragraph
_COLUMN_LINES = 3
_APART = 1.3  # of the usual distance between lines: more begins a paragraph
_LEAST_PITCH, _USUAL_PITCH = 0.8, 1.2  # distances between lines, as multiples of the text's size
_INDENT = 6.0  # points by which the first line of a paragraph may be moved in
_ITEM = re.compile(r"^([•◦▪‣●○■□–—*·-]|\(?(\d{1,2}|[a-z])[.)])\s")
_DOTTED = re.compile(r"(\.\s?|…\s?|·\s?|_){4,}\s*\d+$")  # a line of a table of contents
_ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’)\]]*$")
_UNSPACED = re.compile(f"[{UNSPACED}\u3000-\u303f\uff00-\uffef]")


@dataclass(frozen=True, slots=True)
class _Placed:
    """A line, its page, and how far to the right the lines of its column reach, in points."""

    line: Line
    page: int
    margin: float


def read_pdf(path: Path, name: str) -> Document:
    """Read a PDF.

    Args:
        path: The file.
        name: Its path below its folder.

    Raises:
        ConfigError: The library is not installed.
        UnreadableDocument: It is encrypted, damaged, or holds no text.
    """
    pages, told = read_pages(path)
    empty = [page.number for page in pages if not page.lines]
    if len(empty) == len(pages):
        raise UnreadableDocument("it holds no text, perhaps a scan; a program for text recognition (OCR) adds it")
    first_page = " ".join(line.text for page in pages[:1] for line in page.lines)
    title = told if told and told.casefold() in first_page.casefold() else ""
    notes = [f"{name}: no text on {plural(len(empty), 'page')} of {len(pages)}, perhaps scanned"] if empty else []
    body = _body_size(pages)
    return Document(name, tuple(build_blocks(without_running_heads(pages, body), body)), title, tuple(notes))


def _body_size(pages: Sequence[Page]) -> float:
    """Return the size in which most characters are set, in points."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            sizes[line.size] += len(line.text)
    return sizes.most_common(1)[0][0]


def build_blocks(pages: Sequence[Page], body: float) -> list[Block]:
    """Return the headings and paragraphs of pages; a heading is larger than the text, or a bold line of its own.

    Args:
        pages: The pages.
        body: Size of the text, in points.
    """
    placed = [found for page in pages for found in _placed(page)]
    styles = {style for found in placed if (style := _style(found.line, body))}
    levels = {style: level for level, style in enumerate(sorted(styles, reverse=True), start=1)}
    pitch = _pitch(pages, body)
    blocks: list[Block] = []
    last: _Placed | None = None
    for found in placed:
        style = _style(found.line, body)
        level = levels[style] if style else 0
        if last and level and not blocks[-1].level and found.line.size == body and _goes_on(last, found, pitch):
            level = 0  # bold words that fill a line of a paragraph
        if last and level == blocks[-1].level and _continues(last, found, blocks[-1], pitch):
            blocks[-1] = Block(_joined(blocks[-1].text, found.line.text), level, blocks[-1].page)
        else:
            blocks.append(Block(found.line.text, level, found.page))
        last = found
    return [_plain(block) for block in blocks]


def _placed(page: Page) -> Iterator[_Placed]:
    """Yield the lines of a page, but for those of a table of contents; a column of some lines has its own margin."""
    columns: dict[int, list[float]] = defaultdict(list)
    for line in page.lines:
        columns[round(line.left / _INDENT)].append(line.right)
    widest = max((line.right for line in page.lines), default=0.0)
    for line in page.lines:
        ends = columns[round(line.left / _INDENT)]
        if not _DOTTED.search(line.text):
            yield _Placed(line, page.number, max(ends) if len(ends) >= _COLUMN_LINES else widest)


def _style(line: Line, body: float) -> tuple[float, bool] | None:
    """Return the size and weight of a heading; None: the line is text."""
    if not any(char.isalpha() for char in line.text) or count_words(line.text) > _HEADING_WORDS:
        return None
    if line.size >= _LARGER * body:
        return line.size, line.is_bold
    is_title = line.is_bold and line.size >= body and not _ENDS.search(line.text)
    return (body, True) if is_title else None


def _plain(block: Block) -> Block:
    """Return a heading that is too long to be one as a paragraph."""
    is_text = block.level and count_words(block.text) > _HEADING_WORDS
    return Block(block.text, 0, block.page) if is_text else block


def _pitch(pages: Sequence[Page], body: float) -> float:
    """Return the distance between the lines of a paragraph, in points: small among the distances that occur."""
    pairs = [pair for page in pages for pair in pairwise(page.lines)]
    steps = [upper.bottom - lower.top for upper, lower in pairs if upper.size == lower.size == body]
    apart = sorted(step for step in steps if step > _LEAST_PITCH * body)
    return apart[len(apart) // 4] if apart else _USUAL_PITCH * body


def _continues(last: _Placed, found: _Placed, block: Block, pitch: float) -> bool:
    """Return whether a line belongs to the block of the line before it, of the same level."""
    line = found.line
    if block.level:
        return not _ITEM.match(line.text) and last.page == found.page and _is_below(last, found, pitch)
    is_new_part = last.page != found.page or line.top > last.line.bottom + pitch / 2  # a new page, or a new column
    if is_new_part or _ITEM.match(line.text):
        return is_new_part and _goes_on(last, found, None)
    is_indented = line.left > last.line.left + _INDENT and not _ITEM.match(block.text)
    is_first = is_indented and _ENDS.search(last.line.text)
    return _is_below(last, found, pitch) and not is_first and not (_is_short(last) and not line.text[0].islower())


def _goes_on(last: _Placed, found: _Placed, pitch: float | None) -> bool:
    """Return whether a line is in the middle of a sentence; with a pitch, it must stand right below the last one."""
    if _ITEM.match(found.line.text) or _ENDS.search(last.line.text) or _is_short(last):
        return False
    return pitch is None or (last.page == found.page and _is_below(last, found, pitch))


def _is_below(last: _Placed, found: _Placed, pitch: float) -> bool:
    step = last.line.bottom - found.line.top
    return -pitch / 2 <= step <= _APART * max(pitch, last.line.size)


def _is_short(last: _Placed) -> bool:
    """Return whether a line ends so early that a paragraph ends with it."""
    return last.line.right - last.line.left < _SHORT * (last.margin - last.line.left)


def _joined(text: str, line: str) -> str:
    """Join two lines; no space where a script does without."""
    both_unspaced = _UNSPACED.match(text[-1]) and _UNSPACED.match(line[0])
    return f"{text}{'' if both_unspaced else ' '}{line}"
