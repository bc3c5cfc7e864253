"""Questions are split by their text."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrag.data.splitting import Splits, normalise_question, parse_split, split_of, split_questions
from fedrag.errors import ConfigError

SPELLINGS = ["Is it FREE of charge?", " is it free\tof  charge", "¿Is it ﬁree of charge?!".replace("ﬁ", "f")]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_a_question_share_a_normal_form(spelling: str) -> None:
    assert normalise_question(spelling) == "is it free of charge"


def test_punctuation_inside_and_symbols_at_the_end_are_kept() -> None:
    assert normalise_question("What is C++?") == "what is c++"
    assert normalise_question("Who is Mr. O'Neill?") == "who is mr. o'neill"
    assert normalise_question("???") == ""


@given(st.text(), st.integers(0, 99))
def test_the_split_depends_on_the_normal_form_alone(question: str, seed: int) -> None:
    fractions = (0.5, 0.2, 0.3)
    assert split_of(question, fractions, seed) == split_of(f" {question.strip()} ?", fractions, seed)


def test_shares_are_kept_and_another_seed_splits_otherwise() -> None:
    fractions = (0.6, 0.1, 0.3)
    questions = [f"Question number {n}?" for n in range(4000)]
    counts = Counter(split_of(question, fractions, 0) for question in questions)
    # Three standard deviations of a share of 0.6 among 4,000 are 0.023.
    assert counts["train"] / 4000 == pytest.approx(0.6, abs=0.023)
    assert counts["validation"] / 4000 == pytest.approx(0.1, abs=0.015)
    moved = sum(split_of(q, fractions, 0) != split_of(q, fractions, 1) for q in questions)
    assert moved / 4000 == pytest.approx(1 - (0.36 + 0.01 + 0.09), abs=0.024)


@pytest.mark.parametrize(
    ("fractions", "splits"),
    [
        ((1.0, 0.0, 0.0), {"train"}),
        ((0.0, 1.0, 0.0), {"validation"}),
        ((0.0, 0.0, 1.0), {"test"}),
        ((0.7, 0.3, 0.0), {"train", "validation"}),
        ((0.5, 0.0, 0.5), {"train", "test"}),
    ],
)
def test_a_share_of_zero_gets_nothing(fractions: tuple[float, float, float], splits: set[str]) -> None:
    assert {split_of(f"q{n}", fractions, 0) for n in range(500)} == splits


def test_the_hash_never_changes() -> None:
    """A run that is repeated with a later version must find the same split."""
    questions = ["Who sold it?", "What is it?", "Why?", "When did it end?", "How many are left?", "Where to?"]
    fractions = (0.4, 0.3, 0.3)
    assert [split_of(question, fractions, 7) for question in questions] == [
        "validation",
        "train",
        "train",
        "train",
        "test",
        "train",
    ]


def test_shares_are_read_from_text() -> None:
    assert parse_split("0.6/0.1/0.3") == (0.6, 0.1, 0.3)
    assert parse_split(" 0 / 0 / 1 ") == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("text", ["0.6/0.4", "0.6/0.1/0.2/0.1", "a/b/c", "", "0.6/0.1/0.4", "-0.1/0.1/1", "nan/0/1"])
def test_shares_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="split"):
        parse_split(text)


def sides(splits: Splits, asked: list[str]) -> dict[str, int]:
    return dict(Counter(splits.by_text[normalise_question(text)] for text in asked))


FRACTIONS = (0.6, 0.1, 0.3)


@pytest.mark.parametrize("seed", range(20))
def test_a_site_of_three_questions_has_one_of_every_split(seed: int) -> None:
    texts = {f"site {n}": [f"Question {n} {i}?" for i in range(3)] for n in range(20)}
    splits = split_questions(texts, FRACTIONS, seed)
    assert all(sides(splits, asked) == {"train": 1, "validation": 1, "test": 1} for asked in texts.values())
    assert splits.lacking == {}


@pytest.mark.parametrize("seed", range(20))
def test_a_small_site_trains_first_and_is_tested_next(seed: int) -> None:
    texts = {"one": ["Who?"], "two": ["What?", "Why?", "why"]}
    splits = split_questions(texts, FRACTIONS, seed)
    assert sides(splits, ["Who?"]) == {"train": 1}
    assert sides(splits, ["What?", "Why?"]) == {"train": 1, "test": 1}
    assert splits.lacking == {"test": ["one"], "validation": ["one", "two"]}


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(0, 9))
def test_every_site_trains_whatever_it_shares_with_others(asked: list[list[int]], seed: int) -> None:
    texts = {str(site): [f"Question {number}?" for number in numbers] for site, numbers in enumerate(asked)}
    splits = split_questions(texts, FRACTIONS, seed)
    assert all("train" in sides(splits, list(questions)) for questions in texts.values())
    assert "train" not in splits.lacking
    for split in ("test", "validation"):
        without = [name for name, questions in texts.items() if split not in sides(splits, questions)]
        assert splits.lacking.get(split, []) == sorted(without)


def test_sites_with_enough_questions_keep_the_split_of_the_hash() -> None:
    texts = {"a": [f"Question number {n}?" for n in range(60)]}
    splits = split_questions(texts, FRACTIONS, 0)
    assert splits.by_text == {normalise_question(q): split_of(q, FRACTIONS, 0) for q in texts["a"]}


def test_a_split_without_a_share_is_not_missed() -> None:
    assert split_questions({"a": ["Who?"]}, (0.0, 0.0, 1.0), 0).lacking == {}
    assert split_questions({"a": ["Who?", "What?"]}, (0.5, 0.0, 0.5), 0).lacking == {}
