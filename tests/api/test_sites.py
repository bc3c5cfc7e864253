"""Sites made from data sets in memory."""

from __future__ import annotations

import re

import datasets
import pytest

import fedrag
from fedrag.errors import ConfigError, DataError

ROWS = [
    {"question": "When does the pool open?", "answer": "at seven", "context": "The pool opens at seven."},
    {"question": "Who has a key?", "answer": "the porter", "context": "Ask the porter for a key."},
    {"question": "When does it close?", "answer": "at nine", "context": "The pool opens at seven."},
]


def test_a_data_set_becomes_a_site_whose_questions_name_their_passages() -> None:
    site = fedrag.Site.from_dataset("pool", datasets.Dataset.from_list(ROWS), split="1/0/0", language="en")
    assert (site.name, site.language) == ("pool", "en")
    assert [passage.text for passage in site.passages] == ["The pool opens at seven.", "Ask the porter for a key."]
    texts = {passage.id: passage.text for passage in site.passages}
    read = [(q.question, q.answers, [texts[label] for label in q.passage_ids]) for q in site.train]
    assert read == [(row["question"], (row["answer"],), [row["context"]]) for row in ROWS]


def test_a_data_set_that_is_split_stays_as_it_is_split() -> None:
    split = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])}
    )
    site = fedrag.Site.from_dataset("pool", split)
    assert [q.question for q in site.train] == [row["question"] for row in ROWS[:2]]
    assert [q.question for q in site.test] == [ROWS[2]["question"]]
    assert site.validation == ()
    assert site.test[0].passage_ids == site.train[0].passage_ids, "the same text is one passage, whatever the split"


def test_rows_of_squad_are_read_without_naming_a_column() -> None:
    row = {
        "id": "7",
        "title": "Pool",
        "question": "When?",
        "context": "At seven.",
        "answers": {"text": ["seven"], "answer_start": [3]},
    }
    [question] = fedrag.Site.from_dataset("pool", iter([row]), split="1/0/0").train
    assert question.answers == ("seven",)


def test_rows_may_name_passages_of_a_corpus() -> None:
    corpus = [fedrag.Passage("p1", "At seven."), fedrag.Passage("p2", "Never read.")]
    rows = [{"query": "When?", "answer": "seven", "passage_ids": ["p1"]}]
    site = fedrag.Site.from_dataset("pool", rows, corpus=corpus, split="1/0/0")
    assert site.passages == tuple(corpus)
    assert site.train[0].passage_ids == ("p1",)


def test_questions_are_split_alike_at_every_site() -> None:
    rows = [{**ROWS[0], "question": f"Question {n}?"} for n in range(40)]
    one, other = (fedrag.Site.from_dataset(name, rows) for name in ("a", "b"))
    assert len(one.train) > len(one.test) > len(one.validation) > 0
    assert [q.question for q in one.test] == [q.question for q in other.test]


@pytest.mark.parametrize(
    ("rows", "arguments", "sentence"),
    [
        ([], {}, "dataset: holds no row"),
        (
            [{"frage": "x", "context": "y"}],
            {},
            "dataset: has no column question or query (all: frage, context); name it with question=",
        ),
        (
            [{"question": "x", "answer": "z"}],
            {},
            "dataset: has no column context or contexts or passage or passages (all: question, answer); "
            "name it with passage=",
        ),
        (
            ROWS,
            {"answer": "antwort"},
            "dataset: has no column antwort (all: question, answer, context); name it with answer=",
        ),
        ([*ROWS, 3], {}, "dataset: row 3 is of type int; expected a dictionary"),
        ({"dev": ROWS}, {}, "dataset: has no split train, validation or test, only dev"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_told_with_the_argument(rows, arguments, sentence) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}$"):
        fedrag.Site.from_dataset("pool", rows, **arguments)


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'split "0.5/0.1/0.1": the shares'):
        fedrag.Site.from_dataset("pool", ROWS, split="0.5/0.1/0.1")
