"""Reads HTML; Word files and Markdown come this way too, for their libraries turn them into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedrag.data.documents.document import Block, Document, UnreadableDocument, one_line, require_library
from fedrag.data.words import count_words

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_DROPPED = (
    *("script", "style", "noscript", "template", "svg", "iframe", "head"),
    *("button", "select", "textarea", "label"),
    *("nav", "aside", "footer", "dialog", "menu"),
)
_DROPPED_ROLES = ("navigation", "banner", "contentinfo", "search", "complementary", "menu", "dialog")
_HIDDEN = '[hidden], [aria-hidden="true"], [style*="display:none"], [style*="display: none"]'
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    (*_HEADINGS, "p", "li", "tr", "pre", "blockquote", "dt", "dd", "figcaption", "caption", "summary", "address")
)
_MENU_LINKS = 3  # in a list that is little else: a menu
_LINKED = 0.4  # of a menu's letters are those of links
_SENTENCE_ENDS = ".!?。！？"
_BOLD_HEADING_WORDS = 12
_BOLD_LEVEL = 7  # below h6: a paragraph that is bold as a whole


def read_webpage(path: Path, name: str) -> Document:
    """Read a file of HTML; its encoding is what it says itself.

    Args:
        path: The file.
        name: Its path below its folder.

    Raises:
        ConfigError: The library is not installed.
        UnreadableDocument: It holds no text.
    """
    return document_of_html(path.read_bytes(), name)


def document_of_html(html: bytes | str, name: str) -> Document:
    """Return the document in a text of HTML, without menus, heads, feet, forms and what is hidden."""
    require_library("bs4", "web pages, Word files and Markdown")
    from bs4 import BeautifulSoup  # an extra

    soup = BeautifulSoup(html, "html.parser")
    named = soup.find("h1", class_="title") or soup.title
    title = one_line(named.get_text()) if named else ""
    body = _body(soup)
    blocks = tuple(_blocks(body))
    if not any(not block.level for block in blocks):
        raise UnreadableDocument("it holds no text")
    return Document(name, blocks, title)


def _body(soup: BeautifulSoup) -> Tag:
    """Return the part that holds the text: what is marked as the main one, if anything is."""
    for tag in soup.find_all("br"):
        tag.replace_with("\n")
    for tag in [*soup.find_all(_DROPPED), *soup.find_all(role=_DROPPED_ROLES), *soup.select(_HIDDEN)]:
        tag.decompose()
    for anchor in soup.find_all("a"):
        if anchor.get_text(strip=True) in ("¶", "#", "§"):  # beside a heading, to link to it
            anchor.decompose()
    for tag in soup.find_all(["ul", "ol", "p", "div"]):
        if not tag.decomposed and _is_menu(tag):
            tag.decompose()
    mains = soup.find_all(["main", "article"]) or soup.find_all(role="main")
    if len(mains) == 1 or (mains and mains[0].name == "main"):
        return mains[0]
    for tag in soup.find_all("header"):  # of the page: that of an article holds its title
        if tag.find_parent("article") is None and not tag.find("h1"):
            tag.decompose()
    return soup


def _blocks(tag: Tag) -> Iterator[Block]:
    """Yield the blocks below a tag in order; loose text between them becomes paragraphs."""
    from bs4.element import NavigableString, Tag  # an extra

    loose: list[str] = []
    for child in tag.children:
        if type(child) is NavigableString:  # its subclasses are comments and the like
            loose.append(child)
        elif isinstance(child, Tag) and (_is_block(child) or child.find(_is_block)):
            yield from _paragraph(loose)
            yield from _nested(child)
        elif isinstance(child, Tag):
            loose.append(child.get_text())
    yield from _paragraph(loose)


def _is_block(tag: Tag) -> bool:
    return tag.name in _BLOCKS or tag.name == "div"


def _nested(tag: Tag) -> Iterator[Block]:
    """Yield the blocks of a tag that is one or holds some."""
    if tag.name in _HEADINGS:
        if text := one_line(tag.get_text(" ")):
            yield Block(text, _HEADINGS[tag.name])
    elif tag.name == "tr" and not tag.find(["table", "ul", "ol", *_HEADINGS]):  # with these, the table is a layout
        cells = (one_line(cell.get_text(" ")) for cell in tag.find_all(["td", "th"]))
        yield from _paragraph([" | ".join(filter(None, cells))])
    elif tag.find(_is_block):
        yield from _blocks(tag)
    elif tag.name == "pre":
        yield Block(tag.get_text().strip())
    elif text := one_line(tag.get_text()):
        if tag.name == "li":
            yield Block(f"- {text}")
        else:
            yield Block(text, _BOLD_LEVEL if tag.name == "p" and _is_bold_heading(tag, text) else 0)


def _paragraph(texts: list[str]) -> Iterator[Block]:
    """Yield a paragraph of the collected texts, if there is any, and forget them."""
    text = one_line("".join(texts))
    texts.clear()
    if text:
        yield Block(text)


def _is_menu(tag: Tag) -> bool:
    """Return whether a list, or a line of text, is links for the most part."""
    is_list = tag.name in ("ul", "ol")
    links = tag.find_all("a")
    if len(links) < (_MENU_LINKS if is_list else 2) or (not is_list and tag.find(_is_block)):
        return False
    text = one_line(tag.get_text())
    return sum(map(_length, links)) >= _LINKED * len(text) and not text.endswith(tuple(_SENTENCE_ENDS))


def _length(tag: Tag) -> int:
    return len(one_line(tag.get_text()))


def _is_bold_heading(tag: Tag, text: str) -> bool:
    """Return whether a paragraph is bold as a whole and short: a heading by hand."""
    bold = sum(_length(part) for part in tag.find_all(["b", "strong"]) if part.find_parent(["b", "strong"]) is None)
    return bold == len(text) and count_words(text) <= _BOLD_HEADING_WORDS and text[-1] not in f"{_SENTENCE_ENDS},;"
