"""A question is labelled with the passage in which its answer stands, and with none where one cannot tell."""

from __future__ import annotations

import pytest

from fedrag.data.labelling import AnswerFinder
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
