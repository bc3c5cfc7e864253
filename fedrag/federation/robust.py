"""Averages that a bad site cannot carry away, on each site's whole update as one vector.

Rules that look at each coordinate alone break the pair of factors B A that an adapter is; these take distances between
whole updates. All sites weigh the same. Let n sites reply, of which f < n / 2 are bad and send what they like, and let
r be the largest distance of a good update from any point c, such as the mean of the good ones. With
g = 2 (n - f) / (n - 2 f) the result lies within this distance of c:

    geometric-median      g r                                  (Minsker 2015; Pillutla et al. 2022, RFA)
    clipping              g r + (1 + g) k f r / n              with k = clip_distance
    mixing                g r (n + f) / (n - f)                (Allouah et al. 2023, arXiv 2302.01772)

and further by at most a 1e-12th of how far the bad updates lie, which is where the search for the median ends.

The plain mean has no such bound. Neither has the mean of mixed updates: a bad update is its own nearest neighbour, and
counts with a share of 1 / (n - f) in what takes its place. So mixing is followed by the geometric median here, as in
the paper by a robust rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedrag.config.averaging_settings import Robust
from fedrag.federation.aggregation import weighted_sum
from fedrag.types import Array

Matrix = npt.NDArray[np.float64]

BLOCK = 65_536  # elements at a time in float64
ITERATIONS = 1_000
TOLERANCE = 1e-12  # of the weights, between two iterations
NEAREST = 1e-13  # of the least distance between two updates that differ: no distance counts as smaller


def robust_average(updates: Sequence[Array], robust: Robust, bad_sites: int = 1, clip_distance: float = 3.0) -> Array:
    """Return the average of updates that are float32 of one shape `(size,)`.

    Args:
        updates: At least one, in an order that does not depend on that of their arrival.
        robust: Which average; "none": the plain mean.
        bad_sites: How many may be bad; for mixing.
        clip_distance: Largest distance from the geometric median, in medians of the distances; for clipping.
    """
    return weighted_sum(updates, _WEIGHTS[robust](_squared_distances(updates), bad_sites, clip_distance))


def _mean(squared: Matrix, bad_sites: int, clip_distance: float) -> Matrix:
    return np.full(len(squared), 1.0 / len(squared))


def _geometric_median(squared: Matrix, bad_sites: int, clip_distance: float) -> Matrix:
    """Return the weights of the updates whose weighted mean has the smallest sum of distances to them (Weiszfeld).

    A mean with weights w lies at the squared distance `(S w)_i - w S w / 2` from update i, with S the squared distances
    between updates: each iteration costs n^2, whatever the size of an update.
    """
    weights = _mean(squared, bad_sites, clip_distance)
    apart = squared[squared > 0]
    if not apart.size:
        return weights  # all updates are the same
    smallest = NEAREST * np.sqrt(apart.min())  # a distance of 0 would end the search at an update
    for _ in range(ITERATIONS):
        inverse = 1.0 / np.maximum(_distances_to(squared, weights), smallest)
        new = inverse / inverse.sum()
        settled = np.abs(new - weights).max() < TOLERANCE
        weights = new
        if settled:
            break
    return weights


def _clipped(squared: Matrix, bad_sites: int, clip_distance: float) -> Matrix:
    """Draw in what lies far from the geometric median, then take the mean."""
    centre = _geometric_median(squared, bad_sites, clip_distance)
    distances = _distances_to(squared, centre)
    limit = clip_distance * np.median(distances)
    kept = np.divide(limit, distances, out=np.ones_like(distances), where=distances > limit)
    return np.asarray(kept / len(kept) + centre * (1.0 - kept.mean()))


def _mixed(squared: Matrix, bad_sites: int, clip_distance: float) -> Matrix:
    """Replace each update by the mean of the n - f nearest ones, itself among them; then the geometric median."""
    nearest = np.argsort(squared, axis=1, kind="stable")[:, : len(squared) - bad_sites]
    mixing = np.zeros_like(squared)
    np.put_along_axis(mixing, nearest, 1.0 / nearest.shape[1], axis=1)
    products = mixing @ squared @ mixing.T
    own = 0.5 * np.diag(products)
    mixed = np.maximum(products - own[:, None] - own[None, :], 0.0)
    np.fill_diagonal(mixed, 0.0)
    return np.asarray(_geometric_median(mixed, bad_sites, clip_distance) @ mixing)


_WEIGHTS: dict[Robust, Callable[[Matrix, int, float], Matrix]] = {
    "none": _mean,
    "clipping": _clipped,
    "geometric-median": _geometric_median,
    "mixing": _mixed,
}


def _distances_to(squared: Matrix, weights: Matrix) -> Matrix:
    """Return the distance of each update from their mean with these weights."""
    to_each = squared @ weights
    return np.asarray(np.sqrt(np.maximum(to_each - 0.5 * weights @ to_each, 0.0)))


def _squared_distances(updates: Sequence[Array]) -> Matrix:
    """Return the squared distance between each two updates, in float64; `(n, n)`."""
    squared = np.zeros((len(updates), len(updates)))
    for start in range(0, updates[0].size, BLOCK):
        part = np.stack([update[start : start + BLOCK] for update in updates]).astype(np.float64)
        for i in range(len(part) - 1):
            apart = part[i + 1 :] - part[i]
            squared[i, i + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return squared + squared.T
