"""What fedrag writes is its owner's alone, and what is not is found."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import make_clinic
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.files import write_text
from fedrag.security.permissions import loose_paths, private_files

INIT = {
    "client": ["--name", "clinic", "--server", "rag.example.org:8443"],
    "server": ["--name", "rag.example.org"],
}


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    """Let whatever is not closed on purpose be open to all."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("group", ["client", "server"])
def test_a_new_folder_is_its_owner_s_alone_even_one_that_was_there_and_open(group, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir(mode=0o777)
    assert CliRunner().invoke(app, [group, "init", str(folder), *INIT[group]]).exit_code == 0
    assert mode(folder) == 0o700
    assert all(mode(path) == (0o700 if path.is_dir() else 0o600) for path in folder.rglob("*"))
    assert os.umask(0) == 0, "it is closed for the command alone"


def test_a_file_is_as_open_as_the_process_says(tmp_path):
    """It once was open to all, whatever the process said."""
    with private_files():
        write_text(tmp_path / "file", "text")
    assert mode(tmp_path / "file") == 0o600
    write_text(tmp_path / "file", "text")
    assert mode(tmp_path / "file") == 0o644


def test_server_check_names_what_is_open_and_what_closes_it(tmp_path):
    folder = tmp_path / "my coordinator"
    CliRunner().invoke(app, ["server", "init", str(folder), *INIT["server"]])
    asked = ["server", "check", str(folder)]
    fine = CliRunner().invoke(app, asked)
    assert fine.exit_code == 0
    assert "ok     permissions: only its owner can read it" in fine.stdout
    (folder / "superlink.db").touch(0o644)
    (folder / "logs").mkdir(mode=0o755)
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 2
    [line] = [line for line in found.stdout.splitlines() if "permissions" in line]
    assert line == (
        f"to do  permissions: {folder}/logs and 1 other: open to others than the owner; run: chmod -R go= '{folder}'"
    )
    assert os.system(line.partition("run: ")[2]) == 0
    assert CliRunner().invoke(app, asked).exit_code == 0


def test_client_check_names_what_is_open_but_not_what_the_administrator_brings(tmp_path):
    with private_files():
        clinic = make_clinic(tmp_path)
    for path in [clinic / "ca.crt", clinic / "coordinator.pub", *(clinic / "data").iterdir()]:
        path.chmod(0o644)
    (clinic / "data").chmod(0o755)
    (clinic / "link").symlink_to("/etc/passwd")
    others = [clinic / name for name in ("data", "ca.crt", "coordinator.pub")]
    assert loose_paths(clinic, others) == []
    (clinic / "logs").mkdir(mode=0o750)
    output = CliRunner().invoke(app, ["client", "check", str(clinic)]).stdout
    assert (
        f"to do  permissions: {clinic}/logs: open to others than the owner; run: chmod -R go= {clinic}"
        in output.splitlines()
    )


def test_a_folder_that_a_group_may_read_is_open_to_that_group_alone(tmp_path):
    tmp_path.chmod(0o2750)
    (tmp_path / "read").touch(0o640)
    (tmp_path / "changed").touch(0o660)
    (tmp_path / "all").touch(0o644)
    assert loose_paths(tmp_path) == [tmp_path / "all", tmp_path / "changed"]
