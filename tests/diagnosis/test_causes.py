"""Why an answer is wrong: each cause by hand, and the order in which they are decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedrag.diagnosis.causes import CAUSES, Evidence, answer_passages, cause_of, says_the_same
from fedrag.types import Passage, Question

READY = Evidence("five coins", ("two coins",), in_corpus=True, found=True, fits=True)


def test_an_answer_that_matches_exactly_is_right_whatever_else_went_wrong():
    assert cause_of(Evidence("Two coins.", ("two coins",), in_corpus=False, found=False, fits=False)) is None


def test_the_first_stage_that_failed_is_the_cause():
    assert CAUSES == ("worded_otherwise", "not_in_corpus", "not_found", "cut", "not_used")
    assert cause_of(READY) == "not_used"
    assert cause_of(replace(READY, fits=False)) == "cut"
    assert cause_of(replace(READY, fits=False, found=False)) == "not_found"
    assert cause_of(replace(READY, fits=False, found=False, in_corpus=False)) == "not_in_corpus"
    assert cause_of(Evidence("It is two coins a week", ("two coins",), False, False, False)) == "worded_otherwise"


@pytest.mark.parametrize(
    ("answer", "right", "language"),
    [
        ("A late book costs two coins.", "two coins", "en"),
        ("the great river of the north Nile", "The Great River of the North", "en"),
        ("Es wurde am 3. Mai eröffnet", "am 3. Mai", "de"),
        ("答案是北京市。", "北京", "zh"),
        ("the secretary of the council and trade board", "secretary of council and trade", "en"),
    ],
)
def test_an_answer_that_holds_the_right_one_or_nearly_all_of_its_words_says_the_same(answer, right, language):
    assert says_the_same(answer, [right], language)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("It is well known.", "no"),  # a part of a word is not the word
        ("on the 4th of May in 1989", "on the 4th of May in 1988"),  # all words but the number
        ("coins", "two coins"),  # half of it
        ("", "two coins"),
    ],
)
def test_an_answer_that_lacks_something_does_not(answer, right):
    assert not says_the_same(answer, [right])


def test_a_labelled_passage_holds_the_answer_and_without_labels_the_one_in_which_it_stands():
    passages = [
        Passage("a", "A late book costs two coins."),
        Passage("b", "Ask the porter."),
        Passage("c", "Two coins"),
    ]
    question = Question("q", "What does it cost?", ("two coins",))
    assert answer_passages(question, passages) == {"a", "c"}
    assert answer_passages(replace(question, passage_ids=("b", "gone")), passages) == {"b"}
    assert answer_passages(replace(question, passage_ids=("gone",)), passages) == frozenset()
    assert answer_passages(replace(question, answers=("nine",)), passages) == frozenset()
