"""The learning rate that a run tells of each round is the one with which its sites train then."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tiny_federation import tiny_config

from fedrag.config.learning_rates import learning_rate, rates_of_round
from fedrag.training.optimizer import Progress

HALVES = {"schedule": "linear", "warmup": 0.5}


def test_a_rate_rises_and_falls_over_all_rounds(tmp_path):
    retriever = {"learning_rate": 2.0, **HALVES}
    config = tiny_config(tmp_path, retriever=retriever, federation={"rounds": 4, "schedule": "retriever"})
    told = [rates_of_round(config, ("retriever",), number)["retriever"] for number in range(1, 5)]
    assert told == pytest.approx([0.5, 1.5, 1.5, 0.5])


@pytest.mark.parametrize("schedule", ["joint", "alternate"])
def test_it_is_the_rate_of_a_sites_middle_step(tmp_path, schedule):
    config = tiny_config(tmp_path, federation={"rounds": 6, "schedule": schedule})
    trained = {"joint": 6, "alternate": 3}[schedule]
    numbers = range(2, 7, 6 // trained)  # the retriever's rounds; of joint ones all but the first
    for index, number in enumerate(numbers, start=int(schedule == "joint")):
        middle = Progress(index, trained).at(2, 5)
        expected = learning_rate(config.retriever, middle)
        assert rates_of_round(config, ("retriever",), number) == {"retriever": pytest.approx(expected)}


def test_a_component_of_ones_own_has_no_rate_that_is_known(tmp_path):
    config = tiny_config(tmp_path, federation={"components": ["reranker", "retriever"], "rounds": 2})
    assert rates_of_round(config, ("retriever", "reranker"), 1).keys() == {"retriever"}


def test_without_a_fall_every_round_has_the_peak(tmp_path):
    settings = {"schedule": "constant", "warmup": 0.0, "learning_rate": 3e-4}
    config = tiny_config(tmp_path, generator=settings, federation={"rounds": 3})
    told = [rates_of_round(config, ("generator",), number)["generator"] for number in (1, 2, 3)]
    assert told == [3e-4] * 3
    falling = tiny_config(tmp_path, generator=settings | {"schedule": "cosine"}, federation={"rounds": 3})
    rates = [rates_of_round(falling, ("generator",), number)["generator"] for number in (1, 2, 3)]
    assert all(later < earlier for earlier, later in pairwise(rates))
