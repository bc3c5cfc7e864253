"""What of a model's output is a question, and what of it an answer."""

from __future__ import annotations

import pytest

from fedrag.augmentation.question_checks import clean_question, is_about, shorten_answer
from fedrag.augmentation.question_wording import question_wording

OXYGEN = (
    "The first commercially viable process for producing liquid oxygen was developed in 1895 by German engineer Carl "
    "von Linde and British engineer William Hampson."
)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Who guards the gate?", "Who guards the gate?"),
        ("Question 1: Who guards the gate?\nAnswer: a porter", "Who guards the gate?"),
        ('"Who guards the gate?"', "Who guards the gate?"),
        ("1. Who guards the gate? 2. Who built it?", "Who guards the gate?"),
        ("问题：谁守门？", "谁守门？"),
        ("Câu hỏi: Ai gác cổng?", "Ai gác cổng?"),
        ("من يحرس البوابة؟", "من يحرس البوابة؟"),
        ("The gate is guarded.", ""),
        ("Why?", ""),
        ("", ""),
        (f"Who {'really ' * 60}guards it?", ""),
    ],
)
def test_a_question_ends_at_its_mark_and_loses_what_a_model_puts_before_it(text, question):
    assert clean_question(text) == question


@pytest.mark.parametrize(
    ("answer", "question", "passage", "short"),
    [
        ("Carl von Linde", "Who developed it?", OXYGEN, "Carl von Linde"),
        ("1895.", "When was it developed?", OXYGEN, "1895"),
        (
            "The first commercially viable method of producing liquid oxygen was developed by German engineer Carl von "
            "Linde and Brit",
            "What was the first commercially viable method of producing liquid oxygen?",
            OXYGEN,
            "German engineer Carl von Linde",
        ),
        ("It was Louis Cailletet.", "Who developed it?", OXYGEN, ""),
        ("liquid oxygen", "Who first produced liquid oxygen?", OXYGEN, ""),
        ("", "Who developed it?", OXYGEN, ""),
        ("北京", "首都在哪里？", "中国的首都是北京。", "北京"),
        ("中国的首都是北京。", "中国的首都在哪里？", "中国的首都是北京，人口很多。", "是北京"),
        ("Linde", "Who?", "Lindenberg lies in the north.", ""),
    ],
)
def test_an_answer_is_cut_to_what_the_passage_holds_and_the_question_does_not(answer, question, passage, short):
    assert shorten_answer(answer, question, passage) == short


@pytest.mark.parametrize(
    ("question", "about"),
    [
        ("Who was Carl von Linde?", True),
        ("What was developed?", True),
        ("What happened in 1895?", True),
        ("What is the answer to this question?", False),
        ("Why?", False),
    ],
)
def test_a_question_names_something_of_its_passage(question, about):
    assert is_about(question, OXYGEN) is about


def test_another_seed_asks_in_another_way_and_the_same_in_the_same():
    wording = question_wording("en")
    passages = [f"Passage {n}." for n in range(30)]
    first = [wording.request(0, passage) for passage in passages]
    assert set(first) == set(wording.requests)
    assert first == [wording.request(0, passage) for passage in passages]
    assert first != [wording.request(1, passage) for passage in passages]


def test_each_language_has_its_words():
    assert question_wording("vi").labels[0] == "Đoạn văn"
    assert question_wording("zh-Hant") == question_wording("zh")
    assert question_wording("fr").instruction.endswith('Write in the language of the passage ("fr").')
    assert question_wording("en") == question_wording("")
