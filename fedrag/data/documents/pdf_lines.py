"""Reads the lines of a PDF with their place, size and weight, by PDFium (pypdfium2).

Of the libraries for PDF it was chosen because it tells page, place and font of every character, joins words that are
hyphenated at the end of a line, reads Chinese fonts that are not embedded, and takes some milliseconds a page.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrag.data.documents.document import UnreadableDocument, one_line, require_library

_BOLD_WEIGHT = 600
_BOLD_NAME = re.compile(r"bold|black|heavy|[-,]bd|cmbx|semib|demi", re.IGNORECASE)
_JOINED = "\ufffe"  # PDFium's mark for a hyphen at the end of a line


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page.

    Attributes:
        left: Distance of its first character from the left edge, in points.
        right: Distance of the end of its last character from the left edge, in points.
        top: Distance of its first character from the lower edge, in points.
        bottom: The same of its last character: a word that is hyphenated at the end of a line joins two.
        size: Size of its font, in points.
    """

    text: str
    left: float
    right: float
    top: float
    bottom: float
    size: float
    is_bold: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """The lines of a page in the order in which they are drawn; none where the page is a picture or empty."""

    number: int
    lines: tuple[Line, ...]


def read_pages(path: Path) -> tuple[list[Page], str]:
    """Return the pages of a PDF, and the title that its properties give, or "".

    Raises:
        ConfigError: The library is not installed.
        UnreadableDocument: It is encrypted or no PDF.
    """
    require_library("pypdfium2", "PDF")
    import pypdfium2  # an extra
    from pypdfium2 import raw  # an extra

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
            raise UnreadableDocument("it is encrypted; save a copy without a password") from None
        raise UnreadableDocument("it is damaged or no PDF") from None
    try:
        pages = [Page(number, tuple(_lines(document, number - 1))) for number in range(1, len(document) + 1)]
        return pages, one_line(document.get_metadata_value("Title"))
    except pypdfium2.PdfiumError:
        raise UnreadableDocument("a page of it is damaged") from None
    finally:
        document.close()


def _lines(document: Any, index: int) -> Iterator[Line]:
    page = document[index]
    characters = page.get_textpage()
    start = 0
    for raw_text in characters.get_text_range().split("\r\n"):
        text = one_line(raw_text.replace(_JOINED, ""))
        if text:
            first = start + len(raw_text) - len(raw_text.lstrip())
            yield _line(text, characters, first, start + len(raw_text.rstrip()) - 1)
        start += len(raw_text) + 2
    characters.close()
    page.close()


def _line(text: str, characters: Any, first: int, last: int) -> Line:
    """Return a line whose first and last characters stand at these places of the page's text."""
    from pypdfium2 import raw  # an extra

    at_first, at_middle, at_last = (
        raw.FPDFText_GetCharIndexFromTextIndex(characters, place) for place in (first, (first + last) // 2, last)
    )
    box, end, matrix = raw.FS_RECTF(), raw.FS_RECTF(), raw.FS_MATRIX()
    raw.FPDFText_GetLooseCharBox(characters, at_first, box)
    raw.FPDFText_GetLooseCharBox(characters, at_last, end)
    # The middle: the first character may be a bullet of another font. The matrix: many programs scale a font of size 1.
    raw.FPDFText_GetMatrix(characters, at_middle, matrix)
    size = raw.FPDFText_GetFontSize(characters, at_middle) * math.hypot(matrix.c, matrix.d)
    bold = all(_is_bold(characters, place) for place in (at_first, at_middle, at_last))
    return Line(text, box.left, end.right, box.bottom, end.bottom, round(2 * size) / 2, bold)


def _is_bold(characters: Any, place: int) -> bool:
    from pypdfium2 import raw  # an extra

    name = ctypes.create_string_buffer(100)
    raw.FPDFText_GetFontInfo(characters, place, name, len(name), None)
    weight = raw.FPDFText_GetFontWeight(characters, place)
    return weight >= _BOLD_WEIGHT or bool(_BOLD_NAME.search(name.value.decode(errors="replace")))
