"""Chromium for tests: a browser, and pages that tell what they ask for and what they complain of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@contextmanager
def launched() -> Iterator[Browser]:
    """Run Chromium."""
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def watched_page(browser: Browser, width: int, **options: Any) -> tuple[Page, list[str], list[str]]:
    """Return an empty page, and the lists that take the requests and the complaints of whatever is opened in it."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, requests, complaints
