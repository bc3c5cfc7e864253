"""Tests whether a difference between two systems on the same questions is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COVERAGE = 0.95
FEW_QUESTIONS = 30
"""With fewer questions, shares say little, and a bootstrap interval is too narrow to be believed."""
BLOCK = 2**20  # draws in memory at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its 95 % interval."""

    mean_difference: float
    low: float
    high: float


def paired_bootstrap(
    a: Sequence[float],
    b: Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 10_000,
    seed: int,
) -> Interval:
    """Return the mean of `a - b` and its percentile interval over resampled questions (Efron 1979).

    Args:
        a: One score per question.
        b: The other system's scores on the same questions, in the same order.
        groups: What each question belongs to, such as its site: then groups are drawn, each with all its questions
            (cluster bootstrap, Davison and Hinkley 1997, 3.8); None: each question is drawn for itself.
        resamples: Number of times that the questions or groups are drawn, with replacement.
        seed: Seed of the draws.

    Raises:
        ValueError: The lengths differ, or there are no questions.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"paired scores must be as many and at least one, not {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    rows = np.arange(len(differences)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(rows, differences), np.bincount(rows)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_a_time = max(1, BLOCK // len(sums))
    for start in range(0, resamples, at_a_time):
        drawn = random.integers(len(sums), size=(min(at_a_time, resamples - start), len(sums)), dtype=np.int32)
        means[start : start + at_a_time] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(differences.mean()), float(low), float(high))
