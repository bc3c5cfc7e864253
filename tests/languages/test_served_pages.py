"""The pages of the service: what stands on them comes from the catalogue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from starlette.requests import Request
from starlette.responses import Response

from fedrag.errors import ConfigError
from fedrag.languages.catalogue import LANGUAGES, Words
from fedrag.serving.answer_service import serve_answers
from fedrag.serving.ask_page import page, review_page


def served(view: Callable[[Request], Response], accepts: str = "") -> str:
    headers = [(b"accept-language", accepts.encode())] if accepts else []
    return bytes(view(Request({"type": "http", "headers": headers})).body).decode()


@pytest.mark.parametrize("code", LANGUAGES)
@pytest.mark.parametrize("view", [page, review_page])
def test_a_page_comes_in_the_language_that_is_asked_for_with_the_words_of_its_scripts(view, code: str):
    html, words = served(view, f"{code}-XX, en;q=0.1"), Words(code)
    assert f'<html lang="{code}">' in html
    assert words("service.holds_answer") in html
    found = re.search(r'<script type="application/json" id="words">(.*?)</script>', html, re.S)
    told = json.loads(found[1])
    assert told["gone"] == words("service.script.gone")
    assert told["date"] == words.unfilled("marks.date")


def test_an_answer_says_what_it_depends_on():
    response = page(Request({"type": "http", "headers": []}))
    assert response.headers["vary"] == "Accept-Language"


def test_an_unknown_language_stops_the_service_before_it_loads_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("FEDRAG_LANG", "vn")
    with pytest.raises(ConfigError, match="FEDRAG_LANG=vn: expected en, vi or zh"):
        serve_answers(pytest.fail, tmp_path, "127.0.0.1", 0, None, None, print)
