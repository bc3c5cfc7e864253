"""Which language a reader gets, and what is said of one that fedrag does not speak."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.languages.reader import accepted_language, page_languages

SENTENCE = "FEDRAG_LANG=de: expected en, vi or zh; without it, a page speaks the language of the reader's browser"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("en;q=0.5, zh-Hans-CN;q=0.7", "zh"),
        ("fr-FR, de;q=0.9, zh;q=0.1", "zh"),
        ("zh;q=0.8, vi;q=0.8", "zh"),  # of equals, the first
        ("ZH", "zh"),
        ("", "en"),
        ("*", "en"),
        ("vi;q=0", "en"),
        ("vi;q=nan, ,;;q=1, zh;level=1", "en"),
    ],
)
def test_a_browser_gets_the_language_that_it_prefers(header: str, code: str):
    assert accepted_language(header).code == code


def test_a_file_has_all_languages_or_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch):
    for value, codes in {"": ["en", "vi", "zh"], "zh": ["zh"]}.items():
        monkeypatch.setenv("FEDRAG_LANG", value)
        assert [words.code for words in page_languages()] == codes


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "nowhere"],
        ["audit", "nowhere"],
        ["simulate", "nowhere.toml"],
        ["client", "evaluate", "nowhere"],
        ["client", "audit-model", "nowhere"],
    ],
)
def test_an_unknown_language_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDRAG_LANG", "de")
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {SENTENCE}\n")
    assert list(tmp_path.iterdir()) == []
