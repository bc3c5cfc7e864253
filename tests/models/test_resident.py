"""Models that stay loaded: which ones, and the share of memory that they may take."""

from __future__ import annotations

import json
import shutil

import pytest
from tiny_federation import tiny_config

from fedrag.config.run_settings import SimulationConfig
from fedrag.models import resident
from fedrag.weights.fetch import fetch_models


@pytest.mark.parametrize(
    ("simulation", "device", "share"),
    [
        ({"actors": 4}, "cpu", 8e9),
        ({"grid": "ray", "actors": 4}, "cpu", 2e9),
        ({"grid": "ray", "cpus_per_actor": 3}, "cpu", 4e9),
        ({"grid": "ray", "cpus_per_actor": 9}, "cpu", 8e9),
        ({"grid": "ray", "actors": 4, "gpus_per_actor": 0.5}, "cuda", 4e9),
        ({"grid": "ray", "actors": 4}, "cuda", 2e9),
        ({"grid": "ray"}, "cuda", 8e9),
    ],
)
def test_clients_in_ray_actors_share_the_free_memory(monkeypatch, simulation, device, share):
    monkeypatch.setattr(resident, "cpu_count", lambda: 6)
    monkeypatch.setattr(resident, "free_memory", lambda device: 8e9)
    assert resident.free_share(SimulationConfig.model_validate(simulation), device) == share
    monkeypatch.setattr(resident, "free_memory", lambda device: None)
    assert resident.free_share(SimulationConfig.model_validate(simulation), device) is None


def test_scores_are_not_taken_from_a_model_of_another_configuration(own_tiny_causal, monkeypatch):
    """Rotary positions and the like stand in no tensor: the key of kept scores was the same without them."""
    keys = set()
    for epsilon in (1e-6, 1e-5):
        file = own_tiny_causal / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": epsilon}))
        monkeypatch.setattr(resident, "_RESIDENT", {})
        keys.add(resident.RoundModels(tiny_config(), {}).generator_key(untouched=True))
    assert len(keys) == 2


def test_a_model_of_another_home_is_another_model(own_home, tmp_path, monkeypatch):
    """The file of one that is loaded is mapped into memory: where it was damaged, reading it ends the process."""
    config = tiny_config()
    first = resident.resident_retriever(config, "cpu")
    assert resident.resident_retriever(config, "cpu") is first
    shutil.copytree(own_home, tmp_path / "other")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "other"))
    assert resident.resident_retriever(config, "cpu") is not first
    assert resident.resident_generator(config, "cpu").fetched.folder.is_relative_to(tmp_path / "other")


def test_a_model_that_was_fetched_again_is_loaded_again(own_home):
    config = tiny_config()
    first = resident.resident_generator(config, "cpu")
    fetch_models(["fedrag/tiny-causal"])
    assert resident.resident_generator(config, "cpu") is first, "it is there, so nothing was fetched"
    shutil.rmtree(first.fetched.folder)
    fetch_models(["fedrag/tiny-causal"])
    assert resident.resident_generator(config, "cpu") is not first
