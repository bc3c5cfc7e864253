"""A federation goes on with new keys, and nothing is done for the old ones: real processes, and the commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from deployment import FEDRAG, Deployment
from tiny_federation import tiny_config

from fedrag.config.scenario import Config
from fedrag.coordinator.operator_log import operator_log
from fedrag.security.chained_log import ChainedLog
from fedrag.security.keys import fingerprint, load_private_key, load_public_key
from fedrag.site.egress import read_egress
from fedrag.site.service.connection import AccessDenied, connect

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

NAMES = ("north", "south")


def run_of(data: Path, **federation: object) -> Config:
    return tiny_config(data, federation={"rounds": 1, "min_sites": 2, "greeting_timeout_s": 180.0} | federation)


def fedrag(*arguments: object, code: int = 0) -> str:
    command = [str(part) for part in (FEDRAG, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def line_in(output: str) -> str:
    [line] = [line for line in output.splitlines() if line.startswith("fedrag-key.")]
    return line


def kinds(deployment: Deployment, name: str) -> list[str]:
    return [line["kind"] for line in read_egress(deployment.root / name / "egress.jsonl")]


def test_a_new_signing_key_is_followed_by_running_sites_and_the_old_one_does_nothing(deployment, data):
    before = load_public_key(deployment.root / "north" / "coordinator.pub")
    told = fedrag("server", "rotate", deployment.server.path, "--signing")
    new = deployment.server.signing_fingerprint
    assert f"{fingerprint(before)} hands over to {new}" in told
    followed = fedrag("client", "accept-key", deployment.root / "north", line_in(told))
    assert f"{fingerprint(before)} hands over to {new}" in followed
    missed = deployment.begin(run_of(data))
    deployment.wait(lambda: "refused with bad-signature" in deployment.node_log("south"), 120, "south refuses")
    deployment.wait(lambda: "greet" in kinds(deployment, "north"), 120, "north greets")
    assert set(kinds(deployment, "south")) == {"refusal"}
    deployment.stop()
    deployment.wait(lambda: not deployment.server.current(), 30, "the run stopped")
    fedrag("client", "accept-key", deployment.root / "south", deployment.server.for_sites / "coordinator-keys.txt")
    deployment.resume(missed)
    assert deployment.wait_until_done(missed).rounds()[0]["round"] == 1


def connection_with(deployment: Deployment, key: Path):
    folder = deployment.root / "south"
    server = f"127.0.0.1:{deployment.server.config.port}"
    return connect(server, folder / "ca.crt", load_private_key(key), key.with_suffix(".address"), lambda: True)


def test_a_site_goes_over_to_its_new_key_while_it_runs_and_the_old_one_opens_nothing(deployment, data, tmp_path):
    server, south = deployment.server.path, deployment.root / "south"
    old = tmp_path / "old.key"
    old.write_bytes((south / "site.key").read_bytes())
    old.chmod(0o600)
    (tmp_path / "old.pub").write_text((south / "site.pub").read_text())
    replies = len(kinds(deployment, "south"))
    line = line_in(fedrag("client", "rotate", south))
    waiting = deployment.begin(run_of(data, min_sites=3))
    assert f"{waiting} is running" in fedrag("server", "accept-key", server, line, code=2)
    told = fedrag("server", "rotate", server, "--signing", code=2)
    assert f"{waiting} is running, and its requests are signed" in told
    deployment.stop()
    deployment.wait(lambda: not deployment.server.current(), 30, "the run stopped")
    assert "is never accepted again" in fedrag("server", "accept-key", server, line)
    deployment.wait(lambda: "the next key of this site is in use" in deployment.node_log("south"), 60, "taken up")
    deployment.wait_until_online(NAMES)
    assert fingerprint(load_public_key(south / "site.pub")) != fingerprint(load_public_key(tmp_path / "old.pub"))
    with pytest.raises(AccessDenied), connection_with(deployment, old):
        pass
    assert "has replaced this key" in fedrag("server", "add-site", server, tmp_path / "old.pub", "--name", "x", code=2)
    run = deployment.begin(run_of(data))
    deployment.wait_until_done(run)
    assert len(kinds(deployment, "south")) > replies
    assert ChainedLog(south / "egress.jsonl").verify().faults == ()
    assert fedrag("client", "audit", south, "--verify").startswith("egress.jsonl:")


def test_what_was_burnt_stays_burnt_after_both_ends_start_again(deployment, data, tmp_path):
    (tmp_path / "old.key").write_bytes((deployment.root / "south" / "site.key").read_bytes())
    (tmp_path / "old.key").chmod(0o600)
    deployment.end("south")
    line = line_in(fedrag("client", "rotate", deployment.root / "south"))
    deployment.end("server")
    fedrag("server", "accept-key", deployment.server.path, line)
    deployment.start_server()
    with pytest.raises(AccessDenied), connection_with(deployment, tmp_path / "old.key"):
        pass
    deployment.start_site("south")
    deployment.wait_until_online(NAMES)
    deployment.wait_until_done(deployment.begin(run_of(data)))
    assert operator_log(deployment.server.path).verify().faults == ()
