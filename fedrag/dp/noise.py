"""Chance that nobody can foresee: which questions are in a step, and the noise that covers each of them.

Both come from the operating system, never from a seed: whoever knew the seed could take the noise off. So two runs of
the same scenario differ.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Entropy = Callable[[int], bytes]
"""Returns so many random bytes."""

_BITS = 53  # of a float64
_NORMALS = 4  # in one value of noise


def poisson_sample(count: int, rate: float, entropy: Entropy = os.urandom) -> list[int]:
    """Return the rows that are in a step: each with the same chance, whatever the others do; perhaps none."""
    return [int(row) for row in np.flatnonzero(_uniform(count, entropy) < rate)]


def gaussian(count: int, deviation: float, entropy: Entropy = os.urandom) -> npt.NDArray[np.float64]:
    """Return independent normal values (count,).

    Each is the sum of four, so that the gaps between the numbers of a computer do not give away what it was added to
    (Holohan and Braghin 2021).
    """
    parts = np.zeros(count)
    for _ in range(_NORMALS):
        parts += _normal(count, entropy)
    return parts * (deviation / math.sqrt(_NORMALS))


def _normal(count: int, entropy: Entropy) -> npt.NDArray[np.float64]:
    """Return standard normal values (Box and Muller 1958)."""
    pairs = (count + 1) // 2
    radius = np.sqrt(-2.0 * np.log1p(-_uniform(pairs, entropy)))
    angle = 2.0 * np.pi * _uniform(pairs, entropy)
    values: npt.NDArray[np.float64] = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    return values


def _uniform(count: int, entropy: Entropy) -> npt.NDArray[np.float64]:
    """Return values from 0 up to but not 1."""
    bits = np.frombuffer(entropy(8 * count), np.uint64) >> np.uint64(64 - _BITS)
    return bits.astype(np.float64) * 2.0**-_BITS
