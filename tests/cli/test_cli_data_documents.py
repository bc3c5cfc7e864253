"""`fedrag data import documents` and `fedrag data update`, as an administrator types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from office_files import write_documents
from test_cli_data import run

from fedrag.data.site_folder import load_site, load_sites
from fedrag.errors import DataError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_documents(tmp_path)
    (tmp_path / "guidelines" / "notes.pptx").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("home")
def test_the_import_says_what_became_of_each_file_and_question():
    assert run("import", "documents", "guidelines", "clinic-data", "--qa", "questions.xlsx").output == (
        "  admission.docx: 2 passages\n"
        "  parking.html: 1 passage\n"
        "  visits.pdf: 2 passages\n"
        "Left out: scan.pdf: it holds no text, perhaps a scan; a program for text recognition (OCR) adds it.\n"
        "Left out: 1 file of other kinds: notes.pptx.\n"
        "clinic-data: 1 site, 5 passages, 7 questions (5 train, 1 validation, 1 test).\n"
        "6 of 7 questions labelled by where the answer stands; 1 whose answer stands in no passage word for word "
        "trains the generator alone.\n"
    )
    assert load_site(Path("clinic-data")).name == "clinic-data"
    assert run("check", "clinic-data").output.endswith("No errors.\n")


@pytest.mark.usefixtures("home")
def test_documents_without_a_table_become_a_site_that_says_what_it_lacks():
    assert run("import", "documents", "guidelines", "clinic-data").output.endswith(
        "clinic-data: 1 site, 5 passages, 0 questions (0 train, 0 validation, 0 test).\n"
        "It can be asked; to train it needs questions: fedrag data update clinic-data guidelines --qa TABLE\n"
    )
    checked = run("check", "clinic-data")
    assert "Warning: sites without a question, which can be asked and not trained: clinic-data; " in checked.output
    assert checked.output.endswith("No errors.\n")


@pytest.mark.usefixtures("home")
def test_each_subfolder_becomes_a_site():
    assert run("import", "documents", "wards", "sites", "--site-by", "folder").output.startswith(
        "east: 1 document\n  hours.txt: 1 passage\nwest: 1 document\n  hours.txt: 1 passage\n"
    )
    assert [site.name for site in load_sites(Path("sites"))] == ["east", "west"]


def test_an_update_says_what_changed_and_names_the_questions_that_lost_their_passage(home: Path):
    run("import", "documents", "guidelines", "clinic-data", "--qa", "questions.xlsx")
    (home / "guidelines" / "parking.html").unlink()
    (home / "guidelines" / "garden.txt").write_text("There is a garden on the roof.")
    output = run("update", "clinic-data", "guidelines", "--qa", "questions.xlsx").output
    assert output.endswith(
        'Question clinic-data-q5, "What does parking cost?": its answer stands in no passage any more; it stays '
        "without a label: correct its answer, or take it out.\n"
        "clinic-data: 5 passages: 4 as before, 0 changed, 1 new; 1 went.\n"
    )
    assert run("check", "clinic-data").output.endswith("No errors.\n")


def test_nothing_is_written_where_something_is_wrong(home: Path):
    with pytest.raises(DataError, match=r"questions\.xlsx, row 2: no column \"Frage\""):
        run("import", "documents", "guidelines", "clinic-data", "--qa", "questions.xlsx", "--question", "Frage")
    with pytest.raises(DataError, match="none: no such folder"):
        run("import", "documents", "none", "clinic-data")
    assert not (home / "clinic-data").exists()
    with pytest.raises(DataError, match="clinic-data: no such folder"):
        run("update", "clinic-data", "guidelines")
