"""A list of runs says how each is, and how to go on with one that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_federation import tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.errors import ConfigError
from fedrag.files import write_json
from fedrag.reporting.run_list import list_runs
from fedrag.runs.run_folder import RunFolder, alone_in_run


def make(root: Path, name: str, day: int, *, rounds: int = 1, f1: float | None = None, **facts: object) -> RunFolder:
    run = RunFolder.create(tiny_config(federation={"rounds": 2}), root / name)
    run.record_facts({"started": f"2026-01-{day:02d}T10:00:00Z", "data": {"north": "1"}, **facts})
    (run.path / "rounds.jsonl").write_text("".join(f'{{"round": {n + 1}}}\n' for n in range(rounds)))
    if f1 is not None:
        write_json(run.path / "results.json", {"federated": {"overall": {"f1": f1, "mrr": None}}})
    return run


def test_runs_are_listed_from_the_oldest_on_with_state_rounds_and_figures(tmp_path: Path) -> None:
    make(tmp_path, "tiny-2", 2, rounds=2, f1=0.5)
    left = make(tmp_path, "tiny-1", 3)
    busy = make(tmp_path, "tiny-3", 4)
    (tmp_path / "tracking").mkdir()
    with alone_in_run(busy.path):
        found = list_runs(tmp_path)
    assert [(run.path.name, run.state, run.rounds_done, run.rounds) for run in found] == [
        ("tiny-2", "finished", 2, 2),
        ("tiny-1", "interrupted", 1, 2),
        ("tiny-3", "running", 1, 2),
    ]
    assert found[0].figures == {"exact_match": None, "f1": 0.5, "recall_at_1": None, "mrr": None}
    assert [run.go_on for run in found] == ["", f"fedrag simulate --resume {left.path}", ""]
    assert list_runs(tmp_path)[2].state == "interrupted"  # looking took no lock


def test_a_run_with_functions_of_one_s_own_goes_on_in_python(tmp_path: Path) -> None:
    run = make(tmp_path, "own-1", 1, own={"rule": "mine.median", "losses.answer": "mine.smoothed"})
    assert [found.go_on for found in list_runs(tmp_path)] == [f'fedrag.resume("{run.path}", rule=..., losses=...)']


@pytest.mark.parametrize(
    ("noted", "state", "go_on"),
    [
        ({"state": "running"}, "running", ""),
        ({"state": "finished"}, "interrupted", "fedrag server resume DIR far-1"),  # its result is gone
        ({"state": "stopped", "why": "too few sites"}, "interrupted", "fedrag server resume DIR far-1"),
    ],
)
def test_a_coordinator_s_run_is_as_it_noted(tmp_path: Path, noted: dict[str, str], state: str, go_on: str) -> None:
    run = make(tmp_path, "far-1", 1, data={})
    write_json(run.path / "outcome.json", {"why": "", "since": ""} | noted)
    [found] = list_runs(tmp_path)
    assert (found.state, found.go_on, found.why) == (state, go_on, noted.get("why", ""))


def test_a_run_of_another_version_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path, "tiny-1", 1)
    old = make(tmp_path, "old-1", 2)
    write_json(old.path / "run.json", {"format": 1})
    assert {run.path.name: run.state for run in list_runs(tmp_path)} == {
        "tiny-1": "interrupted",
        "old-1": "unreadable",
    }


def test_a_run_s_own_folder_is_that_run_and_no_folder_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path, "tiny-1", 1)
    assert [found.path for found in list_runs(run.path)] == [run.path]
    with pytest.raises(ConfigError, match="no such folder; fedrag simulate makes"):
        list_runs(tmp_path / "none")


def test_the_command_shows_a_table_how_to_go_on_or_json(tmp_path: Path) -> None:
    make(tmp_path, "tiny-1", 1, rounds=2, f1=0.456)
    left = make(tmp_path, "tiny-2", 2)
    shown = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["Run", "Scenario", "State", "Began", "Rounds", "EM", "F1", "Recall@1", "MRR"] in lines
    assert ["tiny-1", "tiny", "finished", "2026-01-01", "10:00", "2", "of", "2", "-", "45.6", "-", "-"] in lines
    assert shown.stdout.splitlines()[-1] == (
        f"tiny-2 was interrupted; go on with: fedrag simulate --resume {left.path}"
    )
    told = json.loads(CliRunner().invoke(app, ["runs", str(tmp_path), "--json"]).stdout)
    assert [(run["path"], run["state"], run["figures"]["f1"]) for run in told] == [
        (str(tmp_path / "tiny-1"), "finished", 0.456),
        (str(left.path), "interrupted", None),
    ]


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["runs", str(tmp_path)])
    assert shown.stdout.strip() == f"{tmp_path} holds no run; fedrag simulate makes one"
