"""A loss and a rule of one's own in a real deployment: only where a site's policy names the module and its source."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import own_module
import pytest
from deployment import Deployment
from tiny_federation import assert_same_state, tiny_config, write_small_sites

from fedrag.coordinator.jobs import begin_run, resume_run
from fedrag.errors import ConfigError, RunError
from fedrag.security.module_source import source_sha256
from fedrag.simulation.simulate import simulate
from fedrag.site.site_config import SITE_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

OWN = {"module": own_module.NAME, "answer": "half", "rule": "first"}
SITES = ("allows", "other-source", "silent")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the module for this process and for those that it starts."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    yield own_module.install(folder)
    sys.modules.pop(own_module.NAME, None)


def allow(deployment: Deployment, name: str, sha256: str) -> None:
    file = deployment.root / name / SITE_FILE
    text = file.read_text()
    assert "own_modules = {}" in text
    file.write_text(text.replace("own_modules = {}", f'own_modules = {{ {own_module.NAME} = "{sha256}" }}'))


def test_only_sites_whose_policy_names_the_module_and_its_source_work_with_it(module: Path, tmp_path: Path):
    data = write_small_sites(tmp_path / "data", **dict.fromkeys(("allows", "other", "silent"), 4))
    folders = dict(zip(SITES, (data / "allows", data / "other", data / "silent"), strict=True))
    deployment = Deployment(tmp_path / "d", folders)
    allow(deployment, "allows", source_sha256(own_module.NAME))
    allow(deployment, "other-source", "0" * 64)
    federation = {"rounds": 1, "schedule": "generator", "greeting_timeout_s": 180.0, "deadline_s": 120.0}
    constant = {"schedule": "constant"}  # an extended run then has the bits of one that had all rounds at once
    config = tiny_config(data, federation=federation, generator=constant, own=OWN)
    with deployment:
        run = deployment.wait_until_done(deployment.begin(config))
        assert [list(line["sites"]) for line in run.rounds()] == [["allows"]]
        said = "takes no part: its policy does not allow this module of functions, or not this source of it"
        for name in ("other-source", "silent"):
            assert f"{name} {said} (policy-module" in deployment.executor_log
        assert run.facts["own_module"] == {"name": own_module.NAME, "sha256": source_sha256(own_module.NAME)}
        module.write_text(own_module.TEXT + "# changed\n")
        with pytest.raises(RunError, match="the source of hospital_rules changed"):
            resume_run(deployment.server, run.path.name, rounds=2)
        module.unlink()
        with pytest.raises(RunError, match="cannot be resumed without its own functions"):
            resume_run(deployment.server, run.path.name, rounds=2)
        with pytest.raises(ConfigError, match="hospital_rules is not installed here"):
            begin_run(deployment.server, config)
        own_module.install(module.parent)
        resume_run(deployment.server, run.path.name, rounds=2)
        run = deployment.wait_until_done(run.path.name)
    two = tiny_config(data, federation=federation | {"rounds": 2}, generator=constant, own=OWN)
    alone = two.model_copy(update={"data": two.data.model_copy(update={"only": ("allows",)})})
    assert len(run.rounds()) == 2
    assert_same_state(run.load_result(), simulate(alone, out=tmp_path / "simulated").load_result())
