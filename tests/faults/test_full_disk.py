"""A disk that is full: one sentence, exit code 2, nothing half-written, and the run goes on afterwards."""

from __future__ import annotations

import pytest
from fedrag_process import run_to_its_end
from tiny_federation import tiny_config

from fedrag.files import read_json
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import resume, simulate

pytestmark = pytest.mark.usefixtures("tiny_home")

CONFIG = tiny_config(evaluation={"split": "test", "generate": False})


def no_room_for(largest_file, scenario, run):
    """Run a scenario in which no larger file can be written; return what it printed."""
    code, out, err = run_to_its_end("simulate", scenario, "--out", run, largest_file=largest_file)
    assert code == 2, err
    assert len(err.splitlines()) == 1
    assert not list(run.rglob("*.partial"))
    return out, err


@pytest.fixture
def scenario(tmp_path):
    (tmp_path / "tiny.toml").write_text(CONFIG.to_toml())
    return tmp_path / "tiny.toml"


@pytest.mark.faults
@pytest.mark.parametrize(("largest_file", "where"), [(600, "scenario.toml"), (8_000, "checkpoints/round-0000")])
def test_where_not_even_the_start_can_be_kept_nothing_is_left(largest_file, where, scenario, tmp_path):
    _, err = no_room_for(largest_file, scenario, tmp_path / "run")
    assert err.startswith(f"Error: {tmp_path / 'run' / where}: cannot be written")
    assert not (tmp_path / "run" / "scenario.toml").exists()


@pytest.mark.slow
def test_a_file_that_does_not_fit_stops_the_run_and_it_goes_on_once_there_is_room(tmp_path):
    """The checkpoints fit, the measured questions do not."""
    config = tiny_config(federation={"schedule": "retriever"}, evaluation={"split": "all", "generate": False})
    (tmp_path / "tiny.toml").write_text(config.to_toml())
    expected, run = simulate(config, out=tmp_path / "undisturbed"), tmp_path / "run"
    checkpoint = expected.path / "checkpoints" / "round-0002" / "state.safetensors"
    out, err = no_room_for(checkpoint.stat().st_size, tmp_path / "tiny.toml", run)
    assert err.startswith(f"Error: {run / 'evaluation' / 'federated.jsonl'}: cannot be written")
    assert out.splitlines()[-1] == f"go on with: fedrag simulate --resume {run}"
    resume(run)
    assert (run / "final/state.safetensors").read_bytes() == (expected.path / "final/state.safetensors").read_bytes()
    assert read_json(run / "results.json")["federated"] == read_json(expected.path / "results.json")["federated"]
    assert [record["round"] for record in RunFolder.open(run).rounds()] == [1, 2]
