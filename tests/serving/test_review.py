"""Feedback on its way through the service: from a person to the site's file, and past a reviewer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from served_site import QUESTION, Service, copied_site, serving

from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.runs.run_folder import RunFolder
from fedrag.serving.guard import Tokens

ASKING, REVIEWING = "a" * 32, "b" * 32
SAID = {"question": QUESTION, "answer": "a ham", "shown": ["north-5", "north-3"], "verdict": "wrong"}
ROW = Feedback(QUESTION, "a ham", ("north-5", "north-3"), "wrong", id="row")


@pytest.fixture
def store(service: Service) -> Iterator[FeedbackStore]:
    """The site's feedback: one row."""
    store = FeedbackStore(service.data)
    store.add(ROW)
    yield store
    store.path.unlink()


def decide(service: Service, identity: str = "row", **decision: object) -> httpx.Response:
    return httpx.post(f"{service.address}/review/rows/{identity}", json=decision)


def test_what_a_person_says_waits_for_a_reviewer_with_the_texts_of_its_passages(service: Service):
    store = FeedbackStore(service.data)
    identity = httpx.post(f"{service.address}/feedback", json=SAID | {"correction": "two coins a week"}).json()["id"]
    listed = httpx.get(f"{service.address}/review/rows").json()
    [row] = listed["rows"]
    assert (row["id"], row["question"], row["answer"], row["verdict"]) == (identity, QUESTION, "a ham", "wrong")
    assert row["right_answer"] == "two coins a week"
    assert [(beside["id"], beside["holds_answer"]) for beside in row["passages"]] == [
        ("north-5", False),
        ("north-3", True),
    ]
    assert "A late book costs two coins a week." in row["passages"][1]["text"]
    assert (listed["waiting"], listed["counts"]) == (1, "1 in all: 1 new; 0 training questions from them")
    store.path.unlink()


def test_a_decision_is_written_down_and_may_be_taken_back(service: Service, store: FeedbackStore):
    answer = decide(service, state="edited", correction="two coins a week", right_ids=["north-3"]).json()
    assert (answer["state"], answer["right_answer"]) == ("edited", "two coins a week")
    edited = replace(ROW, state="edited", correction="two coins a week", right_ids=("north-3",))
    assert store.find("row") == edited
    assert httpx.get(f"{service.address}/review/rows").json()["rows"] == []
    assert len(httpx.get(f"{service.address}/review/rows?all=1").json()["rows"]) == 1
    decide(service, state="new")
    assert store.find("row") == replace(edited, state="new")
    decide(service, state="dropped")
    assert store.find("row").state == "dropped"


@pytest.mark.parametrize(
    ("identity", "decision", "status", "sentence"),
    [
        ("row", {"state": "accepted"}, 409, "has neither a right answer nor a right passage yet; give one"),
        ("nobody", {"state": "dropped"}, 409, 'no feedback has the id "nobody"'),
        ("row", {"state": "exported"}, 400, "state: expected 'new' or 'accepted' or 'edited' or 'dropped'"),
        ("row", {}, 400, "state: missing; expected a text"),
        ("row", {"state": "edited", "right_ids": ["north-99"]}, 400, "right_ids: expected ids of this site's passages"),
        ("row", {"state": "edited", "correction": 3}, 400, "correction: is no text"),
    ],
)
def test_a_decision_that_cannot_be_is_refused_in_one_sentence(
    service: Service, store: FeedbackStore, identity: str, decision: dict[str, object], status: int, sentence: str
):
    answer = decide(service, identity, **decision)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]["message"]
    assert store.rows() == [ROW]


def test_what_is_a_training_question_is_reviewed_no_more(service: Service, store: FeedbackStore):
    with store.exporting() as (_, exported):
        exported.append("row")
    assert httpx.get(f"{service.address}/review/rows?all=1").json()["rows"] == []
    assert decide(service, state="dropped").status_code == 409


def test_those_who_ask_do_not_review(run: RunFolder, tmp_path: Path):
    def statuses(service: Service, token: str) -> list[int]:
        head = {"Authorization": f"Bearer {token}"} if token else {}
        paths = ("/v1/models", "/review", "/review/rows")
        return [httpx.get(service.address + path, headers=head).status_code for path in paths]

    with serving(run.path, copied_site(tmp_path / "two"), Tokens(ASKING, REVIEWING)) as service:
        assert statuses(service, ASKING) == [200, 200, 401]  # the page itself holds nothing
        assert statuses(service, REVIEWING) == [200, 200, 200]
        assert statuses(service, "c" * 32) == [401, 200, 401]
    with serving(run.path, copied_site(tmp_path / "one"), Tokens(ASKING, None)) as service:
        assert statuses(service, ASKING) == [200, 404, 404]
    with serving(run.path, copied_site(tmp_path / "other"), Tokens("", REVIEWING)) as service:
        assert statuses(service, "") == [200, 200, 401]
    assert "feedback" not in json.dumps(service.said)
