"""The page of an audit, for whoever answers for the data: what was found, in plain words, and what was not tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.files import write_text
from fedrag.privacy.findings import headline, not_tested, sentences
from fedrag.reporting.page import filled

PAGE = "audit.html"


def write_audit_page(folder: Path, name: str, result: Mapping[str, Any]) -> Path:
    """Write the page and return its path.

    Args:
        folder: Where to.
        name: Whose models were audited.
        result: What `fedrag.privacy.audit.audit_of` returned.

    Raises:
        StorageError: It cannot be written.
    """
    path = folder / PAGE
    content = {
        "name": name,
        "headline": headline(result),
        "sentences": sentences(result),
        "not_tested": not_tested(result),
        "has_canaries": "canaries" in result,
        "was_attacked": bool(result.get("reconstruction")),
        "version": __version__,
    }
    write_text(path, filled("audit.html.jinja", content))
    return path
