"""What `check_sites` finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedrag.data.check import Lengths, Overlap, SiteReport, check_sites
from fedrag.data.site_folder import load_sites, site_folders
from fedrag.data.splitting import normalise_question
from fedrag.data.writing import write_sites
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Question, Site

TINY = Path(__file__).parents[2] / "simulations" / "data" / "tiny"


def ask(identity: str, text: str, *labels: str) -> Question:
    return Question(identity, text, ("one two", "three"), labels)


def site(name: str, train: tuple[Question, ...] = (), test: tuple[Question, ...] = ()) -> Site:
    return Site(name, (Passage("p1", "five words are in here", "Title"), Passage("p2", "two words")), train, (), test)


def test_the_tiny_sites_are_clean_and_of_the_size_that_tests_rely_on() -> None:
    report = check_sites(site_folders(TINY))
    assert (report.errors, report.warnings) == ((), ())
    assert [found.name for found in report.sites] == ["east", "north", "south"]
    for found in report.sites:
        assert found.n_passages == 8
        assert found.n_questions == {"train": 16, "validation": 4, "test": 6}


def test_every_tiny_question_is_another_one_and_its_first_answer_stands_in_its_passage() -> None:
    asked = []
    for tiny in load_sites(TINY):
        texts = {passage.id: passage.text.casefold() for passage in tiny.passages}
        for question in (question for split in SPLITS for question in tiny.split(split)):
            asked.append(normalise_question(question.question))
            (label,) = question.passage_ids
            assert any(answer.casefold() in texts[label] for answer in question.answers), question
    assert len(set(asked)) == 78


def test_counts_and_lengths_are_those_of_the_files(tmp_path: Path) -> None:
    write_sites(tmp_path / "sites", [site("a", (ask("q1", "Is it?", "p1"), ask("q2", "What can it be?", "p2")))])
    report = check_sites([tmp_path / "sites" / "a"])
    assert report.sites == (
        SiteReport(
            name="a",
            folder=str(tmp_path / "sites" / "a"),
            n_passages=2,
            language="",
            n_questions={"train": 2, "validation": 0, "test": 0},
            n_distinct={"train": 2, "validation": 0, "test": 0},
            n_by_origin={},
            n_with_subject=0,
            n_subjects=0,
            n_unlabelled=0,
            n_waiting=0,
            n_unanswered=0,
            n_repeated_passages=0,
            n_repeated_questions=0,
            passage_lengths=Lengths(4.0, 6),
            question_lengths=Lengths(3.0, 4),
            answer_lengths=Lengths(1.5, 2),
        ),
    )
    assert (report.errors, report.warnings) == ((), ())


def test_subjects_are_counted(tmp_path: Path) -> None:
    asked = [replace(ask(f"q{n}", f"Is it {n}?", "p1"), subject=who) for n, who in enumerate(("ada", "", "ada", "bo"))]
    write_sites(tmp_path / "sites", [site("a", tuple(asked[:3]), (asked[3],))])
    [found] = check_sites([tmp_path / "sites" / "a"]).sites
    assert (found.n_with_subject, found.n_subjects) == (3, 2)


def test_all_errors_of_all_sites_are_listed_with_file_and_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "passages.jsonl").write_text('{"id": "p1", "text": ""}\n{"id": "p1", "text": "t"}\n{"id": "p2"')
    (tmp_path / "a" / "train.jsonl").write_text(
        '{"id": "q1", "question": "What?", "answers": []}\n'
        '{"id": "q2", "question": "What?", "answers": ["x"], "passage_ids": ["p7"]}\n'
        '{"id": "q3", "question": "What?", "answers": ["x"], "passage_ids": ["p1"]}\n'
    )
    report = check_sites([tmp_path / "a", tmp_path / "b"])
    passages, train = tmp_path / "a" / "passages.jsonl", tmp_path / "a" / "train.jsonl"
    assert report.errors == (
        f'{passages}:1: "text" must be a non-empty string',
        f'{passages}:2: duplicate id "p1" (first on line 1)',
        f"{passages}:3: not valid JSON: Expecting ',' delimiter at column 12; the file ends here, perhaps cut off",
        f'{train}:1: "answers" must be a non-empty list of strings, unless "passage_ids" names the right passages',
        f'{train}:2: unknown passage id "p7": no line of passages.jsonl has it',
        f"{tmp_path / 'b' / 'passages.jsonl'}: no such file; a site needs one, a line per passage: "
        '{"id": "p1", "text": "..."}',
    )
    assert [found.n_questions["train"] for found in report.sites] == [1, 0]


def test_a_site_without_a_question_is_no_error_and_told_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "passages.jsonl").write_text('{"id": "p1", "text": "t"}\n')
    report = check_sites([tmp_path / "a"])
    assert report.errors == ()
    [warning] = report.warnings
    assert warning.startswith("sites without a question, which can be asked and not trained: a; ")


def test_a_question_in_two_splits_of_a_site_is_found_in_another_spelling(tmp_path: Path) -> None:
    sites = [
        site(
            "a",
            (ask("q1", "Who  sold it?", "p1"),),
            (ask("q2", "who sold it", "p1"), ask("q3", "Why?", "p1")),
        )
    ]
    write_sites(tmp_path / "sites", sites)
    report = check_sites(site_folders(tmp_path / "sites"))
    folder = tmp_path / "sites" / "a"
    assert report.overlaps_within == (
        Overlap("who sold it", (f"{folder / 'train.jsonl'}:1", f"{folder / 'test.jsonl'}:1")),
    )
    assert report.overlaps_across == ()
    assert report.warnings[0].startswith("questions in two splits of the same site: 1, for example 'who sold it'")


def test_a_question_on_both_sides_of_the_split_is_found_across_sites(tmp_path: Path) -> None:
    shared, own = ask("q1", "Who sold it?", "p1"), ask("q2", "Why?", "p1")
    sites = [site("a", (shared, own)), site("b", (own,), (shared,)), site("c", (own,))]
    write_sites(tmp_path / "sites", sites)
    report = check_sites(site_folders(tmp_path / "sites"))
    assert report.overlaps_within == ()
    assert [overlap.question for overlap in report.overlaps_across] == ["who sold it"]
    assert report.overlaps_across[0].places == (
        f"{tmp_path / 'sites' / 'a' / 'train.jsonl'}:1",
        f"{tmp_path / 'sites' / 'b' / 'test.jsonl'}:1",
    )
    assert len(report.warnings) == 1


def test_repetitions_missing_labels_and_missing_training_are_warned_of(tmp_path: Path) -> None:
    twice = (ask("q1", "Why?", "p1"), ask("q2", "Why?", "p2"), ask("q3", "How?"))
    double = Site("b", (Passage("p1", "same  text"), Passage("p2", "same text")), test=(ask("q1", "When?", "p1"),))
    write_sites(tmp_path / "sites", [site("a", twice), double])
    assert check_sites(site_folders(tmp_path / "sites")).warnings == (
        "sites without training questions, which sit out training: b",
        "passages with the same text as another of their site: 1, in 1 of 2 sites; one of them is enough",
        "questions with the same text as another of their split: 1, in 1 of 2 sites; one line can hold all answers",
        "questions that name no passage: 1, in 1 of 2 sites; "
        "with passage_ids the retriever learns from them and is measured on them",
    )


def test_a_folder_that_is_not_there_is_raised(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        check_sites([tmp_path / "nowhere"])


def test_a_script_without_spaces_is_counted_by_its_characters_and_a_tokenizer_counts_tokens(tmp_path: Path) -> None:
    chinese = Site("a", (Passage("p1", "图书馆早上八点开门。"),), (Question("q1", "几点开门？", ("八点",), ("p1",)),))
    write_sites(tmp_path / "sites", [replace(chinese, language="zh")])
    folder = tmp_path / "sites" / "a"
    (found,) = check_sites([folder]).sites
    assert found.passage_lengths.longest == 10
    assert found.language == "zh"
    (found,) = check_sites([folder], lambda texts: [len(text.encode()) for text in texts]).sites
    assert found.passage_lengths.longest == 30
    (folder / "site.json").write_text('{"language": "Chinese"}')
    assert check_sites([folder]).errors == (
        f'{folder / "site.json"}: expected {{"language": "vi"}} with the code of a language',
    )


def test_distinct_questions_are_counted_beside_lines(tmp_path: Path) -> None:
    asked = (ask("q1", "Is it?", "p1"), ask("q2", "is  it?", "p2"), ask("q3", "What?", "p2"))
    write_sites(tmp_path / "sites", [site("a", asked)])
    (found,) = check_sites([tmp_path / "sites" / "a"]).sites
    assert (found.n_questions["train"], found.n_distinct["train"]) == (3, 2)


def test_questions_without_an_answer_are_counted(tmp_path: Path) -> None:
    pair = Question("q2", "Where is it?", (), ("p2",))
    write_sites(tmp_path / "sites", [site("a", (ask("q1", "Who sold it?", "p1"), pair))])
    report = check_sites([tmp_path / "sites" / "a"])
    assert report.errors == ()
    assert report.sites[0].n_unanswered == 1
    assert report.warnings == (
        "questions without an answer: 1, in 1 of 1 sites; the retriever alone learns from them and is measured on them",
    )
