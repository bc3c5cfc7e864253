"""Which messages a node works on, and what becomes of those that come twice, late, or from a stranger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message
from signed_requests import code, coordinator_key, open_handler, request, slip, write_site
from tiny_federation import tiny_config

from fedrag.federation.messages import GREET
from fedrag.security.keys import load_private_key
from fedrag.service.stopping import Stop
from fedrag.site.egress import EGRESS_FILE, read_egress
from fedrag.site.service import node
from fedrag.site.service.inbox import Inbox
from fedrag.site.service.node import SiteNode

pytestmark = pytest.mark.usefixtures("tiny_home")


class Line:
    """What a node has to do with the coordinator: messages that wait for it, and the replies it sent.

    Args:
        arrivals: What each look for messages finds, in order: a message, None, or a call that gives either.
        replies: After these, the node is told to end as soon as it sent so many.
    """

    def __init__(self, arrivals: list[Message | Callable[[], Message | None] | None], replies: int) -> None:
        self._arrivals = arrivals
        self._replies = replies
        self.sent: list[Message] = []

    def receive(self) -> Message | None:
        if not self._arrivals:
            if len(self.sent) < self._replies:
                return None
            raise Stop
        arrival = self._arrivals.pop(0)
        return arrival() if callable(arrival) else arrival

    def send(self, reply: Message, seconds: float) -> bool:
        self.sent.append(reply)
        return True

    def answers_to(self, message: Message) -> list[Message]:
        return [reply for reply in self.sent if reply.metadata.reply_to_message_id == message.metadata.message_id]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def key(folder):
    return coordinator_key(folder)


@pytest.fixture
def serve(folder, monkeypatch):
    """Give a node its messages and return what it sent."""
    monkeypatch.setattr(node, "POLL_S", 0.2)

    def serve(*arrivals, replies=0) -> Line:
        handler, line = open_handler(folder), Line(list(arrivals), replies)
        try:
            SiteNode(line, handler, Inbox(folder)).serve()
        except Stop:
            return line
        finally:
            handler.interrupt()
        raise AssertionError("a node serves until it is told to end")

    return serve


def kinds(folder: Path) -> list[str]:
    return [line["kind"] for line in read_egress(folder / EGRESS_FILE)]


def training(key) -> Message:
    """A round of training: the worker alone takes seconds to start, longer than any test that asks for it."""
    return request(key, config=tiny_config())


def test_a_reply_that_is_asked_for_again_is_the_one_that_was_given_and_stands_in_the_log_twice(serve, folder, key):
    signed = slip(site="south")
    first, again = request(key, signed), request(key, signed)
    line = serve(first, None, again, None)
    (reply,), (repeated,) = line.answers_to(first), line.answers_to(again)
    assert repeated.content == reply.content
    assert kinds(folder) == ["refusal", "refusal again"]


def test_a_repeated_reply_counts_as_no_work(folder, key, serve):
    signed = slip(site="south")
    serve(request(key, signed), None, request(key, signed), None)
    first, again = read_egress(folder / EGRESS_FILE)
    assert again["seconds"] == 0.0
    assert {name: again[name] for name in ("run", "round", "request", "texts")} == {
        name: first[name] for name in ("run", "round", "request", "texts")
    }


def test_a_request_that_comes_twice_is_worked_on_once_and_answered_where_it_was_asked_last(serve, folder, key):
    signed = slip(kind=GREET)
    first, again = (request(key, signed, kind=GREET) for _ in range(2))
    line = serve(first, again, replies=1)
    assert line.answers_to(first) == []
    assert len(line.answers_to(again)) == 1
    assert kinds(folder) == ["greet"]


def test_an_older_request_that_comes_late_does_not_end_the_work_on_a_newer_one(serve, folder, key):
    signed = slip(version="9.9.0")
    older, newer, older_again = request(key, signed), training(key), request(key, signed)
    line = serve(older, None, newer, older_again, None)
    assert [code(reply) for reply in line.answers_to(older_again)] == ["replayed"]
    assert Inbox(folder).message().metadata.message_id == newer.metadata.message_id, "it is still at work on it"


def test_a_request_of_last_week_that_is_played_again_does_not_end_any_work(serve, folder, key):
    work, old = training(key), request(key, slip(time=time.time() - 7 * 86_400))
    line = serve(work, old, None)
    assert [code(reply) for reply in line.sent] == ["replayed"]
    assert Inbox(folder).message().metadata.message_id == work.metadata.message_id


def test_a_newer_request_ends_the_work_on_an_older_one_even_while_the_worker_starts(serve, folder, key):
    older, newer = training(key), request(key, slip(site="south"))
    line = serve(older, newer, None)
    assert line.answers_to(older) == []
    assert [code(reply) for reply in line.answers_to(newer)] == ["other-name"]


def test_a_message_of_a_stranger_does_not_end_any_work(serve, folder, key):
    work, strange = training(key), request(load_private_key(folder / "site.key"))
    line = serve(work, strange, None)
    assert [code(reply) for reply in line.sent] == ["bad-signature"]
    assert Inbox(folder).message().metadata.message_id == work.metadata.message_id


def test_what_could_not_be_written_down_is_worked_on_again_when_it_is_asked_again(serve, folder, key, caplog):
    log, signed = folder / EGRESS_FILE, slip(site="south")
    log.symlink_to("/dev/full")
    first, again = request(key, signed), request(key, signed)

    def with_room() -> Message:
        os.unlink(log)
        return again

    line = serve(first, None, with_room, None)
    assert "nothing was sent" in caplog.text
    assert line.answers_to(first) == []
    assert [code(reply) for reply in line.answers_to(again)] == ["other-name"]
    assert kinds(folder) == ["refusal"]


def test_a_disk_that_is_full_does_not_end_the_node(serve, folder, key, caplog):
    (folder / EGRESS_FILE).symlink_to("/dev/full")
    line = serve(request(load_private_key(folder / "site.key")), None)
    assert line.sent == []
    assert "nothing was sent" in caplog.text


def test_the_next_node_sends_the_reply_that_was_on_its_way_as_it_was(serve, folder, key):
    message = request(key, slip(site="south"))
    (reply,) = serve(message, None).sent
    Inbox(folder).put(message)
    Inbox(folder).put_reply(reply)
    (repeated,) = serve(None).sent
    assert repeated.content == reply.content
    assert repeated.metadata.reply_to_message_id == message.metadata.message_id
    assert kinds(folder) == ["refusal", "refusal again"]
    assert serve(None).sent == []


def test_the_next_node_begins_the_work_of_one_that_died(serve, folder, key):
    message = request(key, slip(site="south"))
    Inbox(folder).put(message)
    line = serve(None, None)
    assert [code(reply) for reply in line.answers_to(message)] == ["other-name"]
