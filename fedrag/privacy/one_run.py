"""A lower bound of epsilon from one training run with canaries (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846).

Of m canaries, each trained on or held back by a fair coin, the auditor guesses r from the model alone and abstains from
the others. Training that is (epsilon, delta)-differentially private lets him be right v times or more with probability
at most (Theorem 5.2)

    P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i        W ~ Binomial(r, 1 / (1 + exp(-epsilon))), i = 1 .. v

An epsilon for which that is below 5 % is refuted: the true one is larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import betainc
from scipy.stats import binom

DOUBT = 0.05
"""Largest probability that a bound lies above the true epsilon."""
DELTA = 1e-5
"""The delta of the bound where no ledger names one."""
GUESSED_SHARES = (0.1, 0.25, 0.5, 1.0)
"""Shares of the canaries that are guessed. All are tried, each with its part of the doubt: the best may be shown."""
_STEP = 1e-4


@dataclass(frozen=True, slots=True)
class EpsilonBound:
    """What the guesses show.

    Attributes:
        epsilon: Training is not (epsilon, delta)-differentially private for any smaller one, at 95 %; 0: nothing shown.
        delta: The delta.
        n_canaries: Planted and held back.
        n_guesses: Canaries that were guessed.
        n_right: Guesses that were right.
    """

    epsilon: float
    delta: float
    n_canaries: int
    n_guesses: int
    n_right: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def bound_epsilon(
    planted: Sequence[float], held_back: Sequence[float], delta: float = DELTA, seed: int = 0
) -> EpsilonBound:
    """Guess which canaries were trained on by their scores, and bound epsilon by how often that is right.

    The highest scores are guessed to be planted, the lowest held back, in equal numbers.

    Args:
        planted: A score for each canary that was trained on; larger means more likely trained on.
        held_back: The same for those that were not.
        delta: The delta of the bound.
        seed: Of the order of equal scores, which must not depend on what is to be guessed.
    """
    scores = np.concatenate([np.asarray(planted, np.float64), np.asarray(held_back, np.float64)])
    truth = np.repeat([True, False], [len(planted), len(held_back)])
    order = np.random.default_rng(seed).permutation(len(scores))
    ranked = truth[order][np.argsort(scores[order], kind="stable")]
    m = len(ranked)
    bounds = []
    for each in sorted({math.floor(share * m / 2) for share in GUESSED_SHARES} - {0}):
        right = int(ranked[m - each :].sum() + (~ranked[:each]).sum())
        epsilon = lower_bound(m, 2 * each, right, delta, DOUBT / len(GUESSED_SHARES))
        bounds.append(EpsilonBound(epsilon, delta, m, 2 * each, right))
    return max(bounds, key=lambda bound: bound.epsilon, default=EpsilonBound(0.0, delta, m, 0, 0))


def lower_bound(m: int, r: int, v: int, delta: float, doubt: float = DOUBT) -> float:
    """Return the largest epsilon that v right guesses out of r refute, 0 where they refute none.

    Args:
        m: Canaries.
        r: Guesses.
        v: Right ones.
        delta: The delta.
        doubt: Probability with which the result may be too large.

    >>> round(lower_bound(1000, 100, 75, 1e-4), 3)  # the example of the paper's appendix D
    0.673
    """
    low, high = 0.0, 1.0
    while p_value(m, r, v, high, delta) < doubt:
        low, high = high, 2 * high
    if p_value(m, r, v, low, delta) >= doubt:
        return 0.0
    while high - low > _STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(m, r, v, middle, delta) < doubt else (low, middle)
    return low


def p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Return the largest probability of v or more right guesses out of r, if training is (epsilon, delta)-private."""
    chance = 1 / (1 + math.exp(-epsilon))
    likely = float(betainc(v, r - v + 1, chance)) if v else 1.0  # P[W >= v]
    if not delta or not v:
        return likely
    steps = np.arange(1, v + 1)
    just_below = np.cumsum(binom.pmf(v - steps, r, chance)) / steps
    return min(1.0, likely + 2 * m * delta * float(just_below.max()))
