"""Who did what at a coordinator: every command leaves its lines, whoever gives it and however it ends."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_federation import tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.coordinator.backup import back_up, restore
from fedrag.coordinator.jobs import begin_run, resume_run, stop_run
from fedrag.coordinator.operator_log import Operator, current_operator, operator_log, recorded_commands, recording
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError, ServiceError, StorageError
from fedrag.security.keys import fingerprint, load_public_key, new_key

FEDRAG = Path(sys.executable).with_name("fedrag")
CONFIG = ServerConfig(name="rag.example.org", port=18443, superlink_port=18444)
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def folder(tmp_path) -> ServerFolder:
    return ServerFolder.create(tmp_path / "coordinator", CONFIG)


@pytest.fixture
def key(tmp_path) -> Path:
    new_key(tmp_path / "north.key")
    return tmp_path / "north.pub"


def ends(folder: ServerFolder) -> list[tuple[str, str]]:
    return [(one.command, one.end) for one in recorded_commands(folder.path)]


def test_every_command_leaves_what_it_was_about_and_how_it_ended(folder, key, tmp_path, tiny_home):
    added = folder.register.add_site("north", key)
    with folder.lock():
        run = begin_run(folder, tiny_config())
        assert stop_run(folder) == run
        folder.end()
        resume_run(folder, run)
    folder.end()
    folder.renew_certificate()
    back_up(folder, tmp_path / "backup.tar.gz")
    folder.register.remove_site("north")
    told = {one.command: (one.told, one.end) for one in recorded_commands(folder.path)}
    assert list(told) == ["init", "add-site", "run", "stop", "resume", "rotate", "backup", "remove-site"]
    assert told["init"] == ({"name": "rag.example.org"}, "done")
    who = f"north, {fingerprint(load_public_key(key))}"
    assert str(added) == who
    assert told["add-site"] == ({"name": "north", "public_key": str(key), "questions": "0"}, f"done: {who}")
    assert told["run"][0]["config"].startswith("tiny, sha256 ")
    assert told["run"][1] == f"done: {run}"
    assert told["stop"] == ({}, f"done: {run}")
    assert told["resume"] == ({"name": run, "rounds": ""}, "done")
    assert told["backup"] == ({"file": str(tmp_path / "backup.tar.gz")}, "done")
    assert told["remove-site"] == ({"name": "north"}, f"done: {who}")
    assert operator_log(folder.path).verify().faults == ()


def test_a_command_that_was_refused_is_there_too_with_the_reason(folder, key):
    with pytest.raises(ConfigError):
        folder.register.remove_site("south")
    with pytest.raises(ServiceError):
        stop_run(folder)
    assert ends(folder)[1:] == [
        ("remove-site", "refused: south: no site has this name; registered: none"),
        ("stop", "refused: no run is in progress"),
    ]


def test_a_command_whose_process_was_killed_shows_no_end(folder):
    script = """
import os, sys
from pathlib import Path
from fedrag.coordinator.operator_log import recording
with recording(Path(sys.argv[1]), "run", {}):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, str(folder.path)], check=False)
    assert ends(folder)[-1] == ("run", "no end is recorded: the process was killed")


def test_what_cannot_be_recorded_is_not_done(folder, key):
    (folder.path / "audit.jsonl").unlink()
    (folder.path / "audit.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"audit\.jsonl: cannot be written"):
        folder.register.add_site("north", key)
    assert folder.register.sites() == []


def test_the_person_is_named_behind_sudo(folder, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "alice")
    with recording(folder.path, "stop", {}):
        pass
    who = recorded_commands(folder.path)[-1].operator
    assert (who.user, who.sudo) == (ME, "alice")
    assert Operator("fedrag-server", "alice").text == "alice as fedrag-server"
    assert Operator("fedrag-server", "alice", "alice").text == "alice as fedrag-server"
    assert Operator("root", "bob", "alice").text == "alice as bob as root"
    assert Operator("fedrag-server").text == "fedrag-server"


def test_the_person_who_logged_in_is_the_kernel_s_word(tmp_path, monkeypatch):
    (tmp_path / "loginuid").write_text(str(os.geteuid()))
    monkeypatch.setattr("fedrag.coordinator.operator_log._LOGIN", tmp_path / "loginuid")
    assert current_operator().login == ME
    (tmp_path / "loginuid").write_text(str(2**32 - 1))
    assert current_operator().login == ""


def test_the_log_goes_on_in_a_restored_folder(folder, tmp_path):
    back_up(folder, tmp_path / "backup.tar.gz")
    again = restore(tmp_path / "backup.tar.gz", tmp_path / "again")
    commands = [one.command for one in recorded_commands(again.path)]
    assert commands == ["init", "backup", "restore"]
    assert operator_log(again.path).verify().faults == ()


# `fedrag server audit`, as a person types it.


def test_the_audit_shows_who_did_what_and_that_the_log_is_whole(folder, key):
    added = subprocess.run(
        [FEDRAG, "server", "add-site", folder.path, key, "--name", "north"],
        env=os.environ | {"SUDO_USER": "alice"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert added.stdout.startswith("north is registered")
    result = CliRunner().invoke(app, ["server", "audit", str(folder.path)])
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert f"alice as {ME} add-site north," in text
    assert "audit.jsonl: 4 lines in the chain; every line follows from the one before it." in text
    report = json.loads(CliRunner().invoke(app, ["server", "audit", str(folder.path), "--json"]).stdout)
    assert report["whole"] is True
    assert report["commands"][1]["typed"] == f"fedrag server add-site {folder.path} {key} --name north"


def test_the_audit_of_a_log_that_lost_a_line_is_an_error(folder, key):
    folder.register.add_site("north", key)
    log = folder.path / "audit.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    noted = json.loads(lines[-1])["chain"]
    log.write_text("".join(lines[:2]))
    result = CliRunner().invoke(app, ["server", "audit", str(folder.path)])
    assert result.exit_code == 2
    assert "the log ends before the line that audit.head names: 2 lines fewer than it counts" in result.stdout
    log.write_text("".join(lines[:2] + lines[3:]))
    assert CliRunner().invoke(app, ["server", "audit", str(folder.path)]).exit_code == 2
    log.write_text("".join(lines))
    assert CliRunner().invoke(app, ["server", "audit", str(folder.path), "--noted", noted]).exit_code == 0
    assert CliRunner().invoke(app, ["server", "audit", str(folder.path), "--noted", "0" * 64]).exit_code == 2


def test_what_somebody_typed_cannot_change_how_the_audit_looks(folder, key):
    with pytest.raises(ConfigError):
        folder.register.add_site("[red]\x1b[2J", key)
    assert r"[red]\x1b[2J" in CliRunner().invoke(app, ["server", "audit", str(folder.path)]).stdout
