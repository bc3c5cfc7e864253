"""The retriever encodes as sentence-transformers does, and its sides are trained or frozen as configured."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import ModelError
from fedrag.models.retriever import Retriever
from fedrag.weights.store import find_model

TEXTS = ["Phobos orbits Mars.", "naïve café", "The rye dough rests for eighteen hours, and then some more. " * 3, "x"]
QUERY_SIDE = {"loss": "contrastive", "contrastive": {"side": "query"}}
BOTH_SIDES = {"loss": "contrastive", "contrastive": {"side": "both"}}
COMBINATIONS = [(weights, side) for weights in ("lora", "full") for side in ("query", "both")]


def settings_of(weights: str, side: str) -> dict[str, object]:
    return {"weights": weights, **(QUERY_SIDE if side == "query" else BOTH_SIDES)}


def base_encoder() -> SentenceTransformer:
    return SentenceTransformer(str(find_model("fedrag/tiny-encoder").folder), device="cpu")


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_untouched_it_encodes_as_sentence_transformers_does(load_retriever, weights, side):
    retriever, base = load_retriever(**settings_of(weights, side)), base_encoder()
    queries = base.encode_query(TEXTS, normalize_embeddings=True)
    documents = base.encode_document(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(retriever.encode_queries(TEXTS), queries, atol=1e-6)
    np.testing.assert_allclose(retriever.encode_passages(TEXTS), documents, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(retriever.encode_queries(TEXTS), axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_embedding_for_training_gives_the_vectors_of_encoding(load_retriever, random_tensors, weights, side):
    retriever = load_retriever(**settings_of(weights, side))
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    queries, passages = retriever.embed_queries(TEXTS), retriever.embed_passages(TEXTS)
    np.testing.assert_allclose(queries.detach().numpy(), retriever.encode_queries(TEXTS), atol=1e-5)
    np.testing.assert_allclose(passages.detach().numpy(), retriever.encode_passages(TEXTS), atol=1e-5)
    assert queries.requires_grad
    assert passages.requires_grad == (side == "both")


def test_vectors_have_unit_length_also_where_the_model_does_not_normalise(load_retriever):
    retriever = load_retriever()
    del retriever.encoder[2]
    assert np.linalg.norm(retriever.encoder.encode(TEXTS[0])) > 1.1
    for embed, encode in (
        (retriever.embed_queries, retriever.encode_queries),
        (retriever.embed_passages, retriever.encode_passages),
    ):
        np.testing.assert_allclose(np.linalg.norm(encode(TEXTS), axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(embed(TEXTS).detach().numpy(), encode(TEXTS), atol=1e-5)


def test_prompts_of_the_model_are_put_before_queries_and_passages(load_retriever, prompted_encoder):
    retriever, plain = load_retriever(prompted_encoder), base_encoder()
    queries = plain.encode(["search for: " + text for text in TEXTS], normalize_embeddings=True)
    documents = plain.encode(["passage: " + text for text in TEXTS], normalize_embeddings=True)
    for encode, embed, expected in (
        (retriever.encode_queries, retriever.embed_queries, queries),
        (retriever.encode_passages, retriever.embed_passages, documents),
    ):
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-6)
        np.testing.assert_allclose(embed(TEXTS).detach().numpy(), expected, atol=1e-5)


def test_a_chunk_of_most_tokens_is_read_whole_with_its_prompt(load_retriever, prompted_encoder):
    for retriever in (load_retriever(), load_retriever(prompted_encoder)):
        text = "a" * retriever.chunk_tokens  # a token a byte
        longer, cut = text + "bbb", text[:-1]
        vectors = retriever.encode_passages([text, longer, cut])
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
        assert np.abs(vectors[0] - vectors[2]).max() > 1e-4


def test_a_chunk_has_256_tokens_at_most_unless_the_scenario_says_otherwise(load_retriever):
    """A model that reads 512 tokens once got chunks twice as long as any that was measured."""
    retriever = load_retriever()
    assert retriever.chunk_tokens == retriever.tokens_read == 62
    retriever.encoder.max_seq_length = 512
    assert (retriever.tokens_read, retriever.chunk_tokens) == (510, 256)
    chosen = load_retriever(chunk_tokens=300)
    assert chosen.chunk_tokens == 62
    chosen.encoder.max_seq_length = 512
    assert chosen.chunk_tokens == 300
    assert load_retriever(chunk_tokens=20).chunk_tokens == 20


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_a_state_changes_the_query_side_and_the_passage_side_where_it_is_trained(
    load_retriever, random_tensors, weights, side
):
    retriever = load_retriever(**settings_of(weights, side))
    queries, passages = retriever.encode_queries(TEXTS), retriever.encode_passages(TEXTS)
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    assert np.abs(retriever.encode_queries(TEXTS) - queries).max() > 1e-3
    assert np.array_equal(retriever.encode_passages(TEXTS), passages) == (side == "query")


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_untouched_is_the_base_for_queries_too_after_passages_were_encoded(
    load_retriever, random_tensors, weights, side
):
    """Encoding passages once switched the adapter on for the queries that followed."""
    retriever = load_retriever(**settings_of(weights, side))
    queries, passages = retriever.encode_queries(TEXTS), retriever.encode_passages(TEXTS)
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    trained = retriever.encode_queries(TEXTS), retriever.encode_passages(TEXTS)
    with retriever.untouched():
        assert np.array_equal(retriever.encode_passages(TEXTS), passages)
        assert np.array_equal(retriever.encode_queries(TEXTS), queries)
        assert np.array_equal(retriever.encode_passages(TEXTS), passages)
    assert np.array_equal(retriever.encode_queries(TEXTS), trained[0])
    assert np.array_equal(retriever.encode_passages(TEXTS), trained[1])


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_the_initial_state_brings_back_the_base_exactly(load_retriever, random_tensors, weights, side):
    retriever = load_retriever(**settings_of(weights, side))
    queries = retriever.encode_queries(TEXTS)
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    retriever.set_state(retriever.initial_state(1))
    assert np.array_equal(retriever.encode_queries(TEXTS), queries)


def test_full_weights_travel_as_the_difference_from_the_base(load_retriever, random_tensors):
    retriever, base = load_retriever(weights="full"), dict(base_encoder().named_parameters())
    state = random_tensors(retriever.initial_state(0), scale=0.05)
    retriever.set_state(state)
    for name, parameter in retriever.parameters().items():
        expected = base[name].detach().numpy() + state[name]
        np.testing.assert_array_equal(parameter.detach().numpy(), expected)


TOKENS = "0.model.embeddings.word_embeddings.weight"


def test_of_all_weights_those_of_the_token_embeddings_are_trained_only_if_asked(load_retriever):
    """They are 96 of the 118 million weights of a multilingual encoder, and every update carried them."""
    asked = load_retriever(weights="full", token_embeddings=True).parameters()
    left_out = load_retriever(weights="full").parameters()
    assert asked.keys() - left_out.keys() == {TOKENS}
    assert any("position_embeddings" in name for name in left_out)
    assert load_retriever(token_embeddings=True).parameters().keys() == load_retriever().parameters().keys()


@pytest.mark.parametrize("side", ["query", "both"])
def test_token_embeddings_that_are_left_out_stay_the_base_s_in_one_copy(load_retriever, random_tensors, side):
    retriever = load_retriever(**settings_of("full", side))
    retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
    kept, base = dict(retriever.encoder.named_parameters())[TOKENS], dict(base_encoder().named_parameters())[TOKENS]
    assert torch.equal(kept, base)
    assert dict(retriever._passage_encoder.named_parameters())[TOKENS] is kept
    retriever.embed_queries(TEXTS).sum().backward()
    assert kept.grad is None


def test_a_state_with_other_weights_is_refused_and_the_setting_named(load_retriever):
    """It was once the whole state: to leave a part of it out in silence would compute something else."""
    whole = load_retriever(weights="full", token_embeddings=True).initial_state(0)
    with pytest.raises(ModelError, match=r"other weights than are trained: .*; set retriever.token_embeddings = true$"):
        load_retriever(weights="full").set_state(whole)
    with pytest.raises(ModelError, match=r"other weights than are trained: [^;]*$"):
        load_retriever().set_state(whole)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_unused_pooler_is_not_trained(load_retriever, weights):
    retriever = load_retriever(weights=weights)
    assert any("pooler" in name for name, _ in retriever.encoder.named_parameters())
    assert not any("pooler" in name for name in retriever.parameters())


def test_a_language_model_is_refused(load_retriever):
    with pytest.raises(ModelError, match="fedrag/tiny-causal is not a sentence-transformers model"):
        load_retriever("fedrag/tiny-causal")


def test_gradients_reach_every_trained_parameter(load_retriever, random_tensors):
    for weights in ("lora", "full"):
        retriever: Retriever = load_retriever(weights=weights)
        retriever.set_state(random_tensors(retriever.initial_state(0), scale=0.05))
        loss = (retriever.embed_queries(TEXTS[:2]) * retriever.embed_passages(TEXTS[2:])).sum()
        loss.backward()
        for name, parameter in retriever.parameters().items():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all()
            assert parameter.grad.any() or name.endswith("key.bias"), name  # softmax ignores a constant


def test_an_encoder_that_is_stored_in_half_precision_searches_in_float32(tiny_home, tmp_path):
    fetched = find_model("fedrag/tiny-encoder")
    SentenceTransformer(str(fetched.folder), device="cpu").half().save(str(tmp_path / "half"))
    stored = dataclasses.replace(fetched, folder=tmp_path / "half")
    retriever = Retriever.load(stored, RetrieverConfig(), "cpu")
    assert {parameter.dtype for parameter in retriever.encoder.parameters()} == {torch.float32}
