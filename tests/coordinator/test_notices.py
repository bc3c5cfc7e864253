"""What asks for an operator's attention, and how it is told: real folders, certificates and commands."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from fedrag_process import run_to_its_end
from written_run import new_folder, record, write_run

from fedrag.coordinator import notices as looked
from fedrag.coordinator import notify
from fedrag.coordinator.console_page import render_sections
from fedrag.coordinator.notices import notices
from fedrag.coordinator.notify import Notifier
from fedrag.coordinator.outcome import TOLD_TO_STOP
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError
from fedrag.security.certificates import days_left, new_server_certificate

WRITES = "import json, sys; open({file!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerFolder:
    monkeypatch.setattr(looked, "LEAST_FREE", 0.0)
    monkeypatch.setattr(looked, "FREE_SHARE", 0.0)
    return new_folder(tmp_path)


def renew(folder: ServerFolder, days: int) -> None:
    path = folder.path
    files = (path / "server.crt", path / "server.key", path / "ca.crt", path / "ca.key")
    new_server_certificate(*files, ["rag.example.org"], days)


def found(folder: ServerFolder, later: timedelta = timedelta()) -> dict[str, str]:
    return {notice.kind: notice.text for notice in notices(folder, datetime.now(UTC) + later)}


def test_a_certificate_is_spoken_of_from_thirty_days_before_its_end_on(folder):
    assert found(folder) == {}
    left = days_left(folder.path / "server.crt", datetime.now(UTC))
    assert "certificate" not in found(folder, timedelta(days=left - 30))
    text = found(folder, timedelta(days=left - 29))["certificate"]
    assert text == f"the certificate expires in 29 days; renew the certificate with: fedrag server rotate {folder.path}"
    assert found(folder, timedelta(days=left - 1))["certificate"].startswith("the certificate expires in 1 day;")
    assert "has expired: no site gets in" in found(folder, timedelta(days=left + 2))["certificate"]
    folder.renew_certificate()
    assert found(folder) == {}


def test_where_the_authority_itself_ends_no_renewal_is_proposed(folder):
    text = found(folder, timedelta(days=days_left(folder.path / "ca.crt", datetime.now(UTC)) - 20))["certificate"]
    assert "make a new coordinator" in text
    assert "rotate" not in text


def test_the_newest_run_is_spoken_of_for_a_day_where_it_ended_without_a_result(folder):
    write_run(folder, [record(1)], "failed", "its process died 3 times\nin the same round")
    text = found(folder)["run-failed"]
    assert text.startswith(
        "written-1 failed: its process died 3 times in the same round; go on with: fedrag server resume"
    )
    assert found(folder, timedelta(hours=25)) == {}
    write_run(folder, [record(1)], "stopped", TOLD_TO_STOP)
    assert found(folder) == {}, "an operator knows what he told it"
    write_run(folder, [record(1)], "stopped", "round 2: 1 of 2 sites gave a valid reply")
    assert found(folder)["run-failed"].startswith("written-3 stopped: round 2")
    write_run(folder, [record(1)], "running")
    assert found(folder) == {}


def test_a_disk_that_is_nearly_full_is_spoken_of(folder, monkeypatch):
    monkeypatch.setattr(looked, "LEAST_FREE", 1e18)
    assert found(folder)["disk"].startswith("the disk is nearly full: ")


def test_status_and_console_show_what_asks_for_attention(folder):
    renew(folder, 12)
    code, out, _ = run_to_its_end("server", "status", folder.path)
    assert code == 0
    assert (
        f"attention: the certificate expires in 11 days; renew the certificate with: fedrag server rotate {folder.path}"
        in out
    )
    _, out, _ = run_to_its_end("server", "status", folder.path, "--json")
    assert "certificate" in [notice["kind"] for notice in json.loads(out)["notices"]]
    assert "The certificate expires in 11 days; renew" in render_sections(folder, "")["state"]


def with_command(folder: ServerFolder, command: list[str]) -> ServerFolder:
    text = folder.config.model_dump() | {"notify": {"command": command}}
    (folder.path / "server.toml").write_text(tomli_w.dumps(text))
    return ServerFolder.open(folder.path)


def look(notifier: Notifier) -> None:
    notifier._next_look = 0.0
    notifier.tend()


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_is_called_with_kind_and_text_once_a_day_also_after_a_restart(folder, tmp_path):
    renew(folder, 12)
    write_run(folder, [record(1)], "failed", 'it is "$(touch /tmp/x)"; `bad`')
    called = tmp_path / "called"
    opened = with_command(folder, [sys.executable, "-c", WRITES.format(file=str(called)), "fedrag:"])
    said: list[str] = []
    first = Notifier(opened, said.append)
    for _ in range(3):
        look(first)
    wait_until(lambda: called.is_file() and len(called.read_text().splitlines()) == 2)
    for _ in range(3):
        look(Notifier(opened, said.append))
    time.sleep(1)
    calls = {kind: text for _, kind, text in map(json.loads, called.read_text().splitlines())}
    assert len(called.read_text().splitlines()) == 2
    assert calls["certificate"].startswith("the certificate expires in 11 days")
    assert calls["run-failed"].startswith('written-1 failed: it is "$(touch /tmp/x)"; `bad`; go on with')
    assert sum(line.startswith("attention: the certificate") for line in said) == 1 + 3, "once by each process"

    file = folder.path / notify.TOLD_FILE
    day_ago = (datetime.now(UTC) - timedelta(hours=24, minutes=1)).isoformat()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"certificate": day_ago}))
    look(Notifier(opened, said.append))
    wait_until(lambda: len(called.read_text().splitlines()) == 3)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["/nowhere/mail"], "/nowhere/mail, cannot be started: No such file or directory"),
        ([sys.executable, "-c", "raise SystemExit(4)"], "ended with code 4"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "was ended after 2 s"),
    ],
)
def test_a_command_that_does_not_work_is_named_and_holds_nothing_up(folder, monkeypatch, command, says):
    monkeypatch.setattr(notify, "COMMAND_S", 2.0 if "time" in command[-1] else 60.0)
    renew(folder, 12)
    said: list[str] = []
    start = time.monotonic()
    look(Notifier(with_command(folder, command), said.append))
    assert time.monotonic() - start < 2.0
    wait_until(lambda: len(said) == 2)
    assert said[1].endswith(says)


def test_a_damaged_note_of_earlier_calls_is_written_again(folder, tmp_path):
    renew(folder, 12)
    (folder.path / notify.TOLD_FILE).write_text('{"certificate": 7}')
    called = tmp_path / "called"
    look(Notifier(with_command(folder, [sys.executable, "-c", WRITES.format(file=str(called))]), lambda _: None))
    wait_until(called.is_file)
    assert list(json.loads((folder.path / notify.TOLD_FILE).read_text())) == ["certificate"]


def test_a_command_that_is_one_text_is_refused(folder):
    with pytest.raises(ConfigError, match="command"):
        with_command(folder, "mail root")  # type: ignore[arg-type]
