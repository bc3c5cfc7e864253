"""The scale of the losses fits the model: that of its makers for two known ones, and the same at every site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedrag.models.probe_texts import PASSAGES, QUESTIONS
from fedrag.models.retriever import Retriever
from fedrag.models.temperature import LARGEST_COSINE_SCALE, fitting_scale, nearest_step
from fedrag.weights.store import FetchedModel, find_model

Load = Callable[..., Retriever]


def scores_of(spread: float) -> np.ndarray:
    return (0.5 + spread * np.array([[1.0, -1.0], [-1.0, 1.0]])).astype(np.float32)


@pytest.mark.parametrize(
    ("spread", "scale"),
    [
        (0.1815, 20.0),  # all-MiniLM-L6-v2
        (0.0398, 100.0),  # multilingual-e5-small
        (0.075, 50.0),
        (0.001, LARGEST_COSINE_SCALE),
    ],
)
def test_the_scale_of_cosines_falls_with_their_spread(spread, scale):
    assert fitting_scale([scores_of(spread)], "cosine") == scale


@pytest.mark.parametrize(("spread", "scale"), [(4.0, 1.0), (18.0, 0.2), (90.0, 0.05), (0.001, 5000.0)])
def test_dot_products_have_a_scale_of_their_own_unit(spread, scale):
    assert fitting_scale([scores_of(spread)], "dot") == scale


def test_the_language_that_the_model_knows_best_counts():
    assert fitting_scale([scores_of(0.01), scores_of(0.18), scores_of(0.05)], "cosine") == 20.0


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_model_that_tells_nothing_apart_gets_a_scale_that_is_a_number(value):
    assert fitting_scale([np.full((2, 2), value, np.float32)], "cosine") == 1.0


def test_steps_are_exact_numbers():
    assert [nearest_step(x) for x in (0.012, 0.047, 0.11, 1.9, 19.0, 104.0)] == [0.01, 0.05, 0.1, 2.0, 20.0, 100.0]


def test_every_language_has_as_many_questions_as_passages():
    assert QUESTIONS.keys() == PASSAGES.keys()
    assert {len(texts) for texts in (*QUESTIONS.values(), *PASSAGES.values())} == {8}


def test_a_model_of_narrow_spread_gets_a_larger_scale_than_the_same_model_without(load_retriever, made_encoder):
    """A scale of 20 once served every model: where cosines lie 0.02 apart, it makes a retriever worse."""
    narrow = load_retriever(made_encoder("narrow", shift=2.0), similarity="cosine", truncate_dim=2)
    wide = load_retriever(truncate_dim=2)
    assert 1.0 <= wide.fitting_scale < narrow.fitting_scale <= LARGEST_COSINE_SCALE
    assert narrow.tau_r("auto") == 1.0 / narrow.fitting_scale


def test_it_is_found_by_hand_from_the_stock_vectors(load_retriever, made_encoder):
    retriever = load_retriever(made_encoder("lengths", normalise=False, similarity="dot"))
    stock = retriever.encoder
    spreads = [
        np.std(
            stock.similarity(stock.encode_query(list(QUESTIONS[x])), stock.encode_document(list(PASSAGES[x]))).numpy()
        )
        for x in QUESTIONS
    ]
    assert retriever.fitting_scale == nearest_step(3.8 / max(spreads))


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_it_is_the_base_s_in_every_round(load_retriever, random_tensors, weights):
    untouched, trained = load_retriever(weights=weights), load_retriever(weights=weights)
    trained.set_state(random_tensors(trained.initial_state(0), scale=0.3))
    vectors = trained.encode_queries(["Where?"])
    assert trained.fitting_scale == untouched.fitting_scale
    np.testing.assert_array_equal(trained.encode_queries(["Where?"]), vectors)


def test_a_number_in_the_scenario_stands(load_retriever):
    retriever = load_retriever()
    assert (retriever.scale(7.0), retriever.tau_r(0.3)) == (7.0, 0.3)


@pytest.mark.slow
def test_the_shipped_retriever_keeps_its_scale_of_20(real_models, load_retriever):
    retriever = load_retriever("sentence-transformers/all-MiniLM-L6-v2")
    assert retriever.scale("auto") == 20.0
    assert retriever.tau_r("auto") == 0.05


@pytest.mark.slow
def test_multilingual_e5_gets_the_100_that_it_was_trained_with(
    users_models: dict[str, FetchedModel], load_retriever: Load, tiny_home, monkeypatch
) -> None:
    e5 = next((model for name, model in users_models.items() if name.endswith("multilingual-e5-small")), None)
    if e5 is None:
        pytest.skip("multilingual-e5-small is not fetched")
    target = tiny_home / "models" / e5.folder.name
    if not target.exists():
        target.symlink_to(e5.folder, target_is_directory=True)
    retriever = load_retriever(find_model(e5.name).name)
    assert retriever.scale("auto") == 100.0
    assert retriever.tau_r("auto") == 0.01
