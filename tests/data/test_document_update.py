"""Changed documents are taken in: ids stay, labels follow, and the site can be loaded at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from office_files import write_pdf, write_scan

from fedrag import files
from fedrag.data.document_update import Relabelled, Update, update_site
from fedrag.data.importers.document_folder import import_documents
from fedrag.data.importers.question_table import AskedQuestion, QuestionTable
from fedrag.data.site_folder import load_site
from fedrag.data.writing import rewrite_site, write_site
from fedrag.errors import DataError, StorageError
from fedrag.types import Passage, Question, Site

TRAIN = (1.0, 0.0, 0.0)
TABLE = QuestionTable(
    [
        AskedQuestion("When do visits end?", ("at eight",)),
        AskedQuestion("What does parking cost?", ("two euros",)),
        AskedQuestion("Who opens the gate?", ("a porter",)),
        AskedQuestion("Is there a garden?", ("on the roof",)),
    ]
)


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "visits.txt").write_text("Visits end at eight, and a bell rings.\n")
    (folder / "parking.txt").write_text("The car park costs two euros an hour.\n")
    write_pdf(folder / "gate.pdf", ["At the gate there is a porter who opens it."])
    return folder


@pytest.fixture
def site(tmp_path: Path, documents: Path) -> Path:
    [made] = import_documents(documents, "clinic", TABLE, False, TRAIN).imported.sites
    write_site(tmp_path / "clinic", made)
    return tmp_path / "clinic"


def update(site: Path, documents: Path, *rows: AskedQuestion) -> Update:
    return update_site(site, documents, QuestionTable(list(rows)) if rows else None, TRAIN)


def files_of(site: Path) -> dict[str, bytes]:
    """Return what is in a site's folder, without the lock of whoever changes it."""
    return {path.name: path.read_bytes() for path in site.iterdir()}


def labels(site: Path) -> dict[str, tuple[str, ...]]:
    return {question.question: question.passage_ids for question in load_site(site).train}


def test_what_did_not_change_stays_to_the_letter(site: Path, documents: Path) -> None:
    before = files_of(site)
    done = update(site, documents)
    assert files_of(site) == before
    assert (done.numbered.changed, done.numbered.new, done.gone, done.relabelled) == (frozenset(), frozenset(), (), ())


def test_a_renamed_file_a_changed_text_and_a_new_document_are_taken_in(site: Path, documents: Path) -> None:
    (documents / "visits.txt").rename(documents / "house rules.txt")
    (documents / "parking.txt").write_text("The car park costs two euros for an hour.\n")
    (documents / "garden.txt").write_text("There is a garden on the roof.\n")
    done = update(site, documents)
    assert {passage.id: passage.source for passage in load_site(site).passages} == {
        "gate-1": "gate.pdf, page 1",
        "garden-1": "garden.txt",
        "visits-1": "house rules.txt",
        "parking-1": "parking.txt",
    }
    assert done.numbered.new == {"garden-1"}
    assert "parking-1" in done.numbered.changed
    assert done.relabelled == ()
    assert done.n_found == 1
    assert labels(site)["Is there a garden?"] == ("garden-1",)


def test_questions_whose_passage_went_or_lost_the_answer_are_named_with_what_became_of_them(
    site: Path, documents: Path
) -> None:
    (documents / "visits.txt").unlink()
    (documents / "parking.txt").write_text("The car park costs three euros an hour.\n")
    (documents / "night.txt").write_text("On weekdays visits end at eight.\n")
    done = update(site, documents)
    assert [passage.id for passage in done.gone] == ["visits-1"]
    assert done.relabelled == (
        Relabelled("clinic-q1", "When do visits end?", ("night-1",)),
        Relabelled("clinic-q2", "What does parking cost?", ()),
    )
    assert labels(site) == {
        "When do visits end?": ("night-1",),
        "What does parking cost?": (),
        "Who opens the gate?": ("gate-1",),
        "Is there a garden?": (),
    }


