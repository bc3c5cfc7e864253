"""LlamaIndex, LangChain and Haystack load an exported retriever as its README.md shows, and get fedrag's vectors.

`make integrations` runs these tests in an environment of their own: langchain-huggingface wants an older
huggingface_hub than fedrag's other libraries take.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_card import run_block
from sentence_transformers import SentenceTransformer

from fedrag.components.export import export_models
from fedrag.components.model_cards import write_retriever_card
from fedrag.config.scenario import Config
from fedrag.models.plain_encoder import make_plain, save_side
from fedrag.models.resident import RoundModels
from fedrag.models.retriever import Retriever
from fedrag.types import Array
from fedrag.weights.store import find_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("langchain_huggingface") is None, reason="make integrations installs it"),
]

QUESTIONS = ["Where does the chess club meet?", "naïve café"]
PASSAGES = [
    "Phobos orbits Mars.",
    "The chess club meets above the library.",
    "The pool opens at seven in the morning.",
    "A flat tyre is repaired for four crowns.",
]


def shown(folder: Path, title: str) -> dict[str, Any]:
    """Run a block with the folder's full path: Haystack keeps a model in memory by the path it was loaded from."""
    return run_block(folder, title, **{'"retriever': f'"{folder}'})


def from_llama_index(folder: Path) -> tuple[list[list[float]], list[list[float]]]:
    names = shown(folder, "LlamaIndex")
    queries = [names["queries"].get_query_embedding(question) for question in QUESTIONS]
    return queries, names["documents"].get_text_embedding_batch(PASSAGES)


def from_langchain(folder: Path) -> tuple[list[list[float]], list[list[float]]]:
    embeddings = shown(folder, "LangChain")["embeddings"]
    return [embeddings.embed_query(question) for question in QUESTIONS], embeddings.embed_documents(PASSAGES)


def from_haystack(folder: Path) -> tuple[list[list[float]], list[list[float]]]:
    from haystack import Document

    names = shown(folder, "Haystack")
    queries = [names["queries"].run(question)["embedding"] for question in QUESTIONS]
    documents = names["documents"].run([Document(content=passage) for passage in PASSAGES])["documents"]
    return queries, [document.embedding for document in documents]


def exported(name: str, side: str, folder: Path, random_tensors: Callable[..., Any]) -> Retriever:
    """Export a retriever with random weights of the trained side, and return it."""
    models = {"generator": "fedrag/tiny-causal", "retriever": name, "retriever_dtype": "float32"}
    settings = {"loss": "lsr", "lsr": {"side": side}, "lora": {"rank": 2}}
    scenario = {"name": "export", "data": {"sites": "nowhere"}, "models": models, "retriever": settings}
    config = Config.from_dict(scenario)
    tensors = random_tensors(RoundModels(config, {}).retriever.initial_state(0), seed=5, scale=0.05)
    export_models(config, {"retriever": tensors}, folder)
    return RoundModels(config, {"retriever": tensors}).retriever


def gap(ours: Array, theirs: Any) -> float:
    return float(np.abs(ours - np.asarray(theirs, dtype=np.float32)).max())


@pytest.mark.parametrize("vectors_from", [from_llama_index, from_langchain, from_haystack])
@pytest.mark.parametrize("name", ["fedrag/tiny-encoder", "prompted"])
@pytest.mark.parametrize("side", ["query", "both"])
def test_a_library_gets_the_vectors_that_fedrag_searches_with(
    prompted_encoder, random_tensors, tmp_path: Path, side, name, vectors_from
):
    retriever = exported(name, side, tmp_path, random_tensors)
    queries, passages = vectors_from(tmp_path / "retriever")
    assert gap(retriever.encode_queries(QUESTIONS), queries) < 1e-5
    assert gap(retriever.encode_passages(PASSAGES), passages) < 1e-5
    with retriever.untouched():
        assert gap(retriever.encode_queries(QUESTIONS), queries) > 1e-3
        assert (gap(retriever.encode_passages(PASSAGES), passages) > 1e-3) == (side == "both")


def test_llama_index_keeps_the_length_of_vectors_that_are_compared_by_their_dot_product(tiny_home, tmp_path: Path):
    base = find_model("fedrag/tiny-encoder")
    modules = list(SentenceTransformer(str(base.folder), device="cpu").children())[:-1]
    encoder = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="dot")
    save_side(make_plain(encoder), None, tmp_path / "retriever")
    card = {"two_sides": False, "query_prompt": "", "document_prompt": "", "similarity": "dot"}
    write_retriever_card(tmp_path / "retriever", base, **card)
    queries, passages = from_llama_index(tmp_path / "retriever")
    assert gap(encoder.encode(QUESTIONS), queries) < 1e-5
    assert gap(encoder.encode(PASSAGES), passages) < 1e-5
    assert np.abs(np.linalg.norm(queries, axis=1) - 1).min() > 0.01


def ranking_of_llama_index(folder: Path, question: str) -> list[str]:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    names = shown(folder, "LlamaIndex")
    index = VectorStoreIndex([TextNode(text=text) for text in PASSAGES], embed_model=names["documents"])
    hits = index.as_retriever(embed_model=names["queries"], similarity_top_k=len(PASSAGES)).retrieve(question)
    return [hit.text for hit in hits]


def ranking_of_langchain(folder: Path, question: str) -> list[str]:
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore.from_texts(PASSAGES, shown(folder, "LangChain")["embeddings"])
    return [document.page_content for document in store.similarity_search(question, k=len(PASSAGES))]


def ranking_of_haystack(folder: Path, question: str) -> list[str]:
    from haystack import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    names, store = shown(folder, "Haystack"), InMemoryDocumentStore()
    store.write_documents(names["documents"].run([Document(content=text) for text in PASSAGES])["documents"])
    vector = names["queries"].run(question)["embedding"]
    return [str(document.content) for document in store.embedding_retrieval(vector, top_k=len(PASSAGES))]


def test_each_library_searches_with_the_real_encoder_as_fedrag_does(real_models, random_tensors, tmp_path: Path):
    """The query side alone was trained, at random: it finds other passages first than the untouched one."""
    retriever = exported("sentence-transformers/all-MiniLM-L6-v2", "query", tmp_path, random_tensors)
    expected = retriever.encode_queries(QUESTIONS), retriever.encode_passages(PASSAGES)
    order = [PASSAGES[row] for row in np.argsort(-(expected[1] @ expected[0][0]))]
    for vectors_from in (from_llama_index, from_langchain, from_haystack):
        queries, passages = vectors_from(tmp_path / "retriever")
        assert max(gap(expected[0], queries), gap(expected[1], passages)) < 1e-5, vectors_from.__name__
    for ranking_of in (ranking_of_llama_index, ranking_of_langchain, ranking_of_haystack):
        assert ranking_of(tmp_path / "retriever", QUESTIONS[0]) == order, ranking_of.__name__
    with retriever.untouched():
        untouched = retriever.encode_passages(PASSAGES) @ retriever.encode_queries(QUESTIONS)[0]
    assert [PASSAGES[row] for row in np.argsort(-untouched)] != order
