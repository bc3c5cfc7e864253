"""SQuAD files become sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.squad import import_squad
from fedrag.data.site_folder import load_sites
from fedrag.data.writing import write_sites
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
        ("[]", r'squad\.json: "data" must be a list of objects'),
        ("{}", r'squad\.json: "data" must be a list of objects'),
        ('[{"question": "Who?"}]', "holds rows of questions.*fedrag data import jsonl"),
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


@pytest.mark.parametrize("title", [{}, {"title": None}, {"title": " "}])
def test_an_article_without_a_title_is_named_by_its_place(tmp_path: Path, title: dict[str, Any]) -> None:
    data = [{**title, "paragraphs": [paragraph(f"P{n}.", qa(f"x{n}", f"{n}?", "x"))]} for n in range(2)]
    data.insert(1, {"title": "Ward", "paragraphs": [paragraph("W.", qa("w", "W?", "x"))]})
    (tmp_path / "squad.json").write_text(json.dumps({"data": data}))
    assert [site.name for site in import_squad(tmp_path / "squad.json").sites] == ["article-1", "ward", "article-3"]


@pytest.mark.parametrize("mark", [True, "true", "True", 1, "1"])
@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"answers": None},
        {"answers": []},
        {"answers": {"text": [], "answer_start": []}},
        {"answers": [{"text": "nine", "answer_start": 0}]},
        {"plausible_answers": [{"text": "nine", "answer_start": 0}]},
    ],
)
def test_a_question_is_impossible_however_it_is_spelt(tmp_path: Path, mark: object, answers: dict[str, Any]) -> None:
    impossible = {"id": 2, "question": "Who?", "is_impossible": mark, **answers}
    possible = qa("x1", "When?", "at nine", is_impossible=False) | {"id": 1}
    imported = import_squad(squad_file(tmp_path, ("A", [paragraph("P.", possible, impossible)])), TRAIN)
    assert imported.sites[0].train == (Question("1", "When?", ("at nine",), ("a-1",)),)
    assert imported.skipped == {"impossible questions": 1}


@pytest.mark.parametrize(
    "answers",
    [
        {"text": ["at nine", "nine"], "answer_start": [0, 3]},
        ["at nine", "nine"],
        [{"text": "at nine", "answer_start": 9999}, {"text": "nine"}, {"text": "Unanswerable"}],
    ],
)
def test_answers_may_be_lists_side_by_side_or_plain_texts(tmp_path: Path, answers: object) -> None:
    row = {"id": "q", "question": "When?", "answers": answers}
    (site,) = import_squad(squad_file(tmp_path, ("A", [paragraph("P.", row)])), TRAIN).sites
    assert site.train[0].answers == ("at nine", "nine")


def test_questions_without_any_answer_are_counted(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "question": "Who?"},
        {"id": "2", "question": "Why?", "answers": {"text": None}},
        qa("3", "How?", "No Answer Present."),
        qa("4", "When?", "now"),
    ]
    imported = import_squad(squad_file(tmp_path, ("A", [paragraph("P.", *rows)])), TRAIN)
    assert imported.skipped == {"questions without text or answer": 3}


def test_an_id_may_be_missing_null_a_number_or_there_twice(tmp_path: Path) -> None:
    rows = [qa("", f"{n}?", "x") | {"id": identity} for n, identity in enumerate((None, 7, 7))]
    (site,) = import_squad(squad_file(tmp_path, ("A", [paragraph("P.", *rows)])), TRAIN).sites
    assert [question.id for question in site.train] == ["a-q1", "7", "7-2"]


def test_titles_keep_the_letters_of_their_language(tmp_path: Path) -> None:
    titles = ["北京协和医院", "Đại học Y", "Große Straße", "قواعد المكتبة", "अस्पताल", "CON", "Straße: 1/2"]
    path = squad_file(tmp_path, *((title, [paragraph(title, qa(title, f"{title}?", "x"))]) for title in titles))
    names = ["北京协和医院", "đại-học-y", "große-straße", "قواعد-المكتبة", "अस्पताल", "site-con", "straße-1-2"]
    sites = import_squad(path, TRAIN).sites
    assert [site.name for site in sites] == names
    write_sites(tmp_path / "sites", sites)
    assert [site.name for site in load_sites(tmp_path / "sites")] == sorted(names)


def test_a_long_title_is_cut_to_what_a_file_system_takes(tmp_path: Path) -> None:
    articles = [(f"{'医' * 200}{n}", [paragraph(f"P{n}", qa("x", f"{n}?", "x"))]) for n in range(2)]
    names = [site.name for site in import_squad(squad_file(tmp_path, *articles), TRAIN).sites]
    assert names == ["医" * 26, "医" * 26 + "-2"]


HUB_ROWS = [
    {"id": "1", "title": "A", "context": "One.", "question": "W?", "answers": {"text": ["x"], "answer_start": [0]}},
    {"id": "2", "title": "A", "context": "One.", "question": "V?", "answers": {"text": [], "answer_start": []}},
    {"id": "3", "title": "B", "context": "Two.", "question": "U?", "answers": {"text": ["y"], "answer_start": [0]}},
]
ARTICLES = [
    {"title": "A", "paragraphs": [paragraph("One.", qa("1", "W?", "x"), qa("2", "V?"))]},
    {"title": "B", "paragraphs": [paragraph("Two.", qa("3", "U?", "y"))]},
]


@pytest.mark.parametrize("rows", [HUB_ROWS, ARTICLES])
@pytest.mark.parametrize("as_lines", [True, False])
def test_lines_lists_and_the_hubs_rows_are_read_and_said(tmp_path: Path, rows: list[Any], as_lines: bool) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows) if as_lines else json.dumps(rows)
    (tmp_path / "squad.json").write_text(text)
    imported = import_squad(tmp_path / "squad.json", TRAIN)
    assert [(site.name, site.train) for site in imported.sites] == [
        ("a", (Question("1", "W?", ("x",), ("a-1",)),)),
        ("b", (Question("3", "U?", ("y",), ("b-1",)),)),
    ]
    assert imported.skipped == {"questions without text or answer": 1}
    assert len(imported.notes) == 1 + as_lines


def test_utf_16_is_read_by_its_mark_or_by_name(tmp_path: Path) -> None:
    text = squad_file(tmp_path, ("医院", [paragraph("P.", qa("1", "谁?", "我"))])).read_text()
    (tmp_path / "marked.json").write_bytes(text.encode("utf-16"))
    (tmp_path / "bare.json").write_bytes(text.encode("utf-16-be"))
    sites = import_squad(tmp_path / "marked.json", TRAIN).sites
    assert sites == import_squad(tmp_path / "bare.json", TRAIN, encoding="utf-16-be").sites
    with pytest.raises(DataError, match="UTF-16 without a byte order mark: give --encoding"):
        import_squad(tmp_path / "bare.json", TRAIN)


def test_sites_that_a_split_leaves_without_a_question_are_named(tmp_path: Path) -> None:
    articles = [
        (name, [paragraph(name, *(qa("", f"{name} {i}?", "x") for i in range(n)))]) for name, n in (("A", 3), ("B", 2))
    ]
    imported = import_squad(squad_file(tmp_path, *articles))
    assert [len(site.train) for site in imported.sites] == [1, 1]
    assert [len(site.test) for site in imported.sites] == [1, 1]
    assert imported.warnings == ("no validation question at b: too few questions for every split",)
