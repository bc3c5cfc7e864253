"""Deals rows to the drafts of the sites that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedrag.data.importers.draft import SiteDraft, unique_slugs
from fedrag.data.importers.fields import site_of
from fedrag.data.importers.text_file import Row

SiteRow = tuple[SiteDraft, str, Mapping[str, Any]]
"""The draft of a row's site, the row's place, for messages, and its columns."""


def rows_by_site(rows: Iterable[Row], site: str | None, default: str) -> tuple[list[SiteDraft], list[SiteRow]]:
    """Return an empty draft for each site, and every row with the draft of its site.

    Args:
        rows: The rows of a file.
        site: Column that names the site; None: all rows are of one site.
        default: Name of that one site.

    Raises:
        DataError: A row names no site.
    """
    read = [(site_of(row, site, place, default), place, row) for place, row in rows]
    names = unique_slugs(title for title, _, _ in read)
    drafts = {title: SiteDraft(name) for title, name in names.items()}
    return list(drafts.values()), [(drafts[title], place, row) for title, place, row in read]
