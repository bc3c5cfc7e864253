"""The lower bound of epsilon: the paper's figures, an exact test, and randomised response of a known epsilon."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fedrag.privacy.one_run import DOUBT, GUESSED_SHARES, bound_epsilon, lower_bound, p_value


@pytest.mark.parametrize(
    ("m", "r", "v", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],  # appendix D and figure 11
)
def test_the_figures_of_the_paper(m, r, v, delta, published):
    assert lower_bound(m, r, v, delta) == pytest.approx(published, abs=1e-3)


@given(st.integers(1, 80), st.integers(0, 80), st.floats(0.0, 5.0))
def test_without_a_delta_it_is_the_exact_binomial_test(r, v, epsilon):
    if v <= r:
        exact = binomtest(v, r, math.exp(epsilon) / (1 + math.exp(epsilon)), "greater").pvalue
        assert p_value(200, r, v, epsilon, 0.0) == pytest.approx(exact, rel=1e-9)


def test_a_delta_adds_what_the_theorem_says():
    # by hand: r = v = 2, epsilon = 0, so W = 0, 1, 2 with 1/4, 1/2, 1/4; max of (1/2)/1 and (1/2 + 1/4)/2
    assert p_value(10, 2, 2, 0.0, 0.01) == pytest.approx(0.25 + 2 * 10 * 0.01 * 0.5)


def test_where_the_bound_lies_the_guesses_are_just_refuted():
    bound = lower_bound(500, 60, 55, 1e-5)
    assert p_value(500, 60, 55, bound, 1e-5) < DOUBT < p_value(500, 60, 55, bound + 0.01, 1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_of_randomised_response_it_exceeds_the_true_epsilon_in_at_most_five_of_a_hundred(epsilon):
    chance = np.random.default_rng(7)
    too_large = 0
    for trial in range(300):
        planted = chance.random(200) < 0.5
        told = planted ^ (chance.random(200) >= math.exp(epsilon) / (1 + math.exp(epsilon)))
        too_large += bound_epsilon(told[planted], told[~planted], delta=0.0, seed=trial).epsilon > epsilon
    assert binomtest(too_large, 300, DOUBT, "greater").pvalue > 1e-3


def test_of_randomised_response_with_many_canaries_it_comes_near():
    chance = np.random.default_rng(3)
    planted = chance.random(20_000) < 0.5
    told = planted ^ (chance.random(20_000) >= math.exp(2.0) / (1 + math.exp(2.0)))
    assert 1.8 < bound_epsilon(told[planted], told[~planted], delta=0.0).epsilon <= 2.0


def test_equal_scores_show_nothing_whichever_come_first():
    assert bound_epsilon([0.0] * 150, [0.0] * 150).epsilon == 0.0


def test_perfect_scores_show_much_and_the_best_share_of_guesses_is_chosen():
    found = bound_epsilon(np.arange(100.0) + 1000, np.arange(100.0))
    assert (found.n_guesses, found.n_right) == (200, 200)
    assert found.epsilon == pytest.approx(lower_bound(200, 200, 200, 1e-5, DOUBT / len(GUESSED_SHARES)))
    half = np.random.default_rng(0).normal(size=200)
    half[:10] += 100  # a few are remembered, the rest are not
    assert bound_epsilon(half[:100], half[100:]).n_guesses == 20


def test_without_canaries_there_is_no_bound():
    assert bound_epsilon([], []).epsilon == 0.0
    assert lower_bound(0, 0, 0, 0.0) == 0.0
