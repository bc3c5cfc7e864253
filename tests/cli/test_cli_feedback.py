"""`fedrag feedback`, as a reviewer types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.site_folder import load_site
from fedrag.site.site_config import site_toml

ROOT = Path(__file__).parents[2]
FERRY = Feedback("How long is the ferry away?", "a day", ("north-3", "north-1"), "wrong", "fourteen hours", id="ferry")
MAIL = Feedback("Who carries the mail?", "[red]nobody[/red]", ("north-3", "north-4"), "wrong", id="mail")
LAMP = Feedback("How many steps are there?", "212", ("north-2",), "right", id="lamp")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "simulations" / "data" / "tiny" / "north", "north")
    for row in (FERRY, MAIL, LAMP):
        FeedbackStore(Path("north")).add(row)
    return Path("north")


def feedback(*arguments: str, typed: str = "") -> str:
    result = CliRunner().invoke(app, ["feedback", *arguments], input=typed)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["feedback", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line


def states(site: Path) -> list[str]:
    return [row.state for row in FeedbackStore(site).rows()]


def test_the_list_shows_rows_and_counts(site: Path):
    told = feedback("list", "north")
    assert "[red]nobody[/red]" in told
    assert "fourteen hours" in told
    assert told.endswith("3 in all: 3 new; 0 training questions from them.\n")
    lines = [json.loads(line) for line in feedback("list", "north", "--json").splitlines()]
    assert [line["id"] for line in lines] == ["ferry", "mail", "lamp"]
    assert lines[0]["shown"] == ["north-3", "north-1"]


def test_a_review_accepts_edits_picks_and_drops(site: Path):
    told = feedback("review", "north", typed="p\n2\na\ne\nthe postman\np\nbakers choir\n3\na\nd\n")
    ferry, mail, lamp = FeedbackStore(site).rows()
    assert (ferry.state, ferry.right_ids, ferry.right_answer) == ("edited", ("north-1",), "fourteen hours")
    assert (mail.state, mail.right_ids, mail.right_answer) == ("edited", ("north-5",), "the postman")
    assert lamp.state == "dropped"
    assert "  2  The ferry · right\n" in told
    assert "  1  The lighthouse · holds the answer\n" in told
    assert "2 questions to learn from: fedrag feedback export north\n" in told
    assert feedback("review", "north").startswith("Nothing new to review")
    assert "1 of 3" in feedback("review", "north", "--all", typed="q\n")


def test_what_was_decided_before_the_reviewer_leaves_is_kept(site: Path):
    feedback("review", "north", typed="a\ne\nthe postman\n")  # the input ends
    assert states(site) == ["accepted", "edited", "new"]
    feedback("review", "north", typed="s\nq\n")
    assert states(site) == ["accepted", "edited", "new"]


def test_what_has_no_right_answer_is_not_accepted(site: Path):
    told = feedback("review", "north", typed="s\na\nq\n")
    assert "'Who carries the mail?': has neither a right answer nor a right passage yet; give one." in told
    assert states(site) == ["new", "new", "new"]


def test_a_passage_is_picked_by_its_id_too_and_every_pick_is_taken_back(site: Path):
    feedback("review", "north", typed="p\nnorth-7\nq\n")
    assert FeedbackStore(site).find("ferry").right_ids == ("north-7",)
    told = feedback("review", "north", "--all", typed="p\n\np\nzeppelin\n-\nq\n")
    assert "No other passage holds any of these words." in told
    assert FeedbackStore(site).find("ferry").right_ids == ()


def test_an_export_adds_once_and_names_what_it_leaves_out(site: Path):
    late = Feedback("What does a late book cost?", "a ham", ("north-3",), "wrong", "two coins", id="late")
    FeedbackStore(site).add(late)
    feedback("review", "north", typed="a\nd\na\na\n")
    told = feedback("export", "north")
    assert told == (
        "2 questions added to train.jsonl.\n"
        "In validation or test, and therefore not trained on:\n  What does a late book cost?\n"
    )
    assert feedback("export", "north").startswith("0 questions added to train.jsonl.\n")
    assert [q.id for q in load_site(site).train[-2:]] == ["feedback-ferry", "feedback-lamp"]
    assert "2 training questions from them" in feedback("list", "north")


def test_a_site_is_named_by_its_data_or_by_its_site_toml(site: Path):
    Path("clinic").mkdir()
    Path("clinic/site.toml").write_text(site_toml("clinic", "localhost:8443", "../north"))
    assert feedback("list", "clinic") == feedback("list", "north")
    shutil.copytree("north", "several/a")
    shutil.copytree("north", "several/b")
    assert refusal("list", "several") == "Error: several: holds 2 sites; name one of them, such as several/a"
    assert "nowhere: no such folder" in refusal("export", "nowhere")


def test_a_site_without_feedback_says_where_it_comes_from(site: Path):
    shutil.copytree(ROOT / "simulations" / "data" / "tiny" / "east", "east")
    for verb in ("list", "review"):
        assert feedback(verb, "east").startswith("No feedback yet; fedrag serve")
    assert feedback("export", "east") == "0 questions added to train.jsonl.\n"
    assert not list(Path("east").glob("feedback*"))
