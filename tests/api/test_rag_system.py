"""A RAG system in memory: it retrieves, answers and learns, with models by name or one's own."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny_federation import SETTINGS, SHIPPED
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import fedrag
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError, DataError, ModelError
from fedrag.weights.store import fetched_models, find_model

NORTH = load_site(SHIPPED / "north")
SMALL = {name: SETTINGS[name] for name in ("rag", "generator", "retriever", "models")}
CAUSAL, ENCODER = SETTINGS["models"]["generator"], SETTINGS["models"]["retriever"]

pytestmark = pytest.mark.usefixtures("own_home")


def tiny_system(**changes) -> fedrag.RagSystem:
    chosen = {"generator": CAUSAL, "retriever": ENCODER, "passages": NORTH.passages, "settings": SMALL}
    return fedrag.RagSystem(**{**chosen, **changes})


def test_it_finds_the_passages_of_the_largest_cosine_and_answers_from_the_best() -> None:
    texts = ["The pool opens at seven.", "Ask the porter.", "A late book costs a coin.", "Dogs wait outside."]
    system, question = tiny_system(passages=texts), "What does a late book cost?"
    encoder = SentenceTransformer(str(find_model(ENCODER).folder), device="cpu")
    vectors = encoder.encode_document(texts, normalize_embeddings=True)
    cosines = vectors @ encoder.encode_query(question, normalize_embeddings=True)
    found = system.retrieve(question, passages=3)
    assert [f.passage.text for f in found] == [texts[i] for i in np.argsort(-cosines)[:3]]
    np.testing.assert_allclose([f.score for f in found], np.sort(cosines)[::-1][:3], atol=1e-5)
    answer = system.answer(question)
    assert [f.passage.id for f in answer.found] == [f.passage.id for f in found[:2]]
    assert system.answer_all(["Who may borrow?", question])[1] == answer


def test_texts_are_passages_and_what_is_wrong_names_its_argument() -> None:
    system = tiny_system(passages=["The pool opens at seven.", "Ask the porter."])
    assert {found.passage.id for found in system.retrieve("When?")} == {"passage-1", "passage-2"}
    with pytest.raises(ConfigError, match=r"^passages\[1\]: expected a fedrag.Passage or a text$"):
        tiny_system(passages=["a", 3])
    with pytest.raises(ConfigError, match="^passages: there are none to search"):
        tiny_system(passages=()).answer("When?")
    with pytest.raises(ConfigError, match="^the question is empty"):
        system.answer(" ")
    with pytest.raises(ConfigError, match="^settings: unknown key rag.pasages"):
        tiny_system(settings={"rag": {"pasages": 1}})
    with pytest.raises(ModelError, match="^generator: expected the name of a fetched model, .* not int;"):
        tiny_system(generator=3)
    with pytest.raises(ModelError, match="^retriever: expected .* not int$"):
        tiny_system(retriever=3)


@pytest.mark.parametrize("mode", ["generator", "retriever", "joint"])
def test_training_lowers_the_loss_and_leaves_the_given_system_as_it_was(mode) -> None:
    system = tiny_system()
    before = system.answer("What does a late book cost?")
    settings = {"generator": {"learning_rate": 1e-2}, "retriever": {"learning_rate": 3e-3}}
    trained = fedrag.train(system, NORTH, mode, epochs=6, settings=settings)
    names = {"generator", "retriever"} if mode == "joint" else {mode}
    assert set(trained.loss) == set(trained.system.state) == names
    assert all(trained.last_loss[name] < trained.loss[name] for name in names)
    assert trained.questions == dict.fromkeys(names, len(NORTH.train))
    assert system.state == {}
    assert tiny_system().answer("What does a late book cost?") == before
    again = fedrag.train(trained.system, NORTH, mode, epochs=6, settings=settings)
    assert all(again.loss[name] < trained.loss[name] for name in names), "a trained system is trained on"


def test_training_says_what_is_wrong_with_the_mode_and_the_site() -> None:
    with pytest.raises(ConfigError, match='^mode = "both": expected'):
        fedrag.train(tiny_system(), NORTH, "both")
    with pytest.raises((ConfigError, DataError), match="question"):
        fedrag.train(tiny_system(), fedrag.Site("empty", NORTH.passages), "joint")


def test_ones_own_objects_answer_and_find_as_the_same_models_by_name() -> None:
    folder = find_model(CAUSAL).folder
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    encoder = SentenceTransformer(str(find_model(ENCODER).folder), device="cpu")
    own = tiny_system(generator=(model, tokenizer), retriever=encoder)
    question = "What does a late book cost?"
    assert own.answer(question) == tiny_system().answer(question)
    kept = len(fetched_models())
    piped = tiny_system(generator=pipeline("text-generation", model=model, tokenizer=tokenizer), retriever=encoder)
    assert piped.answer(question) == own.answer(question)
    assert len(fetched_models()) == kept, "the same weights are kept once"


def test_a_changed_object_is_another_model() -> None:
    folder = find_model(CAUSAL).folder
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    names = {tiny_system(generator=(model, tokenizer)).config.models.generator}
    model.model.norm.weight.data.mul_(0.5)
    names.add(tiny_system(generator=(model, tokenizer)).config.models.generator)
    assert len(names) == 2
