"""SQuAD files become sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.squad import import_squad
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)


def qa(identity: str, question: str, *answers: str, **more: Any) -> dict[str, Any]:
    return {"id": identity, "question": question, "answers": [{"text": text} for text in answers]} | more


def paragraph(context: str, *qas: dict[str, Any]) -> dict[str, Any]:
    return {"context": context, "qas": list(qas)}


def squad_file(folder: Path, *articles: tuple[str, list[dict[str, Any]]]) -> Path:
    path = folder / "squad.json"
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in articles]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


def test_an_article_is_a_site_and_a_paragraph_a_passage_without_title(tmp_path: Path) -> None:
    path = squad_file(
        tmp_path,
        (
            "Super_Bowl_50",
            [paragraph(" It was in 2016. ", qa("x1", "When was it?", "2016", "in 2016", "2016"))],
        ),
        ("ted.com", [paragraph("A talk.", qa("x2", "What is it? ", "talk")), paragraph("No question here.")]),
    )
    first, second = import_squad(path, TRAIN).sites
    assert first.name == "super-bowl-50"
    assert first.passages == (Passage("super-bowl-50-1", "It was in 2016."),)
    assert first.train == (Question("x1", "When was it?", ("2016", "in 2016"), ("super-bowl-50-1",)),)
    assert [passage.id for passage in second.passages] == ["ted.com-1", "ted.com-2"]
    assert second.train[0].question == "What is it?"


def test_impossible_and_unanswered_questions_are_counted_and_their_paragraphs_stay(tmp_path: Path) -> None:
    impossible = qa("x1", "Who?", "nobody", is_impossible=True)
    path = squad_file(
        tmp_path,
        (
            "A",
            [
                paragraph("One.", impossible, qa("x2", "What?")),
                paragraph("Two.", qa("x3", "Why?", "so", " ")),
            ],
        ),
        ("B", [paragraph("Three.", impossible)]),
    )
    imported = import_squad(path, TRAIN)
    (site,) = imported.sites
    assert [passage.text for passage in site.passages] == ["One.", "Two."]
    assert site.train == (Question("x3", "Why?", ("so",), ("a-2",)),)
    assert imported.skipped == {
        "impossible questions": 2,
        "questions without text or answer": 1,
        "sites without a question": 1,
    }


def test_identical_paragraphs_are_one_and_identical_questions_stay_several(tmp_path: Path) -> None:
    path = squad_file(
        tmp_path,
        (
            "A",
            [
                paragraph("Same.", qa("x1", "Why?", "a")),
                paragraph("Same. ", qa("x1", "Why?", "b")),
                paragraph("Other.", qa("x1", "Why?", "c")),
            ],
        ),
    )
    (site,) = import_squad(path, TRAIN).sites
    assert [passage.id for passage in site.passages] == ["a-1", "a-2"]
    assert [(q.id, q.answers, q.passage_ids) for q in site.train] == [
        ("x1", ("a",), ("a-1",)),
        ("x1-2", ("b",), ("a-1",)),
        ("x1-3", ("c",), ("a-2",)),
    ]


def test_titles_that_look_alike_are_told_apart_and_equal_ones_are_one_site(tmp_path: Path) -> None:
    articles = [(title, [paragraph("P.", qa(title, f"{title}?", "x"))]) for title in ("A b", "A_b", "漢字", "Ö!")]
    path = squad_file(tmp_path, *articles, ("A b", [paragraph("Q.", qa("y", "What?", "z"))]))
    sites = import_squad(path, TRAIN).sites
    assert [site.name for site in sites] == ["a-b", "a-b-2", "漢字", "ö"]
    assert len(sites[0].train) == 2


def test_groups_are_balanced_by_questions_and_ids_keep_their_article(tmp_path: Path) -> None:
    def article(title: str, questions: int) -> tuple[str, list[dict[str, Any]]]:
        return title, [paragraph(title, *(qa(f"{title}{i}", f"{title} {i}?", "x") for i in range(questions)))]

    path = squad_file(tmp_path, article("a", 1), article("b", 4), article("c", 2), article("d", 2), article("e", 1))
    sites = import_squad(path, TRAIN, groups=2).sites
    assert [site.name for site in sites] == ["group-1", "group-2"]
    assert [[passage.id for passage in site.passages] for site in sites] == [
        ["a-1", "b-1"],
        ["c-1", "d-1", "e-1"],
    ]
    assert [len(site.train) for site in sites] == [5, 5]
    with pytest.raises(DataError, match="5 articles cannot be put into 6 groups"):
        import_squad(path, groups=6)


def test_the_same_question_lands_in_the_same_split_at_every_site(tmp_path: Path) -> None:
    texts = [f"Question {i}?" for i in range(50)]
    articles = [(title, [paragraph(title, *(qa("", text, "x") for text in texts))]) for title in ("A", "B")]
    first, second = import_squad(squad_file(tmp_path, *articles), (0.5, 0.2, 0.3), seed=3).sites
    assert [q.question for q in first.train] == [q.question for q in second.train]
    assert first.train
    assert first.test
    assert [q.id for q in (*first.train, *first.validation, *first.test)][0].startswith("a-q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": [\n', r"squad\.json:2: not valid JSON"),
        ("{}", r'squad\.json: "data" must be a list of objects'),
        ('[{"question": "Who?"}]', "holds rows of questions.*fedrag data import jsonl"),
        ('{"data": [{"title": 7, "paragraphs": []}]}', r'data\[0\]: "title" must be a string'),
        ('{"data": [{"title": "a"}]}', r'data\[0\]: "paragraphs" must be a list'),
        (
            '{"data": [{"title": "a", "paragraphs": [{"qas": []}]}]}',
            r'data\[0\]\.paragraphs\[0\]: "context" must',
        ),
        (
            '{"data": [{"title": "a", "paragraphs": [{"context": "c", "qas": [7]}]}]}',
            r'paragraphs\[0\]: "qas" must',
        ),
        (
            '{"data": [{"title": "a", "paragraphs": [{"context": "c", "qas": []}]}]}',
            "no question with an answer",
        ),
    ],
)
def test_a_file_of_another_shape_is_told_where_it_differs(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "squad.json").write_text(text)
    with pytest.raises(DataError, match=message):
        import_squad(tmp_path / "squad.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        import_squad(tmp_path / "none.json")


def test_articles_without_title_are_named_by_their_place_and_titles_keep_their_letters(tmp_path: Path) -> None:
    path = squad_file(tmp_path, *((title, [paragraph("P.", qa(title, f"{title}?", "x"))]) for title in TITLES))
    tree = json.loads(path.read_text())
    del tree["data"][0]["title"]
    path.write_text(json.dumps(tree))
    assert [site.name for site in import_squad(path, TRAIN).sites] == [
        "article-1",
        "北京协和医院",
        "قواعد-المكتبة",
        "đại-học-y",
        "große-straße",
        "nul-site",
    ]


TITLES = ("gone", "北京协和医院", "قواعد المكتبة", "Đại học Y", "Große Straße", "NUL")


@pytest.mark.parametrize(
    ("row", "skipped"),
    [
        ({"is_impossible": True}, "impossible questions"),
        ({"is_impossible": "true", "answers": None}, "impossible questions"),
        ({"is_impossible": 1, "answers": []}, "impossible questions"),
        ({"answers": {"text": [], "answer_start": []}}, "questions without text or answer"),
        ({"answers": [{"text": "No Answer Present."}]}, "questions without text or answer"),
        ({}, "questions without text or answer"),
    ],
)
def test_impossible_questions_of_every_spelling_are_left_out_and_counted(
    tmp_path: Path, row: dict[str, Any], skipped: str
) -> None:
    asked = {"id": 2, "question": "Who cleans?", "plausible_answers": [{"text": "x", "answer_start": 1}]} | row
    path = squad_file(tmp_path, ("A", [paragraph("From 9 to 5.", qa("1", "When?", "9 to 5"), asked)]))
    imported = import_squad(path, TRAIN)
    assert imported.skipped == {skipped: 1}
    assert len(imported.sites[0].train) == 1


def test_answers_as_on_the_hub_are_read(tmp_path: Path) -> None:
    asked = {"id": 1, "question": "When?", "answers": {"text": ["9 to 5"], "answer_start": [5]}}
    path = squad_file(tmp_path, ("A", [paragraph("From 9 to 5.", asked)]))
    assert import_squad(path, TRAIN).sites[0].train[0] == Question("1", "When?", ("9 to 5",), ("a-1",))


@pytest.mark.parametrize(("encoding", "given"), [("utf-16", None), ("utf-8-sig", None), ("cp1252", "cp1252")])
def test_other_encodings_are_read_by_their_mark_or_by_name(tmp_path: Path, encoding: str, given: str | None) -> None:
    path = squad_file(tmp_path, ("Straße", [paragraph("Ö.", qa("1", "Wann?", "ö"))]))
    path.write_bytes(json.dumps(json.loads(path.read_text()), ensure_ascii=False).encode(encoding))
    assert import_squad(path, TRAIN, encoding=given).sites[0].passages[0].text == "Ö."


@pytest.mark.parametrize(("encoding", "way"), [("utf-16-le", "--encoding utf-16-le"), ("cp1252", "--encoding cp1252")])
def test_without_a_mark_the_error_says_how_to_read_the_file(tmp_path: Path, encoding: str, way: str) -> None:
    (tmp_path / "squad.json").write_bytes('{"data": "Öffnung Straße"}'.encode(encoding))
    with pytest.raises(DataError, match=f"squad.json.*{way}" if encoding == "cp1252" else "squad.json"):
        import_squad(tmp_path / "squad.json")
