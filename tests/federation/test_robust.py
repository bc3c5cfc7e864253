"""Averages that one bad site cannot carry away: the bounds they state, and float64 arithmetic on whole vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedrag.federation import robust
from fedrag.federation.robust import robust_average

RULES = ("geometric-median", "clipping", "mixing")


def bound(rule, n, f, k):
    """Return the largest distance of the result from a point within 1 of every good update."""
    g = 2 * (n - f) / (n - 2 * f)
    return {"geometric-median": g, "clipping": g + (1 + g) * k * f / n, "mixing": g * (n + f) / (n - f)}[rule]


@st.composite
def rounds(draw):
    """Draw good updates, one arbitrary update, its place among them, and the clipping distance."""
    n, size = draw(st.integers(4, 9)), draw(st.integers(1, 6))
    number = st.floats(-1, 1, width=32)
    good = draw(st.lists(st.lists(number, min_size=size, max_size=size), min_size=n - 1, max_size=n - 1))
    scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 10.0, 1e3, 1e6]))
    bad = draw(st.lists(number, min_size=size, max_size=size))
    at = draw(st.integers(0, n - 1))
    offset = draw(st.sampled_from([0.0, 100.0]))
    good = [np.array(one, np.float32) + np.float32(offset) for one in good]
    return good, np.array(bad, np.float32) * np.float32(scale), at, draw(st.sampled_from([0.5, 1.0, 3.0]))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=150)
@given(drawn=rounds())
@example(drawn=([np.zeros(2, np.float32)] * 3, np.array([0.0, 1e-3], np.float32), 0, 0.5))  # the good ones are the same
def test_one_arbitrary_site_of_four_or_more_moves_the_result_by_at_most_the_stated_bound(rule, drawn):
    good, bad, at, k = drawn
    updates = [*good[:at], bad, *good[at:]]
    centre = np.mean(good, axis=0, dtype=np.float64)
    radius = max(np.linalg.norm(one - centre) for one in good)
    result = robust_average(updates, rule, 1, k)
    slack = 1e-5 * (radius + np.abs(centre).max()) + 1e-12 * np.linalg.norm(bad)  # of float32, and of the search
    assert np.linalg.norm(result - centre) <= bound(rule, len(updates), 1, k) * radius + slack


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("factor", [-10.0, 1e4])
def test_the_plain_mean_goes_where_the_bad_site_wants_and_these_do_not(rule, factor):
    random = np.random.default_rng(0)
    wanted = random.normal(size=500)
    updates = [(wanted + 0.1 * random.normal(size=500)).astype(np.float32) for _ in range(6)]
    updates[2] = (factor * updates[2]).astype(np.float32)

    def off(average):
        return np.linalg.norm(average - wanted) / np.linalg.norm(wanted)

    assert off(robust_average(updates, "none")) > 1.5
    assert off(robust_average(updates, rule)) < 0.6


def test_the_mean_of_mixed_updates_alone_would_follow_a_bad_site():
    """Why a geometric median comes after the mixing: the bad site is its own nearest neighbour."""
    updates = [np.zeros(1, np.float32)] * 3 + [np.full(1, 1e6, np.float32)]
    mixed = [np.mean(sorted(updates, key=lambda other, one=one: abs(other - one)[0])[:3]) for one in updates]
    assert np.mean(mixed) > 1e4
    assert abs(robust_average(updates, "mixing")[0]) < 1e-3


def test_the_geometric_median_has_the_smallest_sum_of_distances():
    random = np.random.default_rng(1)
    updates = [random.normal(size=40).astype(np.float32) * (1 + 5 * (i == 0)) for i in range(7)]

    def cost(point):
        return sum(np.linalg.norm(point - one.astype(np.float64)) for one in updates)

    found = robust_average(updates, "geometric-median").astype(np.float64)
    point = np.mean(updates, axis=0, dtype=np.float64)
    for _ in range(3000):  # Weiszfeld on the vectors themselves
        closeness = [1 / np.linalg.norm(point - one) for one in updates]
        point = sum(w * one.astype(np.float64) for w, one in zip(closeness, updates, strict=True)) / sum(closeness)
    np.testing.assert_allclose(found, point, atol=1e-6)
    for _ in range(20):
        assert cost(found) <= cost(found + 1e-3 * random.normal(size=40))


def test_mixing_is_that_of_the_paper_on_whole_vectors():
    random = np.random.default_rng(2)
    updates = [random.normal(size=30).astype(np.float32) for _ in range(7)]
    updates[4] = updates[4] * 50
    exact = np.array(updates, np.float64)
    nearest = [np.argsort(np.linalg.norm(exact - one, axis=1))[:5] for one in exact]
    mixed = [exact[rows].mean(axis=0) for rows in nearest]
    point = np.mean(mixed, axis=0)
    for _ in range(3000):
        closeness = [1 / max(np.linalg.norm(point - one), 1e-12) for one in mixed]
        point = sum(w * one for w, one in zip(closeness, mixed, strict=True)) / sum(closeness)
    np.testing.assert_allclose(robust_average(updates, "mixing", bad_sites=2), point, atol=1e-6)


def test_clipping_draws_in_what_lies_far_from_the_geometric_median_and_takes_the_mean():
    updates = [np.array(one, np.float32) for one in ([0, 1], [0, -1], [1, 0], [-1, 0], [60, 0])]
    exact = np.array(updates, np.float64)
    centre = robust_average(updates, "geometric-median").astype(np.float64)
    distances = np.linalg.norm(exact - centre, axis=1)
    limit = 2.0 * np.median(distances)
    drawn = [centre + (one - centre) * min(1, limit / d) for one, d in zip(exact, distances, strict=True)]
    np.testing.assert_allclose(robust_average(updates, "clipping", 1, 2.0), np.mean(drawn, axis=0), atol=1e-6)


def test_where_nobody_is_far_off_clipping_is_the_plain_mean():
    random = np.random.default_rng(3)
    updates = [random.normal(size=200).astype(np.float32) for _ in range(5)]
    mean = np.mean(updates, axis=0, dtype=np.float64)
    np.testing.assert_allclose(robust_average(updates, "clipping", 1, 3.0), mean, atol=1e-7)


@pytest.mark.parametrize("rule", RULES)
def test_equal_updates_come_back_and_a_majority_that_agrees_wins(rule):
    same = np.array([1.0, -2.0, 3.0], np.float32)
    np.testing.assert_allclose(robust_average([same] * 5, rule), same, rtol=1e-7)
    far = np.full(3, 900.0, np.float32)
    np.testing.assert_allclose(robust_average([same, far, same, same], rule), same, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_blocks_change_nothing_but_rounding(rule, monkeypatch):
    random = np.random.default_rng(4)
    updates = [random.normal(size=1000).astype(np.float32) for _ in range(5)]
    whole = robust_average(updates, rule)
    monkeypatch.setattr(robust, "BLOCK", 7)
    np.testing.assert_allclose(robust_average(updates, rule), whole, atol=1e-6)
