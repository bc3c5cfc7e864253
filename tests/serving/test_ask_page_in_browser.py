"""The page on which people ask, in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser, Page
from served_site import QUESTION, Service, copied_site, serving

from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.site_folder import load_site
from fedrag.runs.run_folder import RunFolder
from fedrag.serving.guard import Tokens

pytestmark = needs_chromium

TOKEN = "a-token-of-more-than-twenty-characters"
COLOURS = """() => ["body", "#answer", "#passages li", "button.main"].flatMap(selector => {
  const style = getComputedStyle(document.querySelector(selector)); return [style.color, style.backgroundColor] })"""
HOSTILE = "<img src=http://127.0.0.1:9/x.png onerror=alert(1)>"


@pytest.fixture
def site(run: RunFolder, tmp_path: Path) -> Iterator[Service]:
    """A service whose feedback is its own."""
    with serving(run.path, copied_site(tmp_path)) as service:
        yield service


def asked(browser: Browser, service: Service, width: int = 1100, question: str = QUESTION, **options: Any):
    """Open the page and ask; return it with the requests and the complaints that it made."""
    page, requests, complaints = watched_page(browser, width, **options)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(service.address)
    page.get_by_role("heading", name="Ask north").wait_for()
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    page.locator("#read").wait_for()
    return page, requests, complaints


def kept(page: Page, service: Service):
    """Return what was stored, once the page says so."""
    page.get_by_text("Kept at this site, without your name").wait_for()
    [row] = FeedbackStore(service.data).rows()
    return row


def test_the_answer_stands_above_the_passages_it_was_read_from(browser: Browser, service: Service):
    page, requests, complaints = asked(browser, service)
    body = {"model": "fedrag", "messages": [{"role": "user", "content": QUESTION}]}
    reply = httpx.post(f"{service.api}/chat/completions", json=body).json()
    assert page.locator("#answer").inner_text() == (reply["choices"][0]["message"]["content"] or "No answer")
    titles = [passage["title"] for passage in reply["fedrag"]["passages"]]
    assert page.locator("#passages .title").all_inner_texts() == titles
    page.get_by_role("button", name="More passages").click()
    page.locator("#passages li").nth(7).wait_for()
    told = page.get_by_text("not read for this answer").all()
    assert [note.is_visible() for note in told] == [False] * 2 + [True] * 6
    assert {url for url in requests if not url.startswith(f"{service.address}/")} == set()
    assert complaints == []


def test_a_right_answer_is_kept_with_the_ticked_passage(browser: Browser, site: Service):
    page, _, complaints = asked(browser, site)
    page.get_by_label("holds the answer").nth(1).check()
    page.get_by_role("button", name="Right").click()
    row = kept(page, site)
    assert (row.question, row.verdict, row.correction, row.state) == (QUESTION, "right", "", "new")
    assert row.right_ids == row.shown[1:2]
    assert page.get_by_role("button", name="Wrong").is_disabled()
    assert complaints == []


def test_a_wrong_answer_is_corrected_with_a_passage_that_was_not_found(browser: Browser, site: Service):
    page, _, complaints = asked(browser, site)
    page.get_by_role("button", name="Wrong").click()
    page.get_by_label("The right answer").fill(" two coins a week ")
    page.get_by_role("button", name="More passages").click()
    page.locator("#passages li").nth(7).get_by_label("holds the answer").check()
    page.get_by_role("button", name="Keep").click()
    row = kept(page, site)
    assert (row.verdict, row.correction) == ("wrong", "two coins a week")
    assert (len(row.shown), row.right_ids) == (8, row.shown[7:])
    assert set(row.shown) == {passage.id for passage in load_site(site.data).passages}
    assert complaints == []


def test_what_is_asked_and_found_is_text_and_no_markup(browser: Browser, run: RunFolder, tmp_path: Path):
    data = copied_site(tmp_path)
    rows = [json.loads(line) for line in (data / "passages.jsonl").read_text().splitlines()]
    hostile = [row | {"title": HOSTILE, "text": f"{HOSTILE} {row['text']}", "source": HOSTILE} for row in rows]
    (data / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hostile))
    with serving(run.path, data) as service:
        page, _, complaints = asked(browser, service, question=f"{HOSTILE} {QUESTION}")
        page.get_by_label("Question").fill("another")
        for place in ("#asked", ".title", ".source", ".text"):
            assert HOSTILE in page.locator(place).first.inner_text()
        assert page.locator("img").count() == 0
    assert complaints == []


def test_a_question_that_is_too_long_is_told_to_be_cut(browser: Browser, service: Service):
    page, _, _ = asked(browser, service, question="Why? " * 100)
    assert page.get_by_text("The question is too long: its end was not read.").is_visible()


def test_the_token_is_asked_for_once_and_kept_for_the_tab(browser: Browser, run: RunFolder, tmp_path: Path):
    with serving(run.path, copied_site(tmp_path), Tokens(TOKEN)) as service:
        page, _, _ = watched_page(browser, 390)
        page.goto(service.address)
        page.get_by_label("This service asks for its token").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("This is not the token.").wait_for()
        page.get_by_label("This service asks for its token").fill(TOKEN)
        page.get_by_role("button", name="Use it").click()
        page.get_by_role("heading", name="Ask north").wait_for()
        page.reload()
        page.get_by_role("heading", name="Ask north").wait_for()
        assert page.locator("#token").is_hidden()


def test_a_service_that_is_gone_is_told(browser: Browser, run: RunFolder, tmp_path: Path):
    with serving(run.path, copied_site(tmp_path)) as service:
        page, _, _ = asked(browser, service)
    page.get_by_label("Question").fill("Anyone?")
    page.keyboard.press("Enter")
    page.get_by_text("The service does not answer. Has it been stopped?").wait_for()


@pytest.mark.parametrize("width", [320, 1100])
def test_the_page_speaks_the_language_of_the_browser(browser: Browser, site: Service, width: int):
    page, _, complaints = watched_page(browser, width, locale="vi-VN")
    page.goto(site.address)
    page.get_by_role("heading", name="Hỏi north").wait_for()
    assert (page.title(), page.evaluate("document.documentElement.lang")) == ("Hỏi north", "vi")
    page.get_by_label("Câu hỏi").fill(QUESTION)
    page.keyboard.press("Enter")
    page.locator("#read").wait_for()
    page.get_by_role("button", name="Sai").click()
    page.get_by_label("Đáp án đúng, càng ngắn càng tốt").fill("two coins a week")
    page.get_by_label("có chứa đáp án").first.check()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Lưu").click()
    page.get_by_text("Đã lưu tại đơn vị này, không kèm tên bạn.").wait_for()
    assert complaints == []


def test_the_language_that_is_set_goes_before_the_browsers(
    browser: Browser, service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEDRAG_LANG", "zh")
    page, _, _ = watched_page(browser, 390, locale="vi-VN")
    page.goto(service.address)
    page.get_by_role("heading", name="向 north 提问").wait_for()
    assert "，使用 tiny-1 的模型" in page.locator("header .note").inner_text()


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
def test_the_page_does_not_scroll_sideways(browser: Browser, service: Service, width: int):
    page, _, _ = asked(browser, service, width)
    page.get_by_role("button", name="Wrong").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_dark_and_light_differ_in_every_colour(browser: Browser, service: Service):
    light, dark = (asked(browser, service, color_scheme=scheme)[0].evaluate(COLOURS) for scheme in ("light", "dark"))
    clear = "rgba(0, 0, 0, 0)"
    assert [one != other for one, other in zip(light, dark, strict=True) if one != clear] == [True] * 7
