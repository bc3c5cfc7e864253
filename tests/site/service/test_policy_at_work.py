"""The policy of a site while it works: real workers are ended at a limit, and every second is charged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from signed_requests import code, coordinator_key, open_handler, slip, write_site
from tiny_federation import tiny_config

from fedrag.components.state import initial_state
from fedrag.federation.messages import GREET, TRAIN, VALIDATE, Request, request_content
from fedrag.federation.signing import new_request_id, with_signature
from fedrag.site.service import worker
from fedrag.site.service.node import Job
from fedrag.site.service.request_handler import RequestHandler
from fedrag.site.work_ledger import LEDGER_FILE, Clock, WorkLedger

pytestmark = pytest.mark.usefixtures("tiny_home")

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
FASTER = 20.0
"""How much faster than the machine's a test's clock runs."""

Open = Callable[..., RequestHandler]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def key(folder) -> EllipticCurvePrivateKey:
    return coordinator_key(folder)


@pytest.fixture
def open_site(folder, monkeypatch) -> Open:
    """Open the handler of the site, by a clock that starts at noon and runs fast."""
    monkeypatch.setattr(worker, "CHECK_S", 0.5 / FASTER)
    began, opened = time.monotonic(), []

    def elapsed() -> float:
        return FASTER * (time.monotonic() - began)

    def open_site(line: str = "") -> RequestHandler:
        handler = open_handler(folder, line, Clock(lambda: NOON + timedelta(seconds=elapsed()), elapsed))
        opened.append(handler)
        return handler

    yield open_site
    for handler in opened:
        handler.interrupt()


def message(key: EllipticCurvePrivateKey, request: Request, kind: str = TRAIN, **padding: str) -> Message:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    content = request_content(request)
    for name, text in padding.items():
        content["request"][name] = text
    made = Message(with_signature(content, slip(kind=kind), key), 7, kind, group_id="1")
    made.metadata.__dict__["_message_id"] = new_request_id()
    return made


def endless(key: EllipticCurvePrivateKey) -> Message:
    """Return a round of training that takes hours."""
    config = tiny_config(generator={"epochs": 1_000_000})
    state = initial_state(config, ("generator", "retriever"))
    return message(key, Request(config.to_toml(), 1, state, ("generator",), deadline_s=9_000.0))


def work_for(handler: RequestHandler, asked: Message, seconds: float) -> None:
    """Let a handler work on a message, and let a newer request end it after so many seconds of the test's clock."""
    job = Job(handler, asked, again=False)
    assert not job.is_done(seconds / FASTER)
    job.cancel()


def test_work_that_a_newer_request_ends_is_charged_also_after_a_restart(open_site, folder, key):
    """A coordinator that always asked anew once had a site work all day."""
    for _ in range(2):
        work_for(open_site("minutes_a_day = 1"), endless(key), 20.0)
    assert WorkLedger(folder / LEDGER_FILE).of(NOON).seconds >= 40.0
    began = time.monotonic()
    assert code(open_site().answer(endless(key))) == "policy-minutes"
    assert FASTER * (time.monotonic() - began) < 55.0, "a day that was not charged has 60"


def test_work_is_ended_when_the_day_s_minutes_are_used_up(open_site, folder, key):
    handler, began = open_site("minutes_a_day = 1"), time.monotonic()
    assert code(handler.answer(endless(key))) == "policy-minutes"
    assert FASTER * (time.monotonic() - began) > 50.0
    assert handler._worker._process is None
    assert 59.0 <= WorkLedger(folder / LEDGER_FILE).of(NOON).seconds <= 80.0
    assert code(handler.answer(endless(key))) == "policy-minutes"


@pytest.mark.parametrize("kind", [TRAIN, VALIDATE])
def test_work_is_ended_when_the_quiet_hours_begin(open_site, key, kind):
    handler = open_site('quiet_hours = "12:02-13:00"')
    config = tiny_config(generator={"epochs": 1_000_000})
    state = initial_state(config, ("generator", "retriever"))
    asked = message(key, Request(config.to_toml(), 1, state, ("generator",), deadline_s=9_000.0), kind)
    if kind == TRAIN:
        assert code(handler.answer(asked)) == "policy-quiet-hours"
        assert handler._worker._process is None
    assert_waits_until(NOON + timedelta(minutes=2), handler)
    assert code(handler.answer(message(key, Request(config.to_toml(), 1, state, ("generator",)), kind))) == (
        "policy-quiet-hours"
    )


