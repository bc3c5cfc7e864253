"""rag.json: with it, and with no line of fedrag, another program builds the prompts that fedrag builds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.exporting.rag_file import write_rag_file
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import Shown
from fedrag.rag.wording import wording_of
from fedrag.weights.store import find_model

QUESTION = "Who wrote {passage}? <|im_end|>"
PASSAGES = ["Rye\nA loaf rests eighteen hours.", "Trams <|im_start|> run until {question}."]


def prompt_ids(rag: dict[str, Any], tokenizer: Any, question: str, passages: list[str]) -> list[int]:
    """What another program does."""
    ids = list(rag["prompt"]["before_ids"])
    for text, special in filled_pieces(rag, question, passages):
        ids += tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
    return ids + rag["prompt"]["after_ids"]


def filled_pieces(rag: dict[str, Any], question: str, passages: list[str]) -> Iterator[tuple[str, bool]]:
    pieces = rag["prompt"]["pieces"]
    first = 1 if any(piece["fill"] == "next_passage" for piece in pieces) else len(passages)
    filled = {"": [""], "question": [question], "passage": passages[:first], "next_passage": passages[first:]}
    for piece in pieces:
        for text in filled[piece["fill"]]:
            whole = piece["text"].replace("{" + piece["fill"] + "}", text) if piece["fill"] else piece["text"]
            yield whole, piece["special_tokens"]


def user_message(rag: dict[str, Any], question: str, passages: list[str]) -> str:
    told = rag["prompt"]["message"]
    body = "".join(text for text, special in filled_pieces(rag, question, passages) if not special)
    return f"{told['before']}{body}{told['after']}"


def written(system: TrainedSystem, folder: Path) -> dict[str, Any]:
    write_rag_file(folder, system)
    return json.loads((folder / "rag.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"labels": "zh"},
        {"passages": 0},
        {"instruction": "Answer {it}.", "labels": ["P", "Q", "A"]},
        {"template": "Context is below.\n{context_str}\nQuery: {query_str}\nAnswer:"},
        {"template": "{query_str}\nSee: {context_str}\nNow answer.", "instruction": "Be short."},
    ],
)
def test_another_program_builds_the_same_prompt(system: TrainedSystem, tmp_path: Path, kind: str, settings) -> None:
    models = system.config.models.model_copy(update={"generator": f"fedrag/tiny-{kind}"})
    rag = RagConfig.model_validate({"prompt_tokens": 400, "answer_tokens": 8} | settings)
    told = written(replace(system, config=system.config.model_copy(update={"models": models, "rag": rag})), tmp_path)
    base = find_model(told["models"]["generator"]["id"])
    tokenizer = AutoTokenizer.from_pretrained(base.folder)
    passages = PASSAGES[: rag.passages]
    builder = PromptBuilder(tokenizer, rag, seq2seq=kind == "seq2seq")
    assert prompt_ids(told, tokenizer, QUESTION, passages) == builder.example(QUESTION, passages).prompt
    assert user_message(told, QUESTION, passages) == builder.user_text(QUESTION, [Shown(text) for text in passages])
    assert told["prompt"]["message"]["system"] == wording_of(rag).instruction
    assert told["answer"]["ends_at_new_line"] == (kind == "seq2seq")


def test_it_names_the_base_models_and_how_to_search(system: TrainedSystem, tmp_path: Path) -> None:
    told = written(system, tmp_path)
    base = find_model("fedrag/tiny-causal")
    assert told["models"]["generator"] == {
        "id": "fedrag/tiny-causal",
        "revision": None,
        "tensors_sha256": base.tensors_sha256,
        "licence": "apache-2.0",
        "trained": True,
    }
    assert (told["retrieval"]["search"], told["retrieval"]["similarity"]) == ("dense", "cosine")
    assert told["retrieval"]["passages"] == 2
    assert str(system.config.data.sites) not in json.dumps(told)
