"""Numbers as whole numbers of a ring, Z_2^32 or Z_2^64, and the sum of many back as numbers.

A site rounds each value by chance, up or down, so that it is right on average (stochastic rounding). Each site's whole
numbers are bounded such that the sum of all sites' cannot leave the ring: of its bits, one is the sign's, and
ceil(log2 n) are the other sites'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedrag.errors import MessageError
from fedrag.secure_sum.keystream import keystream
from fedrag.types import Array

Ring = npt.NDArray[Any]
"""Elements of a ring, uint32 or uint64."""

RingVector = Mapping[str, Ring]
"""The parts of a vector by name, in the order of its layout."""

BLOCK = 2**16  # elements at a time: the work arrays stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a vector: which ring it is in, and what one step of it is worth.

    Attributes:
        name: Its name.
        size: Its elements.
        bits: 32 or 64.
        bound: The largest absolute value that one site's elements have.
        sites: The most sites whose vectors are added.
    """

    name: str
    size: int
    bits: int
    bound: float
    sites: int

    @property
    def limit(self) -> int:
        """Return the largest whole number of one site: as many as there are sites still fit the ring."""
        return int((2 ** (self.bits - 1) - 1) // self.sites)

    @property
    def scale(self) -> float:
        """Return steps a unit, a power of two, so that a product with it is exact.

        >>> Part("generator", 10, 32, bound=10.0, sites=20).scale == 2.0**23
        True
        """
        exponent = math.floor(math.log2(self.limit / self.bound))
        # A limit of 64 bits is no float64: its quotient may have been rounded up to the next power.
        return 2.0 ** (exponent - (math.ldexp(self.bound, exponent) > self.limit))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the little-endian type of its elements."""
        return np.dtype("<u4" if self.bits == 32 else "<u8")


Layout = tuple[Part, ...]
"""The parts of a vector, in order."""


def layout_bytes(layout: Layout) -> int:
    """Return the bytes of a vector."""
    return sum(part.size * part.bits // 8 for part in layout)


def to_ring(values: Array | npt.NDArray[np.float64], part: Part, chance: bytes, weight: float = 1.0) -> Ring:
    """Return `weight * values` in the ring, each rounded up or down by chance.

    Args:
        values: Shape `(part.size,)`.
        part: What it becomes; a value beyond its bound is drawn in to it.
        chance: 32 bytes from which the directions are drawn.
        weight: A whole number below 2**29: its product with a float32 is exact in float64.
    """
    result = np.empty(part.size, dtype=part.dtype)
    draw = keystream(chance)
    for start in range(0, part.size, BLOCK):
        steps = values[start : start + BLOCK].astype(np.float64)
        steps *= weight
        np.clip(steps, -part.bound, part.bound, out=steps)
        steps *= part.scale
        low = np.floor(steps)
        steps -= low  # exact: the share of a step above the lower neighbour
        steps *= 2.0**32
        low += draw(4 * low.size).view("<u4") < steps
        # Two's complement: negative numbers are the upper half of the ring.
        result[start : start + BLOCK] = low.astype(np.int64).astype(part.dtype)
    return result


def from_ring(total: Ring, part: Part, sites: int) -> npt.NDArray[np.float64]:
    """Return a sum as numbers, float64 of shape `(part.size,)`.

    Args:
        total: The sum in the ring.
        part: What it is.
        sites: How many vectors were added.

    Raises:
        MessageError: It is larger than that of so many vectors can be.
    """
    signed = total.astype(part.dtype, copy=False).view("<i4" if part.bits == 32 else "<i8")
    most = part.limit * sites
    if total.size and (int(signed.max()) > most or int(signed.min()) < -most):
        raise MessageError(f"the sum of {part.name} is out of range")
    return signed.astype(np.float64) / part.scale
