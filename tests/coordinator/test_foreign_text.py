"""What the other side sends never steers a terminal, forges a line of a log, or turns a page around."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from signed_requests import coordinator_key, open_handler, request, slip, write_site
from tiny_federation import federate, tiny_config, write_small_sites
from typer.testing import CliRunner
from written_run import new_folder, record, write_run

from fedrag.cli.main import app as fedrag
from fedrag.cli.progress import TerminalDisplay
from fedrag.coordinator.console_page import render_page
from fedrag.coordinator.outcome import Outcome, write_outcome
from fedrag.display import LogDisplay
from fedrag.errors import MessageError, QuorumError, SignatureError
from fedrag.federation.greeting import Greeting, greeting_content, open_greeting
from fedrag.federation.messages import GREET, TRAIN
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.federation.signing import SIGNATURE, verified_slip, with_signature
from fedrag.files import write_json
from fedrag.service.plain_log import log_plainly
from fedrag.site.client_app import make_client_app
from fedrag.text import printable

pytestmark = pytest.mark.usefixtures("tiny_home")

FORGED = "2026-01-01 00:00:00 all is well"
HOSTILE = f"0.1.0\x1b]0;owned\x07\x1b[31m\u202eevil\u2066\u200f\x9b2J\u2028\r\n{FORGED}\n\x00\ud800"
WIRED = HOSTILE.replace("\ud800", "")  # protocol buffers carry no lone surrogates
PIECES = ("\x1b]0", "\x1b[31m", "\x07", "\u202e", "\u2066", "\u200f", "\x9b", "\u2028", "\r", "\x00", "\ud800")
REAL = make_client_app()


def assert_harmless(shown: str) -> None:
    assert [piece for piece in PIECES if piece in shown] == []
    assert [line for line in shown.splitlines() if line.startswith(FORGED)] == []


@given(st.text())
def test_a_printable_text_is_one_line_without_controls_and_a_plain_one_stays_as_it_is(text: str):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
    shown.encode()
    if text.isprintable():
        assert shown == text


def test_what_is_escaped_can_still_be_recognised():
    assert printable("0.1\x1b]0;x\x07\n\u202e Grüße, 東京") == r"0.1\x1b]0;x\x07\n\u202e Grüße, 東京"


# What a site sends, at the coordinator.


def _error(message: Message, reply: Message) -> Message:
    return Message(Error(7, WIRED), reply_to=message)


def _put(record: str, key: str, value: object = WIRED) -> Callable[[Message, Message], None]:
    return lambda message, reply: reply.content[record].update({key: value})


def _refuse(code: str, error_id: str) -> Callable[[Message, Message], None]:
    return lambda message, reply: reply.content.update({"refusal": ConfigRecord({"code": code, "error-id": error_id})})


GREETINGS = {
    "name": _put("greeting", "name"),
    "version": _put("greeting", "version"),
    "a short version": _put("greeting", "version", "0.2\x1b[31m"),
    "hash of a model": _put("greeting", "tensors.generator"),
    "name of a field": _put("greeting", WIRED),
    "name of a count": _put("counts", WIRED, 4),
    "name of a rule": lambda message, reply: reply.content.update({"policy": MetricRecord({WIRED: 1.0})}),
    "name of a record": lambda message, reply: reply.content.update({WIRED: ConfigRecord({WIRED: WIRED})}),
    "code of a refusal": _refuse(WIRED, WIRED),
    "id of an error": _refuse("bad-data", WIRED),
    "Flower's error": _error,
}
REPLIES = {
    "name of a metric": _put("metrics", f"metric.{WIRED}", 1.0),
    "name of a component": _put("metrics", f"num-examples.{WIRED}", 4),
    "hash of a manifest": _put("manifests", "generator"),
    "component of a manifest": _put("manifests", WIRED),
    "component of an update": lambda message, reply: reply.content["update"].update(
        {WIRED: reply.content["update"]["generator"]}
    ),
    "name of a record": GREETINGS["name of a record"],
    "code of a refusal": _refuse(WIRED, WIRED),
    "id of an error": _refuse("bad-data", WIRED),
    "Flower's error": _error,
}


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=2, b=2)


CASES = [(GREET, name, change) for name, change in GREETINGS.items()]
CASES += [(TRAIN, name, change) for name, change in REPLIES.items()]


@pytest.mark.parametrize(("kind", "change"), [(k, c) for k, _, c in CASES], ids=[f"{k}: {n}" for k, n, _ in CASES])
def test_nothing_a_site_sends_steers_the_operator_s_terminal_or_forges_a_line(sites, tmp_path, capsys, kind, change):
    def app(message, context):
        reply = REAL(message, context)
        if context.node_config["site-name"] == "b" and message.metadata.message_type == kind:
            return change(message, reply) or reply
        return reply

    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator", "greeting_timeout_s": 1.0})
    _, run = federate(config, tmp_path / "run", app=app, display=LogDisplay())
    shown = capsys.readouterr().out
    assert "round 1/1: " in shown
    assert_harmless(shown)
    told = "".join(path.read_text() for path in (tmp_path / "run").glob("*.json*"))
    assert "owned" not in told
    assert "a" in run.rounds()[0]["sites"]


def test_a_version_is_a_version_or_the_site_takes_no_part():
    """A site may run a later fedrag: any version that Python packages have is read."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1

    def opened(version):
        return open_greeting(Message(greeting_content(Greeting("a", version, {}, {})), 2, GREET)).version

    for version in ("0.2.0", "1.0", "0.2.0rc1", "0.2.0.post1.dev3", "0.2.0+local.7"):
        assert opened(version) == version
    for version in ("", "0.1.0\x1b]0;x", "0.2.0\n", "latest", "0." + "1" * 50, "٠.٢"):
        with pytest.raises(MessageError, match="its version is none"):
            opened(version)


