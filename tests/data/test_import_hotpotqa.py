"""HotpotQA's candidates become passages, and its supporting facts labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fedrag.data.importers.hotpotqa import import_hotpotqa
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)
LISTS: dict[str, Any] = {
    "_id": "5a",
    "question": "Which barn is older, the red or the blue?",
    "answer": "the red",
    "supporting_facts": [["Red barn", 0], ["Blue barn", 1]],
    "context": [
        ["Red barn", ["It was built in 1801.", " It is red."]],
        ["Green barn", ["It is green."]],
        ["Blue barn", ["It is blue.", " It was built in 1802."]],
    ],
}
SIDE_BY_SIDE = LISTS | {
    "supporting_facts": {"title": ["Red barn", "Blue barn"], "sent_id": [0, 1]},
    "context": {"title": [pair[0] for pair in LISTS["context"]], "sentences": [pair[1] for pair in LISTS["context"]]},
}
AS_TEXT = LISTS | {key: json.dumps(LISTS[key]) for key in ("supporting_facts", "context")}
PASSAGES = (
    Passage("barns-1", "It was built in 1801. It is red.", "Red barn"),
    Passage("barns-2", "It is green.", "Green barn"),
    Passage("barns-3", "It is blue. It was built in 1802.", "Blue barn"),
)


def hotpot_file(folder: Path, *rows: Any, ending: str = "jsonl") -> Path:
    path = folder / f"barns.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "ending"),
    [(LISTS, "json"), (LISTS, "jsonl"), (SIDE_BY_SIDE, "jsonl"), (SIDE_BY_SIDE, "parquet"), (AS_TEXT, "parquet")],
)
def test_the_supported_titles_are_right(tmp_path: Path, row: dict[str, Any], ending: str) -> None:
    imported = import_hotpotqa(hotpot_file(tmp_path, row, ending=ending), fractions=TRAIN)
    (site,) = imported.sites
    assert (site.name, site.passages) == ("barns", PASSAGES)
    assert site.train == (Question("5a", LISTS["question"], ("the red",), ("barns-1", "barns-3")),)
    assert (imported.skipped, imported.notes) == ({}, ())


def test_a_passage_of_several_questions_is_one(tmp_path: Path) -> None:
    again = LISTS | {"_id": "5b", "question": "Which barn is green?", "supporting_facts": [["Green barn", 0]]}
    (site,) = import_hotpotqa(hotpot_file(tmp_path, LISTS, again), fractions=TRAIN).sites
    assert site.passages == PASSAGES
    assert site.train[1].passage_ids == ("barns-2",)


def test_a_key_may_name_the_site(tmp_path: Path) -> None:
    rows = [LISTS | {"level": "easy"}, LISTS | {"level": "hard"}]
    sites = import_hotpotqa(hotpot_file(tmp_path, *rows), "level").sites
    assert [site.name for site in sites] == ["easy", "hard"]
    with pytest.raises(DataError, match=r'barns\.jsonl:1: no key "levels" that names the site'):
        import_hotpotqa(hotpot_file(tmp_path, *rows), "levels")


def test_what_has_no_answer_or_no_label_is_counted_and_its_passages_stay(tmp_path: Path) -> None:
    rows = [
        LISTS | {"answer": None},
        {key: value for key, value in LISTS.items() if key != "supporting_facts"},
        LISTS | {"supporting_facts": [["Barn", 0]]},
        LISTS,
    ]
    imported = import_hotpotqa(hotpot_file(tmp_path, *rows), fractions=TRAIN)
    assert len(imported.sites[0].train) == 1
    assert imported.sites[0].passages == PASSAGES
    assert imported.skipped == {
        "questions without text or answer": 1,
        "questions without supporting facts": 1,
        "questions whose supporting facts are not among their passages": 1,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Who?", "answer": "x"}, '"context" must be a list of titles with their sentences'),
        (LISTS | {"context": ["One."]}, '"context" must be a list of titles'),
        (LISTS | {"context": {"title": ["A"], "sentences": []}}, '"context" must hold as many "sentences" as "title"'),
        (LISTS | {"supporting_facts": [1]}, '"supporting_facts" must be a list of titles with their sent_id'),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"barns\.jsonl:1: {message}"):
        import_hotpotqa(hotpot_file(tmp_path, row))
