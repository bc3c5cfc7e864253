"""What sites tell of their wrong answers, from their processes to the coordinator's command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deployment import FEDRAG, Deployment
from tiny_federation import SHIPPED, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

SITES = ("north", "south")


def typed(*command: object) -> str:
    done = subprocess.run([FEDRAG, *map(str, command)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def counts_of(file: Path) -> dict[str, Any]:
    """Return the counts that a site's own diagnosis wrote."""
    return json.loads(file.read_text())["overall"]["counts"]


def test_the_coordinator_adds_up_what_a_site_tells_and_hears_nothing_of_one_that_keeps_it(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, {name: SHIPPED / name for name in SITES})
    deployment.set_setting("north", "tell_diagnosis", True)
    deployment.set_setting("north", "adopt", "always")
    with deployment:
        name = deployment.begin(
            tiny_config(
                SHIPPED, federation={"rounds": 1, "diagnose": True, "min_sites": 2, "greeting_timeout_s": 180.0}
            )
        )
        run = deployment.wait_until_done(name)
        told = json.loads(typed("server", "diagnose", deployment.server.path, "--json"))
        shown = typed("server", "diagnose", deployment.server.path)
    assert told["run"] == name
    for moment, base in (("before", ["--base"]), ("after", [])):
        file = tmp_path / f"{moment}.json"
        typed("client", "diagnose", tmp_path / "north", *base, "--json", file)
        assert told[moment]["sites"] == ["north"]
        assert {cause: told[moment]["counts"][cause] for cause in counts_of(file)} == counts_of(file)
    assert "before training: north; after training: north" in shown
    assert "Recommendation: " in shown
    assert [list(sites) for sites in run.told_diagnoses.values()] == [["north"], ["north"]]