def assert_waits_until(when: datetime, handler: RequestHandler) -> None:
    while handler._clock.now() < when:
        time.sleep(0.1)


def test_a_site_that_is_killed_has_paid_for_what_it_did(folder, key, tmp_path):
    """With SIGKILL, in the middle of the work."""
    script = (
        "import sys; from pathlib import Path; from flwr.common.serde import message_from_proto;"
        "from flwr.proto.message_pb2 import Message; from fedrag.site.service.request_handler import RequestHandler;"
        "from fedrag.site.site_config import SiteConfig; folder = Path(sys.argv[1]);"
        "handler = RequestHandler(folder, SiteConfig.from_file(folder / 'site.toml'));"
        "handler.answer(message_from_proto(Message.FromString((folder / 'asked').read_bytes())))"
    )
    from flwr.common.serde import message_to_proto

    (folder / "asked").write_bytes(message_to_proto(endless(key)).SerializeToString())
    main = tmp_path / "main.py"
    main.write_text(f"if __name__ == '__main__':\n    {script}\n")
    process = subprocess.Popen([sys.executable, str(main), str(folder)])
    ledger = WorkLedger(folder / LEDGER_FILE)
    deadline = time.monotonic() + 60.0
    while not ledger.of(datetime.now().astimezone()).seconds:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = time.monotonic()
    time.sleep(3.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ledger.of(datetime.now().astimezone()).seconds >= time.monotonic() - began - 0.5


@pytest.mark.parametrize("line", ['quiet_hours = "11:00-13:00"', "minutes_a_day = 1"])
def test_training_that_names_no_component_is_work(open_site, folder, key, line):
    """It once passed: and in a run that iterates, the models answered the site's questions for it."""
    WorkLedger(folder / LEDGER_FILE).pay(60.0, NOON, 60.0)
    config = tiny_config(federation={"schedule": "iterate", "rounds": 2})
    refused = code(open_site(line).answer(message(key, Request(config.to_toml(), 1))))
    assert refused == ("policy-minutes" if line.startswith("minutes") else "policy-quiet-hours")


def test_a_message_is_as_large_as_all_it_holds(open_site, key):
    """Two megabytes once passed a limit of one, in a text beside the arrays."""
    handler = open_site("max_message_mb = 1.0")
    padded = message(key, Request(tiny_config().to_toml(), 1, components=("reranker",)), padding="x" * 2_000_000)
    assert code(handler.answer(padded)) == "policy-message-size"


def test_a_reply_above_the_limit_does_not_leave(open_site, key):
    scenario = 'name = "a"\n[models]\ngenerator = "fedrag/tiny-causal"\nretriever = "fedrag/tiny-encoder"\n'
    scenario += '[data]\nsites = "x"\n'
    asked = Request(scenario)
    assert "greeting" in open_site("max_message_mb = 0.01").answer(message(key, asked, GREET)).content
    assert code(open_site("max_message_mb = 0.0015").answer(message(key, asked, GREET))) == "policy-message-size"


def test_validations_are_counted(open_site, key):
    """As many as rounds, and one more: once there was no end to them."""
    handler = open_site("rounds_a_day = 1")
    asked = Request(tiny_config().to_toml(), 1, components=("generator",))
    replies = [handler.answer(message(key, asked, VALIDATE)) for _ in range(3)]
    assert ["refusal" in reply.content for reply in replies] == [False, False, True]
    assert code(replies[2]) == "policy-rounds"


def test_a_site_that_does_not_measure_refuses_validations_and_diagnoses(open_site, key):
    handler = open_site("measure = false")
    for components in (("generator",), ()):
        asked = Request(tiny_config().to_toml(), 1, components=components)
        assert code(handler.answer(message(key, asked, VALIDATE))) == "policy-measure"


def test_a_round_that_goes_on_after_a_restart_counts_once(open_site, key):
    """The only round of the day is not refused because it was begun."""
    asked = message(key, Request(tiny_config().to_toml(), 1, components=("generator",)))
    first, cancelled = open_site("rounds_a_day = 1"), threading.Event()
    assert code(first.answer(asked, cancelled=cancelled)) not in ("policy-rounds", "replayed")
    assert code(open_site().answer(asked, again=True)) not in ("policy-rounds", "replayed")
    assert code(open_site().answer(message(key, Request(tiny_config().to_toml(), 2)))) == "policy-rounds"
