"""rag.search: training, validation, evaluation and `ask` rank passages in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_federation import SHIPPED, Lines, tiny_config

from fedrag.components import generator_steps
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.evaluation.evaluate import measure_sites
from fedrag.federation.messages import Request
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import log_weight
from fedrag.site.steps import begin_work

NORTH = SHIPPED / "north"
WAYS = ("dense", "bm25", "hybrid")


def config_of(search: str, **sections) -> Config:
    return tiny_config(
        NORTH,
        rag={"passages": 2, "prompt_tokens": 384, "answer_tokens": 4, "search": search},
        federation={"rounds": 1, "schedule": "generator"},
        **sections,
    )


def rankings(config: Config, questions: list[str]) -> list[list[str]]:
    """Return the whole ranking of each question, from the index itself."""
    retriever = RoundModels(config, {}).retriever
    index = build_index(retriever, load_site(NORTH).passages, 32, search=config.rag.search)
    vectors = retriever.encode_queries(questions)
    return [[hit.passage_id for hit in hits] for hits in index.search(vectors, len(index), questions)]


@pytest.fixture(scope="module")
def expected(tiny_home: Path) -> dict[str, list[list[str]]]:
    questions = [question.question for question in load_site(NORTH).test]
    return {search: rankings(config_of(search), questions) for search in WAYS}


def test_the_three_ways_rank_differently(expected: dict[str, list[list[str]]]):
    assert expected["dense"] != expected["bm25"] != expected["hybrid"] != expected["dense"]


@pytest.mark.parametrize("search", WAYS)
def test_an_evaluation_and_ask_rank_as_the_scenario_says(search: str, expected: dict[str, list[list[str]]]):
    site, config = load_site(NORTH), config_of(search)
    measured = measure_sites([site], "test", config, {}, True, Lines())
    both = BeforeAndAfter("run", config, {}, site)
    for question, record, ranked in zip(site.test, measured, expected[search], strict=True):
        assert record.retrieved == tuple(ranked[:2])
        assert record.metrics["mrr"] == pytest.approx(1 / (1 + min(map(ranked.index, question.passage_ids))))
        asked = both.ask(question.question)
        assert asked.search == search
        assert [found.passage.id for found in asked.trained.found] == ranked[:2]
        assert asked.trained.answer == record.answer


@pytest.mark.parametrize("search", WAYS)
def test_the_generator_trains_and_validates_on_what_is_found_later(search: str, monkeypatch, tmp_path: Path):
    site, config = load_site(NORTH), config_of(search)
    shown: list[list[list[str]]] = []

    def spy(generator, questions, passages, rag):
        shown.append([[one.text for one in found] for found in passages])
        return real(generator, questions, passages, rag)

    real = generator_steps.answer_examples
    monkeypatch.setattr(generator_steps, "answer_examples", spy)
    request = Request(config.to_toml(), 1, initial_state(config, ("generator",)), ("generator",))
    work = begin_work(Workbench(site, tmp_path / "cache", tmp_path / "scores", config), request)
    generator_steps.STEPS.prepare(work)
    generator_steps.STEPS.validate(work)
    texts = {passage.id: passage.full_text for passage in site.passages}
    for questions, found in zip((site.train, site.validation), shown, strict=True):
        ranked = rankings(config, [question.question for question in questions])
        assert found == [[texts[one] for one in ids[:2]] for ids in ranked]


def test_passages_are_not_encoded_where_terms_alone_rank_them(monkeypatch, tiny_home: Path):
    retriever = RoundModels(config_of("bm25"), {}).retriever
    monkeypatch.setattr(retriever, "_encode", lambda *given: pytest.fail("encoded"))
    measured = measure_sites([load_site(NORTH)], "test", config_of("bm25"), {}, True, Lines())
    assert all(len(record.retrieved) == 2 for record in measured)


@pytest.mark.parametrize("schedule", ["retriever", "joint", "alternate", "staged"])
def test_a_retriever_is_not_trained_for_a_search_by_terms(schedule: str):
    with pytest.raises(ConfigError, match='rag.search = "bm25" does not use the retriever'):
        tiny_config(NORTH, rag={"search": "bm25"}, federation={"rounds": 2, "schedule": schedule})


def test_several_prompts_are_weighed_by_what_a_score_means():
    assert log_weight(0.8, "dense", 0.05) == pytest.approx(16)
    assert log_weight(7.5, "bm25", 1.0) == 7.5
    joined = np.exp([log_weight(score, "hybrid", 1.0) for score in (2 / 61, 1 / 61)])
    assert joined[0] / joined[1] == pytest.approx(2)
