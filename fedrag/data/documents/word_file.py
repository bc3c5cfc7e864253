"""Reads Word files (.docx) by mammoth, which turns their styles into HTML; headers and footers are not read."""

from __future__ import annotations

from pathlib import Path

from fedrag.data.documents.document import Document, UnreadableDocument, require_library
from fedrag.data.documents.webpage import document_of_html

_STYLES = """
p[style-name='Title'] => h1.title:fresh
p[style-name^='toc '] => !
p[style-name='TOC Heading'] => !
"""
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""How a file of the old Office formats begins, and one that Office has encrypted."""


def read_word_file(path: Path, name: str) -> Document:
    """Read a Word file. It has no pages: they are made where it is shown.

    Args:
        path: The file.
        name: Its path below its folder.

    Raises:
        ConfigError: The library is not installed.
        UnreadableDocument: It is encrypted, damaged, or holds no text.
    """
    require_library("mammoth", "Word files")
    import mammoth  # an extra

    with path.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            raise UnreadableDocument("it is encrypted, or of Word before 2007; save it as .docx without a password")
        file.seek(0)
        try:
            pictures = mammoth.images.img_element(lambda image: {})
            html = mammoth.convert_to_html(file, style_map=_STYLES, convert_image=pictures).value
        except Exception:  # on a damaged file the library fails in many ways
            raise UnreadableDocument("it is damaged or no Word file") from None
    return document_of_html(html, name)
