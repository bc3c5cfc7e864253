"""Who may ask the service, and what it tells to whom."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from served_site import QUESTION, Service, copied_site, serving

from fedrag.errors import ConfigError
from fedrag.evaluation.answerer import Answerer
from fedrag.runs.run_folder import RunFolder
from fedrag.service.web import HEADERS
from fedrag.serving.guard import Tokens, read_token

TOKEN = "a-token-of-more-than-twenty-characters"
CHAT = {"model": "fedrag", "messages": [{"role": "user", "content": QUESTION}]}
FEEDBACK = {"question": QUESTION, "answer": "", "verdict": "wrong"}
POSTS = {
    "v1/chat/completions": CHAT,
    "v1/embeddings": {"model": "fedrag", "input": QUESTION},
    "search": {"query": QUESTION},
    "feedback": FEEDBACK,
}


@pytest.fixture(scope="module")
def with_token(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(run.path, copied_site(tmp_path_factory.mktemp("token")), Tokens(TOKEN)) as service:
        yield service


def post(service: Service, path: str, body: object = None, **headers: str | bytes) -> httpx.Response:
    return httpx.post(f"{service.address}/{path}", json=POSTS.get(path, {}) if body is None else body, headers=headers)


def message(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


def test_without_the_token_nothing_is_answered_but_the_empty_page_and_that_it_is_well(with_token: Service):
    for path in POSTS:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": b"Bearer \xe4"}):
            answer = post(with_token, path, **headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "expected the header Authorization: Bearer TOKEN" in message(answer)
    assert httpx.get(f"{with_token.api}/models").status_code == 401
    for path in ("", "health", "page.css", "ask.js", "api.js", "icon.svg"):
        answer = httpx.get(f"{with_token.address}/{path}")
        assert answer.status_code == 200
        assert "north" not in answer.text
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=with_token.api, api_key="another", max_retries=0).models.list()


def test_with_the_token_everything_is(with_token: Service):
    for path in POSTS:
        assert post(with_token, path, Authorization=f"Bearer {TOKEN}").status_code in (200, 201)
    assert openai.OpenAI(base_url=with_token.api, api_key=TOKEN, max_retries=0).models.list().data


@pytest.mark.parametrize("host", ["evil.example:{}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", ""])
def test_a_name_that_was_made_to_point_here_is_refused(service: Service, host: str):
    port = service.address.rpartition(":")[2]
    for path in POSTS:
        assert post(service, path, Host=host.format(port)).status_code == 421
    assert post(service, "search", Host=f"localhost:{port}").status_code == 200


def test_another_sites_page_may_lead_here_but_neither_ask_nor_read(service: Service):
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert post(service, "search", **foreign).status_code == 403
    assert httpx.get(service.address, headers=foreign | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    asked_first = httpx.options(f"{service.address}/search", headers={"Origin": "http://evil.example"})
    assert asked_first.status_code == 405
    assert "access-control-allow-origin" not in asked_first.headers
    # what a page can send without asking first
    plain = httpx.post(f"{service.address}/search", content=json.dumps(POSTS["search"]))
    assert (plain.status_code, message(plain)[:22]) == (415, "the request is no JSON")


def test_every_answer_carries_the_same_strict_headers(service: Service):
    answers = [httpx.get(f"{service.address}/{path}") for path in ("", "page.css", "health", "nothing", "search")]
    answers += [post(service, "search"), post(service, "search", {}), post(service, "search", Host="evil.example")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404, 405, 200, 400, 421]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    assert answers[4].headers["allow"] == "POST"


BAD = [
    ("search", {"query": ""}, "query: the question is empty; expected some words"),
    ("search", {"query": QUESTION, "passages": 0}, "passages: expected a whole number from 1 to 100"),
    ("search", {"query": QUESTION, "passages": True}, "passages: expected a whole number from 1 to 100"),
    ("search", {"query": 7}, "query: is no text; expected a text"),
    ("search", [], "the request is not a JSON object"),
    ("v1/embeddings", {"model": "fedrag", "input": []}, "input: expected a text or a list of texts"),
    ("v1/embeddings", {"model": "fedrag", "input": [1, 2]}, "input: expected a text or a list of texts"),
    ("v1/embeddings", {"model": "fedrag", "input": "a", "dimensions": 3}, "dimensions: expected 32, which the"),
    (
        "v1/embeddings",
        {"model": "fedrag", "input": "a", "input_type": "b"},
        "input_type: expected 'query' or",
    ),
    ("feedback", {**FEEDBACK, "verdict": "maybe"}, "verdict: expected 'right' or 'wrong'"),
    ("feedback", {**FEEDBACK, "verdict": None}, "verdict: missing; expected a text"),
    ("feedback", {**FEEDBACK, "right_ids": ["other-1"]}, "right_ids: expected ids of this site's passages"),
    ("feedback", {**FEEDBACK, "answer": "long " * 5000}, "feedback: the answer is longer than 20,000 characters"),
]


@pytest.mark.parametrize(("path", "body", "sentence"), BAD)
def test_what_is_wrong_with_a_request_is_told_in_one_sentence(service: Service, path: str, body, sentence: str):
    answer = post(service, path, body)
    assert answer.status_code == 400
    assert message(answer).startswith(sentence)


def test_a_request_that_is_no_json_or_too_large_is_refused(service: Service):
    headers = {"Content-Type": "application/json"}
    for content in (b"{", b"\xff", b"[" * 100_000):
        assert httpx.post(f"{service.address}/search", content=content, headers=headers).status_code == 400
    large = httpx.post(f"{service.address}/search", json={"query": "a" * 2_000_001})
    assert (large.status_code, message(large)[:28]) == (413, "the request is too large; ex")


def test_an_error_on_the_way_tells_neither_side_what_was_asked(service: Service, monkeypatch, capfd):
    def fail(self: Answerer, questions: list[str], on_text) -> None:
        raise ValueError(f"cannot read {questions}")

    monkeypatch.setattr(Answerer, "answer", fail)
    answer = post(service, "v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    told = [*service.said, answer.text, *capfd.readouterr()]
    assert not [line for line in told if QUESTION in line]
    assert service.said[-1].startswith("a request failed: ValueError in test_guard.py, line")


@pytest.mark.parametrize(("text", "mode"), [("short", 0o600), ("two words " * 5, 0o600), ("", 0o600), (TOKEN, 0o644)])
def test_a_token_that_protects_nothing_is_refused(tmp_path: Path, text: str, mode: int):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600" if mode & 0o077 else "openssl rand -hex 32"):
        read_token(path)
    os.chmod(path, 0o600)
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
