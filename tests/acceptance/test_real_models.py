"""A whole run with the real models on the data that ships: minutes, not hours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedrag.config.scenario import Config
from fedrag.simulation.simulate import simulate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.usefixtures("real_models")
def test_federation_teaches_the_real_generator_to_answer(tmp_path: Path) -> None:
    config = Config.from_dict(
        {
            "name": "real",
            "data": {"sites": "simulations/data/tiny"},
            "rag": {"answer_tokens": 12},  # the longest answer has six; untouched, the model goes on to the last
            "generator": {"learning_rate": 2e-3},
            "federation": {"rounds": 2, "schedule": "joint"},
            "simulation": {"threads": 1},
        }
    )
    run = simulate(config, out=tmp_path / "run")
    results = json.loads((run.path / "results.json").read_text())
    untouched, federated = results["untouched"]["overall"], results["federated"]["overall"]
    assert federated["exact_match"] >= untouched["exact_match"] + 0.3
    assert federated["recall_at_1"] >= untouched["recall_at_1"] - 0.1
