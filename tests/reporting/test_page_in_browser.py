"""The page as a browser shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser

from fedrag.reporting.page import write_report
from fedrag.runs.run_folder import RunFolder

pytestmark = needs_chromium

COLOURS = """() => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.body).color,
    getComputedStyle(document.querySelector('figure svg text')).fill,
]"""


@pytest.fixture(scope="module")
def report(whole_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(whole_run, tmp_path_factory.mktemp("report") / "report.html")


def opened(browser: Browser, report: Path, width: int = 1100, **options: Any):
    """Open the page; return it with the requests and the complaints that it made."""
    page, requests, complaints = watched_page(browser, width, **options)
    page.goto(report.as_uri(), wait_until="networkidle")
    return page, requests, complaints


def test_it_asks_for_nothing_and_complains_of_nothing(browser: Browser, report: Path):
    page, requests, complaints = opened(browser, report)
    assert page.title() == "whole: report of a federated run"
    assert requests == [report.as_uri()]
    assert complaints == []


def test_a_request_and_a_complaint_would_be_noticed(browser: Browser, report: Path, tmp_path: Path):
    spoilt = report.read_text(encoding="utf-8").replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>')
    (tmp_path / "spoilt.html").write_text(spoilt, encoding="utf-8")
    page = browser.new_page()
    with page.expect_console_message() as complaint, page.expect_request("http://127.0.0.1:9/x.png"):
        page.goto((tmp_path / "spoilt.html").as_uri())
    assert "Content Security Policy" in complaint.value.text


@pytest.mark.parametrize("width", [320, 380, 768, 1400])
def test_the_page_does_not_scroll_sideways(browser: Browser, report: Path, width: int):
    page, _, _ = opened(browser, report, width)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_wide_table_scrolls_in_its_own_box(browser: Browser, report: Path):
    page, _, _ = opened(browser, report, 380)
    assert page.evaluate(
        "(() => { const box = document.querySelector('.scroll'); return box.scrollWidth > box.clientWidth })()"
    )


def test_dark_and_light_differ_in_paper_ink_and_plots(browser: Browser, report: Path):
    light, dark = (opened(browser, report, color_scheme=scheme)[0].evaluate(COLOURS) for scheme in ("light", "dark"))
    assert all(one != other for one, other in zip(light, dark, strict=True))
    for paper, *inks in (light, dark):
        assert all(ink != paper for ink in inks)


def test_print_opens_all_examples(browser: Browser, report: Path):
    page, _, _ = opened(browser, report)
    closed = page.locator("details:not([open]) article").first
    assert not closed.is_visible()
    page.emulate_media(media="print")
    assert closed.bounding_box()["height"] > 50
