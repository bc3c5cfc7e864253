"""A model is tried before anything is trained: what is wrong with it is said, and what passed is remembered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_federation import tiny_config

from fedrag.components.model_check import check_model, require_tried
from fedrag.components.shipped import SHIPPED
from fedrag.errors import ModelError
from fedrag.weights.store import find_model, model_folder

NAME = "fedrag/tiny-causal"


def wrong(**sections) -> dict[str, str]:
    """Return what the check finds wrong with the tiny generator, by the name of the thing."""
    findings = check_model(tiny_config(**sections), "generator", SHIPPED["generator"], find_model(NAME))
    return {finding.name: finding.text for finding in findings if not finding.is_ok}


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_tiny_generators_compute_as_the_stock_library_does(tiny_home, kind, dtype):
    config = tiny_config(models={"generator": f"fedrag/tiny-{kind}", "generator_dtype": dtype})
    model = find_model(f"fedrag/tiny-{kind}")
    findings = {f.name: f for f in check_model(config, "generator", SHIPPED["generator"], model)}
    assert [f.text for f in findings.values() if not f.is_ok] == []
    assert {"prompt", "adapter", "loss", "training step", "scoring", "generation"} <= set(findings)


def test_an_adapter_from_the_question_on_passes(tiny_home):
    assert wrong(generator={"adapter_from": "question"}) == {}


@pytest.mark.parametrize("template", ["Read: {context_str}\nQ: {query_str}\nA: ", "Q: {query_str}\n{context_str}\nA: "])
@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_prompt_template_passes_whatever_its_order(tiny_home, kind, template):
    config = tiny_config(models={"generator": f"fedrag/tiny-{kind}"}, rag={"template": template})
    findings = check_model(config, "generator", SHIPPED["generator"], find_model(f"fedrag/tiny-{kind}"))
    assert [finding.text for finding in findings if not finding.is_ok] == []


def test_a_prompt_template_whose_words_are_changed_is_refused(own_tiny_causal):
    (own_tiny_causal / "chat_template.jinja").write_text("{{ messages[-1]['content'] | lower }}")
    said = wrong(rag={"template": "Read: {context_str}\nQ: {query_str}\nA: "})
    assert any("it changes the words of rag.template" in text for text in said.values())


def test_another_ranking_of_passages_makes_no_second_trial_and_another_prompt_does(own_tiny_causal):
    notes = own_tiny_causal.parents[1] / "checks"
    for count, rag in ((1, {}), (1, {"search": "hybrid"}), (2, {"template": "{context_str}\nQ: {query_str}"})):
        require_tried(tiny_config(rag=rag), "generator", SHIPPED["generator"], find_model(NAME))
        assert len(list(notes.iterdir())) == count


def test_tokens_beyond_the_embedding_are_named(own_tiny_causal):
    tokenizer = json.loads((own_tiny_causal / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 9000, "content": "<|new|>"})
    (own_tiny_causal / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "has 1 tokens beyond the 259 rows of the model's embedding, such as '<|new|>'" in wrong()["tokenizer"]


def test_a_tokenizer_without_end_token_is_refused(own_tiny_causal):
    edit(own_tiny_causal / "tokenizer_config.json", eos_token=None)
    assert wrong()["tokenizer"].startswith("has no end token: no answer would end; name one as eos_token")


def test_what_passed_is_not_tried_again_until_something_of_it_changes(own_tiny_causal):
    config, component = tiny_config(), SHIPPED["generator"]
    notes = own_tiny_causal.parents[1] / "checks"
    require_tried(config, "generator", component, find_model(NAME))
    [note] = notes.iterdir()
    before = note.stat().st_mtime_ns
    require_tried(config, "generator", component, find_model(NAME))
    assert note.stat().st_mtime_ns == before
    edit(own_tiny_causal / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelError, match=r"^fedrag/tiny-causal: .*no end token"):
        require_tried(config, "generator", component, find_model(NAME))
    assert list(notes.iterdir()) == [note]


def test_an_adapter_that_is_put_beside_a_model_that_passed_is_refused(own_tiny_causal):
    require_tried(tiny_config(), "generator", SHIPPED["generator"], find_model(NAME))
    (own_tiny_causal / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="this is an adapter, no whole model"):
        require_tried(tiny_config(), "generator", SHIPPED["generator"], find_model(NAME))


def test_what_changes_no_computation_makes_no_second_trial(own_tiny_causal):
    notes = own_tiny_causal.parents[1] / "checks"
    for changes in ({}, {"_name_or_path": "elsewhere"}):
        edit(own_tiny_causal / "config.json", **changes)
        require_tried(tiny_config(), "generator", SHIPPED["generator"], find_model(NAME))
    assert len(list(notes.iterdir())) == 1


def test_the_learning_rate_makes_no_second_trial_and_the_rank_does(own_tiny_causal):
    notes = own_tiny_causal.parents[1] / "checks"
    for count, settings in ((1, {}), (1, {"learning_rate": 0.5}), (2, {"lora": {"rank": 3}})):
        require_tried(tiny_config(generator=settings), "generator", SHIPPED["generator"], find_model(NAME))
        assert len(list(notes.iterdir())) == count
    assert model_folder(NAME) == own_tiny_causal


# Retrievers


def wrong_encoder() -> dict[str, str]:
    model = find_model("fedrag/tiny-encoder")
    findings = check_model(tiny_config(), "retriever", SHIPPED["retriever"], model)
    return {finding.name: finding.text for finding in findings if not finding.is_ok}


@pytest.fixture
def own_tiny_encoder(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the tiny encoder into a FEDRAG_HOME of this test alone, and return its folder."""
    source = model_folder("fedrag/tiny-encoder")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    shutil.copytree(source, model_folder("fedrag/tiny-encoder"))
    monkeypatch.setattr("fedrag.models.resident._RESIDENT", {})
    return model_folder("fedrag/tiny-encoder")


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_the_tiny_encoder_encodes_as_the_stock_library_does(tiny_home, weights):
    config = tiny_config(retriever={"weights": weights})
    model = find_model("fedrag/tiny-encoder")
    findings = {f.name: f for f in check_model(config, "retriever", SHIPPED["retriever"], model)}
    assert [f.text for f in findings.values() if not f.is_ok] == []
    assert {"kind", "tokenizer", "length", "adapter", "vectors", "training step"} <= set(findings)


