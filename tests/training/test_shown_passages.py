"""The passages of training prompts: those found, others in place of dropped ones, labelled ones that were missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedrag.config.scenario import Config
from fedrag.rag.window import Shown
from fedrag.retrieval.index import PassageIndex
from fedrag.training.shown_passages import passages_to_find, training_passages
from fedrag.types import Hit, Passage, Question

PASSAGES = {name: Passage(name, f"text of {name}") for name in ("p0", "p1", "p2", "p3")}
LONG = Passage("long", "First we wash. Then we bake. Last we eat.")
CHUNKS = [(p.id, p.text) for p in PASSAGES.values()] + [("long", "First we wash."), ("long", "Then we bake.")]
INDEX = PassageIndex([name for name, _ in CHUNKS], [text for _, text in CHUNKS], np.eye(6, dtype=np.float32))
HITS = [Hit("p1", 0.9, 1), Hit("p0", 0.8, 0), Hit("p2", 0.7, 2), Hit("p3", 0.6, 3)]


def config_of(passages: int = 3, raft_drop: float = 0.0, include_labelled: bool = False) -> Config:
    rag = {"passages": passages, "include_labelled": include_labelled}
    return Config.from_dict({"name": "c", "data": {"sites": "x"}, "rag": rag, "generator": {"raft_drop": raft_drop}})


def shown(labelled: tuple[str, ...], n_questions: int = 1, **settings: Any) -> list[list[Shown]]:
    config = config_of(**settings)
    questions = [Question("q", "Who?", ("bake", "Ada"), labelled)] * n_questions
    hits = [HITS[: passages_to_find(config, questions)]] * n_questions
    return training_passages(questions, hits, PASSAGES | {"long": LONG}, INDEX, config, seed=5)


def names(labelled: tuple[str, ...], **settings: Any) -> list[str]:
    return [passage.text.removeprefix("text of ") for passage in shown(labelled, **settings)[0]]


def test_the_passages_that_were_found_are_shown_best_first():
    assert names(("p0",)) == ["p1", "p0", "p2"]
    assert passages_to_find(config_of(), [Question("q", "Who?", ("x",), ("p0",))]) == 3


def test_another_passage_takes_the_place_of_one_that_is_left_out():
    """With fewer passages where the labelled one is missing, their number told the generator that it is."""
    assert names(("p0",), raft_drop=1.0) == ["p1", "p2", "p3"]
    assert names(("p1",), raft_drop=1.0, passages=1) == ["p0"]
    assert names(("p0", "p1"), raft_drop=1.0, passages=2) == ["p2", "p3"]
    assert names(("p3",), raft_drop=1.0) == ["p1", "p0", "p2"]


def test_labelled_passages_are_left_out_as_often_as_it_says():
    found = shown(("p0",), n_questions=200, raft_drop=0.3)
    assert all(len(passages) == 3 for passages in found)
    assert 40 <= sum("text of p0" not in {passage.text for passage in passages} for passages in found) <= 80


@pytest.mark.parametrize(
    ("labelled", "passages", "expected"),
    [
        (("p3",), 3, ["p1", "p0", "p3"]),
        (("p0",), 3, ["p1", "p0", "p2"]),
        (("p0", "p3"), 3, ["p1", "p0", "p3"]),
        (("p3", "p2"), 2, ["p3", "p2"]),
        (("p2",), 1, ["p2"]),
        (("p0", "p2", "p3"), 2, ["p0", "p2"]),
        ((), 2, ["p1", "p0"]),
    ],
)
def test_labelled_passages_that_were_missed_take_the_places_of_the_last_others(labelled, passages, expected):
    assert names(labelled, passages=passages, include_labelled=True) == expected


def test_what_raft_leaves_out_is_not_put_back():
    assert names(("p0",), raft_drop=1.0, include_labelled=True) == ["p1", "p2", "p3"]


def test_a_missed_passage_is_shown_with_the_chunk_that_holds_the_answer():
    [[_, _, missed]] = shown(("long",), include_labelled=True)
    assert missed.text[missed.start : missed.end] == "Then we bake."
