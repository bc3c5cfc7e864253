"""The training set as chats: each line is what OpenAI's fine-tuning API takes, with the passages that were found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.openai_chat import ChatLayout, import_openai_chat
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError, RunError
from fedrag.exporting.trained_system import TrainedSystem, sites_of_run
from fedrag.exporting.write_export import ExportOptions, export_system
from fedrag.runs.run_folder import RunFolder

ROLES = ("system", "user", "assistant")


def check_line(line: str) -> dict[str, Any]:
    """Check a line by the rules of the API's reference for supervised fine-tuning of chats."""
    example = json.loads(line)
    assert set(example) == {"messages"}
    for message in example["messages"]:
        assert set(message) == {"role", "content"}
        assert message["role"] in ROLES
        assert isinstance(message["content"], str)
        assert message["content"].strip()
    roles = [message["role"] for message in example["messages"]]
    assert roles == ["system", "user", "assistant"]
    return example


@pytest.fixture(scope="module")
def exported(measured_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("openai") / "out"
    system = TrainedSystem.of_run(measured_run)
    options = ExportOptions(openai_jsonl=True)
    return out, export_system(system, out, options, sites=lambda: sites_of_run(measured_run))


def test_every_line_is_what_the_fine_tuning_api_takes(
    exported: tuple[Path, list[str]], measured_run: RunFolder
) -> None:
    out, _ = exported
    sites = sites_of_run(measured_run)
    train = (out / "openai" / "train.jsonl").read_text(encoding="utf-8")
    answered = [question for site in sites for question in site.answered]
    assert train.endswith("\n")
    examples = [check_line(line) for line in train.splitlines()]
    assert len(examples) == len(answered)
    for example, question in zip(examples, answered, strict=True):
        user, answer = example["messages"][1]["content"], example["messages"][2]["content"]
        assert answer == question.answers[0]
        assert user.endswith(f"Question: {question.question}")
        assert user.count("Passage: ") == 2
    validation = (out / "openai" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([check_line(line) for line in validation]) == sum(len(site.validation) for site in sites)
    assert not {q.question for site in sites for q in site.test} & {
        line["messages"][1]["content"].rpartition("Question: ")[2] for line in examples
    }


def test_the_lines_are_read_back_by_fedrag_s_own_importer(exported, measured_run: RunFolder) -> None:
    out, _ = exported
    train = out / "openai" / "train.jsonl"
    imported = import_openai_chat(train, ChatLayout("context-block"))
    [site] = imported.sites
    assert len(site.questions) == len(train.read_text(encoding="utf-8").splitlines())
    assert any(question.passage_ids for question in site.questions)
    assert {passage.full_text for passage in site.passages} <= {
        passage.full_text for own in sites_of_run(measured_run) for passage in own.passages
    }


def test_the_card_and_the_command_say_that_it_stays_in_the_house(exported: tuple[Path, list[str]]) -> None:
    out, said = exported
    assert any("must stay in the house" in line for line in said)
    assert "`openai/` quotes the sites' questions and passages" in (out / "README.md").read_text(encoding="utf-8")


def test_passages_are_searched_as_the_scenario_says(measured_run: RunFolder, tmp_path: Path) -> None:
    system, lines = TrainedSystem.of_run(measured_run), {}
    for search in ("dense", "bm25"):
        rag = system.config.rag.model_copy(update={"search": search, "passages": 1})
        other = replace(system, config=system.config.model_copy(update={"rag": rag}))
        export_system(
            other, tmp_path / search, ExportOptions(openai_jsonl=True), sites=lambda: sites_of_run(measured_run)
        )
        lines[search] = (tmp_path / search / "openai" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines["bm25"]) == len(lines["dense"])
    assert lines["bm25"] != lines["dense"]
    by_words = json.loads(lines["bm25"][0])["messages"][1]["content"]
    assert by_words.count("Passage: ") == 1


def test_it_is_not_pushed(system: TrainedSystem, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must not leave the house"):
        export_system(system, tmp_path / "out", ExportOptions(openai_jsonl=True, push="a/b"))


def test_data_that_changed_since_is_refused(measured_run: RunFolder, tmp_path: Path, monkeypatch) -> None:
    facts = measured_run.facts
    monkeypatch.setattr(RunFolder, "facts", {**facts, "data": {**facts["data"], "north": "0"}})
    with pytest.raises(RunError, match="its data changed since it was trained: .*north"):
        sites_of_run(measured_run)


def test_a_deployed_run_has_no_data_to_write(measured_run: RunFolder, monkeypatch) -> None:
    monkeypatch.setattr(RunFolder, "facts", {**measured_run.facts, "data": {}})
    with pytest.raises(ConfigError, match="each writes its own with: fedrag client export"):
        sites_of_run(measured_run)


def test_load_site_is_what_was_exported(measured_run: RunFolder) -> None:
    assert [site.name for site in sites_of_run(measured_run)] == ["north", "south"]
    assert load_site(Path(measured_run.config.data.sites) / "north") in sites_of_run(measured_run)
