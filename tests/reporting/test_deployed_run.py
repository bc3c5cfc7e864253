"""The page of a run that a coordinator made: sums and counts, no examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_page import Page
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.files import write_json
from fedrag.reporting.page import render
from fedrag.runs.checkpoint import Checkpoint
from fedrag.runs.run_folder import RunFolder

STATE = {"retriever": {"weight": np.zeros(2, np.float32)}}
FACTS = {
    "fedrag": "0.1.0",
    "started": "2026-01-02T03:04:05Z",
    "versions": {"python": "3.11"},
    "models": {"retriever": {"name": "owner/encoder", "tensors_sha256": "0"}},
    "data": {},
    "threads": 1,
    "dtype": {"retriever": "float32"},
    "machine": {"processor": "x86_64", "device": "cpu"},
}


def record(number: int, left_out: dict[str, str]) -> dict[str, Any]:
    told = {"retriever.examples": 4, "retriever.loss": 1.0 / number, "seconds": 1.5, "bytes": 600}
    return {
        "round": number,
        "components": ["retriever"],
        "seconds": 2.0,
        "bytes_to_each_site": 1000,
        "asked": ["north", "south"],
        "sites": {name: told for name in ("north", "south") if name not in left_out},
        "left_out": left_out,
        "update_norm": {"retriever": 0.1},
        "aggregation_error": {"retriever": 0.002},
        "validation": {"retriever": 0.5},
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two of two rounds, as the coordinator's executor leaves them."""
    coordinator = tmp_path / "coordinator"
    settings = {
        "name": "far",
        "data": {"sites": "nowhere"},
        "federation": {"rounds": 2, "schedule": "retriever"},
    }
    run = RunFolder.create(Config.from_dict(settings), root=coordinator / "runs")
    (coordinator / "server.toml").write_text('name = "rag.example.org"\n')
    run.record_facts(FACTS)
    for number, left_out in ((1, {}), (2, {"south": "no reply within 60 s"})):
        run.save_checkpoint(Checkpoint(number, STATE, {}, {}), record(number, left_out))
    run.record_delivery(["north"])
    run.save_result(STATE)
    tell(run, "finished")
    return run


def tell(run: RunFolder, state: str, why: str = "") -> None:
    write_json(run.path / "outcome.json", {"state": state, "why": why, "since": "2026-01-02T03:04:05+00:00"})


def undo_result(run: RunFolder) -> None:
    (run.path / "delivery.json").unlink()
    (run.path / "final" / "state.safetensors").unlink()


def test_a_deployed_run_shows_rounds_curves_bytes_failures_and_delivery(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEDRAG_LANG", "en")
    result = CliRunner().invoke(app, ["report", str(run.path)])
    assert (result.exit_code, result.stderr) == (0, "")
    page = Page((run.path / "report.html").read_text(encoding="utf-8"))
    assert page.headings == ["Over the rounds", "What each site did", "What ran"]
    assert [label.split(" by round")[0] for label in page.labels[:-1]] == [
        "Training loss of the retriever",
        "Validation of the retriever",
        "Size of the retriever's update",
        "Aggregation error of the retriever",
    ]
    assert page.labels[-1] == (
        "Bytes by site. north: 2.0 kB received, 1.2 kB sent; south: 2.0 kB received, 600 B sent."
    )
    assert "south: no reply within 60 s: round 2" in page.text
    assert "Delivered to north; not to south" in page.text
    assert f"fedrag server run {run.path.parent.parent} {run.path}/scenario.toml" in page.text


def test_a_deployed_run_says_that_it_holds_sums_and_counts_alone(run: RunFolder):
    text = Page(render(run)).text
    assert "A deployed run holds sums and counts alone: questions, answers and examples stay at the sites" in text
    assert "One whose policy keeps its counts tells of 1 question." in text
    assert "not finished" not in text
    assert "fedrag evaluate" not in text
    assert "fedrag simulate" not in text


def test_a_result_that_nobody_took_is_told(run: RunFolder):
    run.record_delivery([])
    assert "Delivered to no site; not to north, south" in Page(render(run)).text


def test_a_run_that_stopped_says_why_and_how_the_coordinator_goes_on(run: RunFolder):
    undo_result(run)
    tell(run, "stopped", "too few sites")
    go_on = f"Go on with: fedrag server resume {run.path.parent.parent} far-1"
    assert f"This run was stopped: too few sites; 2 of 2 rounds are done. {go_on}" in Page(render(run)).text
    tell(run, "failed", "its process died 3 times")
    assert f"This run failed: its process died 3 times; 2 of 2 rounds are done. {go_on}" in Page(render(run)).text


def test_a_run_that_is_on_says_how_far_it_is(run: RunFolder):
    undo_result(run)
    for state in ("waiting", "running"):
        tell(run, state)
        text = Page(render(run)).text
        assert "This run is not finished: 2 of 2 rounds are done." in text
        assert "Go on with" not in text


def test_a_run_that_has_not_begun_has_a_page_too(run: RunFolder):
    undo_result(run)
    (run.path / "rounds.jsonl").unlink()
    (run.path / "run.json").unlink()
    tell(run, "waiting")
    page = Page(render(run))
    assert page.headings == ["What ran"]
    assert "0 of 2 rounds are done." in page.text


def test_a_run_that_was_taken_out_of_its_coordinators_folder_names_no_folder(run: RunFolder, tmp_path: Path):
    moved = RunFolder.open(run.path.rename(tmp_path / "far-1"))
    assert f"fedrag server run DIR {moved.path}/scenario.toml" in Page(render(moved)).text


def test_a_run_of_flowers_own_command_is_a_deployed_one_too(run: RunFolder):
    (run.path / "outcome.json").unlink()
    text = Page(render(run)).text
    assert "A deployed run holds sums and counts alone" in text
    assert "not finished" not in text
