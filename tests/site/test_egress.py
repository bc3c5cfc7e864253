"""The log of what leaves a site: complete, written before anything is sent, whole after a crash."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime

import numpy as np
import pytest
import typer
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from typer.testing import CliRunner

from fedrag.cli.client_audit import audit
from fedrag.errors import ConfigError, StorageError
from fedrag.federation.greeting import Greeting, greeting_content
from fedrag.federation.messages import DELIVER, GREET, TRAIN, VALIDATE, Reply, array_bytes, reply_content
from fedrag.federation.signing import Slip
from fedrag.federation.update import manifest_of
from fedrag.site.admin.egress_audit import ALSO_LEAVES, audit_rows
from fedrag.site.egress import (
    KEYS,
    EgressLog,
    count_unreadable,
    describe,
    read_egress,
)
from fedrag.site.site_config import site_toml
from fedrag.types import ModelIdentity

WHEN = datetime(2026, 3, 2, 14, 30).timestamp()  # local time, as in the log
MANIFEST = manifest_of({"w": np.zeros(3, np.float32)})
REPLY = Reply(
    {"generator": np.array([1.0, 2.0, 3.0], np.float32)}, {"generator": 4}, {"seconds": 1.5, "generator.loss": 0.25}
)
TRAINED = reply_content(REPLY, {"generator": MANIFEST}, "float32")
GREETED = greeting_content(
    Greeting(
        "clinic", "0.1.0", {"train_questions": 4}, {"retriever": ModelIdentity(*(letter * 64 for letter in "bcdef"))}
    )
)
REFUSED = reply_content(Reply(refusal="deadline", error_id="0123abcd"), {}, "float32")


def slip(kind=TRAIN, run="trial-1", request="r1"):
    return Slip("reply", run, request, "clinic", kind, "0.1.0", WHEN)


@pytest.fixture
def log(tmp_path):
    return EgressLog(tmp_path / "egress.jsonl")


def test_a_line_tells_when_what_and_how_much(log):
    log.write(TRAINED, slip(), "3", 61.23456)
    (line,) = read_egress(log.path)
    assert tuple(line) == KEYS
    assert datetime.fromisoformat(line["time"]).timestamp() == WHEN
    assert datetime.fromisoformat(line["time"]).tzinfo is not None
    told = {key: line[key] for key in ("run", "round", "kind", "request", "seconds")}
    assert told == {"run": "trial-1", "round": 3, "kind": "train", "request": "r1", "seconds": 61.235}
    assert {key: line[key] for key in ("arrays", "bytes", "numbers", "texts")} == describe(TRAINED)


def test_arrays_are_told_by_size_and_hash_and_all_else_in_clear():
    data = TRAINED["update"]["generator"].data
    assert describe(TRAINED) == {
        "arrays": [
            {
                "name": "update.generator",
                "dtype": "uint8",
                "shape": [12],
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        ],
        "bytes": array_bytes(TRAINED),
        "numbers": {
            "metrics.num-examples.generator": 4,
            "metrics.metric.seconds": 1.5,
            "metrics.metric.generator.loss": 0.25,
        },
        "texts": {"manifests.generator": MANIFEST.sha256},
    }
    assert describe(GREETED)["numbers"] == {"counts.train_questions": 4}
    assert describe(GREETED)["texts"] == {
        "greeting.name": "clinic",
        "greeting.version": "0.1.0",
        "greeting.tensors.retriever": "b" * 64,
        "greeting.tokenizer.retriever": "c" * 64,
        "greeting.template.retriever": "d" * 64,
        "greeting.configuration.retriever": "e" * 64,
        "greeting.prompts.retriever": "f" * 64,
    }
    assert describe(REFUSED)["texts"] == {"refusal.code": "deadline", "refusal.error-id": "0123abcd"}


def test_whatever_a_record_can_hold_is_told(log):
    content = RecordDict(
        {
            "a": ConfigRecord({"bytes": b"\x00\xff", "flag": True, "list": ["x", "y"], "none": [], "number": 7}),
            "b": MetricRecord({"nan": math.nan, "list": [1, 2], "infinite": [math.inf]}),
        }
    )
    log.write(content, slip(), "1", 0.0)
    (line,) = read_egress(log.path)
    assert line["numbers"] == {"a.flag": True, "a.number": 7, "b.list": [1, 2]}
    assert line["texts"] == {
        "a.bytes": "00ff",
        "a.list": ["x", "y"],
        "a.none": [],
        "b.nan": "nan",
        "b.infinite": ["inf"],
    }
    json.loads(log.path.read_text(), parse_constant=pytest.fail)  # NaN is no JSON to other programs


@pytest.mark.parametrize(
    ("content", "message_type", "kind"),
    [
        (GREETED, GREET, "greet"),
        (TRAINED, TRAIN, "train"),
        (TRAINED, VALIDATE, "validate"),
        (TRAINED, DELIVER, "deliver"),
        (REFUSED, TRAIN, "refusal"),
        (REFUSED, "query.unheard-of", "refusal"),
    ],
)
def test_the_kind_is_that_of_the_request_but_a_refusal_is_one(log, content, message_type, kind):
    log.write(content, slip(message_type), "1", 0.0)
    assert read_egress(log.path)[0]["kind"] == kind


@pytest.mark.parametrize(("group", "number"), [("0", 0), ("12", 12), ("delivery", 0), ("", 0), ("-1", 0), ("²", 0)])
def test_a_group_that_is_no_number_is_no_round(log, group, number):
    log.write(TRAINED, slip(DELIVER), group, 0.0)
    assert read_egress(log.path)[0]["round"] == number


def test_the_log_is_the_owner_s_alone_from_the_start(log):
    before = os.umask(0)
    try:
        log.write(TRAINED, slip(), "1", 0.0)
    finally:
        os.umask(before)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_lines_are_added_and_none_is_changed(log):
    log.write(GREETED, slip(GREET), "0", 0.0)
    first = log.path.read_bytes()
    log.write(TRAINED, slip(), "1", 0.0)
    assert log.path.read_bytes().startswith(first)
    assert [line["kind"] for line in read_egress(log.path)] == ["greet", "train"]


@pytest.mark.parametrize("kept", [1, 40, -2])
def test_a_torn_last_line_is_passed_over_and_ended_before_the_next(log, kept):
    log.write(GREETED, slip(GREET), "0", 0.0)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[:kept])
    assert [line["kind"] for line in read_egress(log.path)] == ["greet"]
    assert count_unreadable(log.path) == 1
    log.write(TRAINED, slip(), "1", 0.0)
    assert log.path.read_bytes().startswith(whole + whole[:kept] + b"\n{")
    assert [line["kind"] for line in read_egress(log.path)] == ["greet", "train"]
    assert count_unreadable(log.path) == 1


def test_a_last_line_that_lacks_its_end_alone_is_not_lost(log):
    log.write(GREETED, slip(GREET), "0", 0.0)
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    log.write(TRAINED, slip(), "1", 0.0)
    assert [line["kind"] for line in read_egress(log.path)] == ["greet", "train"]
    assert count_unreadable(log.path) == 0


@pytest.mark.parametrize(
    "line", ["{}", "[]", "3", "null", '{"time": 3}', "\x00", "[" * 100_000, json.dumps(dict.fromkeys(KEYS, "x"))]
)
def test_a_line_that_is_none_of_ours_is_passed_over_and_counted(log, line):
    log.path.write_text(line + "\n")
    assert read_egress(log.path) == []
    assert count_unreadable(log.path) == 1


def test_nothing_has_left_where_there_is_no_log(tmp_path):
    assert read_egress(tmp_path / "none.jsonl") == []
    assert count_unreadable(tmp_path / "none.jsonl") == 0


def test_a_log_that_cannot_be_read_is_told_in_one_sentence(tmp_path):
    with pytest.raises(StorageError, match="cannot be read: Is a directory$"):
        read_egress(tmp_path)


def test_a_log_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path):
    """Linux's /dev/full takes no byte."""
    (tmp_path / "egress.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"egress\.jsonl: cannot be written: the disk is full"):
        EgressLog(tmp_path / "egress.jsonl").write(TRAINED, slip(), "1", 0.0)
    with pytest.raises(StorageError, match="cannot be written: No such file or directory"):
        EgressLog(tmp_path / "none" / "egress.jsonl").write(TRAINED, slip(), "1", 0.0)


@contextmanager
def no_file_longer_than(size):
    """Let the system refuse this process any longer file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_of_a_line_that_finds_no_room_nothing_stays(log):
    log.write(GREETED, slip(GREET), "0", 0.0)
    whole = log.path.read_bytes()
    with no_file_longer_than(len(whole) + 50), pytest.raises(StorageError, match="cannot be written: File too large"):
        log.write(TRAINED, slip(), "1", 0.0)
    assert log.path.read_bytes() == whole


def test_after_a_kill_every_line_that_was_confirmed_is_there(log):
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_egress import TRAINED, EgressLog, slip
log = EgressLog(Path(sys.argv[2]))
for number in range(1, 100_000):
    log.write(TRAINED, slip(), str(number), 0.0)
    print(number, flush=True)
"""
    arguments = [sys.executable, "-c", script, os.path.dirname(__file__), str(log.path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        confirmed = first + [int(number) for number in process.stdout.read().split()]
    rounds = [line["round"] for line in read_egress(log.path)]
    assert rounds[: len(confirmed)] == confirmed
    assert len(rounds) + count_unreadable(log.path) <= len(confirmed) + 1


def test_an_audit_has_a_row_a_reply_by_run(log):
    log.write(GREETED, slip(GREET), "0", 0.0)
    log.write(TRAINED, slip(), "1", 0.0)
    log.write(REFUSED, slip(run="trial-2"), "1", 0.0)
    rows = audit_rows(read_egress(log.path))
    assert list(rows) == ["trial-1", "trial-2"]
    greeted, trained = rows["trial-1"]
    assert (greeted.kind, greeted.components, greeted.n_bytes) == ("greet", (), 0)
    assert greeted.told == (
        "train_questions 4",
        "name clinic",
        "version 0.1.0",
        f"tensors.retriever {'b' * 12}...",
        f"tokenizer.retriever {'c' * 12}...",
        f"template.retriever {'d' * 12}...",
        f"configuration.retriever {'e' * 12}...",
        f"prompts.retriever {'f' * 12}...",
    )
    assert (trained.when, trained.round_number, trained.kind) == ("2026-03-02 14:30", 1, "train")
    assert (trained.components, trained.n_bytes) == (("generator",), array_bytes(TRAINED))
    assert trained.told == (
        "num-examples.generator 4",
        "seconds 1.5",
        "generator.loss 0.25",
        f"manifests.generator {MANIFEST.sha256[:12]}...",
    )


def test_an_audit_shows_the_rules_that_a_greeting_told_by_the_names_of_their_settings(log):
    rules = {"schedules.joint": 1.0, "rounds_a_day": 10.0, "max_update_norm": 2.5}
    log.write(greeting_content(Greeting("clinic", "0.1.0", {"train_questions": 4}, {}, rules)), slip(GREET), "0", 0.0)
    [[greeted]] = audit_rows(read_egress(log.path)).values()
    assert greeted.told == (
        "train_questions 4",
        "schedules.joint 1",
        "rounds_a_day 10",
        "max_update_norm 2.5",
        "name clinic",
        "version 0.1.0",
    )


# `fedrag client audit`, as a person types it.


@pytest.fixture
def clinic(tmp_path):
    folder = tmp_path / "clinic"
    folder.mkdir()
    (folder / "site.toml").write_text(site_toml("clinic", "localhost:8443"))
    return folder


def run_audit(*arguments):
    app = typer.Typer()
    app.command()(audit)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_audit_shows_every_reply_the_totals_and_what_the_log_cannot_show(clinic):
    log = EgressLog(clinic / "egress.jsonl")
    log.write(GREETED, slip(GREET), "0", 0.0)
    log.write(TRAINED, slip(), "1", 0.0)
    log.write(TRAINED, slip(), "2", 0.0)
    log.write(REFUSED, slip(run="trial-2"), "1", 0.0)
    result = run_audit(clinic)
    assert result.exit_code == 0
    each = array_bytes(TRAINED)
    text = " ".join(result.stdout.split())
    assert "Run trial-1" in text
    assert f"2026-03-02 14:30 2 train generator {each} num-examples.generator 4," in text
    assert f"3 in all {2 * each}" in text
    assert "refusal - 0 code deadline, error-id 0123abcd" in text
    assert f"In all, 4 replies left clinic in 2 runs, 2 of them with an update, {2 * each} bytes of arrays." in text
    assert all(sentence in text for sentence in ALSO_LEAVES)


def test_the_audit_says_where_nothing_has_left(clinic):
    assert run_audit(clinic).stdout.startswith("Nothing has left clinic yet.\n")


def test_the_audit_tells_of_lines_that_cannot_be_read(clinic):
    (clinic / "egress.jsonl").write_text('{"time": "2026\n{}\n')
    assert "2 lines of the log cannot be read: cut off by a crash" in run_audit(clinic).stdout


def test_a_run_s_name_cannot_change_how_the_audit_looks(clinic):
    EgressLog(clinic / "egress.jsonl").write(TRAINED, slip(run="[red]x[/red]\x1b[2J\n"), "1", 0.0)
    assert r"Run [red]x[/red]\x1b[2J\n" in run_audit(clinic).stdout


def test_the_audit_verifies_that_the_log_is_whole(clinic):
    log = EgressLog(clinic / "egress.jsonl")
    log.write(GREETED, slip(GREET), "0", 0.0)
    log.write(TRAINED, slip(), "1", 0.0)
    log.write(TRAINED, slip(), "2", 0.0)
    result = run_audit(clinic, "--verify")
    assert result.exit_code == 0
    assert result.stdout.startswith("egress.jsonl: 3 lines in the chain; every line follows from the one before it.\n")
    noted = result.stdout.split()[-1]
    whole = log.path.read_text()
    log.path.write_text("".join(whole.splitlines(keepends=True)[:1] + whole.splitlines(keepends=True)[2:]))
    result = run_audit(clinic, "--verify")
    assert result.exit_code == 2
    assert "it is not whole:\n- line 2 does not follow from what stands before it" in result.stdout
    log.path.write_text(whole.replace('"round": 1', '"round": 3'))
    report = json.loads(run_audit(clinic, "--verify", "--json").stdout)
    assert (report["whole"], report["lines"], len(report["faults"])) == (False, 3, 1)
    log.path.unlink()
    (clinic / "egress.head").unlink()
    log.write(GREETED, slip(GREET), "0", 0.0)
    assert run_audit(clinic, "--verify").exit_code == 0
    assert "the log was written anew since it was noted" in run_audit(clinic, "--noted", noted).stdout


def test_a_log_of_an_earlier_version_is_read_and_its_chain_begins_with_the_next_line(clinic):
    log = EgressLog(clinic / "egress.jsonl")
    log.write(GREETED, slip(GREET), "0", 0.0)
    old = {key: value for key, value in json.loads(log.path.read_text()).items() if key != "chain"}
    log.path.write_text(json.dumps(old) + "\n")
    (clinic / "egress.head").unlink()
    assert run_audit(clinic, "--verify").stdout == (
        "egress.jsonl: 0 lines in the chain, after 1 line from before the chain: nothing to verify\n"
    )
    log.write(TRAINED, slip(), "1", 0.0)
    assert [line["kind"] for line in read_egress(log.path)] == ["greet", "train"]
    assert run_audit(clinic, "--verify").stdout.startswith(
        "egress.jsonl: 1 line in the chain, after 1 line from before the chain; every line follows"
    )


def test_the_audit_as_json_holds_the_log_as_it_is(clinic):
    log = EgressLog(clinic / "egress.jsonl")
    log.write(TRAINED, slip(), "1", 0.0)
    assert json.loads(run_audit(clinic, "--json").stdout) == {
        "site": "clinic",
        "replies": read_egress(log.path),
        "unreadable_lines": 0,
        "also_leaves": list(ALSO_LEAVES),
    }


def test_the_audit_of_what_is_no_site_is_an_error(tmp_path):
    result = run_audit(tmp_path)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{tmp_path / 'site.toml'}: no such file")
