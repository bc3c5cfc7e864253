"""Haystack's export, labels and documents become sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.haystack import import_haystack
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)


def json_file(folder: Path, content: Any, name: str = "pool.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def exported(document: str, question: str, *answers: str, **more: Any) -> dict[str, Any]:
    found = [
        {"answer_id": 1, "document_id": 2, "question_id": 3, "text": text, "answer_start": 0, "answer_category": None}
        for text in answers
    ]
    asked = {"question": question, "id": 1, "answers": found, "is_impossible": False, **more}
    return {"paragraphs": [{"qas": [asked], "context": document, "document_id": 2}]}


EXPORT = {
    "data": [
        exported("It opens at six.", "When?", "at six"),
        exported("Ask Bo.", "Who?", "Bo"),
        exported("No dogs.", "Cats?", is_impossible=True),
    ]
}


def test_an_annotation_export_is_one_site(tmp_path: Path) -> None:
    imported = import_haystack(json_file(tmp_path, EXPORT), fractions=TRAIN)
    (site,) = imported.sites
    assert (site.name, [passage.text for passage in site.passages]) == (
        "pool",
        ["It opens at six.", "Ask Bo.", "No dogs."],
    )
    when, who = site.train
    assert (when.question, when.answers, when.passage_ids) == ("When?", ("at six",), (site.passages[0].id,))
    assert (who.question, who.answers, who.passage_ids) == ("Who?", ("Bo",), (site.passages[1].id,))
    assert imported.skipped == {"impossible questions": 1}


def test_the_documents_of_an_export_are_dealt_to_groups(tmp_path: Path) -> None:
    sites = import_haystack(json_file(tmp_path, EXPORT), groups=2).sites
    assert [site.name for site in sites] == ["group-1", "group-2"]


def test_a_file_of_documents_adds_passages_that_are_not_there_yet(tmp_path: Path) -> None:
    documents = [
        {"id": "a", "content": "Ask Bo.", "meta": {"title": "Porter"}},
        {"id": "b", "content": "Towels are free.", "content_type": "text", "meta": {"title": "Towels"}},
        {"id": "c", "content": None, "blob": "x"},
    ]
    path = json_file(tmp_path, {"documents": documents}, "store.json")
    (site,) = import_haystack(json_file(tmp_path, EXPORT), path, fractions=TRAIN).sites
    assert [passage.full_text for passage in site.passages[2:]] == ["No dogs.", "Towels\nTowels are free."]


def label(query: str, document: str, answer: Any, *, right: bool = True, correct: bool = True) -> dict[str, Any]:
    return {
        "id": "x",
        "query": query,
        "document": {"content": document, "id": "y", "meta": {}},
        "answer": answer,
        "is_correct_document": right,
        "is_correct_answer": correct,
        "origin": "user-feedback",
        "no_answer": answer is None,
    }


def test_labels_are_merged_by_query_and_a_wrong_document_is_a_hard_negative(tmp_path: Path) -> None:
    rows = [
        label("When?", "At six.", {"answer": "six", "type": "extractive"}),
        label("when?", "At noon.", {"answer": "noon"}, right=False, correct=False),
        label("Who?", "Ask Bo.", None),
        label("Why?", "It is so.", None, right=False),
    ]
    imported = import_haystack(json_file(tmp_path, rows), fractions=TRAIN)
    assert imported.sites[0].train == (
        Question("pool-q1", "When?", ("six",), ("pool-1",), ("pool-2",)),
        Question("pool-q2", "Who?", (), ("pool-3",)),
    )
    assert imported.skipped == {"questions without answer or right document": 1}


@pytest.mark.parametrize("as_lines", [True, False])
def test_documents_may_hold_their_question(tmp_path: Path, as_lines: bool) -> None:
    rows = [
        {"content": "It opens at six.", "meta": {"question": "When?", "answers": ["at six", "six"]}},
        {"content": "Who has a key?", "meta": {"answer": "Bo."}},
        {"content": "Towels are free.", "meta": {"name": "towels.txt"}},
    ]
    path = json_file(tmp_path, rows)
    if as_lines:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (site,) = import_haystack(path, fractions=TRAIN).sites
    assert site.passages == (
        Passage("pool-1", "It opens at six."),
        Passage("pool-2", "Bo."),
        Passage("pool-3", "Towels are free."),
    )
    assert site.train == (
        Question("pool-q1", "When?", ("at six", "six"), ("pool-1",)),
        Question("pool-q2", "Who has a key?", ("Bo.",), ("pool-2",)),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"content": "Ask Bo.", "meta": {}}], "holds documents and no question; .*give this one with --documents"),
        (["Ask Bo."], "a list of labels or a list of documents was expected"),
        ([{"name": "x"}], r'pool\.json: \[0\]: a document with its text as "content" was expected'),
        (7, "a list of labels or a list of documents was expected"),
    ],
)
def test_a_file_of_another_shape_is_told(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_haystack(json_file(tmp_path, content))
