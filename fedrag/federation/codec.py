"""Flat float32 arrays as little-endian bytes on the wire: in full, rounded to bfloat16, or scaled to int8.

int8 is for differences. Each run of 64 elements shares a float32 scale, a 127th of its largest element, and each
element goes as a whole number of scales, rounded up or down by chance so that it is right on average (stochastic
rounding): over sites and rounds the errors cancel instead of adding up to a drift. So few elements are close neighbours
in one tensor, whose sizes are multiples of 64 almost everywhere: the factors A and B of an adapter, large and small, do
not share scales.

The global state is no difference. In int8 each round would round it again, with steps of a 127th of the largest weight
nearby, which may be more than a round moves it. It goes as bfloat16 then, whose error is a share of each weight itself.
The server keeps it in full, and a site subtracts what it received: no rounding of the state gets into the updates.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from fedrag.errors import MessageError
from fedrag.types import Array

Bytes = npt.NDArray[np.uint8]

WIRES = ("float32", "bfloat16", "int8")

BLOCK = 64  # elements that share a scale: (64 + 4) / (4 * 64) = 26.6 % of float32
PIECE = 1024 * BLOCK  # elements at a time: the work arrays stay in the processor's cache
STEPS = 127
SMALLEST_SCALE = np.finfo(np.float32).smallest_normal  # never zero: a block of zeros is divided by it too
LARGEST_SCALE = np.finfo(np.float32).max / 128  # times any int8 it is still finite


def state_wire(wire: str) -> str:
    """Return the number format of the global state where updates have the format `wire`."""
    return "bfloat16" if wire == "int8" else wire


def byte_count(size: int, wire: str) -> int:
    """Return the bytes of `size` values.

    >>> [byte_count(640, wire) for wire in ("float32", "bfloat16", "int8")]
    [2560, 1280, 680]

    Raises:
        MessageError: `wire` is unknown.
    """
    match wire:
        case "float32":
            return 4 * size
        case "bfloat16":
            return 2 * size
        case "int8":
            return 4 * _blocks(size) + size
    raise MessageError(f"the number format {wire!r} is not one of {', '.join(WIRES)}")


def encode(flat: Array, wire: str, seed: int = 0) -> Bytes:
    """Turn a flat float32 array into bytes; with float32 they may share its memory.

    bfloat16 is the upper half of a float32, rounded to nearest, ties to even. int8 is the scales, then the
    values; an array with NaN or infinity becomes bytes that `decode` refuses.

    Args:
        flat: The array, of shape `(size,)`.
        wire: The number format.
        seed: Decides which way int8 rounds; the same seed gives the same bytes. Errors of updates only average out if
            each has its own.

    Raises:
        MessageError: `wire` is unknown.
    """
    byte_count(flat.size, wire)
    if wire == "float32":
        return np.ascontiguousarray(flat, dtype="<f4").view(np.uint8)
    if wire == "int8":
        return _int8_bytes(np.ascontiguousarray(flat, dtype=np.float32), seed)
    return _bfloat16_bits(flat).astype("<u2", copy=False).view(np.uint8)


def decode(raw: Bytes, wire: str, size: int) -> Array:
    """Turn bytes back into a new float32 array of shape `(size,)`.

    Raises:
        MessageError: The number of bytes does not fit `size`, a scale of int8 is impossible, or `wire` is unknown.
    """
    expected = byte_count(size, wire)
    if raw.dtype != np.uint8 or raw.shape != (expected,):
        raise MessageError(
            f"an update is {raw.dtype} of shape {raw.shape}, expected {expected} bytes for {size} values of {wire}"
        )
    raw = np.ascontiguousarray(raw)
    if wire == "float32":
        return raw.view("<f4").astype(np.float32)
    if wire == "int8":
        return _from_int8(raw, size)
    bits = raw.view("<u2").astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


def unpacked(data: bytes) -> Bytes:
    """Return the bytes that came as a numpy file, sharing its memory; numpy would ask for all that the file announces.

    Args:
        data: The file: a head that says type and shape, and the bytes.

    Returns:
        Shape `(size,)`.

    Raises:
        MessageError: It is no numpy file of bytes, or holds more or fewer than it announces.
    """
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise MessageError("an array is not a numpy file of version 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy parses foreign bytes here and fails in many ways
        raise MessageError("an array cannot be read") from error
    start = file.tell()
    if dtype != np.uint8 or shape != (len(data) - start,):
        raise MessageError(f"an array is {dtype} of shape {shape}, expected uint8 of shape {(len(data) - start,)}")
    return np.frombuffer(data, np.uint8, offset=start)


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


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _int8_bytes(flat: Array, seed: int) -> Bytes:
    """Scale and round an array piece by piece."""
    raw = np.zeros(byte_count(flat.size, "int8"), dtype=np.uint8)
    border = 4 * _blocks(flat.size)
    scales, values = raw[:border].view("<f4"), raw[border:].view(np.int8)
    if not np.isfinite(flat).all():
        scales[:] = np.nan
        return raw
    chance = np.random.SFC64(seed)
    for start in range(0, flat.size, PIECE):
        part = flat[start : start + PIECE]
        rows = np.zeros((_blocks(part.size), BLOCK), dtype=np.float32)
        rows.reshape(-1)[: part.size] = part
        scale = _scales(rows)
        rows /= scale[:, None]
        rows += _thresholds(chance, rows.size).reshape(rows.shape)
        np.floor(rows, out=rows)
        scales[start // BLOCK :][: scale.size] = scale
        values[start : start + PIECE] = rows.reshape(-1)[: part.size]
    return raw


def _scales(rows: Array) -> Array:
    """Return a scale a row, rounded up: no element may be more than 127 of them."""
    largest = np.abs(rows).max(axis=1)
    scales: Array = np.nextafter(largest / np.float32(STEPS), np.float32(np.inf))
    return np.maximum(scales, SMALLEST_SCALE)


def _thresholds(chance: np.random.SFC64, count: int) -> Array:
    """Draw numbers evenly from 2**-17 to 1 - 2**-17: added before a floor, they round up with the right chance.

    They are odd multiples of 2**-17, so that 127 plus the largest is still a float32 below 128.
    """
    # Raw bits are the same in every version of numpy, which a generator's numbers need not be.
    bits = chance.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
    thresholds = bits.astype(np.float32)
    thresholds += np.float32(0.5)
    thresholds *= np.float32(2.0**-16)
    return thresholds


def _from_int8(raw: Bytes, size: int) -> Array:
    """Multiply each block by its scale."""
    border = 4 * _blocks(size)
    scales, values = raw[:border].view("<f4").astype(np.float32), raw[border:].view(np.int8)
    # Written so that NaN fails too.
    if not (np.all(scales >= 0) and np.all(scales <= LARGEST_SCALE)):
        raise MessageError(
            f"a scale of an update is not within 0 and {LARGEST_SCALE:.3g}: it holds NaN or infinity, or is spoilt"
        )
    flat = values.astype(np.float32)
    whole = size // BLOCK
    blocks = flat[: whole * BLOCK].reshape(whole, BLOCK)
    blocks *= scales[:whole, None]
    flat[whole * BLOCK :] *= scales[whole:]
    return flat
