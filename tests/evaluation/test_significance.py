import numpy as np
import pytest
from scipy import stats

from fedrag.evaluation import significance
from fedrag.evaluation.significance import Interval, paired_bootstrap


def scores(questions, seed=0):
    random = np.random.default_rng(seed)
    a = random.random(questions) ** 3
    return a, np.clip(a + random.normal(-0.05, 0.2, questions), 0, 1)


def test_interval_is_that_of_scipy_within_the_error_of_resampling():
    a, b = scores(300)
    ours = paired_bootstrap(a, b, seed=1)
    theirs = stats.bootstrap((a - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2))
    # A percentile at 2.5 % of 10,000 normal draws has a standard error of 0.027 standard deviations.
    tolerance = 5 * 2**0.5 * 0.027 * theirs.standard_error
    assert ours.mean_difference == pytest.approx(float(np.mean(a) - np.mean(b)))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_interval_covers_the_true_difference_as_often_as_it_says():
    covered = 0
    for seed in range(300):
        differences = np.random.default_rng(seed).normal(0.1, 1.0, 100)
        interval = paired_bootstrap(differences, np.zeros(100), resamples=1000, seed=seed)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.91 <= covered / 300 <= 0.98


def test_pairing_takes_out_what_questions_have_in_common():
    a = np.random.default_rng(0).random(100)
    interval = paired_bootstrap(a + 0.25, a, seed=0)
    assert interval.low == pytest.approx(0.25)
    assert interval.high == pytest.approx(0.25)


def test_equal_scores_give_exactly_nothing_and_constant_ones_their_difference():
    assert paired_bootstrap([0.3, 0.7], [0.3, 0.7], seed=0) == Interval(0.0, 0.0, 0.0)
    assert paired_bootstrap([1.0] * 5, [0.0] * 5, seed=0) == Interval(1.0, 1.0, 1.0)
    assert paired_bootstrap([0.75], [0.5], seed=0) == Interval(0.25, 0.25, 0.25)


def test_same_seed_gives_the_same_interval_however_the_work_is_divided(monkeypatch):
    a, b = scores(50)
    interval = paired_bootstrap(a, b, seed=3)
    monkeypatch.setattr(significance, "BLOCK", 100)
    assert paired_bootstrap(a, b, seed=3) == interval
    assert paired_bootstrap(a, b, seed=4) != interval


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_scores_that_are_not_paired_are_refused(a, b):
    with pytest.raises(ValueError, match="paired scores"):
        paired_bootstrap(a, b, seed=0)


def test_an_interval_by_group_is_scipy_s_over_the_means_of_groups_of_one_size():
    random = np.random.default_rng(0)
    groups = [f"site-{i // 20}" for i in range(300)]
    a = random.normal(0.0, 0.1, 300) + np.repeat(random.normal(0.2, 0.3, 15), 20)
    ours = paired_bootstrap(a, np.zeros(300), groups=groups, seed=1)
    theirs = stats.bootstrap(
        (a.reshape(15, 20).mean(axis=1),), np.mean, n_resamples=10_000, method="percentile", rng=random
    )
    tolerance = 5 * 2**0.5 * 0.027 * theirs.standard_error
    assert ours.mean_difference == pytest.approx(float(a.mean()))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_questions_that_belong_together_widen_the_interval_and_groups_of_any_size_count_by_their_questions():
    a, groups = [1.0] * 30 + [0.0] * 10, ["a"] * 30 + ["b"] * 10
    by_question, by_group = (paired_bootstrap(a, [0.0] * 40, groups=g, seed=0) for g in (None, groups))
    assert by_question.mean_difference == by_group.mean_difference == 0.75
    assert (by_group.low, by_group.high) == (0.0, 1.0)  # by hand: 30 of 30, 30 of 40 or 0 of 10
    assert 0.5 < by_question.low < by_question.high < 1.0
