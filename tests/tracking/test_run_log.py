"""What trackers are told of a run: exact values by round, the scenario without paths, the final figures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny_federation import tiny_config

from fedrag.files import write_json
from fedrag.runs.run_folder import RunFolder
from fedrag.tracking.run_log import RunLog, parameters_of, round_values

RECORD = {
    "round": 1,
    "components": ["generator", "retriever"],
    "seconds": 2.5,
    "bytes_to_each_site": 1000,
    "asked": ["north", "south", "east"],
    "sites": {
        "north": {"bytes": 400, "generator.loss": 2.0, "retriever.loss": 1.0},
        "south": {"bytes": 600, "generator.loss": 4.0, "retriever.loss": float("nan")},
    },
    "left_out": {"east": "deadline"},
    "update_norm": {"generator": 0.5, "retriever": 0.25},
    "aggregation_error": {"generator": 0.125},
    "learning_rate": {"generator": 0.001, "retriever": 0.002},
    "validation": {"retriever": 0.75},
}


def test_a_round_becomes_finite_numbers():
    assert round_values(RECORD) == {
        "seconds": 2.5,
        "sites/asked": 3,
        "sites/used": 2,
        "bytes/to_sites": 3000,
        "bytes/from_sites": 1000,
        "generator/loss": 3.0,
        "generator/loss/north": 2.0,
        "generator/loss/south": 4.0,
        "generator/update_norm": 0.5,
        "generator/aggregation_error": 0.125,
        "generator/learning_rate": 0.001,
        "retriever/loss/north": 1.0,
        "retriever/update_norm": 0.25,
        "retriever/learning_rate": 0.002,
        "retriever/validation": 0.75,
    }


def test_the_scenario_becomes_parameters_without_paths(tmp_path: Path):
    run, model = str(tmp_path / "before-1"), str(tmp_path / "own-model")
    config = tiny_config(tmp_path / "sites", data={"only": ["north"]}, start_from=run, models={"retriever": model})
    told = parameters_of(config)
    assert (told["name"], told["generator.lora.rank"], told["data.only"]) == ("tiny", 2, "['north']")
    assert (told["start_from"], told["models.retriever"]) == ("before-1", "own-model")
    assert told["models.generator"] == "fedrag/tiny-causal"
    assert not any(str(tmp_path) in str(value) for value in told.values())


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tiny_config(), tmp_path / "tiny-1")
    run.record_facts({"started": "2026-01-31T10:00:00Z"})
    for number in (1, 2):
        run._log_round(RECORD | {"round": number})
    return run


def test_rounds_end_at_the_same_time_whenever_they_are_read(run: RunFolder):
    assert [(step.number, step.time) for step in RunLog(run).steps()] == [
        (1, datetime(2026, 1, 31, 10, 0, 2, 500_000, UTC)),
        (2, datetime(2026, 1, 31, 10, 0, 5, tzinfo=UTC)),
    ]
    assert RunLog(run).key == RunLog(RunFolder.open(run.path)).key


def test_the_final_figures_are_those_of_the_results(run: RunFolder):
    assert RunLog(run).figures() == {}
    assert RunLog(run).table_text() == ""
    arms = {"untouched": {"f1": 0.25, "mrr": None}, "federated": {"f1": 0.5, "mrr": 1.0}}
    write_json(run.path / "results.json", {arm: {"overall": means, "sites": {}} for arm, means in arms.items()})
    assert RunLog(run).figures() == {"untouched/f1": 0.25, "federated/f1": 0.5, "federated/mrr": 1.0}
    assert RunLog(run).table_text() == (
        "| | F1 | MRR |\n| --- | --- | --- |\n| untouched | 25.0 |  |\n| federated | 50.0 | 100.0 |\n"
    )
