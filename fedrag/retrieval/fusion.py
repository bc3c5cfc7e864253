"""Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009): joins rankings whose scores cannot be compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

K = 60
"""The constant of the paper: the larger, the less the first ranks stand out."""


def fuse(*rankings: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the sum of 1 / (60 + rank) over several rankings of the same things.

    Args:
        rankings: Scores (things,), the best ranks first and equal ones in their order; what has the score -inf is not
            in that ranking.

    >>> fuse(np.array([0.9, 0.5, 0.1]), np.array([-np.inf, 3.0, 2.0])).round(5).tolist()
    [0.01639, 0.03252, 0.032]
    """
    return sum((_reciprocal_ranks(scores) for scores in rankings), start=np.zeros(1))


def _reciprocal_ranks(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    reciprocal = np.zeros(len(scores))
    ranked = np.flatnonzero(scores > -np.inf)
    order = ranked[np.argsort(-scores[ranked], kind="stable")]
    reciprocal[order] = 1.0 / (K + 1 + np.arange(len(order)))
    return reciprocal
