"""A question is labelled with the passage in which its answer stands, and with none where one cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedrag.data.labelling import AnswerFinder
from fedrag.data.site_folder import load_sites
from fedrag.types import Passage

FINDER = AnswerFinder(
    [
        Passage("hands", "They are disinfected for thirty seconds.", "Hands"),
        Passage("room", "It is aired for thirty seconds after each visit.", "Rooms"),
        Passage("fee", "A single room costs 80 euros, no less."),
        Passage("zh", "探视时间为每天下午三点至晚上八点。"),
        Passage("vi", "Người nhà được thăm bệnh nhân từ ba giờ chiều."),
    ]
)


@pytest.mark.parametrize(
    ("question", "answers", "found"),
    [
        ("What does it cost?", ["80 Euros."], ["fee"]),
        ("How many?", ["8"], []),
        ("How long are hands disinfected?", ["thirty seconds"], ["hands"]),
        ("How long is a room aired?", ["half a minute", "thirty seconds"], ["room"]),
        ("Wie lange?", ["thirty seconds"], []),
        ("探视到几点？", ["晚上八点"], ["zh"]),
        ("Khi nào được thăm?", ["Từ ba giờ chiều"], ["vi"]),
        ("Why?", ["because"], []),
    ],
)
def test_the_passage_that_holds_the_answer_and_shares_most_with_the_question_is_right(
    question: str, answers: list[str], found: list[str]
) -> None:
    assert FINDER.find(question, answers) == found


def test_of_the_demos_questions_almost_all_get_the_label_that_their_author_gave_them() -> None:
    """792 questions of six agencies; 774 of them on the day of this test."""
    n_questions = n_right = 0
    for site in load_sites(Path(__file__).parents[2] / "simulations" / "data" / "space"):
        finder = AnswerFinder(site.passages)
        for question in site.questions:
            found = finder.find(question.question, question.answers)
            n_questions += 1
            n_right += bool(set(found) & set(question.passage_ids))
    assert n_questions == 792
    assert n_right > 0.97 * n_questions
