"""Batches of similar length, as a pure function of the lengths."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group examples of similar length so that a padded batch has at most `batch_tokens` tokens.

    A pure function of the lengths: the same examples always meet in the same batches. The longest
    come first, so that a batch that does not fit into memory fails at once.

    >>> plan_batches([3, 9, 4, 8], 16)
    [[1], [3, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
