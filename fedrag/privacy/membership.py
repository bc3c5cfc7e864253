"""How well what was trained on can be told from what was not, by one score an item (membership inference).

The threshold is set so that at most one in a hundred of the others lies above it, since an attacker who accuses wrongly
has learnt nothing (Carlini et al. 2022, "Membership Inference Attacks From First Principles"). It is set on the same
others that are counted, so the share that it finds is what the best threshold finds, which no attacker knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta, rankdata

COVERAGE = 0.95
FALSE_POSITIVES = 0.01
FEWEST_OTHERS = 100
"""With fewer, one false accusation in a hundred cannot be seen, and no headline is made of the result."""
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Separation:
    """How far the scores of members lie above those of others.

    Attributes:
        n_members: Items that were trained on.
        n_others: Items that were not.
        auc: Probability that a member has the larger score, ties counted half; 0.5 is chance.
        auc_low: Lower end of its 95 % interval (bootstrap over items of both kinds).
        auc_high: Upper end.
        found: Share of members above the threshold.
        found_low: Lower end of its 95 % interval (Clopper and Pearson 1934).
        found_high: Upper end.
    """

    n_members: int
    n_others: int
    auc: float
    auc_low: float
    auc_high: float
    found: float
    found_low: float
    found_high: float

    @property
    def is_sure(self) -> bool:
        """Whether there are enough items for a headline."""
        return self.n_others >= FEWEST_OTHERS

    @property
    def is_at_chance(self) -> bool:
        """Whether the interval holds chance."""
        return self.auc_low <= 0.5

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def separation(members: Sequence[float], others: Sequence[float], seed: int = 0) -> Separation:
    """Compare the scores of members and others.

    Args:
        members: A score for each item that was trained on; larger means more likely trained on.
        others: The same for items that were not.
        seed: Of the bootstrap.

    Raises:
        ValueError: One of them is empty.
    """
    ours, theirs = np.asarray(members, np.float64), np.asarray(others, np.float64)
    if not len(ours) or not len(theirs):
        raise ValueError("members and others must be at least one each")
    chance = np.random.default_rng(seed)
    drawn = [auc(chance.choice(ours, len(ours)), chance.choice(theirs, len(theirs))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    above = int((ours > threshold(theirs)).sum())
    found_low, found_high = share_interval(above, len(ours))
    return Separation(
        len(ours), len(theirs), auc(ours, theirs), float(low), float(high), above / len(ours), found_low, found_high
    )


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Return the probability that a member has the larger score (Mann and Whitney 1947), ties counted half."""
    ranks = rankdata(np.concatenate([members, others]))[: len(members)]
    n = len(members)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(others)))


def threshold(others: np.ndarray, share: float = FALSE_POSITIVES) -> float:
    """Return the smallest score above which at most this share of the others lies.

    >>> threshold(np.arange(200.0))
    197.0
    """
    allowed = int(share * len(others))
    return float(np.sort(others)[len(others) - 1 - allowed])


def share_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934).

    >>> [round(end, 4) for end in share_interval(0, 10)]
    [0.0, 0.3085]
    """
    tail = (1 - COVERAGE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high
