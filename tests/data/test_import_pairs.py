"""HotpotQA, triplets and BEIR become sites; a table labels passages by its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.beir import import_beir
from fedrag.data.importers.hotpotqa import import_hotpotqa
from fedrag.data.importers.openai_chat import ChatLayout, import_openai_chat
from fedrag.data.importers.table import Columns, import_table, open_table
from fedrag.data.importers.triplets import import_triplets
from fedrag.data.site_folder import load_site
from fedrag.data.splitting import split_questions
from fedrag.data.writing import write_site
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)
HOTPOT = {
    "_id": "5a",
    "question": "Which closes later, the inn or the barn?",
    "answer": "the barn",
    "supporting_facts": [["Inn", 0], ["Barn", 0]],
    "context": [
        ["Inn", ["The inn closes at six.", " It is small."]],
        ["Barn", ["It closes at ten."]],
        ["Hay", ["Dry."]],
    ],
}
HUB_HOTPOT = HOTPOT | {
    "supporting_facts": {"title": ["Inn", "Barn"], "sent_id": [0, 0]},
    "context": {"title": ["Inn", "Barn"], "sentences": [["The inn closes at six."], ["It closes at ten."]]},
}


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("row", [HOTPOT, HUB_HOTPOT])
def test_the_paragraphs_with_supporting_facts_are_labelled(tmp_path: Path, row: dict[str, Any]) -> None:
    (site,) = import_hotpotqa(lines(tmp_path / "hotpot.jsonl", row), TRAIN).sites
    assert site.train == (Question("5a", row["question"], ("the barn",), ("hotpot-1", "hotpot-2")),)
    assert site.passages[1] == Passage("hotpot-2", "It closes at ten.", "Barn")


@pytest.mark.parametrize(
    ("row", "column"), [(HOTPOT, "context"), (HUB_HOTPOT, "context"), (HUB_HOTPOT, "context.sentences")]
)
def test_a_table_refuses_lists_within_lists_and_names_the_importer(tmp_path: Path, row: Any, column: str) -> None:
    path = lines(tmp_path / "hotpot.jsonl", row)
    with pytest.raises(DataError, match=r'hotpot.jsonl:1: the column "context.*fedrag data import hotpotqa'):
        import_table(open_table(path), Columns("question", "answer", column))


@pytest.mark.parametrize(
    "row",
    [
        {"anchor": "Who?", "positive": "Ada.", "negative": "Bob."},
        {"query": "Who?", "pos": ["Ada."], "neg": ["Bob."]},
        {"anchor": "Who?", "positive": {"text": "Ada."}, "negative_1": "Bob.", "label": 1},
    ],
)
def test_a_triplet_is_a_question_with_its_passage_and_a_hard_negative_and_no_answer(tmp_path: Path, row: Any) -> None:
    (site,) = import_triplets(lines(tmp_path / "t.jsonl", row), TRAIN).sites
    assert site.passages == (Passage("t-1", "Ada."), Passage("t-2", "Bob."))
    assert site.train == (Question("t-q1", "Who?", (), ("t-1",), ("t-2",)),)
    write_site(tmp_path / "t", site)
    assert load_site(tmp_path / "t") == site


def test_beir_keeps_its_splits_and_a_score_of_zero_is_no_label(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    lines(tmp_path / "corpus.jsonl", {"_id": "1", "title": "Inn", "text": "It closes."}, {"_id": "2", "text": "A key."})
    lines(tmp_path / "queries.jsonl", {"_id": "q1", "text": "When?"}, {"_id": "q2", "text": "Who?"})
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\nq1\t2\t0\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\t2\t2\n")
    imported = import_beir(tmp_path)
    (site,) = imported.sites
    assert site.train == (Question("q1", "When?", (), ("1",)),)
    assert site.test == (Question("q2", "Who?", (), ("2",)),)
    assert imported.skipped == {"judgements with a score of 0": 1}
    (tmp_path / "qrels" / "test.tsv").write_text("q2\t9\t1\n")
    with pytest.raises(DataError, match=r'test.tsv:1: unknown passage "9"'):
        import_beir(tmp_path)


def test_a_table_labels_the_passages_that_hold_an_answer_as_whole_words(tmp_path: Path) -> None:
    row = {"q": "Is it?", "a": "no", "docs": ["It is well known.", "No, it is not."]}
    (site,) = import_table(
        open_table(lines(tmp_path / "t.jsonl", row)), Columns("q", "a", "docs"), fractions=TRAIN
    ).sites
    assert site.train[0].passage_ids == ("t-2",)


def test_ms_marcos_marks_label_and_its_missing_answers_are_none(tmp_path: Path) -> None:
    passages = {"is_selected": [0, 1], "passage_text": ["Paris is big.", "It is the capital."]}
    rows = [
        {"q": "What?", "a": ["Paris"], "passages": passages},
        {"q": "Who?", "a": ["No Answer Present."], "passages": passages},
    ]
    imported = import_table(
        open_table(lines(tmp_path / "t.jsonl", *rows)), Columns("q", "a", "passages.passage_text"), fractions=TRAIN
    )
    assert imported.sites[0].train[0].passage_ids == ("t-2",)
    assert imported.skipped == {"rows without question or answer": 1}


def test_queries_with_passages_need_no_answers(tmp_path: Path) -> None:
    path = lines(tmp_path / "t.jsonl", {"q": "Who?", "p": "Ada."})
    (site,) = import_table(open_table(path), Columns("q", passage="p"), fractions=TRAIN).sites
    assert site.train == (Question("t-q1", "Who?", (), ("t-1",)),)
    assert site.answered == ()


@pytest.mark.parametrize(
    "text", ["q;a;t\nWhen, then?;at 8;It ends at 8.\n", "q\ta\tt\nWhen, then?\tat 8\tIt ends at 8.\n"]
)
def test_other_separators_are_told_by_the_header(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    (site,) = import_table(open_table(tmp_path / "t.csv"), Columns("q", "a", "t"), fractions=TRAIN).sites
    assert site.train[0].question == "When, then?"


def test_a_json_array_is_read_and_said_once(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps([{"q": "Who?", "a": "Ada", "p": "Ada."}] * 2))
    imported = import_table(open_table(tmp_path / "t.jsonl"), Columns("q", "a", "p"), fractions=TRAIN)
    (note,) = imported.notes
    assert note.endswith("t.jsonl: is one JSON array, where JSON lines are expected; its items were read as lines")


CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function"}]}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "The ward closes at eight."}


def talk(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def test_what_a_tool_returned_is_the_passage(tmp_path: Path) -> None:
    asked, said = {"role": "user", "content": "When?"}, {"role": "assistant", "content": "at eight"}
    path = lines(tmp_path / "chat.jsonl", talk(asked, CALL, TOLD, said))
    (site,) = import_openai_chat(path, ChatLayout(from_tool=True), fractions=TRAIN).sites
    assert site.train == (Question("chat-q1", "When?", ("at eight",), ("chat-1",)),)


def test_an_answer_of_weight_0_is_left_out_and_counted(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Context: It closes at eight.\n\nQuestion: When?"}
    said = {"role": "assistant", "content": "at eight"}
    path = lines(tmp_path / "chat.jsonl", talk(asked, said | {"content": "at nine", "weight": 0}), talk(asked, said))
    imported = import_openai_chat(path, ChatLayout("context-block"), fractions=TRAIN)
    assert [question.answers for question in imported.sites[0].train] == [("at eight",)]
    assert imported.skipped == {"conversations whose last answer has the weight 0": 1}


LLAMA_INDEX = """Context information is below.
---------------------
Es schließt um acht.
---------------------
Given the context information and not prior knowledge, answer the query.
Query: Wann?
Answer: """


@pytest.mark.parametrize(
    ("pattern", "message", "passage", "question"),
    [
        ("llama-index", LLAMA_INDEX, "Es schließt um acht.", "Wann?"),
        ("context-block", "上下文：图书馆八点关门。\n问题：几点关门？", "图书馆八点关门。", "几点关门？"),
        ("context-block", "Kontext: Es schließt.\nFrage: Wann?", "Es schließt.", "Wann?"),
        ("context-block", "Ngữ cảnh: Thư viện đóng cửa.\nCâu hỏi: Khi nào?", "Thư viện đóng cửa.", "Khi nào?"),
    ],
)
def test_prompts_in_other_languages_are_taken_apart(
    tmp_path: Path, pattern: str, message: str, passage: str, question: str
) -> None:
    path = lines(
        tmp_path / "c.jsonl", talk({"role": "user", "content": message}, {"role": "assistant", "content": "x"})
    )
    (site,) = import_openai_chat(path, ChatLayout(pattern), fractions=TRAIN).sites
    assert [found.text for found in site.passages] == [passage]
    assert site.train[0].question == question


def test_every_site_gets_a_question_of_every_split_where_that_can_be() -> None:
    texts = {"a": ["q1?"], "b": ["q1?", "q2?", "q3?"], "c": [f"c{i}" for i in range(3)]}
    for seed in range(20):
        splits = split_questions(texts, (0.6, 0.1, 0.3), seed)
        by_site = {name: {splits.by_text[text.rstrip("?")] for text in asked} for name, asked in texts.items()}
        assert by_site["a"] == {"train"}
        assert by_site["b"] == by_site["c"] == {"train", "validation", "test"}
        assert splits.lacking == {"test": ["a"], "validation": ["a"]}
