"""What sites told of their wrong answers, added up at the coordinator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner
from written_run import new_folder, record, write_run

from fedrag.cli.main import app
from fedrag.coordinator.told_diagnosis import NOTHING_TOLD, added_up
from fedrag.diagnosis.tally import Tally
from fedrag.errors import ConfigError

BEFORE = {
    "north": Tally(questions=30, right=3, not_found=20, recovered=15, not_used=7, labelled=30).to_json(),
    "south": Tally(questions=20, right=2, not_found=10, recovered=10, not_used=8, labelled=20).to_json(),
}
AFTER = {"north": Tally(questions=30, right=20, not_found=2, not_used=8, labelled=30).to_json(), "south": {}}


def test_the_counts_of_all_sites_are_added_up_and_the_last_ones_advise(tmp_path: Path):
    folder = new_folder(tmp_path)
    run = write_run(folder, [record(1), record(2), record(3)])
    run.record_diagnosis("before", BEFORE)
    found = added_up(folder)
    assert found["before"]["sites"] == ["north", "south"]
    assert (
        found["before"]["counts"] == (Tally.from_counts(BEFORE["north"]) + Tally.from_counts(BEFORE["south"])).to_json()
    )
    assert found["advice"]["recommendation"] == "both"
    run.record_diagnosis("after", {"north": AFTER["north"]})
    found = added_up(folder, run.path.name)
    assert found["after"]["counts"]["right"] == 20
    assert found["advice"]["recommendation"] == "generator"
    assert found["advice"]["scenario"] == ("[federation]", 'schedule = "joint"')  # the run trained the retriever


def test_the_command_shows_both_moments_and_the_advice(tmp_path: Path):
    folder = new_folder(tmp_path)
    run = write_run(folder, [record(1)])
    run.record_diagnosis("before", BEFORE)
    run.record_diagnosis("after", {"north": AFTER["north"]})
    output = CliRunner().invoke(app, ["server", "diagnose", str(folder.path)]).stdout
    assert "before training: north, south; after training: north" in output
    [line] = [line for line in output.splitlines() if "passage not found" in line]
    assert line.split()[-6:] == ["30", "60.0", "%", "2", "6.7", "%"]
    assert "Recommendation: train the generator." in output
    told = json.loads(CliRunner().invoke(app, ["server", "diagnose", str(folder.path), "--json"]).stdout)
    assert told["run"] == run.path.name


def test_where_no_site_told_anything_the_way_there_is_said(tmp_path: Path):
    folder = new_folder(tmp_path)
    run = write_run(folder, [record(1)])
    run.record_diagnosis("before", {})
    assert added_up(folder) is None
    done = CliRunner().invoke(app, ["server", "diagnose", str(folder.path)])
    assert (done.exit_code, done.stdout) == (0, f"{NOTHING_TOLD}\n")
    with pytest.raises(ConfigError, match="nothing-1: there is no such run; there are: written-1"):
        added_up(folder, "nothing-1")
