"""Tables become sites by a mapping of their columns."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from office_files import write_xlsx

from fedrag.data.importers.draft import Imported
from fedrag.data.importers.fields import look_up
from fedrag.data.importers.hub_dataset import open_hub_table
from fedrag.data.importers.table import Columns, import_table, open_table
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)
ROWS = [
    {"n": "7", "q": "What is sold?", "a": "bread", "text": "Bread is sold.", "ward": "East Wing"},
    {"n": "8", "q": "Who sells, and when?", "a": "Ada", "text": "Ada sells.", "ward": "West"},
    {"n": "9", "q": "What is on sale?", "a": "bread", "text": "Bread is sold.", "ward": "East Wing"},
    {"n": "9", "q": "", "a": "x", "text": "Nothing is sold.", "ward": "West"},
]
COLUMNS = Columns(question="q", answer="a", passage="text", site="ward", id="n")


def write_table(folder: Path, file_format: str, rows: list[dict[str, object]]) -> Path:
    path = folder / f"my table.{file_format}"
    if file_format == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file_format == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif file_format == "xlsx":
        write_xlsx(path, [list(rows[0]), *(list(row.values()) for row in rows)])
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet", "xlsx"])
def test_every_format_gives_the_same_sites(tmp_path: Path, file_format: str) -> None:
    imported = import_table(open_table(write_table(tmp_path, file_format, ROWS)), COLUMNS, fractions=TRAIN)
    east, west = imported.sites
    assert (east.name, west.name) == ("east-wing", "west")
    assert east.passages == (Passage("east-wing-1", "Bread is sold."),)
    assert east.train == (
        Question("7", "What is sold?", ("bread",), ("east-wing-1",)),
        Question("9", "What is on sale?", ("bread",), ("east-wing-1",)),
    )
    assert west.train == (Question("8", "Who sells, and when?", ("Ada",), ("west-1",)),)
    assert imported.skipped == {"rows without question or answer": 1}


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_fields_within_fields_and_lists_are_followed(tmp_path: Path, file_format: str) -> None:
    row = {
        "q": "When?",
        "answers": {"text": ["1908", "in 1908", "1908"]},
        "docs": [{"t": "One."}, {"t": "Opened in 1908."}, {"t": "Number 19080."}],
    }
    path = write_table(tmp_path, file_format, [row])
    (site,) = import_table(open_table(path), Columns("q", "answers.text", "docs.t"), fractions=TRAIN).sites
    assert site.name == "my-table"
    assert site.train == (Question("my-table-q1", "When?", ("1908", "in 1908"), ("my-table-2",)),)


def test_a_column_whose_name_holds_a_dot_comes_before_a_field_in_a_field() -> None:
    assert look_up({"a.b": 1, "a": {"b": 2}}, "a.b") == ["1"]
    assert look_up({"a": [None, " ", 2.5, ["x"]]}, "a") == ["2.5", "x"]


def test_passages_of_a_file_of_their_own_are_labelled_by_id(tmp_path: Path) -> None:
    corpus = [Passage("d1", "One."), Passage("d2", "Two.")]
    rows = [{"q": "Which?", "a": "one", "doc": "d1"}, {"q": "Whose?", "a": "two", "doc": ""}]
    path = write_table(tmp_path, "csv", rows)
    (site,) = import_table(open_table(path), Columns("q", "a", "doc"), corpus, TRAIN).sites
    assert site.passages == tuple(corpus)
    assert [question.passage_ids for question in site.train] == [("d1",), ()]
    rows[1]["doc"] = "d3"
    with pytest.raises(DataError, match=r'my table\.csv:3: unknown passage id "d3"'):
        import_table(open_table(write_table(tmp_path, "csv", rows)), Columns("q", "a", "doc"), corpus)


def test_rows_without_any_passage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="passages are needed"):
        import_table(open_table(write_table(tmp_path, "csv", ROWS)), Columns("q", "a"))


@pytest.mark.parametrize(("file_format", "place"), [("jsonl", ":1"), ("csv", ":2"), ("parquet", " row 1")])
def test_an_unknown_column_is_answered_with_the_nearest(tmp_path: Path, file_format: str, place: str) -> None:
    path = write_table(tmp_path, file_format, ROWS)
    with pytest.raises(DataError) as raised:
        import_table(open_table(path), Columns("q", "a", "texts"))
    assert str(raised.value) == f'{path}{place}: no column "texts" (nearest: text; all: n, q, a, text, ward)'


def test_a_row_that_names_no_site_is_an_error(tmp_path: Path) -> None:
    path = write_table(tmp_path, "csv", [ROWS[0] | {"ward": ""}])
    with pytest.raises(DataError, match='csv:2: the column "ward" names no site'):
        import_table(open_table(path), COLUMNS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q,a,text\nx,y\n", r"t\.csv:2: 3 columns were expected"),
        (b"q,a,text\nx,y,z,w\n", r"t\.csv:2: 3 columns were expected"),
        (b'q,a,text\n"x,y,z\n', r"t\.csv:\d: not valid CSV: unexpected end of data"),
        ("q,a,text\nö,y,z\n".encode("latin-1"), r"t\.csv: not UTF-8 text"),
        (b"", r"t\.csv: holds no question"),
        (b"q,a,text\n", r"t\.csv: holds no question"),
    ],
)
def test_a_broken_csv_file_is_told_in_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_table(open_table(tmp_path / "t.csv"), Columns("q", "a", "text"))


def test_a_field_longer_than_the_csv_librarys_default_limit_is_read(tmp_path: Path) -> None:
    path = write_table(tmp_path, "csv", [ROWS[0] | {"text": "long " * 40_000}])
    assert len(import_table(open_table(path), COLUMNS).sites[0].passages[0].text) == 199_999


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"t\.parquet: not a readable Parquet file"):
        import_table(open_table(tmp_path / "t.parquet"), COLUMNS)
    (tmp_path / "t.xlsx").write_bytes(b"not Excel at all")
    with pytest.raises(DataError, match=r"t\.xlsx: not a readable Excel file"):
        import_table(open_table(tmp_path / "t.xlsx"), COLUMNS)
    with pytest.raises(
        DataError, match=r"t\.ods: a file of the kind jsonl, json, csv, tsv, xlsx, parquet was expected"
    ):
        import_table(open_table(tmp_path / "t.ods"), COLUMNS)
    for name in ("none.csv", "none.jsonl", "none.parquet", "none.xlsx"):
        with pytest.raises(DataError, match="none.* no such file"):
            import_table(open_table(tmp_path / name), COLUMNS)


def test_a_data_set_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    write_table(folder, "jsonl", ROWS).rename(folder / "train.jsonl")
    imported = import_table(open_hub_table(str(folder)), COLUMNS, fractions=TRAIN)
    assert (
        imported.sites == import_table(open_table(write_table(tmp_path, "jsonl", ROWS)), COLUMNS, fractions=TRAIN).sites
    )
    with pytest.raises(DataError, match=r'set\[train\] row 1: no column "question"'):
        import_table(open_hub_table(str(folder)), Columns("question", "a", "text"))


def test_a_data_set_that_cannot_be_loaded_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: the data set cannot be loaded \(offline, or a wrong name\?\): ."):
        import_table(open_hub_table(str(tmp_path / "nothing")), COLUMNS)


def imported_of(folder: Path, rows: list[dict[str, object]], *columns: str | None) -> Imported:
    path = write_table(folder, "jsonl", rows)
    return import_table(open_table(path), Columns(*columns), fractions=TRAIN)  # type: ignore[arg-type]


HOTPOT = {"q": "Which?", "a": "Two", "context": [["Mill", ["One.", "Old."]], ["Forge", ["Two."]]]}
HUB_HOTPOT = HOTPOT | {"context": {"title": ["Mill", "Forge"], "sentences": [["One.", "Old."], ["Two."]]}}
MARCO = {
    "q": "When?",
    "a": ["at nine"],
    "passages": {
        "is_selected": [0, 1, 0],
        "passage_text": ["It is at nine.", "It opens then.", "No."],
        "url": ["", "", ""],
    },
}


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        (HOTPOT, "context", '"context" holds lists within lists.*fedrag data import hotpotqa'),
        (HUB_HOTPOT, "context.sentences", '"context.sentences" holds lists within lists'),
        (HUB_HOTPOT, "context", '"context" holds objects; .*: context.title, context.sentences'),
        (MARCO, "passages", '"passages" holds objects; .*passages.passage_text'),
        ({"q": "W?", "a": "x", "docs": [{"t": "One."}]}, "docs", '"docs" holds objects; .*: docs.t'),
    ],
)
def test_candidates_of_which_it_is_not_said_what_is_a_passage_are_refused(
    tmp_path: Path, row: dict[str, object], column: str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"my table\.jsonl:1: {message}"):
        imported_of(tmp_path, [row], "q", "a", column)


def test_of_ms_marcos_candidates_the_selected_are_right(tmp_path: Path) -> None:
    none = MARCO | {"q": "Who?", "a": ["No Answer Present."]}
    unmarked = {"q": "Why?", "a": ["so"], "passages": {"is_selected": [0], "passage_text": ["So it is."]}}
    imported = imported_of(tmp_path, [MARCO, none, unmarked], "q", "a", "passages.passage_text")
    (site,) = imported.sites
    assert [p.text for p in site.passages] == ["It is at nine.", "It opens then.", "No.", "So it is."]
    assert [q.passage_ids for q in site.train] == [("my-table-2",), ()]
    assert imported.skipped == {"rows whose answer says that there is none": 1}
    assert imported.notes == (
        "Of several passages, those are right that passages.is_selected marks.",
        "1 questions are labelled with no passage: none of theirs is marked or holds the answer.",
    )


def test_marks_may_stand_in_the_objects_of_a_list(tmp_path: Path) -> None:
    paragraphs = [{"text": "One.", "is_supporting": False}, {"text": "Two.", "is_supporting": True}]
    imported = imported_of(tmp_path, [{"q": "W?", "a": "One", "p": paragraphs}], "q", "a", "p.text")
    assert imported.sites[0].train[0].passage_ids == ("my-table-2",)


def test_of_several_passages_those_are_right_that_hold_the_answer_as_whole_words(tmp_path: Path) -> None:
    row = {"q": "Is it?", "a": "no", "p": ["It is known.", "No, it is not.", "医院"]}
    assert imported_of(tmp_path, [row], "q", "a", "p").sites[0].train[0].passage_ids == ("my-table-2",)
    imported = imported_of(tmp_path, [row | {"a": "perhaps"}], "q", "a", "p")
    assert imported.sites[0].train[0].passage_ids == ()
    assert len(imported.notes) == 1


def test_without_answers_a_row_is_a_query_with_its_passages(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"q": "When?", "p": "At nine."},
        {"q": "Who?", "p": ""},
        {"q": "Where?", "p": ["A.", "B."]},
    ]
    imported = imported_of(tmp_path, rows, "q", None, "p")
    assert imported.sites[0].train == (
        Question("my-table-q1", "When?", (), ("my-table-1",)),
        Question("my-table-q2", "Where?", (), ("my-table-2", "my-table-3")),
    )
    assert imported.skipped == {"rows without question or right passage": 1}
    assert imported.notes == (
        "Without --answer, questions have no answer: the retriever alone learns from their passages.",
        "1 questions have several passages; without an answer, all of them count as right.",
    )
    with pytest.raises(ConfigError, match="answers are needed"):
        import_table(open_table(write_table(tmp_path, "jsonl", rows)), Columns("q"), [Passage("d", "D.")])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_an_excel_file_of_another_country_is_read(tmp_path: Path, separator: str) -> None:
    text = f"q{separator}a{separator}text\r\nWo?{separator}Gießen{separator}In Gießen.\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    table = open_table(tmp_path / "t.csv", encoding="cp1252")
    imported = import_table(table, Columns("q", "a", "text"), fractions=TRAIN)
    assert imported.sites[0].train[0].answers == ("Gießen",)
    assert "its columns are separated by" in imported.notes[0]


def test_an_array_where_lines_are_expected_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(ROWS), encoding="utf-8")
    imported = import_table(open_table(path), COLUMNS, fractions=TRAIN)
    assert [site.name for site in imported.sites] == ["east-wing", "west"]
    assert imported.notes == (f"{path} is one JSON array, not JSON lines; its items were read as lines.",)


def test_whom_a_question_is_about_comes_from_a_column(tmp_path: Path) -> None:
    rows = [row | {"patient": patient} for row, patient in zip(ROWS, (12, 12, "", 13), strict=True)]
    path = write_table(tmp_path, "csv", rows)
    columns = replace(COLUMNS, subject="patient")
    east, west = import_table(open_table(path), columns, fractions=TRAIN).sites
    assert [question.subject for question in east.train + west.train] == ["12", "", "12"]