def test_whatever_a_display_is_told_it_shows_harmlessly(capsys):
    LogDisplay().say(HOSTILE)
    assert_harmless(capsys.readouterr().out)
    file = io.StringIO()
    TerminalDisplay(Console(file=file, width=500)).say(HOSTILE)
    assert_harmless(file.getvalue())


def hostile_coordinator(root):
    """Return a coordinator's folder with a run whose records, of an earlier version, hold what a site sent, raw."""
    folder = new_folder(root, ("north",))
    run = write_run(folder, [record(1, {"south": WIRED}, ("north",))], state="failed", why=WIRED)
    (run.path / "sites.json").unlink(missing_ok=True)
    write_json(run.path / "sites.json", {"north": {"version": WIRED, "counts": {"train_questions": WIRED}}})
    write_outcome(run.path, Outcome("failed", WIRED))
    return folder


def test_the_console_s_page_and_the_tables_of_the_terminal_show_it_harmlessly(tmp_path):
    folder = hostile_coordinator(tmp_path)
    page = render_page(folder, "", ())
    assert_harmless(page)
    assert "owned" in page
    for verb in ("status", "sites"):
        shown = CliRunner().invoke(fedrag, ["server", verb, str(folder.path)])
        assert shown.exit_code == 0
        assert "0.1.0" in shown.output
        assert_harmless(shown.output)
        assert_harmless(CliRunner().invoke(fedrag, ["server", verb, str(folder.path), "--json"]).output)


def test_an_error_at_the_terminal_is_harmless(tmp_path):
    shown = CliRunner().invoke(fedrag, ["report", str(tmp_path / WIRED.replace("\x00", ""))])
    assert shown.exit_code == 2
    assert_harmless(shown.output)


# What a coordinator sends, at a site.


@pytest.fixture
def folder(tmp_path):
    return write_site(tmp_path)


SLIPS = ("run", "request", "site", "kind", "version")


CONTENTS = {
    "scenario": lambda c: c["request"].update({"scenario": f"{c['request']['scenario']}\n[{WIRED}]"}),
    "value of a setting": lambda c: c["request"].update(
        {"scenario": c["request"]["scenario"].replace('name = "tiny"', 'name = "\\u001b]0;owned\\u0007\\n\\u202e"')}
    ),
    "name of a setting": lambda c: c["request"].update(
        {"scenario": f'"\\u001b]0;owned\\u0007\\n{FORGED}" = 1\n' + c["request"]["scenario"]}
    ),
    "protocol": lambda c: c["request"].update({"protocol": WIRED}),
    "component": lambda c: c["request"].update({"components": [WIRED]}),
    "round": lambda c: c["request"].update({"round": WIRED}),
    "wire": lambda c: c["request"].update({"wire": WIRED}),
}


@pytest.mark.parametrize("field", [*SLIPS, *CONTENTS])
def test_nothing_a_coordinator_sends_steers_a_site_s_log_or_forges_a_line(folder, capfd, monkeypatch, field):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_plainly()
    handler, key = open_handler(folder), coordinator_key(folder)
    message = request(key, slip(**({field: WIRED} if field in SLIPS else {})))
    if field in CONTENTS:
        CONTENTS[field](message.content)
        message.content[SIGNATURE] = with_signature(message.content, slip(), key)[SIGNATURE]
    reply = handler.answer(message)
    handler.interrupt()
    logged = capfd.readouterr().out
    assert str(reply.content["refusal"]["code"]) in REFUSALS
    assert "refused with" in logged
    assert_harmless(logged)
    assert all(line[:2] == "20" or line.startswith("    ") for line in logged.splitlines())


def test_the_trace_of_an_error_that_quotes_the_other_side_forges_no_line(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log_plainly()
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        logging.getLogger("fedrag.node").error("refused: %s", error, exc_info=error)
    logged = capsys.readouterr().out
    assert "Traceback" in logged
    assert_harmless(logged)


# Signatures.


@pytest.mark.parametrize("key", ["note", WIRED, "Run", "role"])
def test_a_signature_holds_the_signed_keys_and_no_others(folder, key):
    """What is not signed could be changed on the way, and would be believed or shown one day."""
    signing = coordinator_key(folder)
    message = request(signing)
    message.content[SIGNATURE][key] = "anything"
    with pytest.raises(SignatureError, match="holds more than a signature"):
        verified_slip(message.content, "request", signing.public_key())


@pytest.mark.parametrize("field", SLIPS)
def test_what_is_signed_are_names_without_blanks_and_not_long(folder, field):
    signing = coordinator_key(folder)
    for text in (WIRED, "a b", "x" * 200, "é"):
        with pytest.raises(SignatureError, match=f"{field} is no name"):
            verified_slip(request(signing, slip(**{field: text})).content, "request", signing.public_key())


def test_a_run_without_sites_says_why_harmlessly(sites, tmp_path, capsys):
    def app(message, context):
        reply = REAL(message, context)
        return GREETINGS["version"](message, reply) or reply

    config = tiny_config(sites, federation={"rounds": 1, "greeting_timeout_s": 0.5})
    with pytest.raises(QuorumError) as caught:
        federate(config, tmp_path / "run", app=app, display=LogDisplay())
    assert_harmless(capsys.readouterr().out + str(caught.value))