def test_an_encoder_without_padding_token_is_refused(own_tiny_encoder):
    edit(own_tiny_encoder / "tokenizer_config.json", pad_token=None)
    [(name, said)] = wrong_encoder().items()
    assert name == "tokenizer"
    assert said.startswith("has no padding token, so several texts cannot be read")


def test_a_length_beyond_the_positions_is_refused(own_tiny_encoder):
    edit(own_tiny_encoder / "sentence_bert_config.json", max_seq_length=4000)
    assert wrong_encoder()["length"].startswith("claims to read 4000 tokens, but has 64 positions")


def test_a_router_is_refused_as_one(own_tiny_encoder):
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.router.Router"}]
    (own_tiny_encoder / "modules.json").write_text(json.dumps(modules))
    assert "is a Router, with modules of its own for each side" in wrong_encoder()["settings"]


def test_an_adapter_left_in_a_models_folder_is_refused(own_tiny_encoder):
    (own_tiny_encoder / "adapter_config.json").write_text("{}")
    assert "this is an adapter, no whole model" in wrong_encoder()["settings"]


def test_a_known_model_without_its_prompts_is_told_of_them(tiny_home, made_encoder):
    for name, prompts, expected in (
        ("my-e5-small", None, 'set retriever.query_prompt = "query: " and retriever.passage_prompt = "passage: "'),
        ("my-e5-base", {"query": "query: "}, '"query: " before questions, "" before passages'),
    ):
        config = tiny_config(models={"retriever": made_encoder(name, prompts)})
        findings = check_model(config, "retriever", SHIPPED["retriever"], find_model(name))
        [found] = [finding for finding in findings if finding.name == "prompts"]
        assert found.is_ok
        assert expected in found.text


@pytest.mark.parametrize("settings", [{"similarity": "dot"}, {"truncate_dim": 8}, {"query_prompt": "Q: "}])
def test_another_way_of_encoding_makes_a_second_trial(own_tiny_encoder, settings):
    notes = own_tiny_encoder.parents[1] / "checks"
    for count, chosen in ((1, {}), (2, settings)):
        require_tried(
            tiny_config(retriever=chosen), "retriever", SHIPPED["retriever"], find_model("fedrag/tiny-encoder")
        )
        assert len(list(notes.iterdir())) == count
