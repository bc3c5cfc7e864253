"""What a site says to a request before any model is loaded: who it is from, for whom, how old, what the policy says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from signed_requests import code, coordinator_key, open_handler, request, slip, write_site
from tiny_federation import tiny_config

from fedrag.components.state import initial_state
from fedrag.errors import StorageError
from fedrag.federation.messages import DELIVER, HOME, TRAIN
from fedrag.federation.signing import verified_slip
from fedrag.security.keys import load_private_key, load_public_key
from fedrag.site.delivery import deliveries
from fedrag.site.egress import EGRESS_FILE, read_egress
from fedrag.site.service.node import Job
from fedrag.site.service.request_handler import RequestHandler

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def key(folder):
    return coordinator_key(folder)


@pytest.fixture
def handler(folder) -> Iterator[RequestHandler]:
    made = open_handler(folder)
    yield made
    made.interrupt()


def test_a_request_of_another_than_the_coordinator_is_refused(handler, folder):
    other = load_private_key(folder / "site.key")
    assert code(handler.answer(request(other))) == "bad-signature"
    assert handler.slip_of(request(other)) is None


def test_a_request_that_is_not_signed_is_refused(handler, key):
    message = request(key)
    message.content.pop("signature")
    assert code(handler.answer(message)) == "bad-signature"


def test_a_request_that_was_changed_on_its_way_is_refused(handler, key):
    message = request(key)
    message.content["request"]["round"] = 2
    assert code(handler.answer(message)) == "bad-signature"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"site": "south"}, "other-name"),
        ({"kind": "query.deliver"}, "bad-signature"),
        ({"version": "9.9.0"}, "version"),
        ({"time": 1_000_000.0}, "replayed"),
    ],
)
def test_a_signed_request_that_is_not_meant_for_this_is_refused_by_name(handler, key, changes, expected):
    assert code(handler.answer(request(key, slip(**changes)))) == expected


def test_a_kind_of_request_that_no_site_answers_starts_no_worker(handler, key, caplog):
    assert code(handler.answer(request(key, slip(kind=HOME), kind=HOME))) == "bad-request"
    assert "the worker died" not in caplog.text


def test_a_request_is_answered_once_also_after_a_restart(folder, key, handler):
    message = request(key, slip(site="north"), tiny_config(federation={"schedule": "retriever"}))
    strict = open_handler(folder, 'components = ["retriever"]')
    assert code(strict.answer(message)) == "policy-component"
    assert code(strict.answer(message)) == "replayed"
    again = open_handler(folder)
    assert code(again.answer(message)) == "replayed"
    assert code(again.answer(message, again=True)) == "policy-component", "the node died over it, and goes on"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('components = ["retriever"]', "policy-component"),
        ('schedules = ["retriever"]', "policy-schedule"),
        ('base_models = {"fedrag/tiny-causal" = "' + "0" * 64 + '"}', "policy-model"),
        ('quiet_hours = "00:00-23:59"', "policy-quiet-hours"),
        ("min_examples = 5", "policy-few-examples"),
        ("tell_counts = false", "policy-counts"),
    ],
)
def test_the_policy_is_held_before_anything_is_loaded(folder, key, line, expected):
    handler = open_handler(folder, line)
    assert code(handler.answer(request(key))) == expected


def test_every_reply_is_signed_by_the_site_over_the_request_it_answers(handler, folder, key):
    asked = slip(site="south")
    reply = handler.answer(request(key, asked))
    answered = verified_slip(reply.content, "reply", load_public_key(folder / "site.pub"))
    assert (answered.run, answered.request, answered.site, answered.kind) == ("tiny-1", asked.request, "north", TRAIN)


def test_every_reply_is_written_down_and_tells_no_text(handler, folder, key):
    handler.answer(request(key, slip(site="south")))
    (line,) = read_egress(folder / EGRESS_FILE)
    assert (line["kind"], line["run"], line["round"]) == ("refusal", "tiny-1", 1)
    assert set(line["texts"]) == {"refusal.code", "refusal.error-id"}


def test_malformed_data_is_a_code_and_its_text_stays_in_the_log(handler, folder, key, caplog):
    train = folder.parent / "data" / "north" / "train.jsonl"
    train.write_text('{"question": "a secret"}\n')
    reply = handler.answer(request(key))
    assert code(reply) == "bad-data"
    assert "train.jsonl:1" in caplog.text
    assert "secret" not in str(reply.content)


def test_what_cannot_be_written_down_does_not_leave(handler, folder, key):
    (folder / EGRESS_FILE).symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        handler.answer(request(key, slip(site="south")))
    job = Job(handler, request(key, slip(site="south")), again=False)
    assert job.is_done(10.0)
    assert job.reply() is None


def test_an_empty_message_is_refused(handler, key):
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    message = Message(RecordDict(), 7, TRAIN)
    message.metadata.__dict__["_message_id"] = "m"
    assert code(handler.answer(message)) == "bad-signature"


def test_once_models_are_delivered_the_worker_ends_and_its_memory_is_free(handler, key, folder):
    """Another process then measures what came, with base models of its own."""
    assert code(handler.answer(request(key, slip(kind=DELIVER), kind=DELIVER))) == "bad-delivery"  # it holds nothing
    assert deliveries(folder) == []
    state = initial_state(tiny_config(), ("generator", "retriever"))
    reply = handler.answer(request(key, slip(kind=DELIVER), kind=DELIVER, state=state))
    assert reply.content["metrics"]["metric.delivered"] == 2
    assert handler._worker._process is None
    [delivery] = deliveries(folder)
    assert delivery.is_to_be_judged
