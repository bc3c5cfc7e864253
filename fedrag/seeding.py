"""Derives seeds from names, so that results do not depend on order or on processes."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: str | int) -> int:
    """Derive a seed in [0, 2**31) from a run's seed and its purpose.

    The same parts give the same seed on every machine; different parts give unrelated seeds.

    >>> derive_seed(0, 1, "site-a", "shuffle") == derive_seed(0, 1, "site-a", "shuffle")
    True
    >>> derive_seed(0, 1, "site-a", "shuffle") == derive_seed(0, 2, "site-a", "shuffle")
    False
    """
    text = "\x1f".join([str(seed), *map(str, parts)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 2**31
