"""A finished run, with everything on its page."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hostile_data import HOSTILE_NAME, hostile_site
from tiny_federation import small_site, tiny_config

from fedrag.data.writing import write_site
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate


@pytest.fixture(scope="session")
def hostile_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sites")
    write_site(root / HOSTILE_NAME, hostile_site())
    write_site(root / "b", small_site("b", "south", train=3, test=3))
    return root


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, hostile_sites: Path, tiny_home: Path) -> RunFolder:
    """Two rounds of both components, validated, with all baselines."""
    threads = torch.get_num_threads()
    config = tiny_config(
        hostile_sites,
        federation={"validate_every": 1},
        evaluation={"split": "test", "baselines": ["local", "pooled"]},
    )
    run = simulate(config, out=tmp_path_factory.mktemp("runs") / "whole")
    torch.set_num_threads(threads)
    return run
