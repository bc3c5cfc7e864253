"""Fine-tuning files in OpenAI's chat format become sites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from fedrag.data.importers.openai_chat import ChatLayout, import_openai_chat
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage, Question, Site

TRAIN = (1.0, 0.0, 0.0)


def chat_file(folder: Path, *rows: Any) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def talk(user: str, answer: str = "In Oslo.", system: str | None = None, **more: Any) -> dict[str, Any]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages} | more


def one_site(folder: Path, row: dict[str, Any], pattern: str) -> Site:
    (site,) = import_openai_chat(chat_file(folder, row), ChatLayout(pattern), fractions=TRAIN).sites
    return site


LLAMA_INDEX = (
    "Context information is below.\n---------------------\nAda lives in Oslo.\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\n"
    "Query: Where does she live?\nAnswer: "
)
CONVERSATIONS = [
    ("context-block", talk("Context: Ada lives in Oslo.\n\nQuestion: Where does she live?\nAnswer:")),
    ("context-block", talk("Context:\nAda lives in Oslo.\n\nquestion:\nWhere does she live?")),
    ("context-block", talk("Question: Where does she live?\nContext: Ada lives in Oslo.")),
    ("context-block", talk("Where does she live?", system="Be short.\n\nDocuments:\nAda lives in Oslo.")),
    ("xml", talk("<context>\nAda lives in Oslo.\n</context>\n\nWhere does she live?")),
    ("xml", talk('<doc id="3">Ada lives in Oslo.</doc><question>Where does she live?</question> Be short.')),
    ("xml", talk("Where does she live?", system="Use this. <passage>Ada lives in Oslo.</passage>")),
    ("numbered", talk("[1] Ada lives in Oslo.\n\nQuestion: Where does she live?")),
    ("numbered", talk("Passages:\n1. Ada lives in Oslo.\n\nWhere does she live?")),
    ("context-block", talk("上下文：Ada lives in Oslo.\n\n问题：Where does she live?\n答案：")),
    ("context-block", talk("Ngữ cảnh: Ada lives in Oslo.\n\nCâu hỏi: Where does she live?\nTrả lời:")),
    ("context-block", talk(normalize("NFD", "Ngữ cảnh: Ada lives in Oslo.\nCâu hỏi: Where does she live?"))),
    ("context-block", talk("Kontext: Ada lives in Oslo.\nFrage: Where does she live?\nAntwort:")),
    ("numbered", talk("[1] Ada lives in Oslo.\n问题: Where does she live?")),
    ("llama-index", talk(LLAMA_INDEX)),
    ("llama-index", talk("Where does she live?", system=LLAMA_INDEX.partition("Given")[0])),
    (r"BEGIN(?P<passage>.*)END", talk("BEGIN Ada lives in Oslo. END Where does she live?")),
    (r"<<(?P<passage>.*)>> (?P<question>.*)!", talk("Hi! <<Ada lives in Oslo.>> Where does she live?!")),
]


@pytest.mark.parametrize(("pattern", "row"), CONVERSATIONS)
def test_a_pattern_finds_the_passage_and_the_question(tmp_path: Path, pattern: str, row: dict[str, Any]) -> None:
    site = one_site(tmp_path, row, pattern)
    assert site.name == "chats"
    assert site.passages == (Passage("chats-1", "Ada lives in Oslo."),)
    assert site.train == (Question("chats-q1", "Where does she live?", ("In Oslo.",), ("chats-1",)),)


def test_of_several_passages_those_that_hold_the_answer_are_labelled(tmp_path: Path) -> None:
    text = "[1] Bo lives in Rome,\nin Italy.\n[2] Ada lives in Oslo.\n(3) Cy moved.\n\nQuestion: Where is Ada?"
    site = one_site(tmp_path, talk(text, "oslo"), "numbered")
    assert [passage.text for passage in site.passages] == [
        "Bo lives in Rome,\nin Italy.",
        "Ada lives in Oslo.",
        "Cy moved.",
    ]
    assert site.train[0].passage_ids == ("chats-2",)
    assert one_site(tmp_path, talk(text, "I do not know"), "numbered").train[0].passage_ids == ()


def test_the_last_answer_and_the_last_question_before_it_count(tmp_path: Path) -> None:
    row = talk("<doc>Ada lives in Oslo.</doc> Who?", "Ada", system="<doc>Bo lives in Rome.</doc>")
    row["messages"] += [
        {
            "role": "user",
            "content": [{"type": "text", "text": "<doc>Cy lives in Bonn.</doc>"}, {"type": "image_url"}],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "And where does Bo live?"},
        {"role": "assistant", "content": "Rome"},
        {"role": "user", "content": "Thanks."},
    ]
    site = one_site(tmp_path, row, "xml")
    assert [passage.text for passage in site.passages] == ["Bo lives in Rome."]
    assert site.train[0].question == "And where does Bo live?"
    assert site.train[0].answers == ("Rome",)


def test_passages_may_come_from_a_file_of_their_own(tmp_path: Path) -> None:
    corpus = [Passage("d1", "Ada lives in Oslo."), Passage("d2", "Bo lives in Rome.")]
    path = chat_file(tmp_path, talk("Where does she live?"), talk("<doc>Ada lives in Oslo.</doc> Where is she?"))
    (site,) = import_openai_chat(path, ChatLayout(), corpus, fractions=TRAIN).sites
    assert site.passages == tuple(corpus)
    assert site.train[0].passage_ids == ()
    (site,) = import_openai_chat(path, ChatLayout("xml"), corpus, fractions=TRAIN).sites
    assert site.passages == tuple(corpus)
    assert [question.passage_ids for question in site.train] == [(), ("d1",)]


def test_a_key_may_name_the_site(tmp_path: Path) -> None:
    rows = [talk("<doc>A.</doc> Who?", metadata={"tenant": name}) for name in ("North Clinic", "south")]
    path = chat_file(tmp_path, *rows)
    assert [s.name for s in import_openai_chat(path, ChatLayout("xml", "metadata.tenant")).sites] == [
        "north-clinic",
        "south",
    ]
    with pytest.raises(DataError, match=r'chats\.jsonl:1: no key "tenant" that names the site'):
        import_openai_chat(path, ChatLayout("xml", "tenant"))


def test_conversations_without_question_or_answer_are_counted(tmp_path: Path) -> None:
    rows = [
        talk("<doc>A.</doc>"),
        talk("<doc>A.</doc> Who?", " "),
        {"messages": []},
        talk("<doc>A.</doc> Why?"),
    ]
    imported = import_openai_chat(chat_file(tmp_path, *rows), ChatLayout("xml"), fractions=TRAIN)
    assert [question.question for question in imported.sites[0].train] == ["Why?"]
    assert imported.skipped == {"conversations without question or answer": 3}


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        (None, ConfigError, "passages are needed"),
        ("xlm", ConfigError, "'xlm': neither context-block, llama-index, xml, numbered nor with a group"),
        ("(?P<passage>", ConfigError, "not a regular expression"),
        ("numbered", DataError, "no passage was found in any conversation"),
    ],
)
def test_a_pattern_that_cannot_serve_is_refused(
    tmp_path: Path, pattern: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        import_openai_chat(chat_file(tmp_path, talk("<doc>A.</doc> Who?")), ChatLayout(pattern))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, r'chats\.jsonl:2: "messages" must be a list of objects'),
        ({"messages": ["x"]}, r'chats\.jsonl:2: "messages" must be a list of objects'),
        (
            {"messages": [{"role": "user", "content": 7}]},
            r'chats\.jsonl:2: "content" of a message must be a string',
        ),
        ("x", r"chats\.jsonl:2: must be a JSON object"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_openai_chat(chat_file(tmp_path, talk("<doc>A.</doc> Who?"), row), ChatLayout("xml"))


def test_the_passages_between_the_lines_of_llama_index_may_hold_labels(tmp_path: Path) -> None:
    text = LLAMA_INDEX.replace("Ada lives in Oslo.", "file_name: a.txt\n\nAda lives in Oslo.\n\nQuery: not this one")
    site = one_site(tmp_path, talk(text), "llama-index")
    assert [passage.text for passage in site.passages] == [
        "file_name: a.txt\n\nAda lives in Oslo.\n\nQuery: not this one"
    ]
    assert site.train[0].question == "Where does she live?"


def test_an_answer_holds_as_whole_words(tmp_path: Path) -> None:
    text = "[1] It is known.\n[2] No, it is not.\n\nQuestion: Is it?"
    assert one_site(tmp_path, talk(text, "no"), "numbered").train[0].passage_ids == ("chats-2",)


def test_an_answer_of_weight_0_is_left_out_and_counted(tmp_path: Path) -> None:
    wrong = talk("<doc>A.</doc> Who?", "Bo")
    wrong["messages"][1]["weight"] = 0
    corrected = talk("<doc>A.</doc> Who?", "Bo")
    corrected["messages"][1]["weight"] = 0.0
    corrected["messages"] += talk("<doc>A.</doc> Who, really?", "Ada")["messages"]
    last = talk("<doc>A.</doc> Why?", "So.")
    last["messages"] += talk("<doc>A.</doc> Sure?", "No.")["messages"]
    last["messages"][1]["weight"] = 1
    last["messages"][3]["weight"] = 0
    imported = import_openai_chat(chat_file(tmp_path, wrong, corrected, last), ChatLayout("xml"), fractions=TRAIN)
    assert [(q.question, q.answers) for q in imported.sites[0].train] == [
        ("Who, really?", ("Ada",)),
        ("Why?", ("So.",)),
    ]
    assert imported.skipped == {"answers of weight 0": 3}
    last["messages"][3]["weight"] = "none"
    with pytest.raises(DataError, match='"weight" of a message must be 0 or 1'):
        import_openai_chat(chat_file(tmp_path, last), ChatLayout("xml"))


def call(returned: str, question: str = "Where does she live?", answer: str = "In Oslo.") -> dict[str, Any]:
    row = talk(question, answer)
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]}
    row["messages"][1:1] = [called, {"role": "tool", "tool_call_id": "c", "content": returned}]
    return row


@pytest.mark.parametrize(
    ("pattern", "returned"),
    [
        (None, "Ada lives in Oslo."),
        ("xml", "Ada lives in Oslo."),
        ("xml", "found: <doc>Ada lives in Oslo.</doc>"),
        (None, '[{"page_content": "Ada lives in Oslo.", "score": 0.5}]'),
        (None, '["Ada lives in Oslo."]'),
    ],
)
def test_what_a_tool_returned_is_a_passage_where_that_is_asked_for(
    tmp_path: Path, pattern: str | None, returned: str
) -> None:
    path = chat_file(tmp_path, call(returned))
    imported = import_openai_chat(path, ChatLayout(pattern, from_tool=True), fractions=TRAIN)
    (site,) = imported.sites
    assert site.passages == (Passage("chats-1", "Ada lives in Oslo."),)
    assert site.train == (Question("chats-q1", "Where does she live?", ("In Oslo.",), ("chats-1",)),)
    assert imported.notes == ()


def test_a_tools_text_that_is_not_asked_for_is_told(tmp_path: Path) -> None:
    path = chat_file(tmp_path, call("Ada lives in Oslo."), talk("<doc>Bo lives in Rome.</doc> Who?"))
    assert import_openai_chat(path, ChatLayout("xml"), fractions=TRAIN).notes == (
        f"{path}: 1 of 2 hold what a tool returned; --passage-from tool makes it passages.",
        f"{path}: 1 of 2 conversations hold no passage.",
    )
    path = chat_file(tmp_path, call("Ada lives in Oslo."))
    with pytest.raises(DataError, match="in any conversation; 1 of 1 hold what a tool returned; --passage-from tool"):
        import_openai_chat(path, ChatLayout("xml"))


def test_an_array_of_conversations_is_read_and_said_once(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps([talk("<doc>A.</doc> Who?"), talk("<doc>A.</doc> Why?")], indent=1))
    imported = import_openai_chat(path, ChatLayout("xml"), fractions=TRAIN)
    assert len(imported.sites[0].train) == 2
    assert imported.notes == (f"{path} is one JSON array, not JSON lines; its items were read as lines.",)
