"""Prompts, similarity and dimensions are the model's own or the scenario's, and the stock library computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError, ModelError
from fedrag.models.encoder_settings import known_prompts
from fedrag.models.retriever import Retriever
from fedrag.retrieval.index import PassageIndex
from fedrag.weights.store import find_model

TEXTS = ["Phobos orbits Mars.", "naïve café", "The rye dough rests for eighteen hours, and then some more. " * 3, "x"]

Load = Callable[..., Retriever]
Make = Callable[..., str]


def stock(name: str = "fedrag/tiny-encoder", **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(find_model(name).folder), device="cpu", **options)


def assert_encodes(retriever: Retriever, queries: np.ndarray, passages: np.ndarray) -> None:
    """Require these vectors of `TEXTS`, in search and in training."""
    for encode, embed, expected in (
        (retriever.encode_queries, retriever.embed_queries, queries),
        (retriever.encode_passages, retriever.embed_passages, passages),
    ):
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(embed(TEXTS).detach().numpy(), expected, atol=1e-4, rtol=1e-4)


# Prompts


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_prompt_of_passages_is_read_under_each_of_its_names(load_retriever: Load, made_encoder: Make, name) -> None:
    """sentence-transformers 6 fills "document" with nothing, and then never reads "passage"."""
    retriever = load_retriever(made_encoder("named", prompts={"query": "search for: ", name: "passage: "}))
    queries = stock().encode(["search for: " + text for text in TEXTS])
    passages = stock().encode(["passage: " + text for text in TEXTS])
    assert_encodes(retriever, queries, passages)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_prompts_of_the_scenario_stand_before_questions_and_passages(load_retriever: Load, weights) -> None:
    settings = {"query_prompt": "query: ", "passage_prompt": "passage: "}
    retriever = load_retriever(weights=weights, contrastive={"side": "query"}, **settings)
    queries, passages = stock().encode(TEXTS, prompt="query: "), stock().encode(TEXTS, prompt="passage: ")
    assert_encodes(retriever, queries, passages)
    assert np.abs(queries - stock().encode(TEXTS)).max() > 1e-3


def test_prompts_of_the_scenario_take_the_place_of_the_model_s(load_retriever: Load, prompted_encoder: str) -> None:
    retriever = load_retriever(prompted_encoder, query_prompt="Q: ", passage_prompt="")
    assert_encodes(retriever, stock().encode(TEXTS, prompt="Q: "), stock().encode(TEXTS))


def test_a_prompt_takes_room_from_a_chunk(load_retriever: Load) -> None:
    assert load_retriever(passage_prompt="passage: ").chunk_tokens == load_retriever().chunk_tokens - len("passage: ")


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("intfloat/multilingual-e5-small", ("query: ", "passage: ")),
        ("multilingual-e5-large", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large-instruct", None),
        ("BAAI/bge-base-en-v1.5", ("Represent this sentence for searching relevant passages: ", "")),
        ("BAAI/bge-small-zh-v1.5", ("为这个句子生成表示以用于检索相关文章：", "")),
        ("BAAI/bge-m3", None),
        ("sentence-transformers/all-MiniLM-L6-v2", None),
    ],
)
def test_prompts_of_known_models(name, prompts):
    assert known_prompts(name) == prompts


# Similarity


@pytest.mark.parametrize("weights", ["lora", "full"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_model_of_dot_products_keeps_the_lengths_of_its_vectors(
    load_retriever: Load, made_encoder: Make, normalise, weights
) -> None:
    name = made_encoder("dots", normalise=normalise, similarity="dot")
    retriever, base = load_retriever(name, weights=weights), stock(name)
    assert retriever.similarity == "dot"
    queries, passages = base.encode_query(TEXTS), base.encode_document(TEXTS)
    assert_encodes(retriever, queries, passages)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-4) == normalise


def test_passages_rank_by_the_model_s_own_similarity(load_retriever: Load, made_encoder: Make) -> None:
    name = made_encoder("dots", normalise=False, similarity="dot")
    retriever, base = load_retriever(name), stock(name)
    base.similarity_fn_name = "dot"
    scores = base.similarity(base.encode_query(TEXTS), base.encode_document(TEXTS)).numpy()
    index = PassageIndex(list("abcd"), TEXTS, retriever.encode_passages(TEXTS))
    for found, row in zip(index.search(retriever.encode_queries(TEXTS), 4), scores, strict=True):
        assert [hit.passage_id for hit in found] == ["abcd"[i] for i in np.argsort(-row, kind="stable")]
        np.testing.assert_allclose([hit.score for hit in found], np.sort(row)[::-1], rtol=1e-5)


@pytest.mark.parametrize(("own", "chosen", "expected"), [(None, "dot", "dot"), ("dot", "cosine", "cosine")])
def test_the_scenario_may_choose_the_similarity(load_retriever: Load, made_encoder: Make, own, chosen, expected):
    retriever = load_retriever(made_encoder("plain", normalise=False, similarity=own), similarity=chosen)
    assert retriever.similarity == retriever.encoder.similarity_fn_name == expected
    is_unit = np.allclose(np.linalg.norm(retriever.encode_queries(TEXTS), axis=1), 1.0, atol=1e-5)
    assert is_unit == (expected == "cosine")


def test_a_distance_is_refused_until_the_scenario_chooses(load_retriever: Load, made_encoder: Make) -> None:
    name = made_encoder("far", similarity="euclidean")
    with pytest.raises(ModelError, match=r'^compares vectors by euclidean distance; set retriever.similarity to "cos'):
        load_retriever(name)
    assert load_retriever(name, similarity="cosine").similarity == "cosine"


# Dimensions


@pytest.mark.parametrize("weights", ["lora", "full"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_vectors_are_cut_as_sentence_transformers_cuts_them(
    load_retriever: Load, made_encoder: Make, similarity, weights
) -> None:
    name = made_encoder("long", normalise=False, similarity=similarity)
    retriever = load_retriever(name, weights=weights, truncate_dim=8)
    base, unit = stock(name, truncate_dim=8), similarity == "cosine"
    queries = base.encode_query(TEXTS, normalize_embeddings=unit)
    assert queries.shape == (len(TEXTS), 8)
    assert_encodes(retriever, queries, base.encode_document(TEXTS, normalize_embeddings=unit))


def test_more_dimensions_than_there_are_are_refused(load_retriever: Load) -> None:
    with pytest.raises(ConfigError, match=r"^retriever.truncate_dim = 33: vectors of fedrag/tiny-encoder have 32 dim"):
        load_retriever(truncate_dim=33)
    assert load_retriever(truncate_dim=32).encode_queries(TEXTS).shape == (len(TEXTS), 32)


# Export


def exported_side(folder: Path, side: str) -> SentenceTransformer:
    """Load what was exported for a side: a folder of its own, or one for both."""
    own = folder / side
    return SentenceTransformer(str(own if own.is_dir() else folder), device="cpu")


@pytest.mark.parametrize("side", ["query", "both"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("truncate_dim", [0, 8])
def test_the_exported_model_carries_prompts_similarity_and_dimensions(
    load_retriever: Load, random_tensors, made_encoder: Make, tmp_path: Path, side, similarity, truncate_dim
) -> None:
    name = made_encoder("plain", normalise=False)
    retriever = load_retriever(
        name,
        contrastive={"side": side},
        query_prompt="query: ",
        passage_prompt="passage: ",
        similarity=similarity,
        truncate_dim=truncate_dim,
    )
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    queries, passages = retriever.encode_queries(TEXTS), retriever.encode_passages(TEXTS)
    retriever.export(tmp_path / "exported")
    np.testing.assert_array_equal(retriever.encode_queries(TEXTS), queries)  # exporting changed nothing here
    asks, tells = (exported_side(tmp_path / "exported", s) for s in ("query", "document"))
    unit = similarity == "cosine"
    ours = asks.encode_query(TEXTS, normalize_embeddings=unit), tells.encode_document(TEXTS, normalize_embeddings=unit)
    np.testing.assert_allclose(ours[0], queries, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(ours[1], passages, atol=1e-4, rtol=1e-4)
    assert asks.similarity_fn_name == tells.similarity_fn_name == similarity
    assert asks.get_embedding_dimension() == tells.get_embedding_dimension() == (truncate_dim or 32)
    np.testing.assert_allclose(asks.similarity(*ours).numpy(), queries @ passages.T, atol=1e-3, rtol=1e-4)


def test_the_settings_are_part_of_a_scenario():
    tree = {"name": "x", "data": {"sites": "."}}
    texts = [
        Config.from_dict({**tree, "retriever": settings}).to_toml()
        for settings in ({}, {"query_prompt": "query: ", "contrastive": {"scale": 30}, "truncate_dim": 64})
    ]
    first, second = map(Config.from_toml, texts)
    assert (first.retriever.query_prompt, first.retriever.contrastive.scale) == ("auto", "auto")
    assert (second.retriever.query_prompt, second.retriever.contrastive.scale) == ("query: ", 30.0)
