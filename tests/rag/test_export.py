"""Exported models compute the same in PEFT and sentence-transformers as here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_card import run_block
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from fedrag.components.export import export_models
from fedrag.config.scenario import Config
from fedrag.models.plain_encoder import make_plain, save_side
from fedrag.models.resident import RoundModels
from fedrag.models.retriever import Retriever
from fedrag.passes.reading import answer_logits
from fedrag.rag.prompt import PromptBuilder
from fedrag.types import Example
from fedrag.weights.fetch import fetch_models
from fedrag.weights.store import find_model

TEXTS = ["Phobos orbits Mars.", "naïve café", "Where does the chess club meet?"]


def config_of(**sections: Any) -> Config:
    models = {
        "generator": "fedrag/tiny-causal",
        "retriever": "fedrag/tiny-encoder",
        "generator_dtype": "float32",
        "retriever_dtype": "float32",
    } | sections.pop("models", {})
    return Config.from_dict({"name": "export", "data": {"sites": "nowhere"}, "models": models, **sections})


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_peft_loads_the_generator_and_gets_the_same_logits(load_generator, random_tensors, tmp_path, monkeypatch, kind):
    lora = {"rank": 3, "alpha": 5.0}
    config = config_of(models={"generator": f"fedrag/tiny-{kind}"}, generator={"lora": lora})
    tensors = random_tensors(load_generator(kind, **lora).parameters(), seed=3)
    export_models(config, {"generator": tensors}, tmp_path)
    assert not (tmp_path / "retriever").exists()
    monkeypatch.chdir(tmp_path)
    base = find_model(f"fedrag/tiny-{kind}")
    loaded = run_block(tmp_path / "generator", "PEFT", **{base.name: str(base.folder)})
    model, tokenizer = loaded["model"].eval(), loaded["tokenizer"]
    example = Example(tokenizer(TEXTS[0])["input_ids"], tokenizer("Mars")["input_ids"])
    with torch.no_grad():
        ours, _ = answer_logits(RoundModels(config, {"generator": tensors}).generator, [example])
        if kind == "seq2seq":
            decoder = torch.tensor([[model.config.decoder_start_token_id, *example.answer[:-1]]])
            theirs = model(input_ids=torch.tensor([example.prompt]), decoder_input_ids=decoder).logits[0]
        else:
            ids = torch.tensor([example.prompt + example.answer])
            theirs = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
            with model.disable_adapter():
                untouched = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
            assert (untouched - theirs).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["fedrag/tiny-encoder", "prompted"])
@pytest.mark.parametrize("loss", ["contrastive", "lsr"])
@pytest.mark.parametrize("side", ["query", "both"])
@pytest.mark.parametrize("weights", ["lora", "full"])
def test_encode_alone_gives_the_vectors_of_either_side(
    prompted_encoder, random_tensors, tmp_path: Path, monkeypatch, weights, side, loss, name
):
    settings = {"weights": weights, "loss": loss, loss: {"side": side}, "lora": {"rank": 2}}
    config = config_of(models={"retriever": name}, retriever=settings)
    tensors = random_tensors(RoundModels(config, {}).retriever.initial_state(0), seed=5, scale=0.05)
    retriever = RoundModels(config, {"retriever": tensors}).retriever
    queries, passages = retriever.encode_queries(TEXTS), retriever.encode_passages(TEXTS)
    export_models(config, {"retriever": tensors}, tmp_path / "final")
    assert np.array_equal(retriever.encode_queries(TEXTS), queries)  # exporting changed nothing here
    base = SentenceTransformer(str(find_model(name).folder), device="cpu")
    folder = tmp_path / "final" / "retriever"
    one = side == "both" and name != "prompted"
    assert (folder / "modules.json").exists() is one
    for path, ours, untouched in (
        (folder if one else folder / "query", queries, base.encode_query(TEXTS)),
        (folder if one else folder / "document", passages, base.encode_document(TEXTS)),
    ):
        exported = SentenceTransformer(str(path), device="cpu")
        np.testing.assert_allclose(exported.encode(TEXTS), ours, atol=1e-5)
        trained = side == "both" or path.name == "query"
        assert (np.abs(exported.encode(TEXTS) - untouched).max() > 1e-3) == trained
        assert exported.max_seq_length == base.max_seq_length
        assert exported.similarity_fn_name == base.similarity_fn_name
        assert exported.prompts == base.prompts
    monkeypatch.chdir(tmp_path / "final")
    shown = run_block(folder, "sentence-transformers", **{"A question?": TEXTS[2], "A passage.": TEXTS[0]})
    np.testing.assert_allclose(shown["scores"], queries[2:] @ passages[:1].T, atol=1e-5)


def test_the_adapter_s_card_shows_the_prompt_that_it_learnt(load_generator, random_tensors, tmp_path: Path):
    config = config_of(rag={"passages": 2, "date": "2026-01-31"})
    tensors = random_tensors(load_generator("causal", **config.generator.lora.model_dump()).parameters())
    export_models(config, {"generator": tensors}, tmp_path)
    card = (tmp_path / "generator" / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^````text\n(.*?)\n````$", card, re.M | re.S)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "generator")
    expected = PromptBuilder(tokenizer, config.rag, seq2seq=False).example("Who?", ["Phobos orbits Mars."]).prompt
    filled = shown.replace("{question}", "Who?").replace("{passage}", "Phobos orbits Mars.")
    assert filled == tokenizer.decode(expected)
    assert "merge_and_unload" in card


def test_a_query_s_encoder_can_be_the_base_of_another_run(prompted_encoder, random_tensors, tmp_path: Path):
    config = config_of(models={"retriever": "prompted"}, retriever={"loss": "lsr"})
    tensors = random_tensors(RoundModels(config, {}).retriever.initial_state(0), scale=0.05)
    export_models(config, {"retriever": tensors}, tmp_path)
    fetch_models([str(tmp_path / "retriever" / "query")], "path")
    expected = RoundModels(config, {"retriever": tensors}).retriever.encode_queries(TEXTS)
    again = Retriever.load(find_model("query"), config.retriever, "cpu")
    np.testing.assert_allclose(again.encode_queries(TEXTS), expected, atol=1e-5)


def test_what_sentence_transformers_does_not_save_becomes_part_of_the_model(tiny_home, tmp_path: Path):
    """`truncate_dim` is lost in `save`, and an encoder without a last Normalize gives vectors of any length."""
    encoder = SentenceTransformer(str(find_model("fedrag/tiny-encoder").folder), device="cpu")
    encoder = SentenceTransformer(modules=list(encoder.children())[:-1], device="cpu", truncate_dim=8)
    expected = encoder.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(np.linalg.norm(encoder.encode(TEXTS), axis=1) - 1).min() > 0.01
    save_side(make_plain(encoder), None, tmp_path / "plain")
    found = SentenceTransformer(str(tmp_path / "plain"), device="cpu").encode(TEXTS)
    assert found.shape == (3, 8)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_vectors_that_are_compared_by_their_dot_product_keep_their_length(tiny_home, tmp_path: Path):
    encoder = SentenceTransformer(str(find_model("fedrag/tiny-encoder").folder), device="cpu")
    modules = list(encoder.children())[:-1]
    encoder = SentenceTransformer(modules=modules, device="cpu", similarity_fn_name="dot")
    expected = encoder.encode(TEXTS)
    save_side(make_plain(encoder), None, tmp_path / "plain")
    exported = SentenceTransformer(str(tmp_path / "plain"), device="cpu")
    np.testing.assert_allclose(exported.encode(TEXTS), expected, atol=1e-6)
    assert exported.similarity_fn_name == "dot"


def test_what_was_not_trained_is_not_exported(tiny_home, tmp_path: Path):
    export_models(config_of(), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []
