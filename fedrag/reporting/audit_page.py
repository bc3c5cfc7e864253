"""The page of an audit, for whoever answers for the data: what was found, in plain words, and what was not tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.files import write_text
from fedrag.languages.catalogue import Words
from fedrag.languages.reader import page_languages
from fedrag.privacy.findings import headline, not_tested, sentences
from fedrag.reporting.html_page import fill_page

PAGE = "audit.html"


def write_audit_page(folder: Path, name: str, result: Mapping[str, Any]) -> Path:
    """Write the page, in the language of FEDRAG_LANG or in all, and return its path.

    Args:
        folder: Where to.
        name: Whose models were audited.
        result: What `fedrag.privacy.audit.audit_of` returned.

    Raises:
        ConfigError: FEDRAG_LANG names no language of fedrag.
        StorageError: It cannot be written.
    """
    path = folder / PAGE

    def content(words: Words) -> dict[str, Any]:
        return {
            "title": words("audit.title", name=name),
            "name": name,
            "headline": headline(result, words),
            "sentences": sentences(result, words),
            "not_tested": not_tested(result, words),
            "has_canaries": "canaries" in result,
            "was_attacked": bool(result.get("reconstruction")),
            "version": __version__,
        }

    write_text(path, fill_page("audit.html.jinja", page_languages(), content))
    return path
