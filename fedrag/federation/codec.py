"""Flat float32 arrays as little-endian bytes on the wire, in full or rounded to bfloat16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedrag.errors import MessageError
from fedrag.types import Array

Bytes = npt.NDArray[np.uint8]

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2}


def encode(flat: Array, wire: str) -> Bytes:
    """Turn a flat float32 array into bytes; with float32 they may share its memory.

    bfloat16 is the upper half of a float32, rounded to nearest, ties to even.

    Raises:
        MessageError: `wire` is neither "float32" nor "bfloat16".
    """
    _width(wire)
    if wire == "float32":
        return np.ascontiguousarray(flat, dtype="<f4").view(np.uint8)
    return _bfloat16_bits(flat).astype("<u2", copy=False).view(np.uint8)


def decode(raw: Bytes, wire: str, size: int) -> Array:
    """Turn bytes back into a new float32 array of shape `(size,)`.

    Raises:
        MessageError: The number of bytes does not fit `size`, or `wire` is unknown.
    """
    expected = size * _width(wire)
    if raw.dtype != np.uint8 or raw.shape != (expected,):
        raise MessageError(
            f"an update is {raw.dtype} of shape {raw.shape}, expected {expected} bytes for {size} values of {wire}"
        )
    raw = np.ascontiguousarray(raw)
    if wire == "float32":
        return raw.view("<f4").astype(np.float32)
    bits = raw.view("<u2").astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def _width(wire: str) -> int:
    """Return the bytes of one value."""
    if wire not in BYTES_PER_ELEMENT:
        raise MessageError(f"the number format {wire!r} is not one of {', '.join(BYTES_PER_ELEMENT)}")
    return BYTES_PER_ELEMENT[wire]


def _bfloat16_bits(flat: Array) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16 on its bits."""
    bits = np.ascontiguousarray(flat, dtype=np.float32).view(np.uint32)
    half = bits >> 16
    half &= 1
    half += 0x7FFF  # just under half a unit, plus one where the kept part is odd: ties go to even
    half += bits
    half >>= 16
    # The addition can carry a NaN into infinity or zero.
    half[np.isnan(flat)] = 0x7FC0
    return half.astype(np.uint16)
