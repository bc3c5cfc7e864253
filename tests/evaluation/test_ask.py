"""One question, before and after training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_federation import SHIPPED, Lines, small_site, tiny_config

import fedrag
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.errors import ConfigError, DataError, RunError
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.evaluation.evaluate import measure_sites
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

NORTH = SHIPPED / "north"


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Train both components for a round, the generator hard enough for its answers to change."""
    settings = {"generator": {"learning_rate": 0.1}, "retriever": {"learning_rate": 0.005}}
    config = tiny_config(NORTH, federation={"rounds": 1}, **settings)
    return simulate(config, out=tmp_path_factory.mktemp("ask") / "run")


@pytest.fixture(scope="module")
def both(run: RunFolder) -> BeforeAndAfter:
    return BeforeAndAfter.of_run(run.path, NORTH)


def test_both_sides_say_what_an_evaluation_measures(run: RunFolder, both: BeforeAndAfter):
    questions = {question.id: question.question for question in load_site(NORTH).test}
    arms = {"untouched": {}, "trained": run.load_result()}
    # question by question, the two sides in turn: neither may leak into the other
    asked = {identity: both.ask(question) for identity, question in questions.items()}
    for side, state in arms.items():
        for measured in measure_sites([load_site(NORTH)], "test", run.config, state, True, Lines()):
            reply = getattr(asked[measured.question_id], side)
            assert tuple(found.passage.id for found in reply.found) == measured.retrieved
            assert reply.answer == measured.answer
    assert any(one.untouched.answer != one.trained.answer for one in asked.values())
    assert any(one.untouched.found != one.trained.found for one in asked.values())


def test_a_question_of_the_site_comes_with_its_answers_and_labels_in_any_spelling(run: RunFolder, both: BeforeAndAfter):
    asked = both.ask("  what does a LATE book  cost? ")
    assert (asked.site, asked.splits, asked.right_answers) == ("north", ("test",), ("two coins a week",))
    whole = BeforeAndAfter.of_run(run.path, NORTH, passages=8).ask("What does a late book cost?")
    assert [found.passage.id for found in whole.trained.found if found.is_labelled] == ["north-3"]
    other = both.ask("What is the price of a book that is late?")
    assert (other.splits, other.right_answers) == ((), ())
    assert not any(found.is_labelled for found in other.trained.found)


def test_the_generator_is_given_no_more_passages_than_in_the_run(run: RunFolder):
    question = "What does a late book cost?"
    three, one = (BeforeAndAfter.of_run(run.path, NORTH, passages=k).ask(question) for k in (3, 1))
    assert [found.is_given for found in three.trained.found] == [True, True, False]
    assert [found.is_given for found in one.trained.found] == [True]
    scores = [found.score for found in three.trained.found]
    assert scores == sorted(scores, reverse=True)
    assert fedrag.ask(run.path, question, NORTH).trained == replace(three.trained, found=three.trained.found[:2])
    assert len(BeforeAndAfter.of_run(run.path, NORTH, passages=100).ask(question).trained.found) == 8


def test_a_component_that_was_not_trained_is_the_untouched_one_on_both_sides(tmp_path: Path, tiny_home: Path):
    config = tiny_config(NORTH, federation={"rounds": 1, "schedule": "retriever"}, retriever={"learning_rate": 0.05})
    run = simulate(config, out=tmp_path / "run")
    asked = fedrag.ask(run.path, "What does a late book cost?", NORTH, passages=8)
    assert asked.components == ("retriever",)
    before, after = ([found.score for found in reply.found] for reply in (asked.untouched, asked.trained))
    assert before != after


def test_a_folder_of_several_sites_is_refused_with_what_to_say(run: RunFolder, tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        BeforeAndAfter.of_run(run.path, SHIPPED)
    assert str(caught.value) == (
        f"{SHIPPED}: holds 3 sites (east, north, south); name one of them, for example: --data {SHIPPED / 'east'}"
    )
    for number in range(12):
        write_site(tmp_path / f"site-{number:02}", small_site("any"))
    with pytest.raises(ConfigError, match=r"site-09 and 2 more\)"):
        BeforeAndAfter.of_run(run.path, tmp_path)


def test_a_folder_with_a_single_site_in_it_is_that_site(run: RunFolder, tmp_path: Path):
    write_site(tmp_path / "alone", small_site("alone"))
    assert BeforeAndAfter.of_run(run.path, tmp_path).site == "alone"


@pytest.mark.parametrize("question", ["", " \t", "half a pair: \ud83d"])
def test_what_is_no_question_is_refused(both: BeforeAndAfter, question: str):
    with pytest.raises(ConfigError, match=r"^the question is (empty; expected some words|not UTF-8 text)$"):
        both.ask(question)


def test_an_unfinished_run_and_a_damaged_site_are_refused(run: RunFolder, tmp_path: Path):
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    with pytest.raises(RunError, match="is not finished; go on with: fedrag simulate --resume"):
        BeforeAndAfter.of_run(tmp_path / "run", NORTH)
    with pytest.raises(DataError, match="no such folder"):
        BeforeAndAfter.of_run(run.path, tmp_path / "none")
