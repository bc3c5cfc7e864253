"""The run folder: what is in it is whole, whatever happened while it was written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedrag.config.scenario import Config
from fedrag.errors import RunError, StorageError
from fedrag.files import replacing_folder, write_text
from fedrag.runs.checkpoint import Checkpoint
from fedrag.runs.run_folder import RunFolder
from fedrag.types import State

CONFIG = Config.from_dict({"name": "trial", "data": {"sites": "x"}})


def state_of(number: float) -> State:
    """Return a state whose names are in no alphabetic order."""
    return {
        "retriever": {"z": np.full((2, 3), number, np.float32), "a": np.array([number + 0.5], np.float32)},
        "generator": {"m": np.array(number, np.float32)},
    }


def checkpoint_of(number: int) -> Checkpoint:
    return Checkpoint(number, state_of(number), {"generator": state_of(number - 1)["generator"]}, {"generator": -1.5})


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for component, tensors in expected.items():
        assert list(found[component]) == list(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found[component][name], tensor)
            assert found[component][name].dtype == np.float32
            assert found[component][name].shape == tensor.shape


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Make a run with checkpoints of rounds 0 to 4."""
    run = RunFolder.create(CONFIG, tmp_path / "run")
    run.record_facts({"threads": 2})
    for number in range(5):
        run.save_checkpoint(checkpoint_of(number), {"round": number} if number else {})
    return run


def checkpoints(run: RunFolder) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


# Making and opening


def test_runs_of_a_scenario_are_numbered(tmp_path: Path):
    for number in (1, 2, 3):
        assert RunFolder.create(CONFIG, root=tmp_path).path == tmp_path / f"trial-{number}"
    shutil.rmtree(tmp_path / "trial-2")
    (tmp_path / "trial-long-9").mkdir()
    assert RunFolder.create(CONFIG, root=tmp_path).path == tmp_path / "trial-4"


def test_a_run_keeps_the_resolved_scenario_and_is_opened_by_it_alone(tmp_path: Path):
    RunFolder.create(CONFIG, tmp_path / "run")
    assert "tau_lm = 0.1" in (tmp_path / "run" / "scenario.toml").read_text()
    assert RunFolder.open(tmp_path / "run").config == CONFIG


def test_a_folder_that_is_not_empty_is_not_written_into(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="exists already; choose another --out, or go on with --resume"):
        RunFolder.create(CONFIG, tmp_path)
    with pytest.raises(RunError, match="exists already"):
        RunFolder.create(CONFIG, tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_a_scenario_is_no_run(tmp_path: Path):
    with pytest.raises(RunError, match="is no run folder"):
        RunFolder.open(tmp_path)


def test_a_run_of_another_version_is_refused(run: RunFolder):
    facts = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(RunError, match="was written in run format 99, this fedrag reads format 2"):
        RunFolder.open(run.path)


def test_a_run_whose_scenario_has_keys_of_another_version_is_refused(run: RunFolder):
    with (run.path / "scenario.toml").open("a") as file:
        file.write("\n[future]\nx = 1\n")
    with pytest.raises(RunError, match="cannot be read by this version of fedrag: .*unknown key future"):
        RunFolder.open(run.path)


def test_a_run_that_failed_before_it_began_leaves_no_folder(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path / "run")
    run.record_facts({"threads": 2})
    run.discard_if_unbegun()
    assert not (tmp_path / "run").exists()


def test_a_run_with_a_checkpoint_is_never_discarded(run: RunFolder):
    run.discard_if_unbegun()
    assert checkpoints(run) == ["round-0002", "round-0003", "round-0004"]


def test_a_folder_whose_scenario_cannot_be_written_is_not_left_behind(tmp_path: Path):
    (tmp_path / "run" / "scenario.toml").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written"):
        RunFolder.create(CONFIG, tmp_path / "run", exist_ok=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_crash_left_half_made_is_taken_where_that_is_asked_for(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".scenario.toml.half").touch()
    assert RunFolder.create(CONFIG, tmp_path / "run", exist_ok=True).config == CONFIG


# Checkpoints


def test_the_newest_checkpoint_comes_back_whole_and_in_order(run: RunFolder):
    checkpoint, warnings = run.load_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.round_number, checkpoint.best_scores, warnings) == (4, {"generator": -1.5}, [])
    assert_same(checkpoint.state, state_of(4))
    assert_same(checkpoint.best, {"generator": state_of(3)["generator"]})


def test_the_last_three_are_kept(run: RunFolder):
    assert checkpoints(run) == ["round-0002", "round-0003", "round-0004"]


def test_rounds_are_ordered_as_numbers_beyond_four_digits(run: RunFolder):
    for number in (9999, 10000, 10001):
        run.save_checkpoint(checkpoint_of(number), {"round": number})
    checkpoint, _ = run.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round_number == 10001


def test_a_new_run_has_no_checkpoint(tmp_path: Path):
    assert RunFolder.create(CONFIG, tmp_path / "run").load_checkpoint() == (None, [])


def test_a_partial_folder_is_ignored_and_written_anew(run: RunFolder):
    partial = run.path / "checkpoints" / ".round-0005.partial"
    partial.mkdir()
    (partial / "state.json").write_text("{")
    checkpoint, warnings = run.load_checkpoint()
    assert checkpoint is not None
    assert (checkpoint.round_number, warnings) == (4, [])
    run.save_checkpoint(checkpoint_of(5), {"round": 5})
    assert checkpoints(run) == ["round-0003", "round-0004", "round-0005"]


def cut_tensors(folder: Path) -> None:
    os.truncate(folder / "state.safetensors", 100)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "state.safetensors").write_bytes(data)


