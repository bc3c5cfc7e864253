"""Reads plain text and Markdown."""

from __future__ import annotations

import re
from pathlib import Path

from fedrag.data.documents.document import Block, Document, UnreadableDocument, one_line
from fedrag.data.documents.webpage import document_of_html
from fedrag.data.importers.text_file import read_text
from fedrag.data.words import count_words

_HEADING_WORDS = 8
_SHORT = 0.7  # of the longest line: a line that ends there ends its paragraph
_UNDERLINE = re.compile(r"^(=+|-+|~+|\*+)$")
_ITEM = re.compile(r"^\s*([-*•]|\(?\d{1,2}[.)])\s")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def read_plain_text(path: Path, name: str, encoding: str | None = None) -> Document:
    """Read plain text: paragraphs stand between blank lines, a short line without a full stop is a heading.

    Args:
        path: The file.
        name: Its path below its folder.
        encoding: Its encoding; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: It is not text in this encoding.
        UnreadableDocument: It holds no text.
    """
    blocks: list[Block] = []
    text = read_text(path, encoding).replace("\r\n", "\n")
    width = max(map(len, text.split("\n")))
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", text)]
    for number, part in enumerate(parts):
        lines = part.split("\n")
        if len(lines) > 1 and _UNDERLINE.match(lines[1].strip()):
            blocks.append(Block(one_line(lines[0]), 1))
            lines = lines[2:]
        elif len(lines) == 1 and number + 1 < len(parts) and _is_heading(part):
            blocks.append(Block(one_line(part), 2))
            continue
        blocks += [Block(text) for text in _paragraphs(lines, width)]
    if not any(not block.level for block in blocks):
        raise UnreadableDocument("it holds no text")
    return Document(name, tuple(blocks))


def read_markdown(path: Path, name: str, encoding: str | None = None) -> Document:
    """Read Markdown; see `read_plain_text` for the arguments.

    Raises:
        ConfigError: A library is not installed.
        DataError: It is not text in this encoding.
        UnreadableDocument: It holds no text.
    """
    from markdown_it import MarkdownIt  # comes with rich

    text = _FRONT_MATTER.sub("", read_text(path, encoding).replace("\r\n", "\n"))
    return document_of_html(MarkdownIt("commonmark").enable("table").render(text), name)


def _is_heading(line: str) -> bool:
    text = one_line(line)
    has_letter = any(char.isalpha() for char in text)
    return has_letter and count_words(text) <= _HEADING_WORDS and text[-1].isalnum() and not _ITEM.match(text)


def _paragraphs(lines: list[str], width: int) -> list[str]:
    """Join the lines of a paragraph; an item of a list, and what follows a short line, is one of its own.

    Args:
        lines: The lines between two blank ones.
        width: Length of the longest line of the file.
    """
    found: list[str] = []
    last = ""
    for line in map(str.rstrip, lines):
        ends = len(last) < _SHORT * width and not line.lstrip()[:1].islower()
        if found and not ends and not _ITEM.match(line):
            found[-1] += f" {line}"
        else:
            found.append(line)
        last = line
    return [text for text in map(one_line, found) if text]
