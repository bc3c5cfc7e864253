"""What the system's users may do at a coordinator: its owner all, the group of readers read, all others nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import FEDRAG, Deployment

from fedrag.coordinator.operator_log import operator_log, recorded_commands
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError
from fedrag.files import write_text
from fedrag.security.keys import new_key

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users"),
]

GROUP = "games"  # every Debian has it, and "nobody" is no member
SECRETS = ("ca.key", "server.key", "signing.key", "executor.secret", "superlink.db")


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """Run a coordinator in a folder that other users can reach: those of pytest are root's alone."""
    root = Path(tempfile.mkdtemp(prefix="operators-"))
    root.chmod(0o755)
    running = Deployment(root, {})
    settings = running.server.path / "server.toml"
    write_text(settings, settings.read_text().replace('readers = ""', f'readers = "{GROUP}"'))
    try:
        running.start_server()
        yield running
    finally:
        running.close()
        shutil.rmtree(root)


def as_nobody(*command: object, group: str = GROUP) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", f"--groups={group}"]
    environment = os.environ | {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*become, *map(str, command)], capture_output=True, text=True, env=environment, cwd="/", check=False
    )


def test_a_reader_sees_how_the_coordinator_does_and_who_did_what(deployment):
    server = deployment.server.path
    status = as_nobody(FEDRAG, "server", "status", server)
    assert (status.returncode, status.stderr) == (0, "")
    assert ": running; certificate expires in" in status.stdout
    assert as_nobody(FEDRAG, "server", "sites", server).stdout.strip() == "no site is registered"
    audit = as_nobody(FEDRAG, "server", "audit", server)
    assert audit.returncode == 0
    assert "every line follows from the one before it" in audit.stdout


def test_a_reader_changes_nothing(deployment):
    server, before = deployment.server.path, len(recorded_commands(deployment.server.path))
    new_key(server.parent / "north.key")
    scenario = Path(__file__).parents[2] / "simulations" / "scenarios" / "tiny.toml"
    shutil.copy(scenario, server.parent / "tiny.toml")
    for arguments in (
        ("add-site", server, server.parent / "north.pub", "--name", "north"),
        ("remove-site", server, "north"),
        ("run", server, server.parent / "tiny.toml"),
        ("resume", server, "tiny-1"),
        ("stop", server),
        ("rotate", server),
        ("rotate", server, "--signing"),
        ("backup", server, "/tmp/stolen.tar.gz"),
        ("start", server),
    ):
        result = as_nobody(FEDRAG, "server", *arguments)
        assert result.returncode == 2, arguments
        assert "cannot be written: Permission denied" in result.stderr, (arguments, result.stderr)
    assert len(recorded_commands(server)) == before
    assert operator_log(server).verify().faults == ()


@pytest.mark.parametrize("name", SECRETS)
def test_a_reader_reads_no_key_and_no_update(deployment, name):
    assert (deployment.server.path / name).is_file()
    assert as_nobody("cat", deployment.server.path / name).returncode == 1


def test_a_reader_cannot_hold_what_the_service_needs(deployment):
    for name in (".lock", ".audit.jsonl.lock"):
        assert (deployment.server.path / name).is_file()
        assert as_nobody("flock", "--nonblock", deployment.server.path / name, "true").returncode != 0


def test_who_is_in_no_group_reads_nothing(deployment):
    server = deployment.server.path
    assert as_nobody("ls", server, group="nogroup").returncode == 2
    result = as_nobody(FEDRAG, "server", "status", server, group="nogroup")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "readable" in result.stderr, "in a frame, whose lines may break anywhere between words"


def test_what_a_command_makes_later_is_the_readers_too(deployment):
    as_owner = [FEDRAG, "server", "remove-site", str(deployment.server.path), "nobody-known"]
    subprocess.run(as_owner, env=os.environ | {"SUDO_USER": "alice"}, capture_output=True, check=False)
    audit = as_nobody(FEDRAG, "server", "audit", deployment.server.path).stdout
    assert "alice as root" in " ".join(audit.split())


def test_a_group_that_there_is_not_is_named(tmp_path):
    with pytest.raises(ConfigError, match="this machine has no group of this name; make it with: groupadd"):
        ServerFolder.create(tmp_path / "server", ServerConfig(name="localhost", readers="no-such-group"))
