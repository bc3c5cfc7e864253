"""A site's max_epsilon at its service: a round that would pass it is refused before it starts, across runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from signed_requests import code, coordinator_key, open_handler, slip, write_site
from tiny_federation import tiny_config

from fedrag.components.state import initial_state
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.federation.messages import TRAIN, Request, request_content
from fedrag.federation.signing import new_request_id, with_signature
from fedrag.site.service.request_handler import RequestHandler

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def handler(folder) -> Iterator[RequestHandler]:
    made = open_handler(folder, "max_epsilon = 9.0")
    yield made
    made.interrupt()


def training(folder: Path, run: str, epsilon: float) -> Message:
    """Return the request of the only round of a run."""
    federation = {"rounds": 1, "schedule": "generator"}
    config = tiny_config(federation=federation, privacy={"epsilon": epsilon, "steps": 1})
    state = initial_state(config, ("generator", "retriever"))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    content = request_content(Request(config.to_toml(), 1, state, ("generator",), deadline_s=600.0))
    message = Message(with_signature(content, slip(run=run), coordinator_key(folder)), 7, TRAIN, group_id="1")
    message.metadata.__dict__["_message_id"] = new_request_id()
    return message


def test_rounds_are_answered_until_one_would_pass_the_limit_also_after_a_restart(handler, folder):
    assert code(handler.answer(training(folder, "run-1", 0.0))) == "policy-epsilon", "without noise there is no limit"
    assert code(handler.answer(training(folder, "run-2", 20.0))) == "policy-epsilon"
    assert not (folder / LEDGER_FILE).exists()
    reply = handler.answer(training(folder, "run-3", 8.0))
    assert "refusal" not in reply.content
    told = set(reply.content["metrics"])
    assert not [name for name in told if "loss" in name or "epsilon" in name]
    again = open_handler(folder)
    try:
        assert code(again.answer(training(folder, "run-4", 8.0))) == "policy-epsilon"
    finally:
        again.interrupt()
    assert [entry.run for entry in PrivacyLedger(folder / LEDGER_FILE).entries()] == ["run-3"]
