"""The same articles in several languages: sites of their own, with one id and one split for each question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.squad import import_squad
from fedrag.data.site_folder import load_sites
from fedrag.data.writing import write_sites
from fedrag.errors import DataError
from fedrag.types import Site

HALVES = (0.5, 0.0, 0.5)
SEEDS = range(8)


def qa(identity: str, question: str, answer: str) -> dict[str, Any]:
    return {"id": identity, "question": question, "answers": [{"text": answer}]}


def paragraph(context: str, *qas: dict[str, Any]) -> dict[str, Any]:
    return {"context": context, "qas": list(qas)}


def written(path: Path, *articles: tuple[str, list[dict[str, Any]]]) -> Path:
    data = [{"title": title, "paragraphs": paragraphs} for title, paragraphs in articles]
    path.write_text(json.dumps({"version": "1.1", "data": data}))
    return path


def asked_by_split(site: Site) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    return {split: [(q.id, q.passage_ids) for q in site.split(split)] for split in ("train", "validation", "test")}


def in_two_languages(tmp_path: Path) -> tuple[Path, Path]:
    english = [
        paragraph("The heart.", *(qa(f"h{n}", f"Where is heart {n}?", "chest") for n in range(40))),
        paragraph("A kidney.", qa("k1", "What does it do?", "cleans"), qa("k2", "Why?", "waste")),
    ]
    vietnamese = [
        paragraph("Tim.", *(qa(f"h{n}", f"Tim {n} ở đâu?", "ngực") for n in range(40))),
        paragraph("Thận.", qa("k1", "Để làm gì?", "lọc"), qa("k2", "Để làm gì?", "chất thải")),
    ]
    return written(tmp_path / "en.json", ("Organs", english)), written(tmp_path / "vi.json", ("Nội tạng", vietnamese))


def test_translations_are_sites_of_their_own_with_the_same_ids_and_the_same_side_of_the_split(tmp_path: Path) -> None:
    english, vietnamese = in_two_languages(tmp_path)
    first, second = import_squad(english, (0.5, 0.2, 0.3), language="en", translations={"vi": vietnamese}).sites
    assert [(site.name, site.language) for site in (first, second)] == [("en-organs", "en"), ("vi-organs", "vi")]
    assert [passage.id for passage in first.passages] == [passage.id for passage in second.passages]
    for split in ("train", "validation", "test"):
        here, there = first.split(split), second.split(split)
        assert len(here) > 0
        assert [(asked.id, asked.passage_ids) for asked in here] == [(asked.id, asked.passage_ids) for asked in there]
    write_sites(tmp_path / "out", [first, second])
    assert [site.language for site in load_sites(tmp_path / "out")] == ["en", "vi"]


@pytest.mark.parametrize("seed", range(8))
def test_questions_that_read_the_same_in_one_language_stay_together_in_all(tmp_path: Path, seed: int) -> None:
    english, vietnamese = in_two_languages(tmp_path)
    for site in import_squad(english, (0.5, 0.0, 0.5), seed, language="en", translations={"vi": vietnamese}).sites:
        trained = {asked.id for asked in site.train}
        assert ("k1" in trained) == ("k2" in trained)


def test_a_file_that_holds_something_else_is_no_translation(tmp_path: Path) -> None:
    english, _ = in_two_languages(tmp_path)
    path = written(tmp_path / "other.json", ("Organs", [paragraph("Tim.", qa("h1", "Tim ở đâu?", "ngực"))]))
    with pytest.raises(
        DataError, match=r"other.json: article 1 has not the paragraphs and questions, by their ids, of "
    ):
        import_squad(english, language="en", translations={"vi": path})
    two = written(tmp_path / "two.json", ("A", []), ("B", []))
    with pytest.raises(DataError, match=r"two.json: holds 2 articles, and .*en.json 1; it is no translation"):
        import_squad(english, language="en", translations={"vi": two})


@pytest.mark.parametrize("identity", ["", " ", "same", " padded "])
def test_questions_without_ids_or_with_one_id_keep_to_their_translations(tmp_path: Path, identity: str) -> None:
    numbers = range(30)
    english = [paragraph("The heart.", *(qa(identity, f"Where is heart {n}?", "chest") for n in numbers))]
    vietnamese = [paragraph("Tim.", *(qa(identity, f"Tim {n} ở đâu?", "ngực") for n in numbers))]
    files = written(tmp_path / "en.json", ("Organs", english)), written(tmp_path / "vi.json", ("Nội tạng", vietnamese))
    first, second = import_squad(files[0], HALVES, language="en", translations={"vi": files[1]}).sites
    assert asked_by_split(first) == asked_by_split(second)
    assert len({question.id for question in first.questions}) == 30
    number_of = {question.id: question.question.split()[-1].rstrip("?") for question in first.questions}
    assert all(question.question == f"Tim {number_of[question.id]} ở đâu?" for question in second.questions)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_id_in_two_articles_is_two_questions(tmp_path: Path, seed: int) -> None:
    english = [(name, [paragraph(name, qa("1", f"What is {name}?", "so"))]) for name in ("Heart", "Lung")]
    vietnamese = [(name, [paragraph(name, qa("1", f"{name} là gì?", "vậy"))]) for name in ("Tim", "Phổi")]
    files = written(tmp_path / "en.json", *english), written(tmp_path / "vi.json", *vietnamese)
    sites = import_squad(files[0], HALVES, seed, groups=1, language="en", translations={"vi": files[1]}).sites
    assert asked_by_split(sites[0]) == asked_by_split(sites[1])
    assert sorted(question.id for question in sites[0].questions) == ["1", "1-2"]


def test_paragraphs_that_are_repeated_in_both_languages_are_one_passage(tmp_path: Path) -> None:
    english = [paragraph(text, qa(f"q{n}", f"What {n}?", "so")) for n, text in enumerate(("A.", "A.", "B."))]
    vietnamese = [paragraph(text, qa(f"q{n}", f"Gì {n}?", "vậy")) for n, text in enumerate(("Á.", "Á.", "Bê."))]
    files = written(tmp_path / "en.json", ("Organs", english)), written(tmp_path / "vi.json", ("Nội tạng", vietnamese))
    first, second = import_squad(files[0], HALVES, language="en", translations={"vi": files[1]}).sites
    assert [passage.id for passage in first.passages] == [passage.id for passage in second.passages]
    assert asked_by_split(first) == asked_by_split(second)


@pytest.mark.parametrize("groups", [None, 1])
def test_a_paragraph_that_is_repeated_in_one_language_alone_is_refused(tmp_path: Path, groups: int | None) -> None:
    english = [paragraph("A.", qa("q0", "What 0?", "so"))], [paragraph("A.", qa("q1", "What 1?", "so"))]
    vietnamese = [paragraph("Á.", qa("q0", "Gì 0?", "vậy"))], [paragraph("Ạ.", qa("q1", "Gì 1?", "vậy"))]
    if groups is None:  # within an article; else in two articles that become one site
        english, vietnamese = (english[0] + english[1],), (vietnamese[0] + vietnamese[1],)
    first = written(tmp_path / "en.json", *((f"Article {n}", each) for n, each in enumerate(english)))
    second = written(tmp_path / "vi.json", *((f"Bài {n}", each) for n, each in enumerate(vietnamese)))
    with pytest.raises(DataError, match=r'vi.json: question "q1" and those after it stand in other passages than in'):
        import_squad(first, HALVES, groups=groups, language="en", translations={"vi": second})
