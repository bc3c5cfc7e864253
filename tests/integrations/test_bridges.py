"""A run's retriever and generator, as classes of LlamaIndex, LangChain and Haystack, do what `fedrag ask` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import SHIPPED, tiny_config

from fedrag.bridges.opening import open_run, open_site
from fedrag.data.passage_stores import Store, read_store
from fedrag.data.site_folder import load_site
from fedrag.evaluation.answerer import Answerer
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.site.delivery import save_delivery
from fedrag.site.site_config import SITE_FILE, site_toml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llama_index") is None, reason="make integrations installs it"),
]

# Before Haystack is imported: it tells its makers that it is used.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

NORTH = SHIPPED / "north"
LLAMA_INDEX = (
    "Context information is below.\n---------------------\n{context_str}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {query_str}\nAnswer: "
)
Way = Callable[[Answerer, str], tuple[list[tuple[str, str]], str]]
"""Returns the ids and texts of the passages that a library finds, and the answer of its pipeline."""


def by_llama_index(answerer: Answerer, question: str) -> tuple[list[tuple[str, str]], str]:
    from llama_index.core.query_engine import RetrieverQueryEngine

    from fedrag.bridges.llama_index import FedragLLM, FedragRetriever, qa_template

    retriever = FedragRetriever(answerer)
    engine = RetrieverQueryEngine.from_args(retriever, llm=FedragLLM(answerer), text_qa_template=qa_template(answerer))
    found = [(hit.node.node_id, hit.node.text) for hit in retriever.retrieve(question)]
    return found, engine.query(question).response


def by_langchain(answerer: Answerer, question: str) -> tuple[list[tuple[str, str]], str]:
    from langchain_core.runnables import RunnablePassthrough

    from fedrag.bridges.langchain import FedragLLM, FedragRetriever, prompt

    retriever = FedragRetriever(answerer=answerer)
    steps = {"documents": retriever, "question": RunnablePassthrough()}
    chain = steps | prompt(answerer) | FedragLLM(answerer=answerer)
    found = [(document.id, document.page_content) for document in retriever.invoke(question)]
    return found, chain.invoke(question)


def by_haystack(answerer: Answerer, question: str) -> tuple[list[tuple[str, str]], str]:
    from haystack import Pipeline
    from haystack.components.builders import PromptBuilder

    from fedrag.bridges.haystack import FedragGenerator, FedragRetriever, prompt_template

    pipeline = Pipeline()
    pipeline.add_component("retriever", FedragRetriever(answerer))
    pipeline.add_component("prompt", PromptBuilder(prompt_template(answerer), required_variables="*"))
    pipeline.add_component("generator", FedragGenerator(answerer))
    pipeline.connect("retriever.documents", "prompt.documents")
    pipeline.connect("prompt.prompt", "generator.prompt")
    given: dict[str, Any] = {"retriever": {"query": question}, "prompt": {"query": question}}
    results = pipeline.run(given, include_outputs_from={"retriever"})
    found = [(document.id, document.content) for document in results["retriever"]["documents"]]
    return found, results["generator"]["replies"][0]


WAYS = [by_llama_index, by_langchain, by_haystack]


@pytest.fixture(scope="module")
def runs(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """Train hard enough for answers to change, with prompts that cut passages."""
    rags = {"usual": {}, "hybrid": {"search": "hybrid"}}
    finished = {}
    for name, rag in rags.items():
        config = tiny_config(
            NORTH, rag={"passages": 2, **rag}, generator={"learning_rate": 0.1}, federation={"rounds": 1}
        )
        finished[name] = simulate(config, out=tmp_path_factory.mktemp("bridges") / "run")
    return finished


def same(way: Way, answerer: Answerer) -> set[str]:
    """Compare a library with fedrag on some questions; return the answers."""
    answers = set()
    for question in load_site(NORTH).test[:3]:
        [expected] = answerer.answer([question.question])
        found, answer = way(answerer, question.question)
        assert found == [(one.passage.id, one.passage.full_text) for one in expected.found]
        assert answer.strip() == expected.answer
        answers.add(answer)
    return answers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["usual", "hybrid"])
def test_a_library_finds_and_answers_as_ask_does(way: Way, name: str, runs: dict[str, RunFolder]):
    assert any(same(way, open_run(runs[name].path, NORTH)))


@pytest.mark.parametrize("way", WAYS)
def test_what_a_site_received_answers_too(way: Way, runs: dict[str, RunFolder], tmp_path: Path):
    run = runs["usual"]
    (tmp_path / SITE_FILE).write_text(site_toml("north", "localhost:8443", str(NORTH)))
    save_delivery(tmp_path, "first", run.load_result(), run.config.to_toml())
    same(way, open_site(tmp_path))


@pytest.mark.parametrize("template", ["", LLAMA_INDEX])
def test_the_real_models_answer_through_every_library_alike(real_models, template: str):
    models = {"generator": "HuggingFaceTB/SmolLM2-135M-Instruct", "generator_dtype": "float32"}
    models["retriever"] = "sentence-transformers/all-MiniLM-L6-v2"
    config = tiny_config(NORTH, models=models, rag={"answer_tokens": 12, "template": template})
    answerer = Answerer(config, {}, load_site(NORTH))
    assert all(any(same(way, answerer)) for way in WAYS)


def test_an_index_that_llama_index_persisted_can_be_a_sites_passages(tmp_path: Path):
    from llama_index.core.schema import TextNode
    from llama_index.core.storage.docstore import SimpleDocumentStore

    passages = load_site(NORTH).passages
    nodes = [TextNode(id_=one.id, text=one.text, metadata={"title": one.title or ""}) for one in passages]
    store = SimpleDocumentStore()
    store.add_documents(nodes)
    store.persist(str(tmp_path / "docstore.json"))
    found = read_store(Store("llama-index", str(tmp_path)))
    assert {(one.id, one.text, one.title) for one in found} == {(one.id, one.text, one.title) for one in passages}
