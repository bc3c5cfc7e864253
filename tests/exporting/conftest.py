"""A run of the tiny models that trained both components, made once, and what of it is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_federation import SHIPPED, tiny_config

from fedrag.exporting.trained_system import TrainedSystem
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate


@pytest.fixture(scope="session")
def measured_run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Make a run of two sites that measured its models and the untouched ones."""
    settings = {
        "data": {"only": ["north", "south"]},
        "rag": {"prompt_tokens": 900},  # a token is about a letter
        "federation": {"rounds": 2},
        "generator": {"learning_rate": 1e-2},
        "retriever": {"learning_rate": 1e-2},
        "evaluation": {"split": "test", "baselines": []},
    }
    return simulate(tiny_config(SHIPPED, **settings), out=tmp_path_factory.mktemp("runs") / "measured-1")


@pytest.fixture
def system(measured_run: RunFolder) -> TrainedSystem:
    return TrainedSystem.of_run(measured_run)
