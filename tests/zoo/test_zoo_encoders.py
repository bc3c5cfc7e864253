"""Encoders of every make: tried, trained, averaged and exported; sentence-transformers encodes as fedrag does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from architectures import ENCODERS
from building import build_encoder
from life import TEXTS, exported, fetched, one_round, scenario, two_sites, wrong
from sentence_transformers import SentenceTransformer

from fedrag.models.resident import RoundModels
from fedrag.types import Array

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_sites(tmp_path_factory.mktemp("sites"))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_encodes_in_sentence_transformers_as_it_was_trained(zoo_home, sites, tmp_path, name):
    model = fetched(build_encoder(name, ENCODERS[name], tmp_path / "model"), "encoder", name)
    config = scenario("retriever", model, sites, weights=ENCODERS[name].weights)
    assert wrong(config, "retriever", model) == []
    state = one_round(config, tmp_path)
    ours = RoundModels(config, state).retriever.encode_queries(TEXTS)
    theirs = stock_vectors(exported(tmp_path))
    assert np.abs(theirs - RoundModels(config, {}).retriever.encode_queries(TEXTS)).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def stock_vectors(folder: Path) -> Array:
    """Return the vectors of the texts as plain `encode` of the exported model gives them."""
    return SentenceTransformer(str(folder / "retriever"), device="cpu").encode(TEXTS)
