"""What a document is once it is read: a title and blocks of text in reading order."""

from __future__ import annotations

import importlib.util
import unicodedata
from dataclasses import dataclass

from fedrag.errors import ConfigError

_LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
_AS_TYPED: dict[int, str] = {
    **dict.fromkeys(range(0xF000, 0xF100), "•"),  # what Word's list marks become in a PDF
    **{ord(ligature): letters for ligature, letters in _LIGATURES.items()},
    **{code: " " for code in range(32)},
    ord("\u00ad"): "",  # a soft hyphen only says where a word may be broken
    ord("\ufeff"): "",
    ord("\u200b"): "",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph, an item of a list or a row of a table.

    Attributes:
        level: Of a heading, 1 for the highest; 0: no heading.
        page: Page on which it begins, from 1; 0: the document has no pages.
    """

    text: str
    level: int = 0
    page: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A document.

    Attributes:
        path: Where it lies below its folder, with `/` between the names.
        title: What it calls itself; "" where it does not say.
        notes: What of it could not be read, in one sentence each.
    """

    path: str
    blocks: tuple[Block, ...]
    title: str = ""
    notes: tuple[str, ...] = ()


class UnreadableDocument(Exception):
    """A document is left out; the text says why, without its name."""


def require_library(module: str, kind: str) -> None:
    """Refuse documents of a kind if the library that reads them is missing.

    Args:
        module: What the library is imported as.
        kind: What it reads, for the message.

    Raises:
        ConfigError: It is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"to read {kind} the library {module} is needed; run: pip install 'fedrag[documents]'")


def one_line(text: str) -> str:
    r"""Return a text with a space for every run of white space, and characters as people type them.

    >>> one_line(" Visits\n  e\u0301nd "), one_line("\uf0b7 \ufb01rst")
    ('Visits énd', '• first')
    """
    return " ".join(unicodedata.normalize("NFC", text).translate(_AS_TYPED).split())
