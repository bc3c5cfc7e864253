"""The report's section on wrong answers: before and after, of the same questions, or as sites told."""

from __future__ import annotations

from pathlib import Path

import pytest
from clinic import trained_run
from tiny_federation import tiny_config

from fedrag.diagnosis.diagnose import diagnose_run
from fedrag.diagnosis.tally import Tally
from fedrag.reporting.page import render
from fedrag.reporting.wrong_answers import wrong_answers
from fedrag.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("home") / "run")


def test_before_and_after_stand_side_by_side_if_they_are_of_the_same_questions(run: RunFolder):
    assert wrong_answers(run) is None
    assert "Why answers are wrong" not in render(run)
    after = diagnose_run(run.path)
    shown = wrong_answers(run)
    assert shown is not None
    assert shown.moments == ("After training",)
    diagnose_run(run.path, base=True)
    both = wrong_answers(run)
    assert both is not None
    assert both.moments == ("Before training", "After training")
    assert both.questions == "4 validation questions of 1 site"
    rows = dict(both.rows)
    counts = after["overall"]["counts"]
    assert rows["Wrong: passage not found"][1] == f"{100 * counts['not_found'] / 4:.1f}"
    assert sum(float(rows[name][1]) for name in list(rows)[:6]) == pytest.approx(100, abs=0.5)
    page = render(run)
    assert "Why answers are wrong" in page
    assert after["advice"]["headline"] in page
    diagnose_run(run.path, base=True, split="test")
    assert wrong_answers(run) == shown


def test_a_diagnosis_of_other_sites_is_not_the_runs(run: RunFolder, tmp_path: Path):
    before = sorted(path.name for path in (run.path / "diagnosis").iterdir())
    diagnose_run(run.path, run.config.data.sites, split="train")
    assert sorted(path.name for path in (run.path / "diagnosis").iterdir()) == before


def test_what_sites_told_is_shown_where_nothing_was_diagnosed_here(tmp_path: Path):
    run = RunFolder.create(tiny_config(), tmp_path / "told")
    run.record_diagnosis("before", {"north": Tally(questions=10, right=1, not_used=9).to_json()})
    run.record_diagnosis("after", {"north": Tally(questions=10, right=6, not_used=4).to_json()})
    shown = wrong_answers(run)
    assert shown is not None
    assert (shown.moments, shown.advice) == (("Before training", "After training"), ())
    assert dict(shown.rows)["Right"] == ("10.0", "60.0")
