"""Drops what recurs at the edges of pages: running heads and feet, and page numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from fedrag.data.documents.pdf_lines import Line, Page

_EDGE = 4  # lines at each edge that may be a head or a foot
_PAGES = 3  # on which a line must recur, unless it counts them
_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxlc]+")


def without_running_heads(pages: Sequence[Page], body: float) -> list[Page]:
    """Return the pages without the outermost lines that recur.

    A line recurs if it is the same on three pages, on both of two, or if on two pages it differs in a number that goes
    up with the pages, as in "Page 3 of 9".

    Args:
        pages: The pages of a document.
        body: Size of its text, in points. A larger line is dropped only if it is the same letter for letter: it may
            be the heading of a chapter.
    """
    seen: Counter[Hashable] = Counter()
    for page in pages:
        lines = _by_height(page)
        seen.update({key for line in lines[:_EDGE] + lines[-_EDGE:] for key in _keys(line, page.number, body)})
    return [_peel(page, seen, min(_PAGES, max(2, len(pages))), body) for page in pages]


def _peel(page: Page, seen: Counter[Hashable], needed: int, body: float) -> Page:
    """Take recurring lines off both edges until another line is the outermost."""
    lines = _by_height(page)
    dropped: set[int] = set()
    for edge in (lines, lines[::-1]):
        for line in edge[:_EDGE]:
            recurs = any(seen[key] >= (needed if isinstance(key, str) else 2) for key in _keys(line, page.number, body))
            if not recurs and not _is_page_number(line, page.number):
                break
            dropped.add(id(line))
    return replace(page, lines=tuple(line for line in page.lines if id(line) not in dropped))


def _is_page_number(line: Line, page: int) -> bool:
    return bool(_ROMAN.fullmatch(line.text)) or re.sub(r"\W", "", line.text) == str(page)


def _by_height(page: Page) -> list[Line]:
    """Return the lines from the highest to the lowest."""
    return sorted(page.lines, key=lambda line: -line.top)


def _keys(line: Line, page: int, body: float) -> Iterator[Hashable]:
    """Yield what a line may have in common with that of another page.

    >>> list(_keys(Line("Page 12 of 40", 0, 0, 0, 0, 8), 14, 10))
    ['Page 12 of 40', ('Page # of #', 0, -2), ('Page # of #', 1, 26)]
    """
    yield line.text
    if line.size <= body:
        for place, number in enumerate(_NUMBER.findall(line.text)):
            yield _NUMBER.sub("#", line.text), place, int(number) - page
