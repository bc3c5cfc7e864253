"""Nothing that a coordinator or a site writes, from its first minute to a delivery, is open to others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from deployment import FEDRAG, Deployment
from tiny_federation import tiny_config, write_small_sites

from fedrag.files import write_text
from fedrag.security.permissions import loose_paths, private_files

pytestmark = pytest.mark.usefixtures("tiny_home")

NAMES = ("north", "south")


@pytest.mark.slow
def test_all_that_a_deployment_writes_is_its_owner_s_alone(tmp_path: Path):
    data = write_small_sites(tmp_path / "data", **dict.fromkeys(NAMES, 4))
    config = tiny_config(data, federation={"rounds": 1, "deadline_s": 300.0, "greeting_timeout_s": 120.0})
    write_text(tmp_path / "scenario.toml", config.to_toml())
    with private_files():  # the test enters the sites itself
        deployment = Deployment(tmp_path, {name: data / name for name in NAMES})
    before = os.umask(0)  # the services inherit it
    try:
        with deployment as running:
            command = [FEDRAG, "server", "run", str(running.server.path), str(tmp_path / "scenario.toml"), "--json"]
            asked = subprocess.run(command, check=True, capture_output=True, text=True)
            run = asked.stdout.split('"')[3]
            running.wait_until_done(run, 400)
            assert (running.server.path / "superlink.db").is_file()
            assert (tmp_path / "north" / "models" / run / "generator.safetensors").is_file()
            folder = tmp_path / "north"
            brought = [folder / "ca.crt", folder / "coordinator.pub"]
            assert [*loose_paths(running.server.path), *loose_paths(folder, brought)] == []
    finally:
        os.umask(before)
