"""Drops what recurs at the edges of pages: running heads and feet, and page numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace

from fedrag.data.documents.pdf_lines import Line, Page

_EDGE = 4  # lines at each edge that may be a head or a foot
_PAGES = 3  # on which a line must recur, unless it counts them
_SMALL = 0.9  # of the size of the text
_APART = 2.0  # of the size of the text: distance between a head and the text, in the same unit
_NUMBER = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxlc]+")


def without_running_heads(pages: Sequence[Page], body: float) -> list[Page]:
    """Return the pages without the outermost lines that recur.

    A line recurs if it is the same on three pages, on both of two, or if on two pages it differs in a number that goes
    up with the pages, as in "Page 3 of 9". Of a single page, small print that stands apart is dropped.

    Args:
        pages: The pages of a document.
        body: Size of its text, in points. A larger line is dropped only if it is the same letter for letter: it may
            be the heading of a chapter.
    """
    seen: Counter[Hashable] = Counter()
    for page in pages:
        lines = _by_height(page)
        seen.update({key for line in lines[:_EDGE] + lines[-_EDGE:] for key in _keys(line, page.number, body)})
    needed = min(_PAGES, max(2, len(pages)))

    def is_head(line: Line, inner: Line, page: int) -> bool:
        recurs = any(seen[key] >= (needed if isinstance(key, str) else 2) for key in _keys(line, page, body))
        return recurs or _is_page_number(line, page) or (len(pages) == 1 and _is_small_print(line, inner, body))

    return [_peel(page, is_head) for page in pages]


def _peel(page: Page, is_head: Callable[[Line, Line, int], bool]) -> Page:
    """Take heads and feet off both edges until another line is the outermost."""
    lines = _by_height(page)
    dropped: set[int] = set()
    for edge in (lines, lines[::-1]):
        for line, inner in zip(edge[:_EDGE], [*edge[1:], *edge[-1:]], strict=False):
            if not is_head(line, inner, page.number):
                break
            dropped.add(id(line))
    return replace(page, lines=tuple(line for line in page.lines if id(line) not in dropped))


def _is_small_print(line: Line, inner: Line, body: float) -> bool:
    """Return whether a line is smaller than the text, and further from the next one than lines of a text are."""
    return line.size < _SMALL * body and abs(line.top - inner.top) > _APART * body


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
