"""An answer deep inside a long passage: the generator reads it wherever it reads passages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_federation import Lines, tiny_config

from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.evaluation.evaluate import measure_sites
from fedrag.federation.messages import Request
from fedrag.rag.prompt import PromptBuilder
from fedrag.site.steps import train_site
from fedrag.site.validation import validate_site
from fedrag.types import Example, Passage, Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

BOTH = ("generator", "retriever")
STAIRS = " ".join(f"Step {number} of the tower stairs creaks." for number in range(200))
FACT = "The miller hides his spare key under the third hive."
PASSAGES = (Passage("tower", f"{STAIRS} {FACT} {STAIRS}", "The mill"), Passage("menu", "Soup is served at noon."))
ASKED = Question("q", "Where does the miller hide his spare key?", ("under the third hive",), ("tower",))
SITE = Site("mill", PASSAGES, train=(ASKED,), validation=(ASKED,), test=(ASKED,))


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep the text of every prompt that is built."""
    built: list[str] = []
    example = PromptBuilder.fitted_example

    def kept(builder: PromptBuilder, *given: Any) -> Example:
        prompt = example(builder, *given)
        built.append(builder._tokenizer.decode(prompt.prompt))
        return prompt

    monkeypatch.setattr(PromptBuilder, "fitted_example", kept)
    return built


def settings(**sections: Any) -> Any:
    return tiny_config(**{"rag": {"prompt_tokens": 700}, "evaluation": {"split": "test"}, **sections})


def request_of(config: Any, components: tuple[str, ...]) -> Request:
    return Request(config.to_toml(), 1, initial_state(config, BOTH), components)


def test_training_scoring_and_validation_read_it(tmp_path: Path, prompts: list[str]):
    config = settings(retriever={"loss": "lsr", "lsr": {"candidates": 2}})
    bench = Workbench(SITE, tmp_path / "cache", tmp_path / "scores", config)
    train_site(bench, request_of(config, ("retriever",)))  # LSR: a prompt a passage
    assert [FACT in text for text in prompts].count(True) == 1
    for work in (train_site, validate_site):
        prompts.clear()
        work(bench, request_of(config, ("generator",)))
        [text] = prompts
        assert FACT in text


def test_evaluation_and_ask_read_it(prompts: list[str]):
    config = settings()
    measure_sites([SITE], "test", config, {}, True, Lines())
    assert [FACT in text for text in prompts] == [True]
    prompts.clear()
    BeforeAndAfter("run", config, {}, SITE).ask(ASKED.question)
    assert [FACT in text for text in prompts] == [True, True]


def test_a_question_with_a_missed_label_is_trained_on_the_chunk_with_its_answer(tmp_path: Path, prompts: list[str]):
    other = Question("other", "Soup is served at noon?", ASKED.answers, ("tower",))
    for include in (False, True):
        prompts.clear()
        config = settings(rag={"prompt_tokens": 700, "passages": 1, "include_labelled": include})
        bench = Workbench(Site("mill", PASSAGES, train=(other,)), tmp_path / "cache", tmp_path / "scores", config)
        train_site(bench, request_of(config, ("generator",)))
        assert [FACT in text for text in prompts] == [include]
