"""Test sets of ragas become sites, of every version and file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.ragas import import_ragas
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)
NEW = {
    "user_input": "When does it open?",
    "reference_contexts": ["<1-hop>\n\nIt opens at six.", "<2-hop>\n\nOn Mondays at noon."],
    "reference": "at six",
    "synthesizer_name": "single_hop",
}
OLD = {
    "question": "When does it open?",
    "contexts": ["It opens at six.", "On Mondays at noon."],
    "ground_truth": "at six",
    "evolution_type": "simple",
    "metadata": [{"source": "a.txt"}],
    "episode_done": True,
}


def write(folder: Path, *rows: dict[str, Any], ending: str = "jsonl") -> Path:
    path = folder / f"pool.{ending}"
    if ending == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "json":
        path.write_text(json.dumps({key: {str(i): row[key] for i, row in enumerate(rows)} for key in rows[0]}))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "json"])
@pytest.mark.parametrize("row", [NEW, OLD, OLD | {"ground_truths": ["at six"]}])
def test_the_reference_is_the_answer_and_its_contexts_are_right(
    tmp_path: Path, row: dict[str, Any], ending: str
) -> None:
    (site,) = import_ragas(write(tmp_path, row, ending=ending), fractions=TRAIN).sites
    assert site.passages == (Passage("pool-1", "It opens at six."), Passage("pool-2", "On Mondays at noon."))
    assert site.train == (Question("pool-q1", "When does it open?", ("at six",), ("pool-1", "pool-2")),)


@pytest.mark.parametrize(
    "row",
    [
        {key: value for key, value in NEW.items() if key != "reference_contexts"}
        | {"retrieved_contexts": OLD["contexts"]},
        OLD | {"answer": "at seven"},
        OLD | {"response": "at seven"},
    ],
)
def test_of_retrieved_contexts_those_are_right_that_hold_the_reference(tmp_path: Path, row: dict[str, Any]) -> None:
    lost = {**row, next(key for key in ("reference", "ground_truth") if key in row): "never"}
    imported = import_ragas(write(tmp_path, row, lost), fractions=TRAIN)
    assert [question.passage_ids for question in imported.sites[0].train] == [("pool-1",), ()]
    assert imported.notes == ("1 questions are labelled with no passage: none that was retrieved holds the reference.",)


def test_what_is_retrieved_beside_reference_contexts_is_a_passage_and_no_label(tmp_path: Path) -> None:
    row = NEW | {"retrieved_contexts": ["Ask Bo.", "It opens at six."]}
    (site,) = import_ragas(write(tmp_path, row), fractions=TRAIN).sites
    assert [passage.text for passage in site.passages] == ["It opens at six.", "On Mondays at noon.", "Ask Bo."]
    assert site.train[0].passage_ids == ("pool-1", "pool-2")


def test_conversations_and_rows_without_a_reference_are_counted(tmp_path: Path) -> None:
    rows = [NEW, NEW | {"reference": None}, NEW | {"user_input": [{"type": "human", "content": "Hi"}]}]
    assert import_ragas(write(tmp_path, *rows), fractions=TRAIN).skipped == {
        "rows without question or reference": 1,
        "conversations of several turns": 1,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"q": "W?"}, r"no column user_input or question \(all: q\)"),
        ({"question": "W?", "contexts": ["A."]}, "no column reference or ground_truth or ground_truths"),
        ({"question": "W?", "reference": "A"}, "no reference_contexts, retrieved_contexts or contexts"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"pool\.jsonl:1: {message}"):
        import_ragas(write(tmp_path, row))
