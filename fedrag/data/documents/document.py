"""What a document is once it is read: a title and blocks of text in reading order."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fedrag.errors import ConfigError


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
    r"""Return a text with a space for every run of white space.

    >>> one_line(" Visits\n  end ")
    'Visits end'
    """
    return " ".join(text.replace("\u00ad", "").split())  # a soft hyphen only says where a word may be broken
