"""A folder in BEIR's layout becomes one site, with the splits of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedrag.data.importers.beir import import_beir
from fedrag.data.site_folder import load_sites
from fedrag.data.writing import write_sites
from fedrag.errors import DataError
from fedrag.types import Passage, Question

CORPUS = [
    {"_id": "d1", "title": "Pool", "text": "It opens at six."},
    {"_id": "d2", "title": "", "text": "Ask Bo."},
    {"_id": 3, "title": "Closed on Mondays", "text": ""},
    {"_id": "d4", "text": " "},
]
QUERIES = [{"_id": f"q{n}", "text": f"Question {n}?", "metadata": {}} for n in range(1, 6)]
HEADER = "query-id\tcorpus-id\tscore\n"


def beir(folder: Path, **qrels: str) -> Path:
    """Write the folder; a line of qrels is "query passage score"."""
    root = folder / "Pool Rules"
    (root / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", CORPUS), ("queries", QUERIES)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, lines in qrels.items():
        (root / "qrels" / f"{split}.tsv").write_text(
            HEADER + "".join(line.replace(" ", "\t") + "\n" for line in lines.split(","))
        )
    return root


def test_queries_keep_the_split_of_their_file_and_scores_of_0_are_no_labels(tmp_path: Path) -> None:
    root = beir(tmp_path, train="q1 d1 1,q1 d2 0,q2 3 2", dev="q3 d2 1", test="q4 d1 0,q5 d2 1.0,q5 d1 1")
    imported = import_beir(root)
    (site,) = imported.sites
    assert site.name == "pool-rules"
    assert site.passages == (
        Passage("d1", "It opens at six.", "Pool"),
        Passage("d2", "Ask Bo."),
        Passage("3", "Closed on Mondays"),
    )
    assert site.train == (Question("q1", "Question 1?", (), ("d1",)), Question("q2", "Question 2?", (), ("3",)))
    assert site.validation == (Question("q3", "Question 3?", (), ("d2",)),)
    assert site.test == (Question("q5", "Question 5?", (), ("d2", "d1")),)
    assert imported.skipped == {
        "blank passages": 1,
        "queries without a relevant passage": 1,
        "judgements with a score of 0": 2,
    }
    assert imported.warnings == ()
    write_sites(tmp_path / "sites", [site])
    assert load_sites(tmp_path / "sites") == [site]


def test_a_split_without_a_file_is_told_and_shares_split_anew(tmp_path: Path) -> None:
    root = beir(tmp_path, test="q1 d1 1,q2 d2 1,q3 d1 1")
    imported = import_beir(root)
    assert len(imported.sites[0].test) == 3
    assert imported.warnings == (
        "no train question at pool-rules: qrels has none; --split 0.6/0.1/0.3 splits the queries anew",
        "no validation question at pool-rules: qrels has none; --split 0.6/0.1/0.3 splits the queries anew",
    )
    (site,) = import_beir(root, (0.6, 0.1, 0.3)).sites
    assert (len(site.train), len(site.validation), len(site.test)) == (1, 1, 1)


def test_a_query_in_two_files_is_not_trained_on(tmp_path: Path) -> None:
    imported = import_beir(beir(tmp_path, train="q1 d1 1,q2 d1 1", test="q1 d2 1"))
    assert [q.id for q in imported.sites[0].train] == ["q2"]
    assert imported.sites[0].test == (Question("q1", "Question 1?", (), ("d1", "d2")),)
    assert imported.notes == ("1 queries stand in two files of qrels; each went to the later split.",)


def test_labels_of_what_is_not_there_are_counted(tmp_path: Path) -> None:
    imported = import_beir(beir(tmp_path, train="q1 d1 1,q1 d9 1,q9 d1 1"))
    assert imported.skipped["labels whose passage corpus.jsonl lacks"] == 1
    assert imported.skipped["judged queries that queries.jsonl lacks"] == 1


def test_qrels_without_a_header_or_with_trecs_second_column_are_read(tmp_path: Path) -> None:
    root = beir(tmp_path, train="q1 d1 1")
    (root / "qrels" / "train.tsv").write_text("q1\t0\td1\t1\nq2\t0\td2\t1\n")
    assert [q.passage_ids for q in import_beir(root).sites[0].train] == [("d1",), ("d2",)]


def test_what_is_missing_or_malformed_is_named(tmp_path: Path) -> None:
    root = beir(tmp_path, train="q1 d1 1")
    (root / "qrels" / "train.tsv").write_text(HEADER + "q1 d1 1\n")
    with pytest.raises(
        DataError, match=r"train\.tsv:2: query-id, corpus-id and score were expected, separated by tabs"
    ):
        import_beir(root)
    (root / "qrels" / "train.tsv").rename(root / "qrels" / "all.tsv")
    with pytest.raises(DataError, match=r"all\.tsv: its name must be that of a split: train, dev"):
        import_beir(root)
    (root / "qrels" / "all.tsv").unlink()
    with pytest.raises(DataError, match=r"qrels: holds no train\.tsv"):
        import_beir(root)
    (root / "qrels").rmdir()
    with pytest.raises(DataError, match="qrels: no such folder"):
        import_beir(root)
    (root / "corpus.jsonl").write_text('{"_id": "d1", "text": "A."}\n{"_id": "d1", "text": "B."}\n')
    with pytest.raises(DataError, match=r'corpus\.jsonl:2: duplicate "_id" "d1"'):
        import_beir(root)
    (root / "corpus.jsonl").write_text('{"_id": "d1"}\n')
    with pytest.raises(DataError, match=r'corpus\.jsonl:1: "text" must be a string'):
        import_beir(root)
    (root / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus\.jsonl: no such file"):
        import_beir(root)


def test_a_set_in_which_nothing_is_relevant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Pool Rules: holds no question.*1 queries without a relevant passage"):
        import_beir(beir(tmp_path, train="q1 d1 0"))
