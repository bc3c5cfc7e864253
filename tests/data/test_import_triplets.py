"""Triplets become questions without answers, with right passages and hard negatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.triplets import import_triplets
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)


def triplet_file(folder: Path, *rows: Any) -> Path:
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "When?", "positive": "At six.", "negative": "Ask Bo."},
        {"query": "When?", "pos": ["At six."], "neg": ["Ask Bo."], "pos_scores": [0.9], "prompt": "x", "type": "y"},
        {"question": "When?", "positive": "At six.", "negatives": ["Ask Bo.", " "]},
        {
            "query": "When?",
            "positive_passages": [{"docid": "1", "title": "", "text": "At six."}],
            "negative_1": "Ask Bo.",
        },
        {"anchor": "When?", "positive": "At six.", "hard_negatives": ["At six.", "Ask Bo."]},
    ],
)
def test_every_usual_name_is_known(tmp_path: Path, row: dict[str, Any]) -> None:
    (site,) = import_triplets(triplet_file(tmp_path, row), fractions=TRAIN).sites
    assert site.passages == (Passage("pool-1", "At six."), Passage("pool-2", "Ask Bo."))
    assert site.train == (Question("pool-q1", "When?", (), ("pool-1",), ("pool-2",)),)


def test_numbered_negatives_are_all_kept_and_may_be_missing(tmp_path: Path) -> None:
    rows = [
        {"anchor": "When?", "positive": "A.", **{f"negative_{n}": f"N{n}." for n in range(1, 4)}},
        {"anchor": "Who?", "positive": "B."},
    ]
    when, who = import_triplets(triplet_file(tmp_path, *rows), fractions=TRAIN).sites[0].train
    assert when.hard_negative_ids == ("pool-2", "pool-3", "pool-4")
    assert who.hard_negative_ids == ()


def test_rows_of_one_query_are_merged_and_what_one_calls_right_is_never_wrong(tmp_path: Path) -> None:
    rows = [
        {"anchor": "When?", "positive": "A.", "negative": "B."},
        {"anchor": "when? ", "positive": "B.", "negative": "C."},
        {"anchor": "", "positive": "B.", "negative": "C."},
    ]
    imported = import_triplets(triplet_file(tmp_path, *rows), fractions=TRAIN)
    assert imported.sites[0].train == (Question("pool-q1", "When?", (), ("pool-1", "pool-2"), ("pool-3",)),)
    assert imported.skipped == {"rows without query or right passage": 1}


def test_what_is_written_is_loaded_again(tmp_path: Path) -> None:
    row = {"anchor": "When?", "positive": "A.", "negative": "B."}
    (site,) = import_triplets(triplet_file(tmp_path, row), fractions=TRAIN).sites
    write_site(tmp_path / "pool", site)
    assert load_site(tmp_path / "pool") == site


def test_csv_and_a_column_of_the_site(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("anchor,positive,negative,ward\nWhen?,A.,B.,North\nWho?,C.,D.,South\n")
    sites = import_triplets(path, "ward", TRAIN).sites
    assert [(site.name, len(site.passages)) for site in sites] == [("north", 2), ("south", 2)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "When?", "positive": "A."},
            r"one column must be the query .*; there is none \(all: text, positive\)",
        ),
        ({"query": "W?", "anchor": "W?", "positive": "A."}, ".*; query and anchor are two"),
        ({"query": "W?", "passage": "A."}, r"no column of the right passage \(positive or pos; all: query, passage\)"),
        ({"query": "W?", "pos": [{"id": 1}]}, 'an object must hold the passage as "text"; it has id'),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"pool\.jsonl:1: {message}"):
        import_triplets(triplet_file(tmp_path, row))
