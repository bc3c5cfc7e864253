"""Tests whether a difference between two systems on the same questions is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COVERAGE = 0.95
BLOCK = 2**20  # draws in memory at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its 95 % interval."""

    mean_difference: float
    low: float
    high: float


def paired_bootstrap(a: Sequence[float], b: Sequence[float], *, resamples: int = 10_000, seed: int) -> Interval:
    """Return the mean of `a - b` and its percentile interval over resampled questions (Efron 1979).

    Args:
        a: One score per question.
        b: The other system's scores on the same questions, in the same order.
        resamples: Number of times that the questions are drawn, with replacement.
        seed: Seed of the draws.

    Raises:
        ValueError: The lengths differ, or there are no questions.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"paired scores must be as many and at least one, not {len(a)} and {len(b)}")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    questions = len(differences)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    rows = max(1, BLOCK // questions)
    for start in range(0, resamples, rows):
        drawn = random.integers(questions, size=(min(rows, resamples - start), questions), dtype=np.int32)
        means[start : start + rows] = differences[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(differences.mean()), float(low), float(high))
