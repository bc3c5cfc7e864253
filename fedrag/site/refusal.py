"""Turns an error at a site into a code, which leaves the site; the error's text stays there."""

from __future__ import annotations

import errno

from fedrag.errors import (
    ConfigError,
    DataError,
    MessageError,
    ModelError,
    StorageError,
    TrainingDiverged,
    TrainingProcessLost,
)
from fedrag.secure_sum.refused import SecureSumRefused


class DeadlinePassed(Exception):
    """The server no longer waits for this reply."""


class DeliveryRefused(MessageError):
    """Delivered models are not taken.

    Args:
        code: The code that leaves the site.
        why: What is wrong, for the site's own log.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(f"the delivered models are not taken: {why}")
        self.code = code


def refusal_code(error: Exception) -> str:
    """Return the code for an error.

    >>> refusal_code(OSError(errno.ENOSPC, "No space left on device"))
    'no-disk-space'
    """
    if isinstance(error, DeliveryRefused | SecureSumRefused):
        return error.code
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "no-disk-space"
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out-of-memory"
    codes: dict[type[Exception], str] = {
        TrainingDiverged: "diverged",
        TrainingProcessLost: "training-process",
        DeadlinePassed: "deadline",
        DataError: "bad-data",
        ModelError: "bad-model",
        MessageError: "bad-request",
        ConfigError: "bad-request",
        StorageError: "no-disk-space",
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), "error")
