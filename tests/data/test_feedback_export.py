"""Accepted feedback becomes training questions, each once, and never one that is measured."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedrag.data import feedback_export
from fedrag.data.feedback_export import export_feedback, training_question
from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.site_folder import load_site
from fedrag.data.writing import alone_at_site
from fedrag.errors import DataError, StorageError
from fedrag.types import Passage, Question

ROOT = Path(__file__).parents[2]
LATE = Feedback("How long is the ferry away?", "a day", ("north-3", "north-1", "north-4"), "wrong", "fourteen hours")
PASSAGES = {f"p{n}": Passage(f"p{n}", text) for n, text in enumerate(["Ten cents.", "A euro.", "It is ten cents!"])}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "simulations" / "data" / "tiny" / "north", tmp_path / "north"))


def accept(site: Path, *rows: Feedback) -> None:
    for row in rows:
        FeedbackStore(site).add(row)
        FeedbackStore(site).review(row.id, "accepted")


def test_an_accepted_correction_becomes_a_question_with_its_passages_and_those_that_misled(site: Path) -> None:
    before = (site / "train.jsonl").read_bytes()
    accept(site, replace(LATE, right_ids=("north-1",), id="abc"))
    (added,) = export_feedback(site).added
    learned = Question(
        "feedback-abc", LATE.question, ("fourteen hours",), ("north-1",), ("north-3", "north-4"), "feedback"
    )
    assert added == learned
    assert load_site(site).train[-1] == learned
    assert (site / "train.jsonl").read_bytes().startswith(before)
    assert json.loads((site / "train.jsonl").read_text().splitlines()[-1])["origin"] == "feedback"


def test_only_what_a_reviewer_took_is_exported_and_that_once(site: Path) -> None:
    store = FeedbackStore(site)
    accept(site, LATE, replace(LATE, question="And the bus?", id="bus"))
    store.review("bus", "edited", correction="an hour")
    store.add(replace(LATE, question="New?", id="new"))
    store.add(replace(LATE, question="Dropped?", id="dropped"))
    store.review("dropped", "dropped")
    assert [question.question for question in export_feedback(site).added] == [LATE.question, "And the bus?"]
    after = (site / "train.jsonl").read_bytes()
    assert export_feedback(site) == feedback_export.Export()
    assert (site / "train.jsonl").read_bytes() == after
    assert [row.exported for row in store.rows()] == [True, True, False, False]


def test_a_question_that_is_measured_is_named_and_not_trained_on(site: Path) -> None:
    before = (site / "train.jsonl").read_bytes()
    accept(site, replace(LATE, question="what does  a late book cost"))
    for _ in range(2):  # it stays to be told until it is dropped, or leaves the other file
        assert export_feedback(site).held_out == ("what does  a late book cost",)
    assert (site / "train.jsonl").read_bytes() == before


def test_what_several_people_say_of_a_question_is_one_question(site: Path) -> None:
    accept(site, LATE, replace(LATE, question="how long is the ferry  away?", correction="14 hours", id="other"))
    (added,) = export_feedback(site).added
    assert added.answers == ("fourteen hours", "14 hours")
    assert all(row.exported for row in FeedbackStore(site).rows())


def test_what_the_site_knows_already_is_not_added_and_another_answer_is_told_of(site: Path) -> None:
    known = replace(LATE, question="How many steps lead to the lamp?", correction="212", right_ids=("north-2",))
    accept(site, replace(known, shown=("north-2",)), replace(known, correction="213", id="other"))
    done = export_feedback(site)
    assert [question.answers for question in done.known] == [("212",)]
    assert [question.answers for question in done.added] == [("213",)]
    assert done.disputed == done.added


def test_a_kill_between_the_two_files_adds_nothing_twice(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training file is replaced first; the store learns of it in the transaction that ends after it."""
    accept(site, LATE, replace(LATE, correction="14 hours", id="other"))
    append = feedback_export.append_training

    def killed(*given: object) -> None:
        append(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feedback_export, "append_training", killed)
        with pytest.raises(KeyboardInterrupt):
            export_feedback(site)
    after = (site / "train.jsonl").read_bytes()
    assert not any(row.exported for row in FeedbackStore(site).rows())
    done = export_feedback(site)
    assert (done.added, len(done.known)) == ((), 2)
    assert (site / "train.jsonl").read_bytes() == after


def test_a_site_without_training_questions_gets_its_first_and_keeps_its_modes(site: Path) -> None:
    (site / "train.jsonl").unlink()
    (site / "passages.jsonl").chmod(0o600)
    accept(site, LATE)
    export_feedback(site)
    assert (site / "train.jsonl").stat().st_mode & 0o777 == 0o600
    (site / "train.jsonl").chmod(0o640)
    accept(site, replace(LATE, question="Why?", id="why"))
    export_feedback(site)
    assert (site / "train.jsonl").stat().st_mode & 0o777 == 0o640
    assert [question.question for question in load_site(site).train] == [LATE.question, "Why?"]


def test_a_last_line_without_its_end_stays_a_line(site: Path) -> None:
    file = site / "train.jsonl"
    file.write_bytes(file.read_bytes().rstrip())
    accept(site, LATE)
    export_feedback(site)
    assert len(load_site(site).train) == 17


def test_an_export_that_fails_leaves_the_rows_to_the_next_one(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(site, LATE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *given: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StorageError, match="the disk is full"):
            export_feedback(site)
    assert list(site.glob(".train*")) == []
    assert len(export_feedback(site).added) == 1


def test_while_another_process_adds_questions_an_export_waits_for_its_turn(site: Path) -> None:
    """Each of two that append reads the file and replaces it: one would lose what the other added."""
    accept(site, LATE)
    with alone_at_site(site), pytest.raises(DataError, match="another fedrag adds questions to this site"):
        export_feedback(site)
    assert len(export_feedback(site).added) == 1


@pytest.mark.parametrize(
    ("row", "answers", "right", "wrong"),
    [
        ({"verdict": "right", "answer": "ten cents"}, ("ten cents",), (), ()),
        ({"verdict": "right", "answer": "ten cents", "right_ids": ("p0",)}, ("ten cents",), ("p0",), ("p1",)),
        ({"correction": "ten cents", "right_ids": ("p0",)}, ("ten cents",), ("p0",), ("p1",)),
        (
            {"correction": "ten cents", "right_ids": ("p0",), "wrong_ids": ("p2",)},
            ("ten cents",),
            ("p0",),
            ("p2", "p1"),
        ),
        ({"right_ids": ("p0",)}, (), ("p0",), ()),
        ({"correction": "ten cents", "right_ids": ("gone",), "wrong_ids": ("p1", "lost")}, ("ten cents",), (), ("p1",)),
    ],
)
def test_a_shown_passage_is_wrong_by_a_persons_word_or_without_the_answer_beside_the_right_one(
    row: dict[str, object], answers: tuple[str, ...], right: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    given = replace(Feedback("What?", "a euro", ("p0", "p1", "p2", "gone"), "wrong", id="x"), **row)
    assert training_question(given, PASSAGES) == Question("feedback-x", "What?", answers, right, wrong, "feedback")


def test_of_passages_that_are_gone_there_is_nothing_to_learn(site: Path) -> None:
    accept(site, replace(LATE, correction="", right_ids=("gone",)))
    assert export_feedback(site).lacking == (LATE.question,)