def cut_facts(folder: Path) -> None:
    os.truncate(folder / "state.json", 20)


def empty_facts(folder: Path) -> None:
    (folder / "state.json").write_text("{}")


def no_tensors(folder: Path) -> None:
    (folder / "state.safetensors").unlink()


def no_facts(folder: Path) -> None:
    (folder / "state.json").unlink()


DAMAGES = [cut_tensors, flip_a_bit, cut_facts, empty_facts, no_tensors, no_facts]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said(run: RunFolder, damage):
    damage(run.path / "checkpoints" / "round-0004")
    checkpoint, warnings = run.load_checkpoint()
    assert checkpoint is not None
    assert checkpoint.round_number == 3
    assert_same(checkpoint.state, state_of(3))
    assert len(warnings) == 1
    assert "round-0004: damaged, the checkpoint before is used" in warnings[0]
    assert checkpoints(run) == ["round-0002", "round-0003"]
    assert [record["round"] for record in run.rounds()] == [1, 2, 3]
    run.save_checkpoint(checkpoint_of(4), {"round": 4})
    assert run.load_checkpoint()[1] == []


def test_where_all_are_damaged_the_run_starts_anew(run: RunFolder):
    for name in checkpoints(run):
        flip_a_bit(run.path / "checkpoints" / name)
    checkpoint, warnings = run.load_checkpoint()
    assert checkpoint is None
    assert len(warnings) == 3
    assert run.rounds() == []
    assert checkpoints(run) == []
    assert not run.has_begun


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(run: RunFolder):
    with pytest.raises(StorageError, match="disk is full"), replacing_folder(run.path / "checkpoints" / "round-0005"):
        raise OSError(28, "No space left on device")
    assert checkpoints(run) == ["round-0002", "round-0003", "round-0004"]


def test_a_finished_run_drops_its_checkpoints_and_keeps_its_result(run: RunFolder):
    run.save_result(state_of(7))
    run.drop_checkpoints()
    assert not (run.path / "checkpoints").exists()
    assert run.is_finished
    assert_same(run.load_result(), state_of(7))
    assert [record["round"] for record in run.rounds()] == [1, 2, 3, 4]


# The log of rounds


def test_the_log_has_a_line_a_round(run: RunFolder):
    assert run.rounds() == [{"round": number} for number in (1, 2, 3, 4)]


def test_a_round_whose_line_was_lost_in_a_crash_gets_it_from_its_checkpoint(run: RunFolder):
    lines = (run.path / "rounds.jsonl").read_text().splitlines(keepends=True)
    (run.path / "rounds.jsonl").write_text("".join(lines[:-1]) + lines[-1][:5])  # half-written
    assert [record["round"] for record in run.rounds()] == [1, 2, 3]
    run.load_checkpoint()
    assert [record["round"] for record in run.rounds()] == [1, 2, 3, 4]
    run.save_checkpoint(checkpoint_of(5), {"round": 5})
    assert [record["round"] for record in run.rounds()] == [1, 2, 3, 4, 5]


def test_lines_after_the_checkpoint_are_cut(run: RunFolder):
    shutil.rmtree(run.path / "checkpoints" / "round-0004")
    run.load_checkpoint()
    assert [record["round"] for record in run.rounds()] == [1, 2, 3]


def test_all_weights_of_a_run_of_0_1_hold_the_token_embeddings(run: RunFolder):
    scenario = run.path / "scenario.toml"
    kept = [line for line in scenario.read_text().splitlines() if not line.startswith("token_embeddings")]
    assert len(kept) == len(scenario.read_text().splitlines()) - 1
    assert RunFolder.open(run.path).config.retriever.token_embeddings is False
    scenario.write_text("\n".join(kept))
    assert RunFolder.open(run.path).config.retriever.token_embeddings is True


# The result


def test_the_result_comes_back_in_order(run: RunFolder):
    run.save_result(state_of(7))
    assert_same(run.load_result(), state_of(7))


def test_a_run_without_result_is_not_finished(run: RunFolder):
    with pytest.raises(RunError, match="is not finished; go on with: fedrag simulate --resume"):
        run.load_result()


def test_a_damaged_result_is_one_clear_sentence(run: RunFolder):
    run.save_result(state_of(7))
    os.truncate(run.path / "final" / "state.safetensors", 50)
    with pytest.raises(RunError, match="is damaged"):
        run.load_result()


def test_text_is_written_whole_or_not_at_all(tmp_path: Path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "after \ud800")
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(StorageError, match="cannot be written"):
        write_text(tmp_path / "a.txt" / "b.txt", "x")
