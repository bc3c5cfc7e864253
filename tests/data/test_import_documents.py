"""A folder of documents and a table of questions become a site, or a site for each subfolder."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from office_files import CHINESE, write_docx, write_pdf, write_scan, write_xlsx

from fedrag.data.importers.document_folder import ImportedDocuments, import_documents
from fedrag.data.importers.question_table import AskedQuestion, QuestionColumns, QuestionTable, read_question_table
from fedrag.data.importers.xlsx_rows import read_sheet
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)


@pytest.fixture
def guidelines(tmp_path: Path) -> Path:
    folder = tmp_path / "guidelines"
    (folder / "wards").mkdir(parents=True)
    write_pdf(folder / "hands.pdf", ["# Hands", "They are disinfected for thirty seconds."])
    write_docx(folder / "wards" / "fees.docx", ["# Fees", "A single room costs 80 euros."])
    write_pdf(folder / "探视.pdf", ["# 探视规定", "探视时间为每天下午三点至晚上八点。"], font=CHINESE)
    write_scan(folder / "scan.pdf")
    return folder


def imported(folder: Path, *rows: AskedQuestion, by_folder: bool = False) -> ImportedDocuments:
    table = QuestionTable(list(rows)) if rows else None
    return import_documents(folder, "clinic", table, by_folder, TRAIN)


def test_documents_without_a_table_become_a_site_without_a_question(guidelines: Path) -> None:
    done = imported(guidelines)
    [site] = done.imported.sites
    assert (site.name, site.questions) == ("clinic", ())
    assert site.passages == (
        Passage("hands-1", "They are disinfected for thirty seconds.", "Hands", "hands.pdf, page 1"),
        Passage("wards-fees-1", "A single room costs 80 euros.", "Fees", "wards/fees.docx"),
        Passage("探视-1", "探视时间为每天下午三点至晚上八点。", "探视规定", "探视.pdf, page 1"),
    )
    assert list(done.folders["clinic"].read.unread) == ["scan.pdf"]
    assert done.imported.warnings == ()


def test_questions_are_labelled_by_where_the_answer_stands_and_the_others_counted(guidelines: Path) -> None:
    rows = [
        AskedQuestion("What does a single room cost?", ("80 euros",)),
        AskedQuestion("探视到几点？", ("晚上八点",)),
        AskedQuestion("Who pays?", ("the insurance",)),
    ]
    done = imported(guidelines, *rows)
    assert done.imported.sites[0].train == (
        Question("clinic-q1", "What does a single room cost?", ("80 euros",), ("wards-fees-1",)),
        Question("clinic-q2", "探视到几点？", ("晚上八点",), ("探视-1",)),
        Question("clinic-q3", "Who pays?", ("the insurance",)),
    )
    assert done.n_unlabelled == 1


def test_each_subfolder_becomes_a_site_and_questions_go_where_their_answer_stands(tmp_path: Path) -> None:
    for name, text in {"North": "It opens at nine.", "South": "It opens at ten.", "West": "It is closed."}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "hours.txt").write_text(text)
    rows = [
        AskedQuestion("When does it open?", ("at nine",)),
        AskedQuestion("When does it close?", ("at noon",)),
        AskedQuestion("When does the south close?", ("at five",), "South"),
    ]
    done = imported(tmp_path, *rows, by_folder=True)
    north, south, west = done.imported.sites
    assert (north.name, south.name, west.name) == ("north", "south", "west")
    assert north.train == (Question("north-q1", "When does it open?", ("at nine",), ("hours-1",)),)
    assert south.train == (Question("south-q1", "When does the south close?", ("at five",)),)
    assert done.imported.skipped == {"questions whose answer stands at no site": 1}
    assert done.imported.warnings == ("no question at west: none of the table has its answer there",)
    assert done.n_unlabelled == 1
    with pytest.raises(DataError, match='has no subfolder "East", which a row of the table names'):
        imported(tmp_path, AskedQuestion("Why?", ("so",), "East"), by_folder=True)


def test_a_folder_that_gives_no_passage_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no document \(\.docx, \.htm, \.html, \.markdown, \.md, \.pdf, \.txt\)"):
        imported(tmp_path)
    write_scan(tmp_path / "scan.pdf")
    with pytest.raises(DataError, match=r"no document could be read: scan\.pdf: it holds no text"):
        imported(tmp_path)
    with pytest.raises(DataError, match="has no subfolders; without --site-by it becomes one site"):
        imported(tmp_path, by_folder=True)


ROWS = [["Câu hỏi", "Trả lời", "Ward"], ["Mấy giờ?", "ba giờ chiều", "A"], ["Ai?", None, "B"], [None, None, None]]


def test_a_table_is_read_in_any_language_of_its_columns_from_any_kind_of_file(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "qa.xlsx", ROWS)
    csv = "\n".join(";".join(cell or "" for cell in row) for row in ROWS[:3])
    (tmp_path / "qa.csv").write_text(csv, encoding="utf-8-sig")
    lines = [json.dumps(dict(zip(ROWS[0], row, strict=True))) for row in ROWS[1:3]]
    (tmp_path / "qa.jsonl").write_text("\n".join(lines))
    for name in ("qa.xlsx", "qa.csv", "qa.jsonl"):
        table = read_question_table(tmp_path / name, QuestionColumns(site="Ward"))
        assert table.questions == [AskedQuestion("Mấy giờ?", ("ba giờ chiều",), "A")], name
        assert table.n_skipped == 1
    with pytest.raises(
        DataError, match=r'row 2: no column "Q"; name the right one of Câu hỏi, Trả lời, Ward with --qu'
    ):
        read_question_table(tmp_path / "qa.xlsx", QuestionColumns(question="Q"))


def test_an_excel_sheet_is_read_as_it_is_shown(tmp_path: Path) -> None:
    day = datetime(2024, 3, 1)
    path = write_xlsx(
        tmp_path / "a.xlsx", [[], ["n", " a ", None], [1, "x\ny", "no name"], [2.50, day], ["", True]], [["b"]]
    )
    notes: list[str] = []
    assert list(read_sheet(path, notes.append)) == [
        (f"{path}, row 3", {"n": "1", "a": "x\ny"}),
        (f"{path}, row 4", {"n": "2.5", "a": "2024-03-01"}),
        (f"{path}, row 5", {"n": "", "a": "True"}),
    ]
    assert notes == [f'{path} has 2 sheets; the first one, "Sheet", was read.']
    with pytest.raises(DataError, match='two columns are called "a"'):
        list(read_sheet(write_xlsx(tmp_path / "b.xlsx", [["a", "a"]]), notes.append))
