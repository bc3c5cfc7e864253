"""The pages in each language: nothing English is left, and the reader gets the language of the browser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser, expect
from test_page import Page

from fedrag.api.run import Run
from fedrag.languages.catalogue import LANGUAGES, Sentence, Words, sentences
from fedrag.privacy.membership import Separation
from fedrag.reporting.audit_page import write_audit_page
from fedrag.reporting.page import render, write_report
from fedrag.runs.run_folder import RunFolder

OF_THE_FIELD = {"EM", "F", "ROUGE", "L", "Recall", "MRR", "nDCG"}
OF_PROGRAMS = {"fedrag", "simulate", "scenario", "toml", "server", "run", "DIR", "UTC", "B", "kB", "MB"}
OF_SETTINGS = {"joint", "float", "tiny", "cpu", "e"}
CLEAR = Separation(300, 200, 0.9, 0.85, 0.95, 0.4, 0.3, 0.5).to_json()
AUDITED = {
    "membership": {"generator": CLEAR},
    "answers": {
        kind: {"trained": {"hits": 3, "n": 8}, "untouched": {"hits": 0, "n": 8}} for kind in ("members", "others")
    },
    "passages": {"trained": {"hits": 1, "n": 9}, "untouched": {"hits": 0, "n": 9}},
    "canaries": {
        "planted": 100,
        "held_back": 100,
        "membership": {"generator": CLEAR},
        "epsilon": {"generator": {"epsilon": 1.5, "delta": 1e-5, "n_canaries": 200, "n_guesses": 100, "n_right": 90}},
        "allowed": 4.5,
    },
    "reconstruction": {"questions": 2, "sites": 6, "tokens": 28, "plain": 13, "other": 1, "sum": 4, "guess": 6},
}


def marked(sentence: Sentence) -> Sentence:
    """Return a sentence with other letters, its placeholders left."""
    if not isinstance(sentence, str):
        return {form: str(marked(text)) for form, text in sentence.items()}
    parts = re.split(r"(\{\w+\})", sentence)
    return "".join(part if part.startswith("{") else re.sub("[A-Za-z]", "ж", part) for part in parts)


@pytest.fixture
def no_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the English catalogue be of other letters: whatever Latin letters a page then holds come from elsewhere."""
    other = {key: marked(text) for key, text in sentences("en").items()}
    monkeypatch.setattr("fedrag.languages.catalogue.sentences", lambda code: other)


def latin(text: str) -> set[str]:
    return set(re.findall("[A-Za-z]+", text))


def values(told: Any) -> Iterator[str]:
    """Yield the values in a JSON object, without the keys."""
    if isinstance(told, Mapping | list):
        for value in told.values() if isinstance(told, Mapping) else told:
            yield from values(value)
    else:
        yield str(told)


def of_data(run: RunFolder) -> set[str]:
    """Return all words of a run's sites, and of where it ran and lies."""
    folder = Path(run.config.data.sites)
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.jsonl")]
    measured = [path.read_text(encoding="utf-8") for path in (run.path / "evaluation").glob("*.jsonl")]
    return latin(" ".join([*texts, *measured, *map(str, folder.rglob("*")), str(run.path), *values(run.facts)]))


@pytest.mark.usefixtures("no_english")
def test_whatever_stands_on_a_report_comes_from_the_catalogue_or_from_the_data(whole_run: RunFolder):
    page = Page(render(whole_run))
    libraries = latin(" ".join(whole_run.facts["versions"]))
    known = of_data(whole_run) | libraries | OF_THE_FIELD | OF_PROGRAMS | OF_SETTINGS
    assert latin(" ".join([page.text, *page.labels])) - known == set()


@pytest.mark.usefixtures("no_english")
def test_whatever_stands_on_the_page_of_an_audit_comes_from_the_catalogue(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FEDRAG_LANG", "en")
    page = Page(write_audit_page(tmp_path, "77", AUDITED).read_text(encoding="utf-8"))
    assert latin(page.text) - {"fedrag", "e"} == set()


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_page_of_an_audit_says_all_in_each_language(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_LANG", code)
    page = write_audit_page(tmp_path, "clinic", AUDITED).read_text(encoding="utf-8")
    assert f'<html lang="{code}">' in page
    assert Words(code).number("1.50") in page
    assert "{" not in Page(page).text


def test_a_notebook_shows_a_run_in_the_language_that_is_set(whole_run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_LANG", "zh")
    card = Run.of(whole_run)._repr_html_()
    assert card.startswith('<div lang="zh"')
    assert "联邦训练在 7 个问题上的完全匹配" in card


@pytest.mark.parametrize("code", ["vi", "zh"])
def test_a_language_that_is_set_is_the_only_one(code: str, whole_run: RunFolder, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FEDRAG_LANG", code)
    html = write_report(whole_run, tmp_path / "report.html").read_text(encoding="utf-8")
    page, words = Page(html), Words(code)
    assert f'<html lang="{code}">' in html
    assert page.headings[0] == words("report.measured")
    assert not {"script", "input"} & set(page.tags)
    assert Words("en")("report.measured") not in page.text


@pytest.fixture(scope="module")
def report(whole_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole_run, tmp_path_factory.mktemp("languages") / "report.html")


def shown(page) -> list[str]:
    """Return the languages that can be seen."""
    return [code for code in LANGUAGES if page.locator(f'main > [lang="{code}"]').is_visible()]


@needs_chromium
@pytest.mark.parametrize(("locale", "code"), [("vi-VN", "vi"), ("zh-TW", "zh"), ("en-GB", "en"), ("fr-FR", "en")])
def test_the_browser_chooses_the_language(browser: Browser, report: Path, locale: str, code: str):
    page, requests, complaints = watched_page(browser, 1100, locale=locale)
    page.goto(report.as_uri(), wait_until="networkidle")
    assert shown(page) == [code]
    assert page.evaluate("document.documentElement.lang") == code
    assert page.title() == Words(code)("report.title", name="whole")
    assert (requests, complaints) == ([report.as_uri()], [])


@needs_chromium
def test_the_reader_may_choose_another(browser: Browser, report: Path):
    page, _, complaints = watched_page(browser, 320, locale="vi")
    page.goto(report.as_uri())
    page.get_by_label("中文").check()
    assert shown(page) == ["zh"]
    assert page.title() == "whole：联邦训练报告"
    page.keyboard.press("ArrowUp")
    expect(page.get_by_label("Tiếng Việt")).to_be_checked()
    assert shown(page) == ["vi"]
    for name in ("Tiếng Việt", "中文"):
        page.get_by_label(name).check()
        page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") == 320
    assert complaints == []


@needs_chromium
def test_without_scripts_the_page_is_english_and_can_still_be_switched(browser: Browser, report: Path):
    page, _, _ = watched_page(browser, 1100, locale="vi", java_script_enabled=False)
    page.goto(report.as_uri())
    assert shown(page) == ["en"]
    page.get_by_label("Tiếng Việt").check()
    assert shown(page) == ["vi"]


@needs_chromium
def test_no_two_pictures_share_a_name_within_the_page(browser: Browser, report: Path):
    """What is hidden would be drawn instead."""
    page, _, _ = watched_page(browser, 1100)
    page.goto(report.as_uri())
    ids = [
        page.evaluate(f"[...document.querySelectorAll('main > [lang={code}] clipPath')].map((one) => one.id)")
        for code in LANGUAGES
    ]
    assert all(ids)
    assert len(set().union(*ids)) == sum(map(len, ids))
