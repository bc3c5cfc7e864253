"""`flwr run .` runs the repository's own two apps: the same rounds as a simulation, over Flower's engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr_local import run_local
from tiny_federation import assert_same_state, tiny_config, write_small_sites

from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_flwr_run_of_the_repository_gives_the_tensors_of_a_simulation(tiny_home, tmp_path, monkeypatch):
    """Flower's clients have one CPU each, and so one thread, as this simulation has: the same bits."""
    sites = write_small_sites(tmp_path / "sites", a=3, b=4)
    config = tiny_config(sites, federation={"rounds": 2, "min_sites": 2, "greeting_timeout_s": 180.0})
    monkeypatch.setenv("FEDRAG_RUNS", str(tmp_path / "runs"))
    output = run_local(REPOSITORY, {"scenario": config.to_toml()}, supernodes=2, home=tmp_path / "flwr", timeout_s=240)
    assert (tmp_path / "runs" / "tiny-1").is_dir(), output
    run = RunFolder.open(tmp_path / "runs" / "tiny-1")
    assert run.is_finished, output
    assert [list(record["sites"]) for record in run.rounds()] == [["a", "b"]] * 2
    assert run.config.rag.date, "the day on which the run began"
    assert run.config.model_copy(update={"rag": config.rag}) == config
    expected = simulate(config, out=tmp_path / "simulated")
    assert_same_state(run.load_result(), expected.load_result())
    for name in ("a", "b"):
        delivered = tiny_home / "sites" / name / "models" / "tiny" / "generator.safetensors"
        ours = expected.path / "sites" / name / "models" / "tiny" / "generator.safetensors"
        assert delivered.read_bytes() == ours.read_bytes()
    assert (run.path / "final" / "generator" / "adapter_model.safetensors").is_file()
