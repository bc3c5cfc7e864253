"""A coordinator's run that goes on for longer than it was to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from written_run import STATE, new_folder, record, write_run

from fedrag.cli.main import app
from fedrag.coordinator.jobs import resume_run
from fedrag.coordinator.outcome import read_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError, RunError, ServiceError
from fedrag.files import write_text
from fedrag.runs.run_folder import RunFolder

ROUNDS = [record(number) for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ServerFolder]:
    folder = new_folder(tmp_path)
    with folder.lock():  # as a coordinator does that runs
        yield folder


@pytest.fixture
def finished(folder: ServerFolder) -> RunFolder:
    """A finished run as a coordinator leaves it: without its checkpoints."""
    run = write_run(folder, ROUNDS)
    run.drop_checkpoints()
    return run


def test_a_finished_run_goes_on_from_its_result_and_keeps_its_log(folder: ServerFolder, finished: RunFolder):
    """Its log was cut to nothing, as no checkpoint was found, before it was refused."""
    [line] = resume_run(folder, "written-1", rounds=5)
    assert "the learning rate of the retriever was so far that of a run of 3 rounds" in line
    run = RunFolder.open(finished.path)
    checkpoint, warnings = run.load_checkpoint()
    assert (run.config.federation.rounds, run.is_finished, run.is_delivered, warnings) == (5, False, False, [])
    assert checkpoint is not None
    assert checkpoint.round_number == 3
    assert np.array_equal(checkpoint.state["retriever"]["weight"], STATE["retriever"]["weight"])
    assert run.rounds() == ROUNDS
    assert folder.current()["run"] == "written-1"
    assert read_outcome(run.path).state == "waiting"


def test_a_stopped_run_goes_on_for_longer(folder: ServerFolder):
    write_run(folder, ROUNDS[:2], "stopped")
    resume_run(folder, "written-1", rounds=4)
    run = RunFolder.open(folder.runs / "written-1")
    assert (run.config.federation.rounds, len(run.rounds())) == (4, 2)


def test_a_result_that_is_not_what_the_last_round_gave_is_nothing_to_go_on_from(folder, finished: RunFolder):
    scenario = finished.path / "scenario.toml"
    write_text(scenario, scenario.read_text().replace('keep = "last"', 'keep = "best"'))
    with pytest.raises(RunError, match="has no checkpoint to go on from; start a new run with start_from"):
        resume_run(folder, "written-1", rounds=5)
    assert RunFolder.open(finished.path).rounds() == ROUNDS
    assert (finished.is_finished, folder.current()) == (True, {})


@pytest.mark.parametrize("rounds", [None, 2, 3])
def test_a_finished_run_needs_more_rounds_than_it_has(folder: ServerFolder, finished: RunFolder, rounds: int | None):
    with pytest.raises(ConfigError, match=r"nothing to resume, unless --rounds|can only be larger"):
        resume_run(folder, "written-1", rounds)
    assert (finished.is_finished, folder.current()) == (True, {})


def test_another_run_in_progress_leaves_it_as_it_is(folder: ServerFolder, finished: RunFolder):
    folder.begin(write_run(folder, ROUNDS[:1], "running").path.name)
    with pytest.raises(ServiceError, match="written-2 is running"):
        resume_run(folder, "written-1", rounds=5)
    with pytest.raises(ServiceError, match="written-2 is in progress; stop it, and then resume it with --rounds 5"):
        resume_run(folder, "written-2", rounds=5)
    assert finished.is_finished
    assert RunFolder.open(finished.path).config.federation.rounds == 3


def test_the_command_says_what_a_reader_must_know(folder: ServerFolder, finished: RunFolder):
    result = CliRunner().invoke(app, ["server", "resume", str(folder.path), "written-1", "--rounds", "5"])
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith("the learning rate of the retriever was so far that of a run of 3 rounds")
    assert second == "written-1 resumes"
