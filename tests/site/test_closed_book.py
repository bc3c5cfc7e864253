"""A closed book (rag.passages = 0): prompts hold no passages, and no passage is encoded for the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_federation import Lines, small_site, tiny_config

from fedrag.components.base_models import base_tensor_hashes, required_models
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.evaluation.evaluate import measure_sites
from fedrag.federation.messages import Request
from fedrag.models.retriever import Retriever
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.wording import wording_of
from fedrag.simulation.simulate import simulate
from fedrag.site.steps import train_site
from fedrag.site.validation import validate_site
from fedrag.types import Example

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Collect the texts of prompts, and the passages that are encoded."""
    seen: dict[str, list[Any]] = {"prompts": [], "encoded": []}
    example, encode = PromptBuilder.fitted_example, Retriever.encode_passages

    def kept(builder: PromptBuilder, *given: Any) -> Example:
        prompt = example(builder, *given)
        seen["prompts"].append(builder._tokenizer.decode(prompt.prompt))
        return prompt

    def noted(retriever: Retriever, texts: Any) -> Any:
        seen["encoded"].append(texts)
        return encode(retriever, texts)

    monkeypatch.setattr(PromptBuilder, "fitted_example", kept)
    monkeypatch.setattr(Retriever, "encode_passages", noted)
    return seen


def closed(**sections: Any) -> Config:
    sections = {"federation": {"schedule": "generator", "rounds": 1}, "evaluation": {"split": "test"}} | sections
    return tiny_config(**{"rag": {"passages": 0}} | sections)


def test_the_generator_trains_and_answers_without_a_passage(tmp_path: Path, read: dict[str, list[Any]]):
    config, site = closed(), small_site("a")
    bench = Workbench(site, tmp_path / "cache", tmp_path / "scores", config)
    request = Request(config.to_toml(), 1, initial_state(config, ("generator",)), ("generator",))
    assert train_site(bench, request).num_examples == {"generator": 4}
    assert validate_site(bench, request).metrics["generator.count"] > 0
    measured = measure_sites([site], "test", config, {}, True, Lines())
    assert [item.answer is not None for item in measured] == [True, True]
    assert [(item.retrieved, item.metrics["mrr"]) for item in measured] == [((), None)] * 2
    asked = BeforeAndAfter("run", config, {}, site).ask("What does a late book cost?")
    assert (asked.trained.found, asked.untouched.found) == ((), ())
    assert len(read["prompts"]) == 4 + 2 + 2 + 2
    assert not any("Passage" in text or "passages" in text for text in read["prompts"])
    assert read["encoded"] == []


def test_the_standard_instruction_does_not_speak_of_passages():
    said = {labels: wording_of(closed(rag={"passages": 0, "labels": labels}).rag) for labels in ("en", "vi", "zh")}
    assert said["en"].instruction == "Answer the question. Reply with the shortest answer."
    for labels, wording in said.items():
        with_passages = wording_of(closed(rag={"passages": 1, "labels": labels}).rag)
        assert wording.instruction != with_passages.instruction
    assert wording_of(closed(rag={"passages": 0, "instruction": "Guess."}).rag).instruction == "Guess."


def test_the_retriever_is_not_needed_unless_it_is_trained():
    assert list(required_models(closed())) == list(base_tensor_hashes(closed())) == ["generator"]
    joint = closed(federation={"schedule": "joint"})
    assert list(required_models(joint)) == list(base_tensor_hashes(joint)) == ["retriever", "generator"]


def test_a_retriever_that_is_trained_beside_it_is_measured(tmp_path: Path, read: dict[str, list[Any]]):
    run = simulate(
        closed(federation={"schedule": "joint", "rounds": 1}, data={"only": ["north"]}), out=tmp_path / "run"
    )
    figures = run.results()["federated"]["overall"]
    assert figures["mrr"] > 0
    assert figures["f1"] is not None
    assert not any("Passage:" in text for text in read["prompts"])


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"retriever": {"loss": "lsr"}, "federation": {"schedule": "joint"}}, 'retriever.loss = "lsr" needs passages'),
        ({"generator": {"raft_drop": 0.3}}, "generator.raft_drop = 0.3 needs passages"),
        ({"rag": {"passages": 0, "include_labelled": True}}, "rag.include_labelled = true needs passages"),
    ],
)
def test_what_needs_passages_is_refused(sections: dict[str, Any], sentence: str):
    with pytest.raises(ConfigError, match=f"{sentence} in the prompts, but rag.passages is 0"):
        closed(**sections)
