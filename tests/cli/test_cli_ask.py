"""`fedrag ask`, as a person types it."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from fedrag_process import started
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.simulation.simulate import simulate

NORTH = str(SHIPPED / "north")
QUESTION = "What does a late book cost?"


@pytest.fixture(scope="module")
def folder(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run that trained the retriever alone."""
    folder = tmp_path_factory.mktemp("ask")
    simulate(tiny_config(SHIPPED / "north", federation={"rounds": 1, "schedule": "retriever"}), out=folder / "run")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    monkeypatch.chdir(folder)


def ask(*arguments: str, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, ["ask", "run", *arguments], input=typed)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["ask", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line


def test_both_sides_stand_beside_each_other_with_scores_marks_and_right_answers():
    lines = ask(QUESTION, "--data", NORTH, "--passages", "3").splitlines()
    assert lines[1:4] == [
        f"north: {QUESTION}",
        "Right answers (test.jsonl): two coins a week",
        "run trained the retriever alone; the generator is untouched on both sides.",
    ]
    [heading] = [line for line in lines if "Untouched" in line]
    assert "Trained: retriever" in heading
    asked = json.loads(ask(QUESTION, "--data", NORTH, "--passages", "3", "--json"))
    for rank in range(3):
        before, after = (asked[side]["found"][rank] for side in ("untouched", "trained"))
        marked = [line for line in lines if f"{before['score']:.3f}  {before['passage']['title']}" in line]
        assert any(f"{after['score']:.3f}  {after['passage']['title']}" in line for line in marked)
        assert all(line.strip().startswith("* ") == (rank < 2) for line in marked)
    assert "*: given to the generator" in " ".join(lines)


def test_where_a_passage_stands_is_shown(tmp_path: Path):
    shutil.copytree(NORTH, tmp_path / "north")
    rows = [json.loads(line) for line in (tmp_path / "north" / "passages.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"source": "rules.pdf, page 3"}) + "\n" for row in rows]
    (tmp_path / "north" / "passages.jsonl").write_text("".join(lines))
    assert ask(QUESTION, "--data", str(tmp_path / "north")).count("rules.pdf, page 3") == 4


def test_json_is_all_there_is_on_standard_output():
    asked = json.loads(ask(QUESTION, "--data", NORTH, "--json"))
    expected = ("run", "north", ["retriever"], ["test"], ["two coins a week"])
    assert tuple(asked[key] for key in ("run", "site", "components", "splits", "right_answers")) == expected
    for side in ("untouched", "trained"):
        assert isinstance(asked[side]["answer"], str)
        found = asked[side]["found"]
        assert [set(item) for item in found] == [{"passage", "score", "is_given", "is_labelled"}] * 2
        assert set(found[0]["passage"]) == {"id", "text", "title", "source"}


def test_a_question_that_is_too_long_is_cut_and_that_is_said():
    long = "Why? " * 100
    output = ask(long, "--data", NORTH)
    assert "The question is too long for the prompt: its last 470 tokens were not read." in output
    asked = json.loads(ask(long, "--data", NORTH, "--json"))
    assert asked["trained"]["unread_tokens"] == asked["untouched"]["unread_tokens"] == 470
    assert "not read" not in ask("Why?", "--data", NORTH)


def test_without_a_question_it_asks_until_an_empty_line_or_the_end():
    for typed in (f"{QUESTION}\nWhere is it?\n\nnever read?\n", f"{QUESTION}\nWhere is it?\n"):
        output = ask("--data", NORTH, typed=typed)
        assert output.startswith(
            "Answers come from the passages of north. An empty line or Ctrl-D ends it.\nQuestion: "
        )
        assert [line for line in output.splitlines() if line.startswith("north: ")] == [
            f"north: {QUESTION}",
            "north: Where is it?",
        ]
    lines = ask("--data", NORTH, "--json", typed=f"{QUESTION}\nWhere is it?\n").splitlines()
    assert [json.loads(line)["question"] for line in lines] == [QUESTION, "Where is it?"]


def test_what_cannot_be_asked_is_told_in_one_sentence(tmp_path: Path):
    assert "holds 3 sites (east, north, south); name one" in refusal("run", QUESTION, "--data", str(SHIPPED))
    assert refusal("run", " ", "--data", NORTH) == "Error: the question is empty; expected some words"
    assert refusal("none", QUESTION, "--data", NORTH).startswith("Error: none: is no run folder")
    shutil.copytree("run", tmp_path / "unfinished")
    shutil.rmtree(tmp_path / "unfinished" / "final")
    sentence = refusal(str(tmp_path / "unfinished"), QUESTION, "--data", NORTH)
    assert sentence.endswith(f"is not finished; go on with: fedrag simulate --resume {tmp_path / 'unfinished'}")
    assert CliRunner().invoke(app, ["ask", "run", QUESTION, "--data", NORTH, "--passages", "0"]).exit_code == 2


@pytest.mark.slow
def test_ctrl_c_at_the_prompt_ends_with_130(tmp_path: Path):
    with started("ask", "run", "--data", NORTH) as process:
        assert process.stdout is not None
        assert "Answers come from" in process.stdout.readline()
        time.sleep(0.5)  # until it waits for a line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Stopped.\n")
