"""Members told from others: the figures by hand, by counting, and by another library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from fedrag.privacy.membership import auc, separation, share_interval, threshold

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


def test_the_figures_of_a_small_case_by_hand():
    found = separation([3.0, 1.0], [0.0, 1.0, 2.0])
    # pairs: 3>0, 3>1, 3>2, 1>0, 1=1, 1<2
    assert found.auc == pytest.approx((4 + 0.5) / 6)
    assert found.found == 0.5, "3 alone lies above every other"
    assert (found.n_members, found.n_others, found.is_sure) == (2, 3, False)


@given(SCORES, SCORES)
def test_the_area_is_that_of_scikit_learn(members, others):
    labels = [1] * len(members) + [0] * len(others)
    assert auc(np.array(members), np.array(others)) == pytest.approx(roc_auc_score(labels, members + others))


@given(SCORES)
def test_at_most_one_in_a_hundred_others_lies_above_the_threshold(others):
    many = np.array(others * 20)
    line = threshold(many)
    assert (many > line).mean() <= 0.01
    smaller = many[many < line]
    assert not len(smaller) or (many > smaller.max()).mean() > 0.01, "a smaller threshold would accuse too many"


@given(st.integers(0, 30), st.integers(1, 30))
def test_the_interval_of_a_share_is_the_exact_one(hits, n):
    if hits <= n:
        exact = binomtest(hits, n).proportion_ci(0.95, "exact")
        assert share_interval(hits, n) == pytest.approx((exact.low, exact.high))


def test_scores_without_a_difference_are_at_chance_and_shifted_ones_are_not():
    chance = np.random.default_rng(1)
    members, others = chance.normal(size=300), chance.normal(size=300)
    assert separation(members.tolist(), others.tolist()).is_at_chance
    found = separation((members + 4).tolist(), others.tolist())
    assert not found.is_at_chance
    assert found.found_low > 0.5


def test_without_others_there_is_nothing_to_compare():
    with pytest.raises(ValueError, match="at least one each"):
        separation([1.0], [])
