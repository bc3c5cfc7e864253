"""The page of a reviewer, as a browser shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser, Page, expect
from served_site import QUESTION, Service, copied_site, serving

from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.runs.run_folder import RunFolder
from fedrag.serving.guard import Tokens

pytestmark = needs_chromium

HOSTILE = "<img src=http://127.0.0.1:9/x.png onerror=alert(1)>"
ROWS = (
    Feedback(QUESTION, HOSTILE, ("north-5", "north-3"), "wrong", "two coins a week", ("north-3",), id="late"),
    Feedback(f"Who carries the mail? {HOSTILE}", "", ("north-1",), "wrong", id="mail"),
    Feedback("How many steps are there?", "212", ("north-2",), "right", id="lamp"),
)


@pytest.fixture
def store(service: Service) -> FeedbackStore:
    store = FeedbackStore(service.data)
    store.path.unlink(missing_ok=True)
    for row in ROWS:
        store.add(row)
    return store


def opened(browser: Browser, service: Service, width: int = 1000, **options: object) -> tuple[Page, list[str]]:
    """Open the page; every request that leaves the service, and every complaint, ends in the list."""
    page, requests, complaints = watched_page(browser, width, **options)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: request.url.startswith(service.address) or complaints.append(request.url))
    page.goto(f"{service.address}/review")
    page.get_by_role("heading", name="Review what people said at north").wait_for()
    return page, complaints


def row(page: Page, question: str):
    return page.locator("article").filter(has=page.get_by_role("heading", name=question))


def test_a_reviewer_accepts_edits_drops_and_takes_back(browser: Browser, service: Service, store: FeedbackStore):
    page, complaints = opened(browser, service)
    assert page.locator("#counts").inner_text() == "3 in all: 3 new; 0 training questions from them."
    late = row(page, QUESTION)
    assert late.get_by_role("checkbox").nth(1).is_checked()
    assert late.locator("mark").inner_text() == "two coins a week"
    late.get_by_role("button", name="Accept").click()
    expect(late.locator(".decided")).to_have_text("Accepted")
    assert store.find("late").state == "accepted"
    expect(page.locator("#counts")).to_have_text("3 in all: 2 new, 1 accepted; 0 training questions from them.")

    mail = row(page, "Who carries the mail?")
    mail.get_by_label("The right answer").fill("the postman")
    mail.get_by_label("Find another passage").fill("bakers choir")
    mail.get_by_role("button", name="Find").click()
    mail.locator("li", has_text="A choir of forty bakers").get_by_role("checkbox").check()
    mail.get_by_role("button", name="Accept").click()
    expect(mail.locator(".decided")).to_have_text("Accepted as edited")
    edited = store.find("mail")
    assert (edited.state, edited.right_answer, edited.right_ids) == ("edited", "the postman", ("north-5",))

    lamp = row(page, "How many steps are there?")
    lamp.get_by_role("button", name="Drop").click()
    expect(lamp.locator(".decided")).to_have_text("Dropped")
    lamp.get_by_role("button", name="Undo").click()
    expect(lamp.get_by_role("button", name="Drop")).to_be_visible()
    assert store.find("lamp").state == "new"

    page.reload()
    expect(page.locator("article")).to_have_count(1)
    page.get_by_label("Also what was reviewed before").check()
    expect(page.locator("article")).to_have_count(3)
    assert complaints == []


def test_what_cannot_be_accepted_is_told_beside_it(browser: Browser, service: Service, store: FeedbackStore):
    page, _ = opened(browser, service)
    mail = row(page, "Who carries the mail?")
    mail.get_by_role("button", name="Accept").click()
    told = mail.get_by_role("alert")
    expect(told).to_contain_text("it has neither a right answer nor a right passage yet")
    assert store.find("mail").state == "new"


def test_markup_in_feedback_is_text(browser: Browser, service: Service, store: FeedbackStore):
    page, complaints = opened(browser, service)
    assert page.locator("img").count() == 0
    assert HOSTILE in row(page, QUESTION).inner_text()
    assert complaints == []


def test_a_reviewer_reads_chinese_where_the_browser_does(browser: Browser, service: Service, store: FeedbackStore):
    page, requests, complaints = watched_page(browser, 1000, locale="zh-CN")
    page.goto(f"{service.address}/review")
    page.get_by_role("heading", name="审核 north 的反馈").wait_for()
    assert page.title() == "审核 north 的反馈"
    expect(page.locator("#counts")).to_have_text("共 3 条：3 条新的；由此得到 0 个训练问题。")
    lamp = row(page, "How many steps are there?")
    year, month, day = store.find("lamp").day.split("-")
    expect(lamp.locator(".label")).to_have_text(f"{year}年{int(month)}月{int(day)}日，回答被评为对：")
    lamp.get_by_role("button", name="放弃").click()
    expect(lamp.locator(".decided")).to_have_text("已放弃")
    mail = row(page, "Who carries the mail?")
    mail.get_by_role("button", name="采纳").click()
    expect(mail.get_by_role("alert")).to_contain_text("无法采纳：它还没有正确答案或正确段落")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert [complaint for complaint in complaints if "409" not in complaint] == []
    assert len(requests) > 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_it_fits_a_phone_and_has_two_schemes(
    browser: Browser, service: Service, store: FeedbackStore, scheme: str, width: int
):
    page, complaints = opened(browser, service, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.strip("rgb()").split(","))) > 380) == (scheme == "light")
    assert complaints == []


def test_a_reviewers_token_is_asked_for(browser: Browser, run: RunFolder, tmp_path: Path):
    with serving(run.path, copied_site(tmp_path), Tokens("a" * 32, "b" * 32)) as service:
        FeedbackStore(service.data).add(ROWS[2])
        page, _, _ = watched_page(browser, 1000)
        page.goto(f"{service.address}/review")
        page.get_by_label("This service asks for its token").fill("a" * 32)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_text("This is not the token.")).to_be_visible()
        page.get_by_label("This service asks for its token").fill("b" * 32)
        page.get_by_role("button", name="Use it").click()
        expect(page.get_by_role("heading", name="How many steps are there?")).to_be_visible()
