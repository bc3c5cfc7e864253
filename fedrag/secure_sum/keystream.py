"""The pseudo-random bytes of a key: AES-256-CTR with a zero nonce, so each key may serve once (NIST SP 800-38A)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

PIECE = 2**18  # bytes at a time: they stay in the processor's cache
_ZEROS = memoryview(bytes(PIECE))
_BLOCK_BYTES = 16


def keystream(key: bytes) -> Callable[[int], npt.NDArray[np.uint8]]:
    """Return a function that draws the next bytes of a key, at most `PIECE`; they are overwritten by the next draw.

    Args:
        key: 32 bytes.
    """
    encryptor = Cipher(AES256(key), CTR(bytes(_BLOCK_BYTES))).encryptor()
    room = np.empty(PIECE + _BLOCK_BYTES, dtype=np.uint8)

    def draw(count: int) -> npt.NDArray[np.uint8]:
        encryptor.update_into(_ZEROS[:count], room.data)
        return room[:count]

    return draw