def test_a_question_without_an_answer_goes_with_its_passage_and_negatives_with_theirs(
    tmp_path: Path, documents: Path
) -> None:
    passages = (
        Passage("p1", "Old.", None, "old.txt"),
        Passage("p2", "By hand."),
        Passage("p3", "Odd.", None, "odd.txt"),
        Passage("p4", "Visits end at eight, and a bell rings.", None, "visits.txt"),
    )
    questions = (Question("q1", "Old?", (), ("p1",)), Question("q2", "Hand?", ("hand",), ("p2",), ("p3",)))
    write_site(tmp_path / "site", Site("site", passages, questions))
    done = update(tmp_path / "site", documents)
    assert done.relabelled == (Relabelled("q1", "Old?", (), is_dropped=True),)
    after = load_site(tmp_path / "site")
    assert after.train == (Question("q2", "Hand?", ("hand",), ("p2",)),)
    assert after.passages[0] == passages[1]


def test_what_cannot_be_read_any_more_keeps_its_passages(site: Path, documents: Path) -> None:
    write_scan(documents / "gate.pdf")
    done = update(site, documents)
    assert done.kept_unread == ("gate.pdf",)
    assert labels(site)["Who opens the gate?"] == ("gate-1",)
    for path in documents.iterdir():
        path.unlink()
    before = (site / "passages.jsonl").read_bytes()
    with pytest.raises(DataError, match="no document in it can be read, so .*clinic stays as it is"):
        update(site, documents)
    assert (site / "passages.jsonl").read_bytes() == before


def test_questions_of_a_table_are_added_once(site: Path, documents: Path) -> None:
    rows = [AskedQuestion("when do visits end", ("at nine",)), AskedQuestion("What rings?", ("a bell",))]
    assert update(site, documents, *rows).n_asked == 1
    assert load_site(site).train[-1] == Question("clinic-q5", "What rings?", ("a bell",), ("visits-1",))
    assert update(site, documents, *rows).n_asked == 0


@pytest.mark.parametrize("fails_at", range(5))
def test_an_interrupted_update_leaves_a_site_that_loads_and_is_done_by_doing_it_again(
    site: Path, documents: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (documents / "visits.txt").unlink()
    (documents / "night.txt").write_text("On weekdays visits end at eight.\n")
    written = files.os.replace
    left = fails_at

    def replace(source: str, target: str) -> None:
        nonlocal left
        if not left:
            raise OSError(28, "No space left on device")
        left -= 1
        written(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(StorageError, match="the disk is full"):
        update(site, documents)
    monkeypatch.undo()
    load_site(site)
    update(site, documents)
    assert labels(site)["When do visits end?"] == ("night-1",)
    assert {passage.id for passage in load_site(site).passages} == {"night-1", "parking-1", "gate-1"}
    assert not [name for name in files_of(site) if name.startswith(".")]


def test_documents_that_have_nothing_to_do_with_the_site_are_refused(site: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "visits.txt").write_text("Recipes for winter.")
    before = files_of(site)
    with pytest.raises(DataError, match="others: no passage of .*clinic stands in these documents"):
        update(site, tmp_path / "others")
    assert files_of(site) == before


def test_what_else_a_line_holds_stays_in_it(site: Path, documents: Path) -> None:
    path = site / "train.jsonl"
    path.write_text(path.read_text().replace('"id": "clinic-q3"', '"id": "clinic-q3", "author": "the porter"'))
    (documents / "visits.txt").unlink()
    update(site, documents)
    [line] = [line for line in path.read_text().splitlines() if "clinic-q3" in line]
    assert line.endswith('"author": "the porter"}')


def test_other_files_of_a_site_stay(site: Path) -> None:
    (site / "feedback.sqlite").write_bytes(b"x")
    loaded = load_site(site)
    rewrite_site(site, loaded, ())
    assert (site / "feedback.sqlite").read_bytes() == b"x"
    assert load_site(site) == loaded
