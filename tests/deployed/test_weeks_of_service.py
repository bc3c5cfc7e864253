"""What an operator sees over weeks: rounds at both terminals, who was heard of when, and what asks for attention."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from deployment import Deployment
from fedrag_process import run_to_its_end
from tiny_federation import tiny_config

from fedrag.coordinator.notices import notices
from fedrag.coordinator.overview import site_rows
from fedrag.coordinator.reverse_proxy import is_ready
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.security.certificates import new_server_certificate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

NOBODY = "http://someone:secret@127.0.0.1:1"
"""A proxy that is not there."""
WRITES = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(sys.argv[2:]) + '\\n')"


@pytest.fixture(scope="module")
def deployment(data: Path, tmp_path_factory) -> Iterator[Deployment]:
    """A coordinator at all addresses, whose certificate ends soon, on a machine that has a proxy; and a site at ::1."""
    made = Deployment(tmp_path_factory.mktemp("deployment"), {name: data / name for name in ("north", "south")})
    path, config = made.server.path, made.server.config
    command = [sys.executable, "-c", WRITES, str(made.root / "told")]
    changed = {"listen": "::", "name": "::1", "notify": {"command": command}}
    (path / "server.toml").write_text(tomli_w.dumps(config.model_dump() | changed))
    made.server = ServerFolder.open(path)
    files = (path / "server.crt", path / "server.key", path / "ca.crt", path / "ca.key")
    new_server_certificate(*files, ["::1"], 12)
    for name in ("north", "south"):
        made.set_setting(name, "server", made.server.config.address)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HTTPS_PROXY", NOBODY)
            made.start_server()
        made.start_site("north")
        made.wait_until_online(["north"])
        yield made
    finally:
        made.close()


def test_it_is_reached_at_addresses_of_both_kinds_and_no_proxy_of_the_environment_is_in_its_way(deployment: Deployment):
    port, ca = deployment.server.config.port, deployment.server.path / "ca.crt"
    assert is_ready(port, ca, 0, "127.0.0.1")
    assert is_ready(port, ca, 0, "::1")
    assert f"ready: sites reach it at [::1]:{port};" in deployment.log("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", NOBODY)
        code, out, _ = run_to_its_end("server", "status", deployment.server.path)
    assert code == 0
    assert f"coordinator [::1]:{port}: running" in out


def test_a_site_names_the_proxy_of_the_environment_that_is_in_its_way(deployment: Deployment):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("https_proxy", NOBODY)
        deployment.start_site("south")
    said = (
        f"the way to {deployment.server.config.address} leads through http://127.0.0.1:1 (https_proxy in the "
        "environment); to connect without this proxy, set no_proxy=::1"
    )
    deployment.wait(lambda: said in deployment.log("south"), 60, "the proxy named")
    assert "secret" not in deployment.log("south")
    deployment.end("south")


def test_both_terminals_say_one_line_a_round(deployment: Deployment, data: Path):
    run = deployment.begin(tiny_config(data, federation={"rounds": 3, "min_sites": 1, "greeting_timeout_s": 150.0}))
    deployment.wait_until_done(run)
    deployment.wait(lambda: f"{run}: finished" in deployment.log("server"), 20, "the end")
    at_server = re.findall(
        rf"{run}: round ([0-9])/3: 1 of 1 sites, .* loss [0-9.]+, [0-9]+ s\n", deployment.log("server")
    )
    assert at_server == ["1", "2", "3"]
    deployment.wait(lambda: "the trained models are here" in deployment.log("north"), 20, "the delivery")
    at_site = re.findall(
        rf"{run}, round ([0-9]): an update from 4 questions was sent, [0-9.]+ kB, .* loss [0-9.]+, [0-9]+ s\n",
        deployment.log("north"),
    )
    assert at_site == ["1", "2", "3"]
    assert f"{run}: this site takes part" in deployment.log("north")


def heard_of(deployment: Deployment, name: str) -> str:
    return next(str(row["last_heard_of"]) for row in site_rows(deployment.server) if row["name"] == name)


def test_sites_says_when_a_site_was_last_heard_of(deployment: Deployment):
    first = heard_of(deployment, "north")
    age = datetime.now(UTC) - datetime.fromisoformat(first).replace(tzinfo=UTC)
    assert timedelta(seconds=-2) < age < timedelta(seconds=60)
    deployment.wait(lambda: heard_of(deployment, "north") > first, 60, "the next heartbeat")
    code, out, _ = run_to_its_end("server", "sites", deployment.server.path)
    assert code == 0
    assert "Last heard of" in out
    assert heard_of(deployment, "north")[:16] in out


def told(deployment: Deployment) -> list[list[str]]:
    file = deployment.root / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def test_what_asks_for_attention_is_in_the_log_and_the_command_is_called_once_also_after_a_restart(
    deployment: Deployment,
):
    kinds = [kind for kind, _ in told(deployment)]
    assert kinds.count("certificate") == 1
    assert dict(told(deployment))["certificate"].startswith("the certificate expires in 11 days; renew")
    assert "attention: the certificate expires in 11 days; renew" in deployment.log("server")
    deployment.end("server")
    deployment.start_server()
    deployment.wait(lambda: deployment.log("server").count("attention: the certificate") == 2, 30, "said again")
    time.sleep(2)
    assert [kind for kind, _ in told(deployment)].count("certificate") == 1


def test_a_site_that_is_away_for_a_day_is_named_and_one_that_never_came_is_not(deployment: Deployment):
    deployment.wait_until_online(["north"])
    later = datetime.now(UTC) + timedelta(hours=25)
    assert "site-away" not in [notice.kind for notice in notices(deployment.server, later)]
    deployment.end("north")
    deployment.wait_until_online([], 90)
    seen = heard_of(deployment, "north")[:16]
    assert "site-away" not in [notice.kind for notice in notices(deployment.server, later - timedelta(hours=2))]
    [away] = [notice.text for notice in notices(deployment.server, later) if notice.kind == "site-away"]
    assert away == f"not heard of for a day or longer: north (last heard of {seen} UTC)"
