"""A coordinator's run that starts from the result of another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_federation import assert_same_state, tiny_config, write_small_sites

from fedrag.components.earlier_result import take_start
from fedrag.coordinator.jobs import begin_run, run_names
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError, RunError
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

pytestmark = pytest.mark.usefixtures("tiny_home")

RETRIEVER = {"schedule": "retriever", "rounds": 1}


@pytest.fixture(scope="module")
def first(tmp_path_factory, tiny_home) -> RunFolder:
    root = tmp_path_factory.mktemp("data")
    config = tiny_config(write_small_sites(root / "sites", a=2), name="first", federation=RETRIEVER)
    return simulate(config, out=root / "first-1")


@pytest.fixture
def folder(first, tmp_path) -> ServerFolder:
    """A coordinator that has the finished run among its own."""
    folder = ServerFolder.create(tmp_path / "coordinator", ServerConfig(name="localhost"))
    shutil.copytree(first.path, folder.runs / "first-1")
    return folder


def config_of(start: Path | str, **settings):
    return tiny_config(name="second", start_from=str(start), federation={"schedule": "generator"}, **settings)


@pytest.mark.parametrize("named", ["by its name", "by its path"])
def test_it_names_one_of_its_own_runs_or_any_other_and_takes_its_result_over(named, first, folder):
    with folder.lock():  # as the coordinator's service does
        name = begin_run(folder, config_of("first-1" if named == "by its name" else first.path))
    run = RunFolder.open(folder.runs / name)
    expected = folder.runs / "first-1" if named == "by its name" else first.path
    assert Path(run.config.start_from) == expected.resolve()
    take_start(run)
    shutil.rmtree(folder.runs / "first-1")
    take_start(run)
    assert_same_state(run.load_start(), first.load_result())
    assert run.facts["start_from"]["run"] == "first-1"


def test_what_does_not_fit_is_refused_before_a_run_is_made(folder):
    with folder.lock():
        with pytest.raises(RunError, match="nothing-1: is no run folder"):
            begin_run(folder, config_of("nothing-1"))
        with pytest.raises(ConfigError, match="retriever.lora.rank = 2, this scenario has 3"):
            begin_run(folder, config_of("first-1", retriever={"lora": {"rank": 3}}))
    assert run_names(folder) == ["first-1"]
    assert folder.current() == {}
