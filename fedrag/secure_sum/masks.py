"""Adds masks to a vector, and takes them off: pseudo-random elements of its rings from a seed."""

from __future__ import annotations

from fedrag.secure_sum.fixed_point import Layout, RingVector
from fedrag.secure_sum.keystream import PIECE, keystream


def add_mask(vector: RingVector, layout: Layout, seed: bytes, sign: int) -> None:
    """Add a seed's mask to a vector in place, or subtract it.

    Args:
        vector: Parts as the layout has them.
        layout: Names, rings and sizes, whose order is that of the mask.
        seed: 32 bytes.
        sign: 1 or -1.
    """
    draw = keystream(seed)
    for part in layout:
        elements = vector[part.name]
        step = PIECE // part.dtype.itemsize
        for start in range(0, part.size, step):
            piece = elements[start : start + step]
            mask = draw(piece.nbytes).view(part.dtype)
            if sign > 0:
                piece += mask  # unsigned: it wraps, which is addition in the ring
            else:
                piece -= mask
