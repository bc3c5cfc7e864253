"""The console as a browser shows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser
from written_run import REFUSAL, add_round, new_folder, record, shown, write_run

from fedrag.coordinator.outcome import Outcome, write_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.runs.run_folder import RunFolder
from fedrag.site.policy import policy_numbers
from fedrag.site.site_config import Policy

pytestmark = needs_chromium

HOSTILE = "<img src=http://127.0.0.1:9/x.png onerror=alert(1)>"

STRICT = Policy(
    components=("generator",),
    schedules=("joint", "alternate"),
    base_models={"a/b": "0" * 64},
    rounds_a_day=10,
    minutes_a_day=120,
    quiet_hours="08:00-18:00",
    max_message_mb=200.0,
    max_update_norm=10.0,
    min_examples=50,
    min_examples_for_metrics=20,
    tell_counts=False,
)

TITLES = ("Site", "State", "Heard of", "Policy", "Fingerprint of its key")

COUNT_LINES = """cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getClientRects().length;
}"""

COLOURS = """() => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.body).color,
    getComputedStyle(document.querySelector('svg .line')).stroke,
    getComputedStyle(document.querySelector('.rules li')).backgroundColor,
]"""


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return new_folder(tmp_path)


@pytest.fixture
def run(folder: ServerFolder) -> RunFolder:
    """A run of which two rounds are done, with a site whose name and words try to break out of the page."""
    rounds = [record(1, {"south": REFUSAL.format(1)}), record(2, {HOSTILE: f"{HOSTILE} (policy-model)"})]
    run = write_run(folder, rounds, state="running")
    run.record_sites({"south": {"version": "0.1.0", "counts": {}, "policy": policy_numbers(STRICT)}})
    return run


@pytest.fixture
def address(folder: ServerFolder, run: RunFolder) -> Iterator[str]:
    with shown(folder) as address:
        yield address


def opened(browser: Browser, address: str, width: int = 1100, **options: Any):
    """Open the page and wait until it is live; return it with the requests and the complaints that it made."""
    page, requests, complaints = watched_page(browser, width, **options)
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto(address)
    page.get_by_text("Live", exact=True).wait_for()
    return page, requests, complaints


def test_a_new_round_appears_without_a_reload(browser: Browser, address: str, run: RunFolder):
    page, requests, complaints = opened(browser, address)
    assert page.get_by_text("round 2 of 3, interrupted since").is_visible()
    assert page.locator("figure").first.locator("circle").count() == 2
    add_round(run, record(3))
    page.get_by_text("round 3 of 3, interrupted since").wait_for(timeout=60_000)
    assert page.locator("figure").first.locator("circle").count() == 3
    write_outcome(run.path, Outcome("finished"))
    page.get_by_text("round 3 of 3, finished at").wait_for(timeout=60_000)
    assert requests.count(f"{address}/") == 1
    assert complaints == []


def test_it_asks_for_nothing_outside_itself_and_complains_of_nothing(browser: Browser, address: str):
    page, requests, complaints = opened(browser, address)
    assert HOSTILE in page.locator("#run").inner_text()
    assert page.locator("img").count() == 0
    assert {url for url in requests if not url.startswith(f"{address}/")} == set()
    assert {url.removeprefix(address) for url in requests} >= {"/", "/console.css", "/console.js", "/events"}
    assert complaints == []


def test_markup_in_a_section_would_be_noticed_and_its_request_blocked(browser: Browser, address: str):
    page, _, complaints = opened(browser, address)
    with page.expect_console_message() as complaint:
        page.evaluate("html => { document.getElementById('runs').innerHTML = html }", HOSTILE)
    assert "Content Security Policy" in complaint.value.text
    assert complaints


def test_a_console_that_is_gone_is_told(browser: Browser, folder: ServerFolder, run: RunFolder):
    with shown(folder) as address:
        page, _, _ = opened(browser, address)
    page.get_by_text("The console has not answered since").wait_for(timeout=60_000)
    assert page.get_by_text("round 2 of 3").is_visible()


def test_another_run_is_shown_where_it_is_chosen(browser: Browser, address: str, folder: ServerFolder):
    write_run(folder, [record(1)])
    page, _, _ = opened(browser, address)
    assert page.get_by_role("heading", name="Run written-2").is_visible()
    page.get_by_role("link", name="written-1").click()
    page.get_by_role("heading", name="Run written-1").wait_for()
    page.get_by_text("Live", exact=True).wait_for()
    assert page.get_by_role("heading", name="Run written-1").is_visible()


@pytest.mark.parametrize("width", [320, 380, 768, 1400])
def test_the_page_does_not_scroll_sideways(browser: Browser, address: str, width: int):
    page, _, _ = opened(browser, address, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1100])
def test_every_rule_that_a_site_told_stands_within_the_page(browser: Browser, address: str, width: int):
    page, _, _ = opened(browser, address, width)
    rules = page.locator("#sites tbody tr", has_text="south").locator("li").all()
    assert len(rules) == 11
    boxes = [rule.bounding_box() for rule in rules]
    assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    assert page.locator("#sites tbody tr", has_text="north").get_by_text("not told").is_visible()


def test_many_rules_leave_the_other_columns_their_room(browser: Browser, address: str):
    """They once took all of it, and names and titles were broken in mid-word."""
    page, _, _ = opened(browser, address)
    cells = page.locator("#sites th").all()
    assert [cell.inner_text() for cell in cells] == [*TITLES, "north", "south"]
    assert [cell.evaluate(COUNT_LINES) for cell in cells] == [1] * len(cells)


def test_dark_and_light_differ_in_paper_ink_and_curves(browser: Browser, address: str):
    light, dark = (opened(browser, address, color_scheme=scheme)[0].evaluate(COLOURS) for scheme in ("light", "dark"))
    assert all(one != other for one, other in zip(light, dark, strict=True))
    for paper, *inks in (light, dark):
        assert all(ink != paper for ink in inks)
