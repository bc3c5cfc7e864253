"""A site's folder: what loads, and the one sentence that each fault gets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedrag.data.questions import distinct_questions
from fedrag.data.site_folder import chosen_folders, hash_site, load_site, load_sites, site_folders
from fedrag.data.writing import rewrite_site
from fedrag.errors import DataError
from fedrag.types import Passage, Question

PASSAGE = '{"id": "p1", "text": "It orbits Mars.", "title": "Phobos"}\n'
QUESTION = '{"id": "q1", "question": "What does it orbit?", "answers": ["Mars"], "passage_ids": ["p1"]}\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "sites" / "a"
    folder.mkdir(parents=True)
    (folder / "passages.jsonl").write_text(PASSAGE)
    (folder / "train.jsonl").write_text(QUESTION)
    return folder


def question_row(**changes: object) -> str:
    return json.dumps(json.loads(QUESTION) | changes) + "\n"


def test_a_site_is_named_after_its_folder_and_absent_splits_are_empty(site: Path) -> None:
    loaded = load_site(site)
    assert loaded.name == "a"
    assert loaded.passages == (Passage("p1", "It orbits Mars.", "Phobos"),)
    assert loaded.train == (Question("q1", "What does it orbit?", ("Mars",), ("p1",)),)
    assert loaded.validation == loaded.test == ()


def test_unknown_keys_blank_lines_a_byte_order_mark_and_windows_line_ends_are_tolerated(site: Path) -> None:
    text = '{"id": "p1", "text": "t", "url": 7, "title": null}\r\n\r\n{"id": "p2", "text": "u", "title": " "}'
    (site / "passages.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_site(site).passages == (Passage("p1", "t"), Passage("p2", "u"))


def test_the_same_question_id_may_stand_in_two_splits(site: Path) -> None:
    (site / "test.jsonl").write_text(QUESTION)
    assert load_site(site).test[0].id == load_site(site).train[0].id == "q1"


@pytest.mark.parametrize("origin", ["generated", "pseudo"])
def test_what_a_model_made_trains_and_is_never_measured_on(site: Path, origin: str) -> None:
    (site / "train.jsonl").write_text(question_row(origin=origin))
    assert load_site(site).train[0].origin == origin
    (site / "test.jsonl").write_text(QUESTION + question_row(id="q2", origin=origin))
    with pytest.raises(DataError, match=rf'test.jsonl:2: "origin" is "{origin}": a model made .* train.jsonl alone$'):
        load_site(site)


def test_a_corrected_answer_may_be_measured_on(site: Path) -> None:
    (site / "test.jsonl").write_text(question_row(origin="feedback"))
    assert load_site(site).test[0].origin == "feedback"


def test_a_question_that_a_person_asked_too_is_a_persons(site: Path) -> None:
    (site / "train.jsonl").write_text(question_row(origin="generated") + question_row(id="q2", origin=None))
    assert [question.origin for question in distinct_questions(load_site(site).train)] == [""]


def test_a_question_without_an_answer_stays_with_whom_it_is_about(site: Path) -> None:
    """Its subject was not read: an answer that a model gave it was protected as a question of nobody."""
    rows = [
        {"id": "u1", "question": "Who?"},
        {"id": "u2", "question": "who?", "subject": "patient 7"},
        {"id": "u3", "question": "Why?", "subject": "patient 8"},
    ]
    (site / "unanswered.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_site(site)
    assert [(asked.id, asked.subject) for asked in loaded.unanswered] == [("u1", "patient 7"), ("u3", "patient 8")]
    rewrite_site(site, loaded, gone=())
    assert load_site(site).unanswered == loaded.unanswered
    (site / "unanswered.jsonl").write_text(json.dumps(rows[2] | {"subject": 8}) + "\n")
    with pytest.raises(DataError, match=r'unanswered.jsonl:1: "subject" must be a non-empty string$'):
        load_site(site)


ANSWERS = '"answers" must be a non-empty list of strings'
FAULTS = [
    (
        '{"id": "q1", "question": "What',
        "not valid JSON: Unterminated string starting at column 26; the file",
    ),
    ('{"id": "q1"\n', "not valid JSON: Expecting ',' delimiter at column 12"),
    ("[1]\n", "must be a JSON object"),
    ("[" * 100_000 + "\n", "not valid JSON: nested too deeply"),
    (
        question_row(origin="web"),
        '"origin" must be one of generated, pseudo, feedback, canary, or absent: people asked it',
    ),
    (question_row(subject=0), '"subject" must be a non-empty string'),
    (question_row(id=""), '"id" must be a non-empty string'),
    (question_row(id=7), '"id" must be a non-empty string'),
    (question_row(question=" "), '"question" must be a non-empty string'),
    (question_row(question=None), '"question" must be a non-empty string'),
    ('{"id": "q1", "question": "What?", "answers": []}\n', ANSWERS),
    (question_row(answers=[], passage_ids=[]), '"answers" must be a non-empty list of strings, unless "passage_ids"'),
    (question_row(hard_negative_ids=["p9"]), 'unknown passage id "p9"'),
    (question_row(hard_negative_ids=["p1"]), 'passage "p1" is both right ("passage_ids") and wrong'),
    (question_row(answers="Mars"), ANSWERS),
    (question_row(answers=["Mars", 4]), ANSWERS),
    (question_row(answers=["Mars", " "]), '"answers" holds a blank string'),
    ('{"id": "q1", "question": "What?"}\n', '"answers" is missing'),
    ('{"question": "What?", "answers": ["a"]}\n', '"id" is missing'),
    (question_row(passage_ids="p1"), '"passage_ids" must be a list of strings'),
    (question_row(passage_ids=["p1", "p9"]), 'unknown passage id "p9"'),
    (question_row(answers=["\ud800"]), '"answers" holds half a surrogate pair'),
]


@pytest.mark.parametrize(("line", "fault"), FAULTS)
def test_a_malformed_question_is_named_with_file_line_and_fault(site: Path, line: str, fault: str) -> None:
    (site / "train.jsonl").write_text(question_row(id="q0") + line)
    with pytest.raises(DataError) as raised:
        load_site(site)
    assert str(raised.value).startswith(f"{site / 'train.jsonl'}:2: {fault}")
    assert "\n" not in str(raised.value)


def test_a_duplicate_id_names_the_line_of_the_first(site: Path) -> None:
    (site / "passages.jsonl").write_text(PASSAGE + '{"id": "p2", "text": "x"}\n' + PASSAGE)
    with pytest.raises(DataError, match=r'passages\.jsonl:3: duplicate id "p1" \(first on line 1\)'):
        load_site(site)


def test_a_title_that_is_no_string_is_refused(site: Path) -> None:
    (site / "passages.jsonl").write_text('{"id": "p1", "text": "t", "title": 3}\n')
    with pytest.raises(DataError, match=r'passages\.jsonl:1: "title" must be a string'):
        load_site(site)


def test_text_that_is_not_utf8_is_named_by_line_and_byte(site: Path) -> None:
    (site / "passages.jsonl").write_bytes(PASSAGE.encode() + '{"id": "p2", "text": "Köln"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match=r"passages\.jsonl:2: not UTF-8 text \(byte 24 of the line\)"):
        load_site(site)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_site_needs_a_passage(site: Path, content: str) -> None:
    (site / "passages.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"passages\.jsonl: holds no passage"):
        load_site(site)


def test_a_site_may_have_passages_and_no_question_yet(site: Path) -> None:
    (site / "train.jsonl").unlink()
    assert load_site(site).questions == ()


def test_a_missing_file_of_passages_is_named(site: Path) -> None:
    (site / "passages.jsonl").unlink()
    with pytest.raises(DataError, match=r"passages\.jsonl: no such file"):
        load_site(site)


def test_a_folder_in_a_files_place_cannot_be_read(site: Path) -> None:
    (site / "test.jsonl").mkdir()
    with pytest.raises(DataError, match=r"test\.jsonl: cannot be read: Is a directory"):
        load_site(site)


def test_a_missing_folder_and_a_file_in_its_place_are_told_apart(site: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_site(site / "nowhere")
    with pytest.raises(DataError, match=r"train\.jsonl: is a file; the folder of a site"):
        load_sites(site / "train.jsonl")


def test_sites_come_by_name_and_hidden_folders_and_files_are_passed_over(site: Path) -> None:
    for name in ("c", "b", ".partial"):
        shutil.copytree(site, site.parent / name)
    (site.parent / "README.md").write_text("notes")
    assert [loaded.name for loaded in load_sites(site.parent)] == ["a", "b", "c"]
    assert [loaded.name for loaded in load_sites(site.parent, only=["c", "a"])] == ["a", "c"]
    assert [loaded.name for loaded in load_sites(site.parent, hold_out=["b"])] == ["a", "c"]
    assert chosen_folders(site.parent, hold_out=["a", "b"]) == [site.parent / "c"]


def test_a_site_that_lost_its_passages_is_reported_and_not_passed_over(site: Path) -> None:
    shutil.copytree(site, site.parent / "b")
    (site.parent / "b" / "passages.jsonl").unlink()
    with pytest.raises(DataError, match=r"b/passages\.jsonl: no such file"):
        load_sites(site.parent)


def test_an_unknown_site_is_answered_with_the_nearest_name(site: Path) -> None:
    shutil.copytree(site, site.parent / "hospital")
    with pytest.raises(DataError, match=r'no site "hopsital" \(nearest: hospital\)'):
        load_sites(site.parent, hold_out=["hopsital"])


def test_holding_out_every_site_is_an_error(site: Path) -> None:
    with pytest.raises(DataError, match="no site is left"):
        load_sites(site.parent, hold_out=["a"])


def test_a_sites_own_folder_stands_for_itself(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site_folders(site) == [site]
    monkeypatch.chdir(site)
    assert [loaded.name for loaded in load_sites(Path())] == ["a"]


def test_an_empty_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no site"):
        load_sites(tmp_path)


def test_the_hash_changes_with_any_file_and_not_with_other_files_or_the_name(site: Path) -> None:
    first = hash_site(site)
    (site / "notes.txt").write_text("not a part of the site")
    (site / "test.jsonl").write_text("")
    assert hash_site(site) == first
    assert hash_site(site.rename(site.parent / "b")) == first
    (site.parent / "b" / "test.jsonl").write_text(QUESTION)
    moved = hash_site(site.parent / "b")
    (site.parent / "b" / "test.jsonl").rename(site.parent / "b" / "validation.jsonl")
    assert len({first, moved, hash_site(site.parent / "b")}) == 3
