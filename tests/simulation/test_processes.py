"""simulation.processes: a client's training is shared by processes, and its result is that of one."""

from __future__ import annotations

import pytest
from tiny_federation import tiny_config, write_small_sites

from fedrag.components.crew import Crew
from fedrag.errors import ConfigError
from fedrag.simulation.simulate import simulate


def test_clients_are_trained_by_so_many_processes(tiny_home, tmp_path, monkeypatch):
    used = []
    run = Crew.run
    monkeypatch.setattr(Crew, "run", lambda crew, *jobs: used.append(crew) or run(crew, *jobs))
    sites = write_small_sites(tmp_path / "sites", north=4, south=4)
    losses = []
    for processes in (1, 2):
        settings = {"federation": {"rounds": 1, "schedule": "joint"}, "simulation": {"processes": processes}}
        done = simulate(tiny_config(sites, **settings), out=tmp_path / f"run-{processes}")
        [record] = done.rounds()
        losses.append([told[f"{c}.loss"] for told in record["sites"].values() for c in ("generator", "retriever")])
    assert [crew.size for crew in used] == [1] * 4 + [2] * 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert used[-1] is used[-4]
    assert used[-1]._helpers == []


def test_ray_actors_have_no_helpers(tmp_path):
    with pytest.raises(ConfigError, match='simulation.processes needs simulation.grid = "in-process"'):
        tiny_config(simulation={"processes": 2, "grid": "ray"})
