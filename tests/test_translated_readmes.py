"""The translated READMEs show the commands and the figures of the English one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRANSLATED = sorted(path.name for path in ROOT.glob("README.*.md"))


def figures(name: str) -> list[list[str]]:
    """Return the numbers of each row of the table of results."""
    rows = re.findall(r"^\|.*\|$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return [found for row in rows if len(found := re.findall(r"\b\d+\.\d\b", row)) == 4]


def first_block(name: str) -> str:
    """Return the first commands of a document."""
    found = re.search(r"^```\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_translated_readme_has_the_commands_and_figures_of_the_english_one(name: str):
    assert len(figures("README.md")) == 4
    assert (figures(name), first_block(name)) == (figures("README.md"), first_block("README.md"))


def test_there_is_one_in_vietnamese_and_one_in_chinese():
    assert TRANSLATED == ["README.vi.md", "README.zh.md"]
