"""Every link between the documents leads somewhere: to a file that exists and, after a #, to one of its headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "simulations", "clients", "server", "fedrag/template", "tests/benchmarks")
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))


def without_code(text: str) -> str:
    """Return a document without its blocks of code, in which a # begins a comment."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them.

    >>> sorted(anchors("# The map\\n## A site's settings: site.toml\\n"))
    ['a-sites-settings-sitetoml', 'the-map']
    """
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text(encoding="utf-8"))):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        found = target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))
        if not found:
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str):
    assert broken_links(ROOT / document) == []


def test_a_link_that_leads_nowhere_would_be_noticed(tmp_path: Path):
    (tmp_path / "there.md").write_text("# A heading\n```\n# A comment\n```\n")
    links = ("there.md", "there.md#a-heading", "#own", "there.md#a-comment", "away.md", "#nothing", "https://x.org/")
    here = tmp_path / "here.md"
    here.write_text("# Own\n" + " ".join(f"[x]({link})" for link in links))
    assert broken_links(here) == ["there.md#a-comment", "away.md", "#nothing"]


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if document.count("/") == 0])
def test_the_readme_leads_to_every_document_at_the_top(document: str):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert document == "README.md" or f"]({document})" in text
